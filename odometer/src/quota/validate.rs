//! What every surface checks of a request before it is decided: lengths, characters,
//! counts and times. Knows no protocol and no tenant.

use odometer_schemas::limits::{METER_BYTES_MAX, RESERVATION_BYTES_MAX, SUBJECT_BYTES_MAX, TENANT_BYTES_MAX};
use odometer_schemas::quota::{ITEMS_MAX, Item, QuotaError, TTL_MS_MAX, Who};

use super::service::QuotaRequest;

/// Checks a request.
///
/// # Errors
/// [`QuotaError::Invalid`] names the field and the fix.
pub(crate) fn validate(request: &QuotaRequest) -> Result<(), QuotaError> {
    match request {
        QuotaRequest::Check(check) => {
            who(&check.who)?;
            some_items(&check.items)
        }
        QuotaRequest::Reserve(reserve) => {
            text("id", &reserve.id, RESERVATION_BYTES_MAX)?;
            who(&reserve.who)?;
            ttl(reserve.ttl_ms)?;
            some_items(&reserve.items)
        }
        QuotaRequest::Extend(extend) => {
            operation(&extend.tenant, &extend.id, &extend.op_id)?;
            ttl(extend.ttl_ms)?;
            items("add", &extend.add)
        }
        QuotaRequest::Commit(commit) => {
            operation(&commit.tenant, &commit.id, &commit.op_id)?;
            items("items", &commit.items)
        }
        QuotaRequest::Release(release) => operation(&release.tenant, &release.id, &release.op_id),
    }
}

/// Checks a tenant's name.
///
/// # Errors
/// [`QuotaError::Invalid`] when it is empty or too long.
pub(crate) fn tenant(tenant: &str) -> Result<(), QuotaError> {
    text("tenant", tenant, TENANT_BYTES_MAX)
}

/// Who asks within a tenant: the subject and the key.
pub(crate) type Within<'a> = (Option<&'a str>, Option<&'a str>);

/// Checks what a check of one item says, as [`validate`] does.
///
/// # Errors
/// [`QuotaError::Invalid`] names the field and the fix.
pub(crate) fn one_item(tenant: &str, within: Within<'_>, meter: &str) -> Result<(), QuotaError> {
    names(tenant, within)?;
    text("meter", meter, METER_BYTES_MAX)
}

fn who(who: &Who) -> Result<(), QuotaError> {
    names(&who.tenant, (who.subject.as_deref(), who.key.as_deref()))
}

fn names(tenant_name: &str, (subject, key): Within<'_>) -> Result<(), QuotaError> {
    tenant(tenant_name)?;
    subject.map_or(Ok(()), |subject| text("subject", subject, SUBJECT_BYTES_MAX))?;
    key.map_or(Ok(()), |key| text("key", key, SUBJECT_BYTES_MAX))
}

fn operation(tenant_name: &str, id: &str, op_id: &str) -> Result<(), QuotaError> {
    tenant(tenant_name)?;
    text("id", id, RESERVATION_BYTES_MAX)?;
    text("op_id", op_id, RESERVATION_BYTES_MAX)
}

fn some_items(list: &[Item]) -> Result<(), QuotaError> {
    if list.is_empty() {
        return invalid("items", format!("is empty; give 1 to {ITEMS_MAX} items"));
    }
    items("items", list)
}

fn items(field: &'static str, list: &[Item]) -> Result<(), QuotaError> {
    if list.len() > ITEMS_MAX {
        return invalid(field, format!("has {} items; at most {ITEMS_MAX} are decided together", list.len()));
    }
    for (index, item) in list.iter().enumerate() {
        text("meter", &item.meter, METER_BYTES_MAX)?;
        if list[..index].iter().any(|earlier| earlier.meter == item.meter) {
            return invalid(field, format!("names `{}` twice; add the amounts up", item.meter));
        }
    }
    Ok(())
}

fn ttl(ttl_ms: i64) -> Result<(), QuotaError> {
    if (1..=TTL_MS_MAX).contains(&ttl_ms) {
        return Ok(());
    }
    invalid("ttl_ms", format!("must be 1 to {TTL_MS_MAX}, not {ttl_ms}; extend what takes longer"))
}

fn text(field: &'static str, text: &str, bytes_max: usize) -> Result<(), QuotaError> {
    if !(1..=bytes_max).contains(&text.len()) {
        return invalid(field, format!("has {} bytes; it must have 1 to {bytes_max}", text.len()));
    }
    // Names that are joined are told apart by such, and not every book takes them.
    // Without branching, so that many bytes are looked at together.
    let is_plain = text.bytes().fold(true, |all, byte| all & matches!(byte, b' '..=b'~'));
    if !is_plain && text.chars().any(char::is_control) {
        return invalid(field, "must not hold control characters".to_owned());
    }
    Ok(())
}

fn invalid(field: &'static str, problem: String) -> Result<(), QuotaError> {
    Err(QuotaError::Invalid { field, problem })
}
