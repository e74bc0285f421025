//! Dead letters in, the messages that they were to the ingress topic. Leaves out, and
//! names, those whose good events might be counted again.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use odometer_ingest::bridge::rejects::{Place, Reject, Rejects};
use odometer_ingest::log::LogError;
use odometer_schemas::time::TimeMs;
use serde_json::json;

use super::letters::{failed, missing, open, parse};
use crate::config::Config;
use crate::config::duration::display_duration;

/// Letters that are sent at once: enough to hide the opening of a producer.
const LETTERS_MAX: usize = 100;
/// Bytes after which letters are sent: one letter may have ten megabytes.
const LETTER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Which letters may be sent, and where to.
struct Rules<'a> {
    ingress_topic: &'a str,
    dedupe_window: Duration,
    now: TimeMs,
}

struct Replayer<'a> {
    rejects: &'a Rejects,
    rules: Rules<'a>,
    waiting: Vec<Reject>,
    bytes: usize,
    sent: usize,
    skipped: Vec<(Place, String)>,
}

/// Sends the letters at `places`, or all that there are.
pub(super) fn run(config: &Config, places: Option<&Vec<String>>, json: bool) -> anyhow::Result<ExitCode> {
    let places =
        places.map(|places| places.iter().map(|place| parse(place)).collect::<Result<Vec<_>, _>>()).transpose()?;
    let rejects = open(config)?;
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let rules = Rules {
        ingress_topic: &config.cluster.bridge.ingress_topic,
        dedupe_window: config.dedupe_window,
        now: TimeMs(i64::try_from(ms).unwrap_or(i64::MAX)),
    };
    let mut replayer =
        Replayer { rejects: &rejects, rules, waiting: Vec::new(), bytes: 0, sent: 0, skipped: Vec::new() };
    let done = match &places {
        Some(places) => replayer.these(places, config),
        None => replayer.all(config),
    };
    let Replayer { sent, skipped, .. } = replayer;
    // What was sent is told in any case.
    print(sent, &skipped, json);
    done?;
    Ok(if skipped.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(sent: usize, skipped: &[(Place, String)], json: bool) {
    if json {
        let skipped: Vec<_> =
            skipped.iter().map(|(place, reason)| json!({ "place": place.to_string(), "reason": reason })).collect();
        println!("{:#}", json!({ "replayed": sent, "skipped": skipped }));
        return;
    }
    println!("{sent} messages were sent again");
    for (place, reason) in skipped {
        println!("{place} was not: {reason}");
    }
}

impl Replayer<'_> {
    fn these(&mut self, places: &[Place], config: &Config) -> anyhow::Result<()> {
        for place in places {
            let found = self.rejects.show(*place).map_err(|error| failed(error, config))?;
            let reject = found.with_context(|| missing(*place))?;
            self.add(reject).map_err(|error| failed(error, config))?;
        }
        self.flush().map_err(|error| failed(error, config))
    }

    fn all(&mut self, config: &Config) -> anyhow::Result<()> {
        let (rejects, mut outcome) = (self.rejects, Ok(()));
        let listing = rejects.list(|reject| {
            outcome = self.add(reject);
            outcome.is_ok()
        });
        outcome.and(listing).and_then(|()| self.flush()).map_err(|error| failed(error, config))
    }

    fn add(&mut self, reject: Reject) -> Result<(), LogError> {
        if let Some(reason) = self.rules.obstacle(&reject) {
            self.skipped.push((reject.place, reason));
            return Ok(());
        }
        self.bytes += reject.body.as_ref().map_or(0, Vec::len);
        self.waiting.push(reject);
        let is_full = self.waiting.len() >= LETTERS_MAX || self.bytes >= LETTER_BYTES_MAX;
        if is_full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        self.sent += self.rejects.replay(&waiting)?;
        Ok(())
    }
}

impl Rules<'_> {
    /// Why a letter must not be sent, if it must not.
    fn obstacle(&self, reject: &Reject) -> Option<String> {
        let Some(origin) = &reject.origin else {
            return Some("it does not say where it came from: no bridge put it there".into());
        };
        if origin.topic != self.ingress_topic {
            let (found, wanted) = (&origin.topic, self.ingress_topic);
            return Some(format!("it came from topic {found}, but `bridge.ingress_topic` is {wanted}"));
        }
        // Nothing was counted of a message that could not be read at all.
        let may_be_counted = !reject.refused.is_empty();
        let window_ms = i64::try_from(self.dedupe_window.as_millis()).unwrap_or(i64::MAX);
        let is_forgotten = |at: TimeMs| at.0.saturating_add(window_ms) <= self.now.0;
        if may_be_counted && reject.first_refused_at.is_none_or(is_forgotten) {
            let window = display_duration(self.dedupe_window);
            return Some(format!(
                "its good events were counted longer ago than the dedupe window of {window} and would count again; \
                 send those that were refused alone"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use odometer_ingest::bridge::RefusedEvent;
    use odometer_ingest::bridge::rejects::Origin;

    use super::*;

    fn reject(refused: usize, first_refused_ms: i64) -> Reject {
        let event = |index| RefusedEvent { index, id: None, reason: "unknown_meter: no".into() };
        let place = Place { partition: 0, offset: 1 };
        Reject {
            place,
            refused_at: Some(TimeMs(1_000_000)),
            first_refused_at: Some(TimeMs(first_refused_ms)),
            reason: String::new(),
            refused: (0..refused).map(event).collect(),
            refused_count: 1,
            origin: Some(Origin { topic: "in".into(), place }),
            origin_time: None,
            key: None,
            headers: Vec::new(),
            body: None,
        }
    }

    #[test]
    fn what_may_have_been_forgotten_is_left_out() {
        let rules = Rules { ingress_topic: "in", dedupe_window: Duration::from_millis(100), now: TimeMs(1_000) };
        assert_eq!(rules.obstacle(&reject(1, 901)), None);
        assert!(rules.obstacle(&reject(1, 900)).unwrap().contains("dedupe window"));
        assert_eq!(rules.obstacle(&reject(0, 0)), None);
        assert!(rules.obstacle(&Reject { first_refused_at: None, ..reject(1, 901) }).is_some());
        assert!(rules.obstacle(&Reject { origin: None, ..reject(1, 901) }).is_some());
        let elsewhere = Rules { ingress_topic: "other", ..rules };
        assert!(elsewhere.obstacle(&reject(0, 901)).unwrap().contains("topic in"));
    }
}
