//! When what happened in a migration: of daemons by their logs, of the guest by the
//! frames on its hypervisors' trunks.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::capture::Frames;

const DAY: f64 = 86_400.0;

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Lines of a daemon's log that contain all of `words`, as when they were written.
pub(super) fn logged(log: &Path, words: &[&str]) -> Result<Vec<f64>> {
    let text = fs::read_to_string(log)?;
    let today = (now() / DAY).floor() * DAY;
    let lines = text
        .lines()
        .filter(|line| words.iter().all(|word| line.contains(word)));
    Ok(lines
        .filter_map(|line| Some(today + time_of_day(line)?))
        .collect())
}

/// Seconds since midnight of a line that begins like `2026-01-01T12:00:00.123456Z`.
fn time_of_day(line: &str) -> Option<f64> {
    let time = line.split_once('T')?.1.split_once('Z')?.0;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let mut part = || parts.next()?.ok();
    Some(part()? * 3600.0 + part()? * 60.0 + part()?)
}

/// When frames that match `filter` were on a cable.
pub(super) fn seen(frames: &Frames, filter: &str) -> Result<Vec<f64>> {
    let times = frames.fields(filter, &["frame.time_epoch"])?;
    let times = times.iter().flatten();
    Ok(times.filter_map(|time| time.parse().ok()).collect())
}

/// The first of `times` from `from` on.
pub(super) fn first_from(times: &[f64], from: f64) -> Option<f64> {
    times
        .iter()
        .copied()
        .filter(|at| *at >= from)
        .reduce(f64::min)
}

/// The last of `times` until `to`.
pub(super) fn last_until(times: &[f64], to: f64) -> Option<f64> {
    times
        .iter()
        .copied()
        .filter(|at| *at <= to)
        .reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_when_they_were_written() {
        let line = "2026-01-01T12:01:02.500000Z  INFO shim: lifecycle event";
        assert_eq!(time_of_day(line), Some(43_262.5));
        assert_eq!(time_of_day("To whom it may concern"), None);
        assert_eq!(first_from(&[1.0, 3.0, 2.0], 1.5), Some(2.0));
        assert_eq!(last_until(&[1.0, 3.0, 2.0], 2.5), Some(2.0));
        assert_eq!(first_from(&[], 0.0), None);
    }
}
