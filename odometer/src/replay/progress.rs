//! The progress bar of a replay, on standard error, only for people who look.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::feed::Prepared;
use super::send::Live;

/// Steps of the bar: a tenth of a percent each.
const STEPS: u64 = 1000;
/// Time between two looks. Ten a second looks alive and costs nothing.
const INTERVAL: Duration = Duration::from_millis(100);

/// Draws until it is dropped or aborted. Hidden when standard error is no terminal.
pub(super) async fn show(prepared: Arc<Prepared>, live: Arc<Live>) {
    let bar = ProgressBar::new(STEPS);
    let template = "{spinner} {bar:30} {percent:>3}%  {elapsed_precise}  {msg}";
    // The template is a constant; should it ever be wrong, the plain bar does.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let clear = ClearOnDrop(bar.clone());
    loop {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the fraction is 0 to 1")]
        #[expect(clippy::cast_precision_loss, reason = "a thousand steps")]
        let position = (prepared.progress() * STEPS as f64) as u64;
        clear.0.set_position(position);
        clear.0.set_message(message(&live));
        tokio::time::sleep(INTERVAL).await;
    }
}

fn message(live: &Live) -> String {
    let acknowledged = live.acknowledged.load(Ordering::Relaxed);
    let refused = live.refused.load(Ordering::Relaxed);
    let waiting = live.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let mut text = format!("{acknowledged} acknowledged");
    if refused > 0 {
        text.push_str(&format!(", {refused} refused"));
    }
    if let Some(problem) = waiting {
        text.push_str(&format!(" — waiting: {problem}"));
    }
    text
}

struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
