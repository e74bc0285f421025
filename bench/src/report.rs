//! Results as text or JSON.

use serde_json::{Map, Value};

/// Prints named figures, one a line or as one JSON object.
pub(crate) fn print(json: bool, figures: &[(&str, Value)]) {
    if json {
        let object: Map<String, Value> =
            figures.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        println!("{}", Value::Object(object));
        return;
    }
    for (name, value) in figures {
        println!("{name:>24}  {value}");
    }
}

/// CPU seconds that this thread has used, as the kernel counts them; on a busy
/// machine they tell more than the wall clock. Zero where there is no `/proc`.
pub(crate) fn thread_cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    nanoseconds as f64 / 1e9
}
