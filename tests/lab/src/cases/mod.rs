//! The end-to-end tests, one for each promise of the product.

mod capacity;
mod connectivity;
mod dhcp;
mod events;
mod fabric;
mod headless;
pub(crate) mod linux_vtep;
mod mtu;
mod openstack;
mod openstack_traffic;
mod operate;
mod reboot;
mod refusals;
mod routing;
mod spoofing;
mod stateful;
mod table_v;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::artifacts::Artifacts;
use crate::process::tail;

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
    run: fn(&Context) -> Result<()>,
}

const CASES: &[Case] = &[
    Case {
        name: "fabric",
        shows: "the lab's own switches forward and isolate as a data centre's do",
        run: fabric::run,
    },
    Case {
        name: "connectivity",
        shows: "VMs of a network reach each other on one NVE and across; networks stay apart",
        run: connectivity::run,
    },
    Case {
        name: "wire",
        shows: "a third-party decoder agrees with every header on trunk and underlay",
        run: wire::run,
    },
    Case {
        name: "third-party-vtep",
        shows: "a Linux vxlan device exchanges ping and TCP with a VM behind an NVE",
        run: linux_vtep::run,
    },
    Case {
        name: "openstack",
        shows: "openstacksdk manages networks, subnets and ports, unmodified",
        run: openstack::run,
    },
    Case {
        name: "operate",
        shows: "nvectl, metrics and the API's description say what is there",
        run: operate::run,
    },
    Case {
        name: "events",
        shows: "lifecycle events change forwarding; wrong requests are refused and change nothing",
        run: events::run,
    },
    Case {
        name: "reboot",
        shows: "an NVE that is killed forwards again without an operator",
        run: reboot::run,
    },
    Case {
        name: "headless",
        shows: "traffic goes on without the shim, which takes up where it was",
        run: headless::run,
    },
    Case {
        name: "refusals",
        shows: "unknown keys and garbage are refused, logged, and cost only their connection",
        run: refusals::run,
    },
    Case {
        name: "table-v-lifecycle",
        shows: "cloud management, SDN and hypervisors respond to each other's lifecycle events",
        run: table_v::lifecycle::run,
    },
    Case {
        name: "table-v-same-subnet",
        shows: "VMs of a subnet communicate, on one NVE and across NVEs",
        run: table_v::communication::in_a_subnet,
    },
    Case {
        name: "table-v-across-subnets",
        shows: "VMs of subnets with a router between them communicate, on one NVE and across",
        run: table_v::communication::across_subnets,
    },
    Case {
        name: "table-v-port-security-group",
        shows: "a port is added to a security group and removed from it",
        run: table_v::groups::membership,
    },
    Case {
        name: "table-v-protocols",
        shows: "security groups tell TCP, UDP, ICMP, ICMPv6 and other protocols apart",
        run: table_v::groups::protocols,
    },
    Case {
        name: "table-v-bandwidth",
        shows: "a port's upstream and downstream bandwidth is limited as asked",
        run: table_v::bandwidth::run,
    },
    Case {
        name: "table-v-property-migration",
        shows: "ports, subnets and networks are the same after a VM was moved",
        run: table_v::migration::properties,
    },
    Case {
        name: "table-v-policy-migration",
        shows: "security groups and QoS are the same after a VM was moved",
        run: table_v::migration::policies,
    },
    Case {
        name: "openstack-traffic",
        shows: "traffic obeys openstacksdk's calls within a second of their return",
        run: openstack_traffic::run,
    },
    Case {
        name: "dhcp",
        shows: "guests' own clients are configured by DHCP, DHCPv6 and router advertisements",
        run: dhcp::run,
    },
    Case {
        name: "spoofing",
        shows: "what a VM sends as someone else is dropped and counted",
        run: spoofing::run,
    },
    Case {
        name: "stateful",
        shows: "answers pass; a rule that goes takes its connections with it",
        run: stateful::run,
    },
    Case {
        name: "routing",
        shows: "a router answers, counts hops, tells what is unreachable, and takes routes",
        run: routing::run,
    },
    Case {
        name: "mtu",
        shows: "senders learn the MTU of a way, and what may be fragmented is",
        run: mtu::run,
    },
    Case {
        name: "capacity",
        shows: "4,094 VAPs and 100,000 remote MACs fit 64 MiB and are synchronized in time",
        run: capacity::run,
    },
];

/// Runs the tests whose names contain `filter`, with logs under `dir`; whether
/// all passed. The last line counts them.
pub fn run(filter: &str, dir: &Path) -> Result<bool> {
    let artifacts = Artifacts::find()?;
    let (mut passed, mut failed) = (0, 0);
    for case in CASES.iter().filter(|case| case.name.contains(filter)) {
        println!("test {}: {}", case.name, case.shows);
        let context = Context {
            dir: dir.join(case.name),
            artifacts: artifacts.clone(),
        };
        let start = Instant::now();
        let outcome = (case.run)(&context);
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("test {}: ok ({seconds:.1} s)", case.name);
            }
            Err(error) => {
                failed += 1;
                println!("test {}: FAILED ({seconds:.1} s): {error:#}", case.name);
                print_logs(&context.dir)?;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
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
