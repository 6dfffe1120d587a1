//! Bandwidth limits of a port, upstream and downstream.

use std::fmt;
use std::net::IpAddr;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Context, addresses};
use crate::site::Site;
use crate::throughput::{self, Load};

/// Limits upstream (from the VM) and downstream, in kbit/s of Ethernet frames.
pub(super) const UPSTREAM: u64 = 8_000;
pub(super) const DOWNSTREAM: u64 = 4_000;

/// Largest error.
const TOLERANCE: f64 = 0.02;

/// How often a rate that falls short is measured again.
const AGAIN: usize = 2;

/// How long a rate is measured, in seconds. TCP is now above the limit and now below
/// it, by what its bucket saves of it meanwhile, up to what 0.8 s give: it takes a
/// while until that is little beside the rest.
const TCP_SECONDS: u32 = 30;
const UDP_SECONDS: u32 = 5;

/// Bytes of an Ethernet header without a VLAN tag.
const ETHERNET: u16 = 14;

/// Where the other end of a limited VM's traffic is: in words, its network, its
/// hypervisor's number. The limited VM is in network red on the first one.
const PLACES: [(&str, &str, usize); 3] = [
    ("on one NVE", "red", 0),
    ("across NVEs", "red", 1),
    ("across, routed", "green", 1),
];

/// Which way the traffic goes, seen from the limited VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Upstream,
    Downstream,
}

/// What is measured between a limited VM and its peer, one direction after the other.
#[derive(Debug)]
pub(super) struct Lane {
    /// Where the peer is.
    pub(super) place: &'static str,
    /// Name of the limited VM.
    pub(super) limited: String,
    /// Name of its peer, to which nobody else sends.
    pub(super) peer: String,
    /// By IPv6.
    pub(super) ip6: bool,
    /// By UDP, at one and a half times the limit; or else by TCP.
    pub(super) udp: bool,
    /// For how many seconds.
    pub(super) seconds: u32,
    /// Which ways.
    pub(super) directions: &'static [Direction],
}

/// A line of the table.
pub(super) struct Measured {
    place: &'static str,
    ip6: bool,
    udp: bool,
    direction: Direction,
    asked: f64,
    got: f64,
}

/// See [`super::super::CASES`].
pub(in super::super) fn run(context: &Context) -> Result<()> {
    let mut site = Site::start(&context.dir, &context.artifacts)?;
    site.add_dual_network("red", 1)?;
    site.add_dual_network("green", 2)?;
    site.add_router("between", &["red", "green"])?;
    let policy = site.add_limits("limits", UPSTREAM, DOWNSTREAM)?;
    let mut lanes = Vec::new();
    for (place, network, host) in PLACES {
        for (ip6, udp, directions) in LOADS {
            let number = u8::try_from(lanes.len())?;
            let (limited, peer) = (format!("l{number}"), format!("p{number}"));
            site.add_vm((&limited, "red", 0, 20 + number))?;
            site.change_port(&limited, &json!({"qos_policy_id": policy}))?;
            site.add_vm((&peer, network, host, 120 + number))?;
            lanes.push(Lane {
                place,
                limited,
                peer,
                ip6,
                udp,
                seconds: if udp { UDP_SECONDS } else { TCP_SECONDS },
                directions,
            });
        }
    }
    site.await_active()?;
    hold(&measure(context, &site, &lanes, TOLERANCE)?, TOLERANCE)
}

/// By IPv6 or IPv4, by UDP or TCP, and which ways.
const LOADS: [(bool, bool, &[Direction]); 6] = [
    (false, false, &[Direction::Upstream]),
    (false, false, &[Direction::Downstream]),
    (false, true, &[Direction::Upstream, Direction::Downstream]),
    (true, false, &[Direction::Upstream]),
    (true, false, &[Direction::Downstream]),
    (true, true, &[Direction::Upstream, Direction::Downstream]),
];

/// Measures all lanes side by side, and again, one by one, what falls short of its
/// limit by more than `tolerance`: senders that wait for a processor send less than
/// they may, and that is no error of the limit. What exceeds it is final.
pub(super) fn measure(
    context: &Context,
    site: &Site,
    lanes: &[Lane],
    tolerance: f64,
) -> Result<Vec<Measured>> {
    let mut measured = side_by_side(context, site, lanes)?;
    for (lane, lines) in lanes.iter().zip(&mut measured) {
        for line in lines {
            for _ in 0..AGAIN {
                if line.got > line.asked || line.error() <= tolerance {
                    break;
                }
                println!("  {line}, again:");
                *line = lane.measure_one(context, site, line.direction)?;
            }
        }
    }
    Ok(measured.into_iter().flatten().collect())
}

/// What is measured of each lane.
fn side_by_side(context: &Context, site: &Site, lanes: &[Lane]) -> Result<Vec<Vec<Measured>>> {
    thread::scope(|scope| {
        let lanes: Vec<_> = lanes
            .iter()
            .map(|lane| scope.spawn(|| lane.measure(context, site)))
            .collect();
        let measured = lanes.into_iter().map(|lane| match lane.join() {
            Ok(measured) => measured,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        measured.collect()
    })
}

/// Prints the table, and holds that no error is larger than `tolerance`.
pub(super) fn hold(measured: &[Measured], tolerance: f64) -> Result<()> {
    println!("  where           by         direction   asked kbit/s  got kbit/s   error");
    for line in measured {
        println!("  {line}");
    }
    let worst = measured.iter().map(Measured::error).fold(0.0, f64::max);
    println!("  largest error: {:.1} %", worst * 100.0);
    ensure!(worst <= tolerance, "an error of {:.1} %", worst * 100.0);
    Ok(())
}

impl Lane {
    fn measure(&self, context: &Context, site: &Site) -> Result<Vec<Measured>> {
        let directions = self.directions.iter();
        directions
            .map(|direction| self.measure_one(context, site, *direction))
            .collect()
    }

    fn measure_one(
        &self,
        context: &Context,
        site: &Site,
        direction: Direction,
    ) -> Result<Measured> {
        let (source, target, limit) = match direction {
            Direction::Upstream => (&self.limited, &self.peer, UPSTREAM),
            Direction::Downstream => (&self.peer, &self.limited, DOWNSTREAM),
        };
        let (from, to) = (&site.guest(source)?.vm, &site.guest(target)?.vm);
        let [ip, ip6] = addresses(site.guest(target)?)?;
        let at = if self.ip6 { ip6 } else { ip };
        let load = match self.udp {
            true => Load::Udp(limit * 3 / 2),
            false => Load::Tcp,
        };
        let dir = context.dir.join(&self.limited);
        let payload = throughput::measure((&from.netns, &to.netns), at, load, self.seconds, &dir)
            .with_context(|| format!("from {source} to {target}"))?;
        #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
        let asked = limit as f64;
        Ok(Measured {
            place: self.place,
            ip6: self.ip6,
            udp: self.udp,
            direction,
            asked,
            got: payload * overhead(at, load, from.interface.mtu),
        })
    }
}

impl Measured {
    fn error(&self) -> f64 {
        (self.got - self.asked).abs() / self.asked
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.udp { "UDP" } else { "TCP" };
        let version = if self.ip6 { "IPv6" } else { "IPv4" };
        let direction = format!("{:?}", self.direction).to_lowercase();
        let Measured {
            place, asked, got, ..
        } = self;
        write!(
            f,
            "{place:16}{version} {protocol}   {direction:10}  {asked:12.0}  {got:10.0}  {:5.1} %",
            self.error() * 100.0
        )
    }
}

/// Bytes of Ethernet frames for one byte of payload.
fn overhead(at: IpAddr, load: Load, mtu: u16) -> f64 {
    let ip = if at.is_ipv6() { 40 } else { 20 };
    let (payload, headers) = match load {
        // With timestamps (RFC 7323), as Linux has it; segments are full.
        Load::Tcp => (mtu - ip - 32, ip + 32),
        Load::Udp(_) => (throughput::DATAGRAM, ip + 8),
    };
    f64::from(payload + headers + ETHERNET) / f64::from(payload)
}
