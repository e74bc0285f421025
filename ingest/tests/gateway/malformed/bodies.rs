//! Malformed bodies, content types and content encodings.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::Case;
use super::Expected::{self, Refused};
use super::table::*;
use crate::support::Call;

pub(super) fn all() -> Vec<Case> {
    let mut cases = bodies();
    cases.extend(encodings());
    cases
}

/// Bodies and content types.
fn bodies() -> Vec<Case> {
    let good = native("", None);
    let mut not_utf8 = native("id", Some("\"X\"")).into_bytes();
    let at = not_utf8.iter().position(|b| *b == b'X').unwrap();
    not_utf8[at] = 0xff;
    let many = vec![good.clone(); 101];
    let rows: Vec<(&str, &str, Vec<u8>, Expected)> = vec![
        ("an empty body", JSON, "".into(), UNREADABLE),
        ("only white space", JSON, " \r\n\t ".into(), UNREADABLE),
        ("only blank lines", NDJSON, "\n\r\n\n".into(), UNREADABLE),
        ("an empty structured body", STRUCTURED, "".into(), UNREADABLE),
        ("broken JSON", JSON, "{broken}".into(), UNREADABLE),
        ("truncated JSON", JSON, good[..good.len() - 1].into(), UNREADABLE),
        ("a truncated array", JSON, format!("[{good}").into(), UNREADABLE),
        ("a comma at the end", JSON, format!("[{good},]").into(), UNREADABLE),
        ("text after the JSON", JSON, format!("{good} {good}").into(), UNREADABLE),
        ("lines sent as one JSON body", JSON, format!("{good}\n{good}").into(), UNREADABLE),
        ("a byte order mark", JSON, format!("\u{feff}{good}").into(), UNREADABLE),
        ("bad UTF-8", JSON, not_utf8.clone(), UNREADABLE),
        ("a NUL byte for a body", JSON, vec![0], UNREADABLE),
        ("a raw control character in a string", JSON, good.replace("bad", "b\u{1}d").into(), UNREADABLE),
        ("NaN", JSON, native("quantity", Some("NaN")).into(), UNREADABLE),
        ("Infinity", JSON, native("quantity", Some("Infinity")).into(), UNREADABLE),
        ("-Infinity", JSON, native("quantity", Some("-Infinity")).into(), UNREADABLE),
        ("a number with a leading zero", JSON, native("quantity", Some("01")).into(), UNREADABLE),
        ("a hexadecimal number", JSON, native("quantity", Some("0x10")).into(), UNREADABLE),
        ("a bare number", JSON, "42".into(), SHAPE),
        ("a bare string", JSON, "\"text\"".into(), SHAPE),
        ("a bare null", JSON, "null".into(), SHAPE),
        ("an array as one structured event", STRUCTURED, "[]".into(), SHAPE),
        ("one event as a batch", BATCH, "{}".into(), SHAPE),
        ("too many records", NDJSON, many.join("\n").into(), TOO_MANY),
        ("too many elements", JSON, format!("[{}]", many.join(",")).into(), TOO_MANY),
        ("too many elements that are no records", JSON, format!("[{}]", vec!["1"; 101].join(",")).into(), TOO_MANY),
        ("a body above the limit", JSON, vec![b' '; 256 * 1024 + 1], TOO_LARGE),
        ("plain text", "text/plain", good.clone().into(), MEDIA),
        ("a form", "application/x-www-form-urlencoded", good.clone().into(), MEDIA),
        ("a content type that is none", "json", good.clone().into(), MEDIA),
        ("latin-1", "application/json; charset=latin1", good.clone().into(), MEDIA),
        ("UTF-16", "application/x-ndjson; charset=\"utf-16\"", good.clone().into(), MEDIA),
        ("CloudEvents in Avro", "application/cloudevents+avro", good.clone().into(), MEDIA),
        ("an element that is no object", JSON, "[5]".into(), Refused("malformed", None)),
        ("an element that is an array", JSON, format!("[[{good}]]").into(), Refused("malformed", None)),
        ("a line that is no object", NDJSON, "5".into(), Refused("malformed", None)),
        ("a broken line", NDJSON, "{\"id\"".into(), Refused("malformed", None)),
        ("a line of two objects", NDJSON, format!("{good}{good}").into(), Refused("malformed", None)),
        ("bad UTF-8 in a line", NDJSON, not_utf8, Refused("malformed", None)),
        ("NaN in a line", NDJSON, native("quantity", Some("NaN")).into(), Refused("malformed", None)),
        (
            "200 arrays in each other",
            JSON,
            format!("{}{}", "[".repeat(200), "]".repeat(200)).into(),
            Refused("malformed", None),
        ),
    ];
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(name, content_type, body, expected)| case(name, Call::new(content_type, body), expected))
        .collect();
    let mut untyped = Call::new(JSON, good);
    untyped.headers.clear();
    cases.push(case("no content type", untyped, MEDIA));
    cases
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).unwrap()
}

/// Content encodings.
fn encodings() -> Vec<Case> {
    let good = native("", None).into_bytes();
    let spaces = vec![b' '; 64 * 1024 * 1024];
    let (gzip_bomb, zstd_bomb) = (gzip(&spaces), zstd(&spaces));
    assert!(gzip_bomb.len() < 128 * 1024 && zstd_bomb.len() < 16 * 1024, "a bomb is small");
    let whole = gzip(&good);
    let garbled: Vec<u8> = whole.iter().enumerate().map(|(i, b)| if i == 15 { !b } else { *b }).collect();
    let rows: Vec<(&str, &str, Vec<u8>, Expected)> = vec![
        ("a gzip bomb", "gzip", gzip_bomb.clone(), TOO_LARGE),
        ("a zstd bomb", "zstd", zstd_bomb, TOO_LARGE),
        ("a gzip bomb in a gzip body", "gzip", gzip(&gzip_bomb), UNREADABLE),
        ("truncated gzip", "gzip", whole[..whole.len() - 5].into(), DAMAGED),
        ("damaged gzip", "gzip", garbled, DAMAGED),
        ("bytes after gzip", "gzip", [whole.as_slice(), b"more"].concat(), DAMAGED),
        ("plain bytes called gzip", "gzip", good.clone(), DAMAGED),
        ("an empty body called gzip", "gzip", Vec::new(), DAMAGED),
        ("truncated zstd", "zstd", zstd(&good)[..20].into(), DAMAGED),
        ("gzip called zstd", "zstd", whole.clone(), DAMAGED),
        ("an empty body inside gzip", "gzip", gzip(b""), UNREADABLE),
        ("gzip called identity", "identity", whole.clone(), UNREADABLE),
        ("brotli", "br", good.clone(), ENCODING),
        ("deflate", "deflate", good.clone(), ENCODING),
        ("two encodings", "gzip, zstd", whole, ENCODING),
    ];
    rows.into_iter()
        .map(|(name, encoding, body, expected)| {
            case(name, Call::new(JSON, body).header("content-encoding", encoding), expected)
        })
        .collect()
}
