//! Waiting for a condition, with a line of progress when it takes long.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a wait stays silent.
const SILENT: Duration = Duration::from_secs(2);

/// Between two looks at the condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// Calls `ready` until it returns something, and returns that. Fails when `ready`
/// does, or after `timeout`. `what` completes the sentence "waiting for ...".
pub fn until<T>(
    what: &str,
    timeout: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut next_line = SILENT;
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        let waited = start.elapsed();
        if waited >= timeout {
            bail!("waited {} s in vain for {what}", timeout.as_secs());
        }
        if waited >= next_line {
            println!("  waiting for {what} ({} s)", waited.as_secs());
            next_line += Duration::from_secs(5);
        }
        thread::sleep(INTERVAL);
    }
}

/// [`until`] for a condition without a value.
pub fn until_true(
    what: &str,
    timeout: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, timeout, || Ok(ready()?.then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_value_once_there_is_one() {
        let mut calls = 0;
        let value = until("a third call", Duration::from_secs(5), || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_timeout_says_what_did_not_happen() {
        let error = until_true("rain", Duration::ZERO, || Ok(false)).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s in vain for rain");
    }
}
