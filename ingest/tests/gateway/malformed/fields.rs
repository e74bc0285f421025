//! Native records with malformed fields.

use super::Case;
use super::Expected::Refused;
use super::table::*;
use crate::support::Call;

pub(super) fn all() -> Vec<Case> {
    let mut cases = native_fields();
    cases.extend(times());
    cases.extend(dimensions());
    cases.extend(quantities());
    cases
}

/// The fields of a native record.
fn native_fields() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, field: &str, value: Option<&str>, expected| {
        cases.push(case(name, Call::new(JSON, native(field, value)), expected));
    };
    for field in ["id", "tenant", "meter", "quantity"] {
        add(format!("no {field}"), field, None, Refused("missing", Some(field)));
        add(format!("a null {field}"), field, Some("null"), Refused("missing", Some(field)));
    }
    for (field, bytes_max) in [("id", 256), ("tenant", 128), ("source", 256), ("subject", 256), ("reservation", 128)] {
        for (what, value) in [("number", "5"), ("boolean", "true"), ("object", "{}"), ("array", "[]")] {
            add(format!("{field}: a {what}"), field, Some(value), Refused("wrong_type", Some(field)));
        }
        let invalid = Refused("invalid", Some(field));
        add(format!("{field}: empty"), field, Some("\"\""), invalid);
        add(format!("{field}: too long"), field, Some(&quoted(&"x".repeat(bytes_max + 1))), invalid);
        add(format!("{field}: a megabyte"), field, Some(&quoted(&"x".repeat(200_000))), invalid);
        add(format!("{field}: NUL"), field, Some("\"a\\u0000b\""), invalid);
        add(format!("{field}: a line end"), field, Some("\"a\\nb\""), invalid);
        add(format!("{field}: DEL"), field, Some("\"a\u{7f}b\""), invalid);
        add(format!("{field}: a C1 control"), field, Some("\"a\u{85}b\""), invalid);
        add(format!("{field}: a lone surrogate"), field, Some("\"\\ud800\""), Refused("malformed", Some(field)));
    }
    let meter = |word| Refused(word, Some("meter"));
    add("an unknown meter".into(), "meter", Some("\"api_cal\""), meter("unknown_meter"));
    add("an empty meter".into(), "meter", Some("\"\""), meter("unknown_meter"));
    add("a meter of a megabyte".into(), "meter", Some(&quoted(&"m".repeat(200_000))), meter("unknown_meter"));
    add("a meter in another case".into(), "meter", Some("\"API_CALL\""), meter("unknown_meter"));
    add("a meter that is a number".into(), "meter", Some("7"), meter("wrong_type"));
    add("an unknown field".into(), "colour", Some("1"), Refused("unknown_field", Some("colour")));
    add("a field in another case".into(), "Subject", Some("\"u\""), Refused("unknown_field", Some("Subject")));
    let mut duplicate = native("", None);
    duplicate.insert_str(1, "\"id\":\"twice\",");
    cases.push(case("a field twice", Call::new(JSON, duplicate), Refused("duplicate_field", Some("id"))));
    let escaped = native("\\u0069d", Some("\"twice\""));
    cases.push(case(
        "a field twice, once in escapes",
        Call::new(JSON, escaped),
        Refused("duplicate_field", Some("id")),
    ));
    let surrogate = native("\\ud800", Some("1"));
    cases.push(case("a field name of a lone surrogate", Call::new(JSON, surrogate), Refused("malformed", None)));
    let wide: Vec<String> = (0..70).map(|i| format!("\"f{i}\":0")).collect();
    cases.push(case("seventy fields", Call::new(JSON, format!("{{{}}}", wide.join(","))), Refused("invalid", None)));
    let unique = object(&RECORD, "meter", Some("\"users\""));
    cases.push(case("a distinct count of nothing", Call::new(JSON, unique), Refused("missing", Some("dimensions"))));
    cases
}

fn times() -> Vec<Case> {
    let field = Some("time");
    let rows = [
        ("a time without zone", "\"2026-01-31T12:00:00\"", Refused("invalid", field)),
        ("a time in 1970", "\"1970-01-21T16:00:00Z\"", Refused("invalid", field)),
        ("the year 2200", "\"2200-01-01T00:00:00Z\"", Refused("invalid", field)),
        ("the year 10000", "\"10000-01-01T00:00:00Z\"", Refused("invalid", field)),
        ("a time before 0", "\"-0001-01-01T00:00:00Z\"", Refused("invalid", field)),
        ("a thirteenth month", "\"2026-13-01T00:00:00Z\"", Refused("invalid", field)),
        ("a 30th of February", "\"2026-02-30T00:00:00Z\"", Refused("invalid", field)),
        ("a date", "\"2026-01-31\"", Refused("invalid", field)),
        ("an empty time", "\"\"", Refused("invalid", field)),
        ("a time that is a number", "1769860800000", Refused("wrong_type", field)),
        ("a time that is a boolean", "true", Refused("wrong_type", field)),
        ("a time of another calendar", "\"2026-01-31T12:00:00+00:00[u-ca=hebrew]\"", Refused("invalid", field)),
    ];
    rows.into_iter()
        .map(|(name, value, expected)| case(name, Call::new(JSON, native("time", Some(value))), expected))
        .collect()
}

fn dimensions() -> Vec<Case> {
    let field = Some("dimensions");
    let seventeen: Vec<String> = (0..17).map(|i| format!("\"d{i}\":\"v\"")).collect();
    let deep = format!("{{\"d\":{}1{}}}", "{\"a\":".repeat(200), "}".repeat(200));
    let rows = [
        ("dimensions that are an array", "[]".to_owned(), Refused("wrong_type", field)),
        ("dimensions that are a string", "\"d\"".into(), Refused("wrong_type", field)),
        ("a dimension that is an object", "{\"d\":{}}".into(), Refused("wrong_type", field)),
        ("a dimension 200 objects deep", deep, Refused("wrong_type", field)),
        ("a dimension that is an array", "{\"d\":[1]}".into(), Refused("wrong_type", field)),
        ("17 dimensions", format!("{{{}}}", seventeen.join(",")), Refused("invalid", field)),
        ("a dimension without name", "{\"\":\"v\"}".into(), Refused("invalid", field)),
        ("a dimension without value", "{\"d\":\"\"}".into(), Refused("invalid", field)),
        ("a dimension name too long", format!("{{\"{}\":\"v\"}}", "n".repeat(65)), Refused("invalid", field)),
        ("a dimension value too long", format!("{{\"d\":\"{}\"}}", "v".repeat(257)), Refused("invalid", field)),
        ("a line end in a dimension", "{\"d\":\"a\\nb\"}".into(), Refused("invalid", field)),
        ("a lone surrogate in a dimension", "{\"d\":\"\\udc00\"}".into(), Refused("malformed", field)),
        ("a dimension twice", "{\"d\":\"1\",\"d\":\"2\"}".into(), Refused("invalid", field)),
    ];
    let body = |value: &str| Call::new(JSON, native("dimensions", Some(value)));
    rows.into_iter().map(|(name, value, expected)| case(name, body(&value), expected)).collect()
}

/// Quantities, on meters without and with digits after the point.
fn quantities() -> Vec<Case> {
    let inexact = Refused("quantity", Some("quantity"));
    let mistyped = Refused("wrong_type", Some("quantity"));
    let rows = [
        ("1e400", inexact),
        ("-1e400", inexact),
        ("1e-400", inexact),
        ("9223372036854775808", inexact),
        ("-9223372036854775809", inexact),
        ("1.00000000000000000001", inexact),
        ("0.12345678901234567890", inexact),
        ("1.5", inexact),
        ("\"NaN\"", inexact),
        ("\"Infinity\"", inexact),
        ("\"\"", inexact),
        ("\" 1\"", inexact),
        ("\"1,5\"", inexact),
        ("\"+1\"", inexact),
        ("\"0x10\"", inexact),
        ("\"1_000\"", inexact),
        ("\"\\u0661\"", inexact),
        ("true", mistyped),
        ("{}", mistyped),
        ("[1]", mistyped),
        ("\"\\ud800\"", Refused("malformed", Some("quantity"))),
    ];
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(value, expected)| {
            let call = Call::new(JSON, native("quantity", Some(value)));
            case(format!("quantity {value}"), call, expected)
        })
        .collect();
    let long = format!("0.{}", "0".repeat(100));
    cases.push(case("a quantity of 102 digits", Call::new(JSON, native("quantity", Some(&long))), inexact));
    for value in ["0.001", "92233720368547758.08", "\"-92233720368547758.09\""] {
        let body = native("quantity", Some(value)).replace("api_call", "cost");
        cases.push(case(format!("cost {value}"), Call::new(JSON, body), inexact));
    }
    cases
}
