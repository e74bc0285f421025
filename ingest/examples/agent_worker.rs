//! An agent worker that meters itself, within its tenant's quota: tokens of each model
//! call, and the minutes of its run.
//!
//! ```sh
//! odometer dev &
//! cargo run -p odometer-ingest --example agent_worker -- http://127.0.0.1:7070 acme
//! curl -s http://127.0.0.1:7070/v1/tenants/acme/usage
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use odometer_ingest::emitter::quota::StartError;
use odometer_ingest::emitter::{AgentRun, AgentRunOptions, Emitter, EmitterOptions, HttpTransport, RunQuota};
use odometer_schemas::quantity::Quantity;
use odometer_schemas::record::Record;

/// Stands for a model's answer: how many tokens it read and wrote.
async fn call_model(step: i64) -> (i64, i64) {
    tokio::time::sleep(Duration::from_millis(400)).await;
    (1200 + 310 * step, 80 + 25 * step)
}

fn tokens(tenant: &str, meter: &str, quantity: i64) -> Record {
    Record {
        tenant: tenant.into(),
        source: "agent-worker".into(),
        // None: the emitter makes an id, so that its retries are never counted twice.
        // Give your own where the same usage may be emitted by two processes.
        id: None,
        meter: meter.into(),
        quantity: Quantity(quantity),
        // None: when the log takes it.
        time: None,
        subject: Some("researcher-1".into()),
        dimensions: vec![("model".into(), "large".into())],
        reservation: None,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "http://127.0.0.1:7070".into());
    let tenant = args.next().unwrap_or_else(|| "acme".into());

    let transport = HttpTransport::connect(&url).await?;
    let quota = RunQuota::new(Arc::new(transport.quota()));
    let emitter = Emitter::start(Arc::new(transport), EmitterOptions::default())?;

    // Meters every ten seconds by itself; a second here, so that there is more to see.
    // Holds a slot of the plan's agents and the next two ticks while it runs; when this
    // process dies, they are free within a minute.
    let options = AgentRunOptions { tick: Duration::from_secs(1), ..AgentRunOptions::new(&*tenant, "agent-worker") };
    let run = match AgentRun::start_within(&emitter, options, quota).await {
        Ok(run) => run,
        Err(StartError::Denied(denial)) => {
            println!("not started: {denial}; ask again in {:?}", denial.retry_after);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let mut acknowledgements = Vec::new();
    for step in 0..8 {
        let (read, written) = tokio::select! {
            answer = call_model(step) => answer,
            denial = run.over_limit() => {
                println!("stopped: {denial}");
                break;
            }
        };
        acknowledgements.push(emitter.emit(tokens(&tenant, "llm.prompt_tokens", read)).await?);
        acknowledgements.push(emitter.emit(tokens(&tenant, "llm.generated_tokens", written)).await?);
    }

    // Settles to the millisecond, and gives back what was held. Had the task failed: `run.fail().await`, and it would
    // be billed up to now; had this process dropped it, as well.
    let report = run.finish().await?;
    emitter.flush().await?;

    for acknowledgement in &acknowledgements {
        let stored = acknowledgement.wait().await?;
        println!("stored at {} on {}", stored.position, stored.append_time);
    }
    println!("the run took {} ms, all of them stored", report.duration_ms);
    emitter.close().await?;
    Ok(())
}
