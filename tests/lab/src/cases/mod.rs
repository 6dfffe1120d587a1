//! The end-to-end tests, one for each promise of the product.

mod bulk;
mod capacity;
mod connectivity;
mod dhcp;
mod events;
mod fabric;
mod headless;
mod libvirt;
pub(crate) mod linux_vtep;
mod mtu;
mod openstack;
mod openstack_traffic;
mod operate;
mod processors;
mod reboot;
mod refusals;
mod routing;
mod schedule;
mod spoofing;
mod stateful;
mod table_v;
mod trace;
mod underlay6;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::artifacts::Artifacts;
use crate::process::tail;
use crate::qemu::Accelerator;

/// What a test gets.
#[derive(Debug)]
struct Context {
    /// A directory of its own, for logs and captures.
    dir: PathBuf,
    /// The programs under test.
    artifacts: Artifacts,
}

impl Context {
    /// The same with a directory of its own, for a part of the test.
    fn part(&self, name: &str) -> Context {
        Context {
            dir: self.dir.join(name),
            artifacts: self.artifacts.clone(),
        }
    }
}

/// A test: what it shows, and how.
struct Case {
    name: &'static str,
    shows: &'static str,
    /// It measures rates or times, or takes all of the machine: nothing may run
    /// beside it.
    alone: bool,
    run: fn(&Context) -> Result<()>,
}

const CASES: &[Case] = &[
    Case {
        name: "fabric",
        shows: "the lab's own switches forward and isolate as a data centre's do",
        alone: false,
        run: fabric::run,
    },
    Case {
        name: "connectivity",
        shows: "VMs of a network reach each other on one NVE and across; networks stay apart",
        alone: false,
        run: connectivity::run,
    },
    Case {
        name: "processors",
        shows: "appliances with four processors share the work and forward as with one",
        alone: false,
        run: processors::run,
    },
    Case {
        name: "wire",
        shows: "a third-party decoder agrees with every header on trunk and underlay",
        alone: false,
        run: wire::run,
    },
    Case {
        name: "underlay6",
        shows: "NVEs with IPv6 VTEPs carry full packets, and a decoder agrees with the headers",
        alone: false,
        run: underlay6::run,
    },
    Case {
        name: "third-party-vtep",
        shows: "a Linux vxlan device exchanges ping and TCP with a VM behind an NVE",
        alone: false,
        run: linux_vtep::run,
    },
    Case {
        name: "openstack",
        shows: "openstacksdk manages networks, subnets and ports, unmodified",
        alone: false,
        run: openstack::run,
    },
    Case {
        name: "operate",
        shows: "nvectl, metrics and the API's description say what is there",
        alone: false,
        run: operate::run,
    },
    Case {
        name: "events",
        shows: "lifecycle events change forwarding; wrong requests are refused and change nothing",
        alone: false,
        run: events::run,
    },
    Case {
        name: "libvirt",
        shows: "what virsh does to guests arrives as the eleven events and changes forwarding",
        alone: false,
        run: libvirt::run,
    },
    Case {
        name: "libvirt-live-migration",
        shows: "pings and TCP connections of a real guest go on when it is live-migrated",
        alone: true,
        run: libvirt::migration::run,
    },
    Case {
        name: "reboot",
        shows: "an NVE that is killed forwards again without an operator",
        alone: false,
        run: reboot::run,
    },
    Case {
        name: "headless",
        shows: "traffic goes on without the shim, which takes up where it was",
        alone: false,
        run: headless::run,
    },
    Case {
        name: "refusals",
        shows: "unknown keys and garbage are refused, logged, and cost only their connection",
        alone: false,
        run: refusals::run,
    },
    Case {
        name: "table-v-lifecycle",
        shows: "cloud management, SDN and hypervisors respond to each other's lifecycle events",
        alone: false,
        run: table_v::lifecycle::run,
    },
    Case {
        name: "table-v-same-subnet",
        shows: "VMs of a subnet communicate, on one NVE and across NVEs",
        alone: false,
        run: table_v::communication::in_a_subnet,
    },
    Case {
        name: "table-v-across-subnets",
        shows: "VMs of subnets with a router between them communicate, on one NVE and across",
        alone: false,
        run: table_v::communication::across_subnets,
    },
    Case {
        name: "table-v-port-security-group",
        shows: "a port is added to a security group and removed from it",
        alone: false,
        run: table_v::groups::membership,
    },
    Case {
        name: "table-v-protocols",
        shows: "security groups tell TCP, UDP, ICMP, ICMPv6 and other protocols apart",
        alone: false,
        run: table_v::groups::protocols,
    },
    Case {
        name: "table-v-bandwidth",
        shows: "a port's upstream and downstream bandwidth is limited as asked",
        alone: true,
        run: table_v::bandwidth::run,
    },
    Case {
        name: "table-v-property-migration",
        shows: "ports, subnets and networks are the same after a VM was moved",
        alone: false,
        run: table_v::migration::properties,
    },
    Case {
        name: "table-v-policy-migration",
        shows: "security groups and QoS are the same after a VM was moved",
        alone: true,
        run: table_v::migration::policies,
    },
    Case {
        name: "openstack-traffic",
        shows: "traffic obeys openstacksdk's calls within a second of their return",
        alone: true,
        run: openstack_traffic::run,
    },
    Case {
        name: "dhcp",
        shows: "guests' own clients are configured by DHCP, DHCPv6 and router advertisements",
        alone: false,
        run: dhcp::run,
    },
    Case {
        name: "spoofing",
        shows: "what a VM sends as someone else is dropped and counted",
        alone: false,
        run: spoofing::run,
    },
    Case {
        name: "stateful",
        shows: "answers pass; a rule that goes takes its connections with it",
        alone: false,
        run: stateful::run,
    },
    Case {
        name: "routing",
        shows: "a router answers, counts hops, tells what is unreachable, and takes routes",
        alone: false,
        run: routing::run,
    },
    Case {
        name: "mtu",
        shows: "senders learn the MTU of a way, and what may be fragmented is",
        alone: false,
        run: mtu::run,
    },
    Case {
        name: "bulk-tcp",
        shows: "bulk TCP arrives by large frames on one NVE, and in segments across NVEs",
        alone: true,
        run: bulk::run,
    },
    Case {
        name: "trace",
        shows: "a trace, drops, flows and captures say why a packet does or does not arrive",
        alone: false,
        run: trace::run,
    },
    Case {
        name: "capacity",
        shows: "4,094 VAPs and 100,000 remote MACs fit 64 MiB and are synchronized in time",
        alone: true,
        run: capacity::run,
    },
];

/// Runs the tests whose names contain `filter`, with logs under `dir`; whether
/// all passed. The last lines name those that failed, and count.
pub fn run(filter: &str, dir: &Path) -> Result<bool> {
    let artifacts = Artifacts::find()?;
    let (accelerator, why) = Accelerator::choose(&artifacts.image, dir)?;
    println!("accelerator: {} ({why})", accelerator.name());
    let chosen = CASES.iter().filter(|case| case.name.contains(filter));
    let chosen: Vec<&Case> = chosen.collect();
    ensure!(!chosen.is_empty(), "no test's name contains {filter:?}");
    let outcomes = match chosen.as_slice() {
        // To be watched while it runs.
        [case] => vec![run_here(case, dir, artifacts)?],
        _ => schedule::run(&chosen, dir, accelerator)?,
    };
    let failures: Vec<&String> = outcomes.iter().flatten().collect();
    for failure in &failures {
        println!("{failure}");
    }
    let passed = outcomes.len() - failures.len();
    println!("{passed} passed, {} failed", failures.len());
    Ok(failures.is_empty())
}

/// Runs the test of that name in this process; whether it passed.
pub fn run_one(name: &str, dir: &Path) -> Result<bool> {
    let mut cases = CASES.iter();
    let case = cases.find(|case| case.name == name);
    let case = case.with_context(|| format!("there is no test {name}"))?;
    Ok(run_here(case, dir, Artifacts::find()?)?.is_none())
}

/// Runs a test in this process; the line that says why it failed, if it did.
fn run_here(case: &Case, dir: &Path, artifacts: Artifacts) -> Result<Option<String>> {
    println!("test {}: {}", case.name, case.shows);
    let dir = dir.join(case.name);
    let context = Context { dir, artifacts };
    let start = Instant::now();
    let outcome = (case.run)(&context);
    let seconds = start.elapsed().as_secs_f32();
    match outcome {
        Ok(()) => {
            println!("test {}: ok ({seconds:.1} s)", case.name);
            Ok(None)
        }
        Err(error) => {
            let failure = format!("{} ({seconds:.1} s): {error:#}", failed(case));
            println!("{failure}");
            print_logs(&context.dir)?;
            Ok(Some(failure))
        }
    }
}

/// How the line begins that says that a test failed.
fn failed(case: &Case) -> String {
    format!("test {}: FAILED", case.name)
}

/// Prints the end of every log and console in `dir`.
fn print_logs(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "log" || e == "console")
        })
        .collect();
    files.sort();
    for file in files {
        println!("  the end of {}:\n{}", file.display(), tail(&file, 30));
    }
    Ok(())
}
