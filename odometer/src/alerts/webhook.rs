//! Alerts to a webhook, signed as Standard Webhooks say: an id that stays the same when
//! an alert is sent again, a time, and an HMAC-SHA256 over both and the body. Whoever
//! receives it takes each id once.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use ring::hmac;
use tokio::runtime::Runtime;

use super::event::CONTENT_TYPE;
use super::{Channel, Event};
use crate::node::progress::now;

/// How long a receiver may take to answer, as the specification advises.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Bytes of a refusal that are shown.
const ANSWER_BYTES_MAX: usize = 512;
/// What a secret's text starts with, by the specification.
const SECRET_PREFIX: &str = "whsec_";
/// Bytes of a secret, by the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What alerts are signed with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// Reads `whsec_` and base64; the prefix may be missing.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.strip_prefix(SECRET_PREFIX).unwrap_or(text)).ok()?;
        SECRET_BYTES.contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The signature of a message, as its header carries it.
    fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut signed = hmac::Context::with_key(&key);
        signed.update(format!("{id}.{seconds}.").as_bytes());
        signed.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(signed.sign()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

type Connector = HttpsConnector<HttpConnector>;

pub(super) struct Webhook {
    url: hyper::Uri,
    secret: Option<Secret>,
    client: Client<Connector, Full<Bytes>>,
    runtime: Runtime,
}

impl Webhook {
    pub(super) fn new(url: &str, secret: Option<&Secret>) -> anyhow::Result<Self> {
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .context("`alerts.webhook`: this system's certificates cannot be read; install ca-certificates")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            url: url.parse().context("`alerts.webhook` is not a URL")?,
            secret: secret.cloned(),
            client: Client::builder(TokioExecutor::new()).build(tls.https_or_http().enable_http1().build()),
            runtime: runtime.context("the webhook's runtime cannot be started")?,
        })
    }

    fn request(&self, event: &Event) -> anyhow::Result<Request<Full<Bytes>>> {
        let seconds = now().0.div_euclid(1_000);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header("content-type", CONTENT_TYPE)
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", seconds);
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", secret.sign(&event.id, seconds, &event.body));
        }
        Ok(request.body(Full::new(Bytes::from(event.body.clone())))?)
    }

    fn send(&self, event: &Event) -> anyhow::Result<()> {
        let request = self.request(event)?;
        self.runtime.block_on(async {
            let sent = tokio::time::timeout(ANSWER_MAX, self.client.request(request));
            let answer = sent.await.with_context(|| format!("no answer within {} s", ANSWER_MAX.as_secs()))??;
            let status = answer.status();
            if status.is_success() {
                return Ok(());
            }
            let said = tokio::time::timeout(ANSWER_MAX, Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect());
            let said =
                said.await.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
            bail!("it answered {status}: {}", String::from_utf8_lossy(&said))
        })
    }
}

impl Channel for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn at_once(&self) -> u32 {
        // What was told stands in the book before the next one goes out.
        1
    }

    fn tell(&mut self, _: u32, events: &[Event]) -> anyhow::Result<()> {
        events.iter().try_for_each(|event| {
            // Some receivers have their secret in the path.
            let host = self.url.host().unwrap_or_default();
            self.send(event).with_context(|| format!("alert {} was not taken by {host}", event.id))
        })
    }

    fn leave(&mut self, _: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_compute() {
        // From Python: hmac.new(bytes(range(24)), b"1-2.1700000000.{}", sha256).
        let secret = Secret::parse("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX").unwrap();
        assert_eq!(secret.sign("1-2", 1_700_000_000, b"{}"), "v1,eTnMejQxF0Om534zLcDVvMLP3JTaVbD9eLUis22X/qM=");
        assert_eq!(Secret::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"), Some(secret));
        assert!(["", "whsec_", "whsec_AAEC", "whsec_!"].iter().all(|text| Secret::parse(text).is_none()));
    }
}
