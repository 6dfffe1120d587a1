//! ping(8) at a hundred a second: when requests were sent and answers came, which did not,
//! and which came twice.
//!
//! Times are seconds since 1970, by the one clock that all of the lab has. What came twice
//! is told by its number, not by `(DUP!)`: the signal by which busybox's ping sends may
//! interrupt it where it notes an answer, and then it says so of the next one that comes.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::capture::Frames;
use crate::netns::Netns;
use crate::process::Daemon;
use crate::vm::Interface;

/// Seconds between requests, unless their sender is held up.
pub(super) const INTERVAL: f64 = 0.01;

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reply {
    /// When it came.
    pub(super) at: f64,
    /// To which request.
    pub(super) number: u64,
}

/// When requests were sent, and their numbers.
#[derive(Debug, Default)]
pub(super) struct Requests(Vec<(f64, u64)>);

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
        ping.args(["-n", "-D", "-i", &INTERVAL.to_string(), target]);
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
    rest.contains("time=").then_some(Reply {
        at: at.parse().ok()?,
        number: after(rest, "icmp_seq=")?,
    })
}

/// The number behind `mark`, if all of it and a space are there.
pub(super) fn after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    let (number, _) = rest.split_once(' ')?;
    number.parse().ok()
}

impl Requests {
    /// Those on the trunk of the hypervisor where `from` is: behind its tag.
    pub(super) fn read(frames: &Frames, from: &Interface, to: Ipv4Addr) -> Result<Requests> {
        let Interface { ip, tag, .. } = from;
        let filter =
            format!("icmp.type == 8 && vlan.id == {tag} && ip.src == {ip} && ip.dst == {to}");
        let rows = frames.fields(&filter, &["frame.time_epoch", "icmp.seq"])?;
        let requests = rows.iter().filter_map(|row| match row.as_slice() {
            [at, number] => Some((at.parse().ok()?, number.parse().ok()?)),
            _ => None,
        });
        Ok(Requests(requests.collect()))
    }

    /// Those that were sent between these times.
    pub(super) fn between(&self, from: f64, to: f64) -> Requests {
        let of = self.0.iter().filter(|(at, _)| (from..=to).contains(at));
        Requests(of.copied().collect())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The longest time, in seconds, in which all that were sent got no answer, not even
    /// a late one. While none is sent, none is lost: a sender that a loaded machine holds
    /// up adds nothing.
    pub(super) fn longest_loss(&self, replies: &Replies) -> f64 {
        let answered: HashSet<u64> = replies.0.iter().map(|reply| reply.number).collect();
        let (mut longest, mut begin) = (0.0_f64, None);
        for (at, number) in &self.0 {
            if answered.contains(number) {
                begin = None;
                continue;
            }
            longest = longest.max(at - *begin.get_or_insert(*at) + INTERVAL);
        }
        longest
    }
}

impl Replies {
    /// Those that came between these times.
    pub(super) fn between(&self, from: f64, to: f64) -> Replies {
        let of = self.0.iter().filter(|r| (from..=to).contains(&r.at));
        Replies(of.copied().collect())
    }

    /// The longest silence.
    pub(super) fn longest_gap(&self) -> Gap {
        let mut times: Vec<f64> = self.0.iter().map(|reply| reply.at).collect();
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

    /// How many requests between the first and the last answered one were not.
    pub(super) fn lost(&self) -> u64 {
        let numbers: BTreeSet<u64> = self.0.iter().map(|reply| reply.number).collect();
        let all = numbers.last().zip(numbers.first());
        let all = all.map_or(0, |(last, first)| last - first + 1);
        all.saturating_sub(numbers.len() as u64)
    }

    /// Those to requests that had been answered before.
    pub(super) fn again(&self) -> Vec<Reply> {
        let mut numbers = BTreeSet::new();
        let again = self.0.iter().filter(|reply| !numbers.insert(reply.number));
        again.copied().collect()
    }
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
        assert_eq!((replies.lost(), replies.again().len()), (2, 1));
        let gap = replies.longest_gap();
        assert_eq!(gap.end, 100.5);
        assert!((gap.length - 0.49).abs() < 1e-6);
        assert_eq!(replies.between(100.2, 200.0).lost(), 0);
        assert_eq!(Replies::default().longest_gap(), Gap::default());
    }

    #[test]
    fn only_what_was_sent_can_be_lost() {
        let replies = |numbers: &[u64]| {
            let replies = numbers.iter().map(|number| Reply {
                at: 100.0,
                number: *number,
            });
            Replies(replies.collect())
        };
        // Between the fourth and the fifth, the sender was held up.
        let sent = [1.0, 1.01, 1.02, 1.03, 1.5, 1.51];
        let requests = Requests((1..).zip(sent).map(|(number, at)| (at, number)).collect());
        let loss = |numbers| requests.longest_loss(&replies(numbers));
        assert_eq!(loss(&[1, 2, 3, 4, 5, 6]), 0.0);
        assert!((loss(&[1, 5, 6]) - 0.03).abs() < 1e-6);
        assert!((loss(&[1, 2, 3, 6]) - 0.48).abs() < 1e-6);
        assert!((loss(&[2, 3]) - 0.49).abs() < 1e-6);
        assert_eq!(requests.between(1.005, 1.4).count(), 3);
    }
}
