//! Load, and what it measures: so many callers without a pause, or so many calls a second.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Calls that begin in the first part of a measurement are made, but not counted.
const RUN_UP: f64 = 0.15;

/// What one measurement found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Calls a second.
    pub(super) rate: f64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Calls that were made, counted or not.
    pub(super) total: u64,
}

/// When a measurement counts.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: Instant,
    until: Instant,
}

impl Span {
    fn of(length: Duration) -> Self {
        let begun = Instant::now();
        Self {
            from: begun + length.mul_f64(RUN_UP),
            until: begun + length,
        }
    }

    fn sample(self, latencies: &Histogram<u64>, total: u64) -> Sample {
        let quantile = |part| Duration::from_micros(latencies.value_at_quantile(part));
        let seconds = (self.until - self.from).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let rate = latencies.len() as f64 / seconds;
        Sample {
            rate,
            p50: quantile(0.5),
            p99: quantile(0.99),
            total,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order")
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// So many callers, each with its next call as soon as the last was answered.
pub(super) async fn closed<F>(
    callers: usize,
    length: Duration,
    call: impl Fn(usize) -> F + Send + Sync + 'static,
) -> anyhow::Result<Sample>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let span = Span::of(length);
    let call = Arc::new(call);
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let call = Arc::clone(&call);
        running.spawn(async move {
            let (mut latencies, mut total) = (histogram(), 0);
            loop {
                let begun = Instant::now();
                if begun >= span.until {
                    return anyhow::Ok((latencies, total));
                }
                call(caller).await?;
                total += 1;
                let ended = Instant::now();
                if ended >= span.from && ended < span.until {
                    latencies.saturating_record(micros(ended - begun));
                }
            }
        });
    }
    let (mut all, mut total) = (histogram(), 0);
    while let Some(ended) = running.join_next().await {
        let (latencies, made) = ended??;
        all.add(latencies)?;
        total += made;
    }
    Ok(span.sample(&all, total))
}

/// So many calls a second, whether or not earlier ones were answered; a call's time counts from the
/// moment it was due.
pub(super) async fn open<F>(
    rate: f64,
    length: Duration,
    call: impl Fn(usize) -> F + Send + Sync + 'static,
) -> anyhow::Result<Sample>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let span = Span::of(length);
    let (tell, mut due) = mpsc::unbounded_channel();
    let clock = thread::spawn(move || {
        let mut at = Instant::now();
        while at < span.until {
            if let Some(pause) = at.checked_duration_since(Instant::now()) {
                thread::sleep(pause);
            }
            if tell.send(at).is_err() {
                return;
            }
            // As arrivals of many strangers are: at random.
            let drawn: f64 = rand::random();
            at += Duration::from_secs_f64(-(1.0 - drawn).ln() / rate);
        }
    });
    let mut running: JoinSet<anyhow::Result<Option<Duration>>> = JoinSet::new();
    let mut latencies = histogram();
    let mut number = 0;
    loop {
        tokio::select! {
            at = due.recv() => {
                let Some(at) = at else { break };
                let calling = call(number);
                number += 1;
                running.spawn(async move {
                    calling.await?;
                    Ok((at >= span.from).then(|| at.elapsed()))
                });
            }
            Some(ended) = running.join_next() => {
                if let Some(latency) = ended?? {
                    latencies.saturating_record(micros(latency));
                }
            }
        }
    }
    while let Some(ended) = running.join_next().await {
        if let Some(latency) = ended?? {
            latencies.saturating_record(micros(latency));
        }
    }
    let clock = clock.join();
    clock.ok().context("the clock stopped")?;
    Ok(span.sample(&latencies, u64::try_from(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn callers_are_counted_and_timed() {
        let length = Duration::from_millis(300);
        let call = |_| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(())
        };
        let sample = closed(4, length, call).await.unwrap();
        assert!(
            sample.rate > 0.0 && sample.p50 >= Duration::from_millis(10),
            "{sample:?}"
        );
        assert!(sample.rate < 401.0, "{sample:?}");
        let sample = open(200.0, length, call).await.unwrap();
        assert!(
            sample.rate > 0.0 && sample.p99 >= Duration::from_millis(10),
            "{sample:?}"
        );
    }

    #[tokio::test]
    async fn a_call_that_fails_ends_the_measurement() {
        let call = |_| async { anyhow::bail!("refused") };
        let failed = closed(2, Duration::from_secs(1), call).await;
        assert_eq!(failed.unwrap_err().to_string(), "refused");
    }
}
