//! A body as it arrived in, its plain bytes out; a bomb stops at the limit.

use std::borrow::Cow;
use std::io::{self, Read};

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use flate2::read::MultiGzDecoder;

use super::options::ZSTD_WINDOW_LOG_MAX;
use super::problem::{Problem, ProblemKind};

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// The encoding that the headers state.
///
/// # Errors
/// 415 for any other than gzip, zstd and identity, and for several at once.
pub(super) fn encoding_of(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let refused = || {
        Problem::new(
            ProblemKind::UnsupportedEncoding,
            "the content encoding is not one that is read here",
            "send gzip, zstd or identity",
        )
        .field("content-encoding")
    };
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(Encoding::Identity) };
    let text = value.to_str().map_err(|_| refused())?.trim().to_ascii_lowercase();
    match (text.as_str(), values.next()) {
        ("identity" | "", None) => Ok(Encoding::Identity),
        ("gzip" | "x-gzip", None) => Ok(Encoding::Gzip),
        ("zstd", None) => Ok(Encoding::Zstd),
        _ => Err(refused()),
    }
}

/// The plain bytes of `body`. Several gzip members or zstd frames are one body.
///
/// # Errors
/// 413 past `bytes_max`, 422 when the body is damaged or ends early.
pub(super) fn inflate(body: &[u8], encoding: Encoding, bytes_max: usize) -> Result<Cow<'_, [u8]>, Problem> {
    match encoding {
        Encoding::Identity if body.len() > bytes_max => Err(too_large(bytes_max)),
        Encoding::Identity => Ok(Cow::Borrowed(body)),
        Encoding::Gzip => read_all(MultiGzDecoder::new(body), body.len(), bytes_max).map(Cow::Owned),
        Encoding::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(body).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Ok(decoder)
            });
            read_all(decoder.map_err(|e| damaged(&e))?, body.len(), bytes_max).map(Cow::Owned)
        }
    }
}

fn read_all(decoder: impl Read, compressed: usize, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    // Usage compresses about eightfold; a wrong guess only costs a move.
    let mut plain = Vec::with_capacity(compressed.saturating_mul(8).min(bytes_max));
    // One byte more than allowed tells "exactly full" from "too large".
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut plain).map_err(|e| damaged(&e))?;
    if plain.len() > bytes_max { Err(too_large(bytes_max)) } else { Ok(plain) }
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(
        ProblemKind::BodyTooLarge,
        format!("the body inflates to more than {bytes_max} bytes"),
        "send fewer events in one request",
    )
}

fn damaged(error: &io::Error) -> Problem {
    Problem::new(
        ProblemKind::UnreadableBody,
        format!("the body cannot be inflated: {error}"),
        "send the whole body, in the encoding that content-encoding names",
    )
    .field("content-encoding")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::encode_all(plain, 1).unwrap()
    }

    #[test]
    fn members_and_frames_are_joined() {
        for (encoding, parts) in [
            (Encoding::Gzip, [gzip(b"one "), gzip(b"two")].concat()),
            (Encoding::Zstd, [zstd(b"one "), zstd(b"two")].concat()),
        ] {
            assert_eq!(inflate(&parts, encoding, 7).unwrap().as_ref(), b"one two");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit_and_the_limit_itself_is_allowed() {
        let zeros = vec![0; 1 << 20];
        for (encoding, bomb) in [(Encoding::Gzip, gzip(&zeros)), (Encoding::Zstd, zstd(&zeros))] {
            assert!(bomb.len() < 10_000);
            assert_eq!(inflate(&bomb, encoding, zeros.len()).unwrap().len(), zeros.len());
            let problem = inflate(&bomb, encoding, zeros.len() - 1).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::BodyTooLarge);
        }
    }

    #[test]
    fn a_damaged_body_is_refused() {
        for (encoding, whole) in [(Encoding::Gzip, gzip(b"some text")), (Encoding::Zstd, zstd(b"some text"))] {
            for body in [&whole[..whole.len() - 3], b"{}", &[whole.as_slice(), b"x"].concat()] {
                let kind = inflate(body, encoding, 100).map(|plain| plain.into_owned()).unwrap_err().kind;
                assert_eq!(kind, ProblemKind::UnreadableBody, "{encoding:?} {body:?}");
            }
        }
    }
}
