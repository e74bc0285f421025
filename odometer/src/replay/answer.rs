//! What the server says about a batch, read no further than needed.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Distinct reasons that the report names; records with others are only counted.
const REASONS_MAX: usize = 10;

/// What to do after an answer, or after there was none.
#[derive(Debug)]
pub(super) enum Answer {
    /// Every record has its answer.
    Judged {
        /// Records that are durable.
        stored: u64,
        /// Records that are not, with their reasons.
        refused: u64,
        refusals: Vec<Refusal>,
    },
    /// The same batch may succeed later.
    Later {
        /// What the server asked for.
        retry_after: Option<Duration>,
        /// What happened.
        problem: String,
    },
    /// No batch will ever succeed.
    Never(String),
}

/// Why one record was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Refusal {
    /// The server's word for it, with the field.
    pub(super) reason: String,
    /// The record's id.
    pub(super) id: String,
}

/// Counts only: what an answer without refusals is read into.
#[derive(Deserialize)]
struct Counts {
    stored: u64,
    refused: u64,
    #[serde(default, rename = "results")]
    _results: IgnoredAny,
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(default, borrow)]
    results: Vec<OneResult<'a>>,
}

#[derive(Deserialize)]
struct OneResult<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    status: Option<&'a str>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    field: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// Reads an answer of `status` to a batch of `records`.
pub(super) fn read(status: u16, retry_after: Option<&str>, body: &[u8], records: u32) -> Answer {
    let counts: Option<Counts> = serde_json::from_slice(body).ok();
    match (status, counts) {
        (200..=299 | 400, Some(counts)) => judged(&counts, body, records),
        (200..=299, None) => Answer::Never(format!("the server's answer {status} has no `stored` and `refused`")),
        // The whole request was refused, and nothing of it was stored.
        (400 | 413 | 415 | 422, _) => {
            let reason = format!("{status}: {}", problem(body));
            let refusal = Refusal { reason, id: String::new() };
            Answer::Judged { stored: 0, refused: records.into(), refusals: vec![refusal; records as usize] }
        }
        (408 | 429 | 500..=599, _) => Answer::Later {
            retry_after: retry_after.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs),
            problem: format!("the server answers {status}: {}", problem(body)),
        },
        _ => Answer::Never(format!("the server answers {status}: {}; is there an odometer at --url?", problem(body))),
    }
}

fn judged(counts: &Counts, body: &[u8], records: u32) -> Answer {
    let (stored, refused) = (counts.stored, counts.refused);
    if stored.checked_add(refused) != Some(records.into()) {
        return Answer::Never(format!(
            "the server's answer counts {stored} stored and {refused} refused records of {records} sent"
        ));
    }
    let refusals = if refused == 0 { Vec::new() } else { refusals(body) };
    Answer::Judged { stored, refused, refusals }
}

fn refusals(body: &[u8]) -> Vec<Refusal> {
    // The counts are what matters: an answer without reasons still counts.
    let Ok(results) = serde_json::from_slice::<Results<'_>>(body) else { return Vec::new() };
    let refused = results.results.into_iter().filter(|result| result.status == Some("refused"));
    refused
        .map(|result| {
            let reason = result.reason.unwrap_or_else(|| "no reason given".into());
            let reason = match result.field {
                Some(field) if !field.is_empty() => format!("{field}: {reason}"),
                _ => reason,
            };
            Refusal { reason, id: result.id.unwrap_or_default() }
        })
        .collect()
}

/// The most telling text of a problem document, or of whatever else came.
fn problem(body: &[u8]) -> String {
    const SHOWN_CHARS: usize = 200;
    let parsed: Problem = serde_json::from_slice(body).unwrap_or_default();
    parsed.detail.or(parsed.title).unwrap_or_else(|| {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(SHOWN_CHARS).collect();
        if text.is_empty() { "no explanation".into() } else { text }
    })
}

/// Reasons of refusal and how often each came.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    by_reason: HashMap<String, (u64, String)>,
}

impl Reasons {
    pub(super) fn add(&mut self, refusals: Vec<Refusal>) {
        for refusal in refusals {
            self.add_one(refusal.reason, 1, refusal.id);
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (reason, (records, example_id)) in other.by_reason {
            self.add_one(reason, records, example_id);
        }
    }

    fn add_one(&mut self, reason: String, records: u64, example_id: String) {
        if let Some((count, _)) = self.by_reason.get_mut(&reason) {
            *count += records;
        } else if self.by_reason.len() < REASONS_MAX {
            self.by_reason.insert(reason, (records, example_id));
        }
    }

    /// Reason, records, id of one of them; most frequent first.
    pub(super) fn into_sorted(self) -> Vec<(String, u64, String)> {
        let mut sorted: Vec<_> = self.by_reason.into_iter().map(|(reason, (n, id))| (reason, n, id)).collect();
        sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str) -> String {
        match read(status, Some("2"), body.as_bytes(), 3) {
            Answer::Judged { stored, refused, refusals } => format!("judged {stored} {refused} {}", refusals.len()),
            Answer::Later { retry_after, problem } => format!("later {retry_after:?} {problem}"),
            Answer::Never(problem) => format!("never {problem}"),
        }
    }

    #[test]
    fn every_answer_has_one_meaning() {
        let cases = [
            (202, r#"{"stored":3,"refused":0,"results":[{"odd":1}]}"#, "judged 3 0 0"),
            (202, r#"{"stored":3,"refused":0,"more":{}}"#, "judged 3 0 0"),
            (202, r#"{"stored":2,"refused":1,"results":[{"status":"stored"},{"status":"refused"}]}"#, "judged 2 1 1"),
            (202, r#"{"stored":2,"refused":1}"#, "judged 2 1 0"),
            (202, r#"{"stored":2,"refused":0}"#, "never the server's answer counts 2 stored and 0 refused"),
            (202, r#"{"stored":18446744073709551615,"refused":4}"#, "never the server's answer counts"),
            (202, "", "never the server's answer 202 has no `stored`"),
            (400, r#"{"title":"x","stored":0,"refused":3,"results":[]}"#, "judged 0 3 0"),
            (400, r#"{"title":"x"}"#, "judged 0 3 3"),
            (413, "", "judged 0 3 3"),
            (415, r#"{"detail":"x"}"#, "judged 0 3 3"),
            (422, "", "judged 0 3 3"),
            (
                503,
                r#"{"title":"t","detail":"log full","stored":1,"refused":2}"#,
                "later Some(2s) the server answers 503: log full",
            ),
            (429, "slow down", "later Some(2s) the server answers 429: slow down"),
            (502, "", "later Some(2s) the server answers 502: no explanation"),
            (301, "", "never the server answers 301"),
            (401, "", "never the server answers 401"),
            (404, "<html>", "never the server answers 404: <html>; is there an odometer at --url?"),
        ];
        for (status, body, expected) in cases {
            let kind = kind(status, body);
            assert!(kind.starts_with(expected), "{status} {body}\n{kind}\n{expected}");
        }
    }

    #[test]
    fn reasons_are_counted_most_frequent_first_and_no_more_than_ten() {
        let refusal = |reason: &str, id: &str| Refusal { reason: reason.into(), id: id.into() };
        let mut reasons = Reasons::default();
        reasons.add(vec![refusal("b", "1"), refusal("a", "2"), refusal("a", "3")]);
        let mut others = Reasons::default();
        others.add((0..20).map(|n| refusal(&format!("r{n:02}"), "4")).collect());
        others.add(vec![refusal("a", "5")]);
        reasons.merge(others);
        let sorted = reasons.into_sorted();
        assert_eq!(sorted.len(), REASONS_MAX);
        assert_eq!(sorted[0], ("a".into(), 2, "2".into()));
    }
}
