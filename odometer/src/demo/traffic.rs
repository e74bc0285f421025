//! What the demo's tenants send: pure functions of time and chance. At most
//! `RECORDS_PER_S_MAX` records a second altogether.

use std::time::Duration;

use odometer_schemas::time::TimeMs;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::send::{Form, Request};

/// Records a second of all tenants together: lively, and light on a laptop.
#[cfg(test)]
const RECORDS_PER_S_MAX: usize = 2_000;

const MODELS: [&str; 4] = ["atlas-large", "atlas-small", "breeze-2", "cedar-code"];

/// One tenant and the kind of work that it does.
pub(super) struct Tenant {
    name: &'static str,
    shape: Shape,
    source: String,
    /// Makes the ids.
    sequence: u64,
    rng: StdRng,
    /// The newest request of a sloppy tenant, which it sends again at times.
    sent_before: Option<String>,
}

#[derive(Clone, Copy)]
enum Shape {
    /// Agents that meter the time they run, many at a time, then few.
    Agents { count: u64, beat_ms: u64 },
    /// Calls of language models, as CloudEvents that feed two meters each.
    LlmCalls { calls_max: u64 },
    /// API calls that come in bursts.
    Bursts { size: u64, one_in: u32 },
    /// API calls, a few at a time, one record for many calls.
    Steady,
    /// Open websockets, metered every second.
    Websockets { connections: u64 },
    /// A client with every mistake there is.
    Sloppy,
}

/// The tenants of one demo; `run` makes their ids unlike any other run's.
pub(super) fn tenants(run: u32) -> Vec<Tenant> {
    let tenant = |(name, shape)| Tenant {
        name,
        shape,
        source: format!("demo-{run:08x}/{name}"),
        sequence: 0,
        rng: rand::make_rng(),
        sent_before: None,
    };
    [
        ("acme", Shape::Agents { count: 60, beat_ms: 300 }),
        ("globex", Shape::Agents { count: 40, beat_ms: 500 }),
        ("umbrella", Shape::LlmCalls { calls_max: 80 }),
        ("initech", Shape::LlmCalls { calls_max: 20 }),
        ("hooli", Shape::Bursts { size: 1_000, one_in: 12 }),
        ("stark", Shape::Steady),
        ("wayne", Shape::Websockets { connections: 50 }),
        ("wonka", Shape::Sloppy),
    ]
    .map(tenant)
    .into()
}

impl Tenant {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Time between two beats.
    pub(super) fn beat(&self) -> Duration {
        Duration::from_millis(match self.shape {
            Shape::Agents { beat_ms, .. } => beat_ms,
            Shape::LlmCalls { .. } | Shape::Steady => 250,
            Shape::Bursts { .. } => 500,
            Shape::Websockets { .. } | Shape::Sloppy => 1000,
        })
    }

    /// The requests of one beat.
    pub(super) fn next(&mut self, now: TimeMs) -> Vec<Request> {
        match self.shape {
            Shape::Agents { count, beat_ms } => {
                // The fleet breathes over a minute.
                let second = u64::try_from(now.0.div_euclid(1000).rem_euclid(60)).unwrap_or(0);
                let running = count * (10 + second.abs_diff(30)) / 40;
                self.ndjson(running, |tenant, i| {
                    let subject = format!("agent-{i:03}");
                    tenant.record(now, json!({"meter": "agent_minute", "quantity": beat_ms, "subject": subject}))
                })
            }
            Shape::LlmCalls { calls_max } => {
                let calls = self.rng.random_range(1..=calls_max);
                let events: Vec<Value> = (0..calls).map(|_| self.llm_call(now)).collect();
                vec![Request { form: Form::CloudEvents, body: Value::from(events).to_string() }]
            }
            Shape::Bursts { size, one_in } => {
                let calls = if self.rng.random_ratio(1, one_in) { size } else { 3 };
                self.ndjson(calls, |tenant, _| tenant.record(now, json!({"meter": "api_call", "quantity": 1})))
            }
            Shape::Steady => self.ndjson(4, |tenant, _| {
                let calls = tenant.rng.random_range(1..=20);
                // A decimal string is as good as a number.
                tenant.record(now, json!({"meter": "api_call", "quantity": calls.to_string()}))
            }),
            Shape::Websockets { connections } => self.ndjson(connections, |tenant, i| {
                let subject = format!("socket-{i:02}");
                tenant.record(now, json!({"meter": "websocket_minute", "quantity": 1000, "subject": subject}))
            }),
            Shape::Sloppy => self.mistakes(now),
        }
    }

    fn ndjson(&mut self, records: u64, mut record: impl FnMut(&mut Self, u64) -> Value) -> Vec<Request> {
        let lines: String = (0..records).map(|i| format!("{}\n", record(self, i))).collect();
        if lines.is_empty() { Vec::new() } else { vec![Request { form: Form::Ndjson, body: lines }] }
    }

    /// A native record: `fields` and what every record of this tenant has.
    fn record(&mut self, now: TimeMs, mut fields: Value) -> Value {
        let model = MODELS[self.rng.random_range(0..MODELS.len())];
        fields["id"] = self.id().into();
        fields["source"] = self.source.as_str().into();
        fields["tenant"] = self.name.into();
        fields["time"] = now.to_string().into();
        if fields["meter"] != "websocket_minute" {
            fields["dimensions"] = json!({"model": model});
        }
        fields
    }

    /// One event, two records: the type `odometer.llm` feeds both token meters.
    fn llm_call(&mut self, now: TimeMs) -> Value {
        let prompt_tokens: u32 = self.rng.random_range(20..8000);
        let generated_tokens: u32 = self.rng.random_range(1..900);
        let model = MODELS[self.rng.random_range(0..MODELS.len())];
        let user = format!("user-{}", self.rng.random_range(1..=25));
        json!({
            "specversion": "1.0",
            "type": "odometer.llm",
            "id": self.id(),
            "source": self.source,
            "tenant": self.name,
            "subject": user,
            "time": now.to_string(),
            "data": {"prompt_tokens": prompt_tokens, "generated_tokens": generated_tokens, "model": model},
        })
    }

    fn id(&mut self) -> String {
        self.sequence += 1;
        self.sequence.to_string()
    }

    /// Good records, and one of each mistake: refused by the gateway, or judged to be
    /// a duplicate, a conflict or in the future.
    fn mistakes(&mut self, now: TimeMs) -> Vec<Request> {
        let call = json!({"meter": "api_call", "quantity": 1});
        let good: Vec<Value> = (0..8).map(|_| self.record(now, call.clone())).collect();
        let mut other_content = good[0].clone();
        other_content["quantity"] = 2.into();
        let far_ahead = self.record(now.plus_ms(3_600_000), call.clone());
        let typo = self.record(now, json!({"meter": "api_cal", "quantity": 1}));
        let not_a_number = self.record(now, json!({"meter": "api_call", "quantity": "many"}));
        let records = good.iter().chain([&other_content, &far_ahead, &typo, &not_a_number]);
        let mut body: String = records.map(|record| format!("{record}\n")).collect();
        body.push_str("{\"id\": \"torn\n");
        let mut bodies = vec![body.clone()];
        if self.rng.random_ratio(1, 5) {
            bodies.extend(self.sent_before.replace(body));
        }
        bodies.into_iter().map(|body| Request { form: Form::Ndjson, body }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;
    use axum::http::header::CONTENT_TYPE;
    use odometer_ingest::gateway::{Door, Incoming, Intake, Terms, read};
    use odometer_schemas::definitions::Definitions;

    fn read_as_the_gateway_does(request: &Request) -> Intake {
        let terms = Terms {
            definitions: &Definitions::built_in(),
            partitions: 4,
            inflated_bytes_max: 1 << 26,
            records_max: 100_000,
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, request.form.content_type().parse().unwrap());
        read(&Incoming { door: Door::Native, headers: &headers, body: request.body.as_bytes() }, &terms).unwrap()
    }

    #[test]
    fn everything_is_taken_but_the_mistakes_and_the_rate_is_bounded() {
        const SECONDS: u64 = 120;
        let start = TimeMs::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        let mut records = 0;
        for mut tenant in tenants(7) {
            let beats = SECONDS * 1000 / u64::try_from(tenant.beat().as_millis()).unwrap();
            for beat in 0..beats {
                let at = i64::try_from(beat * SECONDS * 1000 / beats).unwrap();
                for request in tenant.next(start.plus_ms(at)) {
                    let intake = read_as_the_gateway_does(&request);
                    let refused = intake.sheet.len()
                        - intake
                            .sheet
                            .events()
                            .filter(|(_, fate)| matches!(fate, odometer_ingest::gateway::Fate::Gathered { .. }))
                            .count();
                    assert_eq!(refused, if tenant.name == "wonka" { 3 } else { 0 }, "{}", request.body);
                    records += intake.sheet.records();
                }
            }
        }
        let per_s = records / usize::try_from(SECONDS).unwrap();
        assert!((500..=RECORDS_PER_S_MAX).contains(&per_s), "{per_s} records a second");
    }
}
