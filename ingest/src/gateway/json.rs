//! JSON text in, borrowed pieces of it out: the elements of an array, the members of
//! an object, the text of a value.
//!
//! Nothing is turned into a number here, and nothing is copied unless a text holds
//! escapes. No recursion: nesting costs no stack.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::options::MEMBERS_MAX;

/// One member of an object: its name, and its value's own text.
pub(super) type Member<'a> = (Cow<'a, str>, &'a str);

/// Why a text was not what was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JsonFault {
    /// Not JSON: what, line, column (from 1).
    Syntax(String, usize, usize),
    /// JSON, but not of the wanted shape.
    Shape,
    /// One name stands twice.
    Duplicate(String),
    /// More elements or members than the caller allows.
    TooMany,
}

impl JsonFault {
    fn of(error: &serde_json::Error) -> Self {
        if error.is_data() {
            return Self::Shape;
        }
        let text = error.to_string();
        let what = text.split_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        Self::Syntax(what.to_owned(), error.line(), error.column())
    }
}

/// A JSON value, as far as records care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    /// `true` or `false`.
    Word(&'a str),
    /// The number's own text.
    Number(&'a str),
    Text(Cow<'a, str>),
    /// `an object` or `an array`.
    Composite(&'static str),
}

impl Value<'_> {
    /// What it is, for a refusal.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Word(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Composite(kind) => kind,
        }
    }
}

/// Reads a value whose text is known to be one.
///
/// # Errors
/// [`JsonFault::Syntax`] for a string with an escape that is no character.
pub(super) fn value(raw: &str) -> Result<Value<'_>, JsonFault> {
    Ok(match raw.as_bytes().first() {
        Some(b'"') if raw.contains('\\') => {
            Value::Text(Cow::Owned(serde_json::from_str(raw).map_err(|e| JsonFault::of(&e))?))
        }
        Some(b'"') => Value::Text(Cow::Borrowed(&raw[1..raw.len() - 1])),
        Some(b'{') => Value::Composite("an object"),
        Some(b'[') => Value::Composite("an array"),
        Some(b'n') => Value::Null,
        Some(b't' | b'f') => Value::Word(raw),
        _ => Value::Number(raw),
    })
}

/// The text of a whole JSON document, white space around it removed.
///
/// # Errors
/// When it is not JSON.
pub(super) fn document(text: &str) -> Result<&str, JsonFault> {
    serde_json::from_str::<&RawValue>(text).map(RawValue::get).map_err(|e| JsonFault::of(&e))
}

/// The texts of an array's elements.
///
/// # Errors
/// When it is not JSON, not an array, or has more than `elements_max` elements.
pub(super) fn elements(text: &str, elements_max: usize) -> Result<Vec<&str>, JsonFault> {
    let mut too_many = false;
    let mut json = serde_json::Deserializer::from_str(text);
    let visitor = ElementsVisitor { elements_max, too_many: &mut too_many };
    let result = json.deserialize_seq(visitor).and_then(|elements| json.end().map(|()| elements));
    if too_many { Err(JsonFault::TooMany) } else { result.map_err(|e| JsonFault::of(&e)) }
}

/// The members of an object, in order, into `into`.
///
/// # Errors
/// When it is not JSON, not an object, names a member twice, or has more than
/// [`MEMBERS_MAX`] members.
pub(super) fn members<'a>(text: &'a str, into: &mut Vec<Member<'a>>) -> Result<(), JsonFault> {
    into.clear();
    each_member(text, |name, value| {
        if into.iter().any(|(known, _)| *known == name) {
            return Err(JsonFault::Duplicate(name.into_owned()));
        }
        if into.len() == MEMBERS_MAX {
            return Err(JsonFault::TooMany);
        }
        into.push((name, value));
        Ok(())
    })
}

/// The values of the members called `names`, in the order of `names`; `None` for
/// each when the text is no object.
///
/// # Errors
/// When it is not JSON, or names one of them twice.
pub(super) fn pick<'a>(text: &'a str, names: &[&str]) -> Result<Vec<Option<&'a str>>, JsonFault> {
    let mut found = vec![None; names.len()];
    let result = each_member(text, |name, value| {
        let Some(index) = names.iter().position(|wanted| *wanted == name) else { return Ok(()) };
        match found[index].replace(value) {
            Some(_) => Err(JsonFault::Duplicate(name.into_owned())),
            None => Ok(()),
        }
    });
    match result {
        Err(JsonFault::Shape) => Ok(found),
        result => result.map(|()| found),
    }
}

/// Calls `visit` with every member of an object until it answers with a fault.
pub(super) fn each_member<'a, F>(text: &'a str, visit: F) -> Result<(), JsonFault>
where
    F: FnMut(Cow<'a, str>, &'a str) -> Result<(), JsonFault>,
{
    let mut fault = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let result = json.deserialize_map(MembersVisitor { visit, fault: &mut fault }).and_then(|()| json.end());
    match fault {
        Some(fault) => Err(fault),
        None => result.map_err(|e| JsonFault::of(&e)),
    }
}

struct ElementsVisitor<'f> {
    elements_max: usize,
    too_many: &'f mut bool,
}

impl<'de> Visitor<'de> for ElementsVisitor<'_> {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(raw) = elements.next_element::<&'de RawValue>()? {
            if texts.len() == self.elements_max {
                *self.too_many = true;
                return Err(A::Error::custom("too many elements"));
            }
            texts.push(raw.get());
        }
        Ok(texts)
    }
}

struct MembersVisitor<'f, F> {
    visit: F,
    fault: &'f mut Option<JsonFault>,
}

impl<'de, F> Visitor<'de> for MembersVisitor<'_, F>
where
    F: FnMut(Cow<'de, str>, &'de str) -> Result<(), JsonFault>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key_seed(Name)? {
            let value = members.next_value::<&'de RawValue>()?;
            if let Err(fault) = (self.visit)(name, value.get()) {
                *self.fault = Some(fault);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// A member's name, borrowed where it holds no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members_of(text: &str) -> Result<Vec<Member<'_>>, JsonFault> {
        let mut found = Vec::new();
        members(text, &mut found).map(|()| found)
    }

    #[test]
    fn members_are_borrowed_in_order_with_their_own_text() {
        let found = members_of(r#" {"a": 1.50, "b\u0041": "x", "c": [ 1, {} ]} "#).unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        assert_eq!(found, [("a", "1.50"), ("bA", "\"x\""), ("c", "[ 1, {} ]")]);
    }

    #[test]
    fn a_text_that_is_no_object_is_named() {
        assert_eq!(members_of("[1]"), Err(JsonFault::Shape));
        assert_eq!(members_of("5"), Err(JsonFault::Shape));
        assert!(matches!(members_of("{\"a\":1"), Err(JsonFault::Syntax(_, 1, _))));
        assert!(matches!(members_of("{} x"), Err(JsonFault::Syntax(..))));
        assert!(matches!(members_of("{\"a\":NaN}"), Err(JsonFault::Syntax(..))));
        assert_eq!(members_of(r#"{"a":1,"\u0061":2}"#), Err(JsonFault::Duplicate("a".into())));
        let many: Vec<String> = (0..=MEMBERS_MAX).map(|i| format!("\"{i}\":0")).collect();
        assert_eq!(members_of(&format!("{{{}}}", many.join(","))), Err(JsonFault::TooMany));
    }

    #[test]
    fn elements_stop_at_their_limit() {
        assert_eq!(elements("[1, \"a\" ,{}]", 3), Ok(vec!["1", "\"a\"", "{}"]));
        assert_eq!(elements("[1,2,3,4", 3), Err(JsonFault::TooMany));
        assert_eq!(elements("[]", 0), Ok(vec![]));
        assert!(matches!(elements("[1,]", 3), Err(JsonFault::Syntax(..))));
    }

    #[test]
    fn nesting_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(members_of(&deep).unwrap().len(), 1);
    }

    #[test]
    fn values_keep_their_text() {
        assert_eq!(value("1e400"), Ok(Value::Number("1e400")));
        assert_eq!(value("\"a\\u00e9\""), Ok(Value::Text("aé".into())));
        assert_eq!(value("false"), Ok(Value::Word("false")));
        assert!(matches!(value(r#""\ud800""#), Err(JsonFault::Syntax(..))));
    }

    #[test]
    fn picking_reads_only_what_is_wanted() {
        let text = r#"{"x":1,"y":{"z":2},"x2":3,"x2":4}"#;
        assert_eq!(pick(text, &["y", "nope", "x"]), Ok(vec![Some("{\"z\":2}"), None, Some("1")]));
        assert_eq!(pick(text, &["x2"]), Err(JsonFault::Duplicate("x2".into())));
        assert_eq!(pick("\"text\"", &["x"]), Ok(vec![None]));
    }
}
