//! Live migration of a real guest, forth and back, while peers on both hypervisors ping
//! it, it pings one of them, and two TCP connections of it go on. Its security group lets
//! in pings and nothing else: what comes in of TCP passes as answers.
//!
//! What is lost in a row is lost in the guest's own pause and, beyond that, by the overlay,
//! until frames are forwarded to where the guest is now. QEMU measures the pause; where it
//! held the guest up before that, the guest's silence is taken, less the time in which it
//! has nothing to send. Answers are missing for longer, since a guest that was resumed
//! under translation is slow at first.
//!
//! Both connections have to go on, though the guest has no reason to send anything on the
//! one by which it only receives: the new host's NVE has to know it before. No packet is
//! delivered twice, on whichever hypervisor.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::deliveries::Deliveries;
use super::pings::{Gap, INTERVAL, Pings, Replies, Reply, Requests};
use super::stage::{GUEST, Place, Stage};
use super::timeline::{first_from, last_until, logged, now, seen};
use super::transfers::{Progress, Transfers};
use super::{Context, port_groups};
use crate::capture::{Capture, Frames};
use crate::wait;

/// Names of the hypervisors, by number.
const HOSTS: [&str; 2] = ["hv-a", "hv-b"];
/// Seconds that the overlay may lose beyond the guest's own pause.
const LIMIT: f64 = 0.050;
/// How often forth and back.
const ROUNDS: usize = 5;
/// The guest's peers, by the number of their hypervisor; the second one is the server of
/// its connections.
const PEERS: [&str; 2] = ["a1", SERVER];
const SERVER: &str = "b1";
/// Seconds that are looked at before a migration begins and after virsh(1) ended.
const BEFORE: f64 = 0.5;
const AFTER: f64 = 2.0;
/// How much each connection has to do to go on, and how long that may take.
const GOES_ON: Progress = Progress {
    uploaded: 100,
    downloaded: 64 * 1024,
};
const PATIENCE: Duration = Duration::from_secs(4);
/// How long the guest may take to open its connections.
const OPENED: Duration = Duration::from_secs(20);

/// What is watched all the time.
struct Watch {
    transfers: Arc<Transfers>,
    pings: [(&'static str, Pings); 2],
    /// Of both hypervisors' trunks.
    captures: [Capture; 2],
}

/// One migration.
struct Run {
    from: usize,
    to: usize,
    /// When it began and ended for virsh(1).
    began: f64,
    ended: f64,
    /// Seconds that the guest was paused, as QEMU says.
    paused: f64,
    /// Whether the upload and the download went on.
    go_on: [bool; 2],
}

/// See [`super::super::CASES`].
pub(in crate::cases) fn run(context: &Context) -> Result<()> {
    let server = "10.0.1.12".parse()?;
    let mut stage = Stage::set_with(context, Some(&Transfers::task(server)))?;
    admit_pings_only(&stage)?;
    port_groups::made(&mut stage)?;
    let transfers = Transfers::serve(&stage.site.guest(SERVER)?.vm.netns)?;
    stage.define(0)?;
    stage.start(0)?;
    stage.await_place(Place::InForce(0))?;
    stage.await_reach(true)?;
    let opened = || Ok(transfers.are_the_same());
    wait::until_true("the guest's connections", OPENED, opened)?;
    let watch = Watch::begin(&stage, transfers)?;
    ensure!(
        watch.goes_on()? == [true, true],
        "the connections do not go on"
    );
    let mut runs = Vec::new();
    for number in 0..2 * ROUNDS {
        let mut run = migrate(&stage, number % 2)?;
        stage.await_place(Place::InForce(run.to))?;
        let left = run.ended + AFTER - now();
        thread::sleep(Duration::from_secs_f64(left.max(0.0)));
        run.go_on = watch.goes_on()?;
        println!(
            "  migration {}: upload and download go on: {:?}",
            number + 1,
            run.go_on
        );
        runs.push(run);
    }
    report(&stage, watch, &runs)
}

/// The guest's group lets pings in, and the peers' all.
fn admit_pings_only(stage: &Stage) -> Result<()> {
    let site = &stage.site;
    let group = site.add_group("client")?;
    site.allow(&group, &json!({"protocol": "icmp"}))?;
    stage.change_port(&json!({"security_groups": [group]}))?;
    PEERS.into_iter().try_for_each(|peer| site.open(peer))
}

fn migrate(stage: &Stage, from: usize) -> Result<Run> {
    let to = 1 - from;
    let began = now();
    stage.migrate(from, to, &["--live"])?;
    let ended = now();
    let stats = stage
        .host(to)?
        .virsh(&["domjobinfo", GUEST, "--completed"])?;
    let paused = downtime(&stats).with_context(|| format!("no downtime in {stats}"))?;
    Ok(Run {
        from,
        to,
        began,
        ended,
        paused,
        go_on: [false; 2],
    })
}

/// Of a line such as `Total downtime:   141          ms`, in seconds.
fn downtime(stats: &str) -> Option<f64> {
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("Total downtime:"))?;
    let millis: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(millis / 1000.0)
}

impl Watch {
    fn begin(stage: &Stage, transfers: Arc<Transfers>) -> Result<Watch> {
        let target = stage.interface.ip.to_string();
        let ping = |name: &'static str| -> Result<_> {
            let netns = &stage.site.guest(name)?.vm.netns;
            Ok((name, Pings::start(name, netns, &target, &stage.dir)?))
        };
        let capture = |host: usize| {
            let lab = &stage.site.lab;
            let host = lab.hypervisors.get(host).context("no such host")?;
            Capture::start(lab.fabric.netns(), &host.ports.trunk, &stage.dir)
        };
        let [one, other] = PEERS;
        Ok(Watch {
            transfers,
            captures: [capture(0)?, capture(1)?],
            pings: [ping(one)?, ping(other)?],
        })
    }

    /// Waits until both connections have gone on, or are not going to; whether each has.
    fn goes_on(&self) -> Result<[bool; 2]> {
        let before = self.transfers.progress();
        let begun = Instant::now();
        loop {
            ensure!(self.transfers.are_the_same(), "a connection is another one");
            let now = self.transfers.progress();
            let go_on = [
                now.uploaded >= before.uploaded + GOES_ON.uploaded,
                now.downloaded >= before.downloaded + GOES_ON.downloaded,
            ];
            if go_on == [true; 2] || begun.elapsed() > PATIENCE {
                return Ok(go_on);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Frames of the guest on the trunk of a hypervisor.
struct Trunk {
    /// QEMU tells switches where the guest is.
    announced: Vec<f64>,
    /// The guest sends IPv4.
    sent: Vec<f64>,
}

impl Trunk {
    fn read(stage: &Stage, frames: &Frames) -> Result<Trunk> {
        let (mac, tag) = (&stage.interface.mac, stage.interface.tag);
        let of_type = |kind: &str| {
            let filter = format!("eth.src == {mac} && vlan.id == {tag} && vlan.etype == {kind}");
            seen(frames, &filter)
        };
        Ok(Trunk {
            announced: of_type("0x8035")?,
            sent: of_type("0x0800")?,
        })
    }
}

/// What the captures of both trunks have.
#[derive(Default)]
struct Seen {
    trunks: Vec<Trunk>,
    /// Of the peers, as in [`PEERS`].
    requests: Vec<Requests>,
    deliveries: Deliveries,
}

impl Seen {
    fn read(stage: &Stage, captures: [Capture; 2]) -> Result<Seen> {
        let mut seen = Seen::default();
        let peers = PEERS.map(|peer| stage.site.guest(peer).map(|guest| &guest.vm.interface));
        let [one, other] = peers;
        let (one, other) = (one?, other?);
        let stations = [&stage.interface, one, other];
        for (capture, peer) in captures.into_iter().zip([one, other]) {
            let frames = capture.stop()?;
            let requests = Requests::read(&frames, peer, stage.interface.ip)?;
            seen.requests.push(requests);
            seen.trunks.push(Trunk::read(stage, &frames)?);
            seen.deliveries.read(&stations, &frames)?;
        }
        Ok(seen)
    }
}

/// Prints each run, and holds what has to be.
fn report(stage: &Stage, watch: Watch, runs: &[Run]) -> Result<()> {
    let Watch {
        transfers,
        pings,
        captures,
    } = watch;
    let seen = Seen::read(stage, captures)?;
    let mut most: f64 = 0.0;
    for (number, run) in runs.iter().enumerate() {
        println!("  migration {}: {run}", number + 1);
        let pause = run.pause(&seen.trunks);
        let mut answered = f64::MAX;
        for ((name, pings), requests) in pings.iter().zip(&seen.requests) {
            let (first, loss) = run.pinged(name, pings, requests, pause)?;
            answered = answered.min(first);
            most = most.max(loss);
        }
        let (from, to) = run.window();
        let gap = transfers.replies().between(from, to).longest_gap();
        println!(
            "    the guest: {:.0} ms without an answer",
            gap.length * 1e3
        );
        print_steps(&stage.dir, run, &seen.trunks, answered)?;
    }
    let mut answers = vec![("the guest", transfers.replies())];
    for (name, pings) in &pings {
        answers.push((name, pings.replies()?));
    }
    ensure_once(&seen.deliveries, &answers)?;
    ensure!(
        runs.iter().all(|run| run.go_on == [true; 2]),
        "a connection did not go on"
    );
    ensure!(
        most <= LIMIT,
        "{:.0} ms were lost beyond a pause",
        most * 1e3
    );
    Ok(())
}

/// Prints what was delivered or answered twice, and fails if anything was.
fn ensure_once(deliveries: &Deliveries, answers: &[(&str, Replies)]) -> Result<()> {
    let (delivered, twice) = (deliveries.count(), deliveries.repeated());
    println!(
        "  {delivered} packets were delivered, {} of them twice",
        twice.len()
    );
    twice.iter().for_each(|packet| println!("    {packet}"));
    let mut repeated = 0;
    for (name, replies) in answers {
        for Reply { at, number } in replies.again() {
            println!("  {name} got answer {number} again at {at:.3}");
            repeated += 1;
        }
    }
    ensure!(delivered > 0, "the captures are empty");
    ensure!(twice.is_empty(), "{} were delivered twice", twice.len());
    ensure!(repeated == 0, "{repeated} answers came twice");
    Ok(())
}

impl Display for Run {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let host = |host: usize| HOSTS.get(host).copied().unwrap_or_default();
        write!(
            f,
            "{} to {}, {:.1} s; the guest paused for {:.0} ms",
            host(self.from),
            host(self.to),
            self.ended - self.began,
            self.paused * 1e3,
        )
    }
}

impl Run {
    /// The time that is looked at.
    fn window(&self) -> (f64, f64) {
        (self.began - BEFORE, self.ended + AFTER)
    }

    /// Seconds that the guest was paused: as QEMU says, or, from its last packet at the
    /// source until it was heard at the destination, for certain.
    fn pause(&self, trunks: &[Trunk]) -> f64 {
        let silence = || {
            let (source, target) = (trunks.get(self.from)?, trunks.get(self.to)?);
            let heard = [&target.announced, &target.sent];
            let heard = heard.map(|times| first_from(times, self.began));
            let heard = heard.into_iter().flatten().reduce(f64::min)?;
            Some(heard - last_until(&source.sent, heard)? - INTERVAL)
        };
        self.paused.max(silence().unwrap_or_default())
    }

    /// Prints what became of a peer's pings; when answers came again, and the seconds
    /// that were lost in a row beyond the guest's pause.
    fn pinged(
        &self,
        name: &str,
        pings: &Pings,
        requests: &Requests,
        pause: f64,
    ) -> Result<(f64, f64)> {
        let (from, to) = self.window();
        let (all, requests) = (pings.replies()?, requests.between(from, to));
        let replies = all.between(from, to);
        let last = replies.0.last().map_or(0.0, |reply| reply.at);
        ensure!(last > to - BEFORE, "{name} got no answers afterwards");
        ensure!(requests.count() > 0, "no request of {name} was captured");
        let Gap { end, length } = replies.longest_gap();
        let loss = requests.longest_loss(&all) - pause;
        println!(
            "    {name}: {:.0} ms without an answer; {:.0} ms lost beyond a pause of {:.0} ms; \
             {} lost, {} twice",
            length * 1e3,
            loss * 1e3,
            pause * 1e3,
            replies.lost(),
            replies.again().len(),
        );
        Ok((end, loss))
    }
}

/// Prints when what happened, from the guest's first packet at the destination on.
fn print_steps(dir: &Path, run: &Run, trunks: &[Trunk], answered: f64) -> Result<()> {
    let (Some(source), Some(target)) = (trunks.get(run.from), trunks.get(run.to)) else {
        return Ok(());
    };
    let Some(zero) = first_from(&target.sent, run.began) else {
        println!("    the guest was silent");
        return Ok(());
    };
    let in_log = |log: &str, words: &[&str]| -> Result<Option<f64>> {
        Ok(first_from(&logged(&dir.join(log), words)?, run.began))
    };
    let to = HOSTS.get(run.to).copied().unwrap_or_default();
    let finish = "livemigratefinish";
    let taken = in_log("serve.log", &["lifecycle event", finish])?;
    let applied = |nve: &str| -> Result<Option<f64>> {
        let times = logged(&dir.join("serve.log"), &["applied", nve])?;
        Ok(first_from(&times, taken.unwrap_or(zero) - 0.05))
    };
    let steps = [
        ("last packet at the source", last_until(&source.sent, zero)),
        ("announced", first_from(&target.announced, run.began)),
        ("first packet", Some(zero)),
        (
            "last event of libvirt heard",
            last_until(
                &logged(&dir.join("libvirt.log"), &["libvirt tells", to])?,
                run.ended + AFTER,
            ),
        ),
        ("event told", in_log("libvirt.log", &[": event ", finish])?),
        ("event taken", taken),
        ("in force at nve-a", applied("nve-a")?),
        ("in force at nve-b", applied("nve-b")?),
        ("first answer at a peer", Some(answered)),
    ];
    let steps = steps.map(|(what, at)| match at {
        Some(at) => format!("{what} {:+.1}", (at - zero) * 1e3),
        None => format!("{what} never"),
    });
    println!("    ms: {}", steps.join(", "));
    Ok(())
}
