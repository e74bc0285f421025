//! JSON bodies in, checked requests out. An unknown field is refused by its name, an
//! amount keeps its text until the meter's scale is known. Decides nothing.

use std::borrow::Cow;

use odometer_schemas::quota::{Check, Commit, Durability, Extend, Item, Release, Reserve, Who};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::meters::Meters;
use super::service::QuotaRequest;
use super::validate::validate;
use crate::api::parameters::quoted;
use crate::api::problem::{Problem, ProblemKind};

/// Bytes of a body. The longest request, with every text at its limit and escaped,
/// takes about 20 KiB.
pub(crate) const BODY_BYTES_MAX: usize = 32 * 1024;

/// Which question a body asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Check,
    Reserve,
    /// The reservation of each is named by the path.
    Extend(String),
    Commit(String),
    Release(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckBody<'a> {
    tenant: String,
    subject: Option<String>,
    key: Option<String>,
    #[serde(borrow)]
    items: Vec<ItemBody<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReserveBody<'a> {
    id: Option<String>,
    tenant: String,
    subject: Option<String>,
    key: Option<String>,
    ttl_ms: i64,
    #[serde(borrow)]
    items: Vec<ItemBody<'a>>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtendBody<'a> {
    tenant: String,
    op_id: String,
    ttl_ms: i64,
    #[serde(borrow, default)]
    add: Vec<ItemBody<'a>>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitBody<'a> {
    tenant: String,
    op_id: String,
    #[serde(borrow, default)]
    items: Vec<ItemBody<'a>>,
    r#final: bool,
    #[serde(default)]
    mode: Mode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseBody {
    tenant: String,
    op_id: String,
    #[serde(default)]
    mode: Mode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemBody<'a> {
    meter: String,
    #[serde(borrow)]
    amount: &'a RawValue,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Strict,
    Fast,
}

impl From<Mode> for Durability {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Strict => Self::Strict,
            Mode::Fast => Self::Fast,
        }
    }
}

/// Reads and checks the body of a question.
///
/// # Errors
/// The problem names the field and the fix.
pub(crate) fn request_of(door: Door, body: &[u8], meters: &Meters) -> Result<QuotaRequest, Problem> {
    let request = match door {
        Door::Check => {
            let CheckBody { tenant, subject, key, items } = parse(body)?;
            QuotaRequest::Check(Check { who: Who { tenant, subject, key }, items: amounts(items, meters)? })
        }
        Door::Reserve => {
            let ReserveBody { id, tenant, subject, key, ttl_ms, items, mode } = parse(body)?;
            let who = Who { tenant, subject, key };
            let id = id.unwrap_or_else(random_id);
            QuotaRequest::Reserve(Reserve { id, who, ttl_ms, items: amounts(items, meters)?, durability: mode.into() })
        }
        Door::Extend(id) => {
            let ExtendBody { tenant, op_id, ttl_ms, add, mode } = parse(body)?;
            let (add, durability) = (amounts(add, meters)?, mode.into());
            QuotaRequest::Extend(Extend { tenant, id, op_id, ttl_ms, add, durability })
        }
        Door::Commit(id) => {
            let CommitBody { tenant, op_id, items, r#final, mode } = parse(body)?;
            let (items, durability) = (amounts(items, meters)?, mode.into());
            QuotaRequest::Commit(Commit { tenant, id, op_id, items, is_final: r#final, durability })
        }
        Door::Release(id) => {
            let ReleaseBody { tenant, op_id, mode } = parse(body)?;
            QuotaRequest::Release(Release { tenant, id, op_id, durability: mode.into() })
        }
    };
    validate(&request)?;
    Ok(request)
}

/// An id that nobody else has: for callers who do not repeat their requests.
pub(crate) fn random_id() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut id = String::with_capacity(32);
    for byte in rand::random::<[u8; 16]>() {
        id.extend([byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
    }
    id
}

/// Reads JSON; an error names the place.
///
/// # Errors
/// When it is not JSON, or a field is missing, unknown, there twice or of another type.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| unreadable::<T>(body, &error))
}

fn unreadable<'a, T: Deserialize<'a>>(body: &'a [u8], error: &serde_json::Error) -> Problem {
    let fix = "send the JSON object that /openapi.json describes";
    if !error.is_data() {
        return Problem::new(ProblemKind::BodyUnreadable, format!("the body is not JSON: {error}"), fix);
    }
    // Read once more, now that the place is worth its price.
    let mut reader = serde_json::Deserializer::from_slice(body);
    let path = serde_path_to_error::deserialize::<_, T>(&mut reader).err().map(|error| error.path().to_string());
    let text = error.to_string();
    let named = text.split('`').nth(1).filter(|_| text.contains(" field `"));
    let field = match (path.filter(|path| path != "."), named) {
        (Some(path), Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
        (Some(path), _) => path,
        (None, Some(name)) => name.to_owned(),
        (None, None) => "body".to_owned(),
    };
    Problem::new(ProblemKind::BodyUnreadable, text, fix).field(quoted(&field))
}

fn amounts(items: Vec<ItemBody<'_>>, meters: &Meters) -> Result<Vec<Item>, Problem> {
    let item = |item: ItemBody<'_>| {
        let amount = meters.parse("amount", &item.meter, &decimal_text(item.amount)?)?;
        Ok(Item { meter: item.meter, amount })
    };
    items.into_iter().map(item).collect()
}

/// The digits of a JSON number, or the text of a JSON string.
fn decimal_text(raw: &RawValue) -> Result<Cow<'_, str>, Problem> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => parse::<String>(text.as_bytes()).map(Cow::Owned),
        Some(b'-' | b'0'..=b'9') => Ok(Cow::Borrowed(text)),
        _ => {
            let detail = format!("`amount` must be a number or decimal text, not `{}`", quoted(text));
            let fix = "write 3, 1.5 or \"1.5\", in the meter's unit";
            Err(Problem::new(ProblemKind::BadField, detail, fix).field("amount"))
        }
    }
}

/// Reads the whole body of a rarely used route.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_owned<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    parse(body)
}
