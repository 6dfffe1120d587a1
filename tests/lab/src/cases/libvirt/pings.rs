//! ping(8) at a hundred a second: when answers came, which did not, and which came twice.
//!
//! Times are seconds since 1970, by the one clock that all of the lab has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::netns::Netns;
use crate::process::Daemon;

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reply {
    /// When it came.
    pub(super) at: f64,
    /// When the request was sent, as far as that is known.
    pub(super) sent: f64,
    /// To which request.
    pub(super) number: u64,
    /// It was not the first one to that.
    pub(super) again: bool,
}

/// Answers in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Replies(pub(super) Vec<Reply>);

/// A silence between two answers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Gap {
    /// When the answer behind it came.
    pub(super) end: f64,
    /// Seconds.
    pub(super) length: f64,
}

/// A ping that goes on until it is dropped.
#[derive(Debug)]
pub(super) struct Pings {
    _ping: Daemon,
    log: PathBuf,
}

impl Pings {
    /// From `netns`, which is called `name`, to `target`.
    pub(super) fn start(name: &str, netns: &Netns, target: &str, dir: &Path) -> Result<Pings> {
        let log = dir.join(format!("{name}.ping"));
        let mut ping = Command::new("ping");
        ping.args(["-n", "-D", "-i", "0.01", target]);
        let daemon = Daemon::spawn("ping", netns, &mut ping, &log)?;
        Ok(Pings { _ping: daemon, log })
    }

    /// The answers until now.
    pub(super) fn replies(&self) -> Result<Replies> {
        let text = fs::read_to_string(&self.log)?;
        Ok(Replies(text.lines().filter_map(reply).collect()))
    }
}

/// A line such as `[1700000000.123456] 64 bytes from 10.0.1.21: icmp_seq=1 ttl=64 …`.
fn reply(line: &str) -> Option<Reply> {
    let (at, rest) = line.strip_prefix('[')?.split_once(']')?;
    let at: f64 = at.parse().ok()?;
    let (_, taken) = rest.split_once("time=")?;
    let millis: f64 = taken.split_once(' ')?.0.parse().ok()?;
    Some(Reply {
        at,
        sent: at - millis / 1000.0,
        number: after(rest, "icmp_seq=")?,
        again: rest.contains("DUP!"),
    })
}

/// The number behind `mark`, if all of it and a space are there.
pub(super) fn after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    let (number, _) = rest.split_once(' ')?;
    number.parse().ok()
}

impl Replies {
    /// Those that came between these times.
    pub(super) fn between(&self, from: f64, to: f64) -> Replies {
        let of = self.0.iter().filter(|r| (from..=to).contains(&r.at));
        Replies(of.copied().collect())
    }

    /// The longest silence.
    pub(super) fn longest_gap(&self) -> Gap {
        longest(self.0.iter().map(|reply| reply.at).collect())
    }

    /// The longest time in which no request was sent that was answered, be it late: what
    /// was lost in a row.
    pub(super) fn longest_loss(&self) -> Gap {
        longest(self.0.iter().map(|reply| reply.sent).collect())
    }

    /// How many requests between the first and the last answered one were not.
    pub(super) fn lost(&self) -> u64 {
        let numbers = self.0.iter().filter(|r| !r.again).map(|r| r.number);
        let (first, last) = (numbers.clone().min(), numbers.clone().max());
        let all = last.zip(first).map_or(0, |(last, first)| last - first + 1);
        all.saturating_sub(numbers.count() as u64)
    }

    /// How many came more than once.
    pub(super) fn again(&self) -> usize {
        self.0.iter().filter(|reply| reply.again).count()
    }
}

fn longest(mut times: Vec<f64>) -> Gap {
    times.sort_by(f64::total_cmp);
    let gaps = times.windows(2).filter_map(|pair| match pair {
        [begin, end] => Some(Gap {
            end: *end,
            length: end - begin,
        }),
        _ => None,
    });
    let longest = gaps.max_by(|a, b| a.length.total_cmp(&b.length));
    longest.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_losses_and_repetitions_are_found() {
        let text = "PING 10.0.1.21 (10.0.1.21) 56(84) bytes of data.\n\
            [100.00] 64 bytes from 10.0.1.21: icmp_seq=1 ttl=64 time=1.0 ms\n\
            [100.01] 64 bytes from 10.0.1.21: icmp_seq=2 ttl=64 time=1.0 ms\n\
            [100.50] 64 bytes from 10.0.1.21: icmp_seq=5 ttl=64 time=201 ms\n\
            [100.51] 64 bytes from 10.0.1.21: icmp_seq=5 ttl=64 time=210 ms (DUP!)\n\
            [100.52] 64 bytes from 10.0.1.21: icmp_s";
        let replies = Replies(text.lines().filter_map(reply).collect());
        assert_eq!(replies.0.len(), 4);
        assert_eq!((replies.lost(), replies.again()), (2, 1));
        let gap = replies.longest_gap();
        assert_eq!(gap.end, 100.5);
        assert!((gap.length - 0.49).abs() < 1e-6);
        let loss = replies.longest_loss();
        assert!((loss.length - 0.29).abs() < 1e-6, "{loss:?}");
        assert_eq!(replies.between(100.2, 200.0).lost(), 0);
        assert_eq!(Replies::default().longest_gap(), Gap::default());
    }
}
