//! Where alerts go, and its check.

use super::check::Reader;
use super::cluster::KafkaConfig;
use super::document::DocumentError;
use super::raw::RawAlerts;
use crate::alerts::Secret;

/// `[alerts]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlertsConfig {
    /// Where each alert is posted; none: nowhere.
    pub(crate) webhook: Option<String>,
    /// What posts are signed with; none: they are not.
    pub(crate) secret: Option<Secret>,
    /// The Kafka topic, with as many partitions as the log; unless given,
    /// `<kafka.topic>.alerts`. Only in a cluster.
    pub(crate) topic: String,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self { webhook: None, secret: None, topic: Self::topic_beside("odometer.usage") }
    }
}

impl AlertsConfig {
    /// What the topic of alerts is called beside that of the log.
    fn topic_beside(topic: &str) -> String {
        format!("{topic}.alerts")
    }
}

impl Reader<'_> {
    pub(super) fn alerts(&self, raw: RawAlerts, kafka: &KafkaConfig) -> Result<AlertsConfig, DocumentError> {
        let webhook = raw.webhook.filter(|url| !url.is_empty());
        if let Some(url) = &webhook {
            let is_http = url.starts_with("http://") || url.starts_with("https://");
            if !is_http || url.parse::<hyper::Uri>().is_err() {
                return self.wrong("alerts.webhook", "must be a URL such as `https://example.com/odometer`");
            }
        }
        let secret = match raw.secret.filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => match Secret::parse(&text) {
                Some(secret) => Some(secret),
                None => {
                    let problem = "must be `whsec_` and 24 to 64 random bytes in base64; \
                                   make one with `echo whsec_$(openssl rand -base64 32)`";
                    return self.wrong("alerts.secret", problem);
                }
            },
        };
        let topic = self.text("alerts.topic", raw.topic, AlertsConfig::topic_beside(&kafka.topic))?;
        Ok(AlertsConfig { webhook, secret, topic })
    }
}
