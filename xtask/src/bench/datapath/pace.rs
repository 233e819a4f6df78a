use std::time::{Duration, Instant};

use anyhow::Result;

use super::arrivals::PARTS;
use crate::bench::statistics::Summary;

/// Repetitions between two looks at the clock.
const TURN: u32 = 10;

/// Does something again and again: how often in a second, in the middle one of the parts of the time, and how often in all.
pub(super) fn steady_rate(time: Duration, mut work: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    let (mut rates, mut total) = (Vec::new(), 0);
    for _ in 0..PARTS {
        let (start, mut count) = (Instant::now(), 0);
        let elapsed = loop {
            (0..TURN).try_for_each(|_| work())?;
            count += TURN;
            let elapsed = start.elapsed();
            if elapsed >= time / PARTS {
                break elapsed;
            }
        };
        rates.push(f64::from(count) / elapsed.as_secs_f64());
        total += count;
    }
    Ok((Summary::of(&rates).median, f64::from(total)))
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn the_rate_is_that_of_most_of_the_time_and_every_repetition_is_counted() {
        let mut calls = 0;
        let (rate, count) = steady_rate(Duration::from_millis(90), || {
            calls += 1;
            // Once far longer than a part of the time.
            sleep(Duration::from_millis(if calls == 15 { 100 } else { 1 }));
            Ok(())
        })
        .unwrap();
        assert!(count.total_cmp(&f64::from(calls)).is_eq());
        assert!((300.0..1_000.0).contains(&rate), "{rate} calls of a millisecond in a second");
    }
}
