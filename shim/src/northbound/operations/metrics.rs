//! `GET /metrics`: Prometheus' text format 0.0.4.

use std::fmt::{Display, Write};

use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use nve_protocol::{DropReason, NicStats, ProcessorStats, Stats};

use super::clusters::{Tags, default_cluster};
use crate::events::SubscriberStatus;
use crate::fabric::Fabric;
use crate::intent::State;
use crate::northbound::Api;
use crate::northbound::routes::{Operation, Routes, Verb};
use crate::placement::alarms::{self, Kind};
use crate::southbound::NveStatus;

pub(super) fn routes(routes: Routes) -> Routes {
    let about = Operation::new("health", "Metrics in Prometheus' text format").empty(200);
    routes.add(Verb::Get, "/metrics", about, show)
}

async fn show(Shared(api): Shared<Api>) -> impl IntoResponse {
    let statuses: Vec<SubscriberStatus> = api.managers.iter().map(|m| m.get()).collect();
    let text = render(&api.fabric, &statuses);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Metrics, family by family.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut list = String::new();
        for (label, text) in labels {
            let text = text
                .replace('\\', r"\\")
                .replace('"', r#"\""#)
                .replace('\n', r"\n");
            let comma = if list.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(list, "{comma}{label}=\"{text}\"");
        }
        match list.as_str() {
            "" => self.line(format_args!("{name} {value}")),
            list => self.line(format_args!("{name}{{{list}}} {value}")),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{line}");
    }
}

fn render(fabric: &Fabric, statuses: &[SubscriberStatus]) -> String {
    let state = fabric.controller().snapshot();
    let mut text = Text::default();
    objects(&mut text, &state);
    tags(&mut text, fabric, &state);
    work(&mut text, fabric, &state);
    managers(&mut text, statuses);
    text.family(
        "sluice_rejected_connections_total",
        "counter",
        "Connections refused, by reason.",
    );
    for (reason, count) in fabric.registry().rejections() {
        text.sample(
            "sluice_rejected_connections_total",
            &[("reason", reason.name())],
            count,
        );
    }
    let nves: Vec<(String, NveStatus)> = state
        .nves()
        .map(|nve| {
            (
                nve.name.clone(),
                fabric.registry().status(nve.id).unwrap_or_default(),
            )
        })
        .collect();
    sessions(&mut text, &nves);
    counters(&mut text, &nves);
    text.0
}

fn objects(text: &mut Text, state: &State) {
    text.family(
        "sluice_objects",
        "gauge",
        "Objects that the shim knows, by kind.",
    );
    let counts = [
        ("network", state.networks().count()),
        ("subnet", state.subnets().count()),
        ("port", state.ports().count()),
        ("nve", state.nves().count()),
        ("vtep", state.vteps().count()),
        ("vm", state.vms().count()),
    ];
    for (kind, count) in counts {
        text.sample("sluice_objects", &[("kind", kind)], count);
    }
}

/// VLAN tags of each cluster, and what contradicts their leases.
fn tags(text: &mut Text, fabric: &Fabric, state: &State) {
    let name = "sluice_vlan_tags";
    text.family(name, "gauge", "VLAN tags, by cluster and state.");
    let clusters = [default_cluster()].into_iter();
    for cluster in clusters.chain(state.clusters().cloned()) {
        let tags = Tags::of(state, fabric.controller().settings(), cluster.id);
        for (kind, count) in [
            ("leased", tags.leased),
            ("seen", tags.seen),
            ("quarantined", tags.quarantined),
            ("reserved", tags.reserved),
            ("free", tags.free),
        ] {
            let labels = [("cluster", cluster.name.as_str()), ("state", kind)];
            text.sample(name, &labels, count);
        }
    }
    let alarms = alarms::all(state);
    text.family("sluice_alarms", "gauge", "Alarms, by kind.");
    for kind in Kind::ALL {
        let count = alarms.iter().filter(|alarm| alarm.kind == kind).count();
        text.sample("sluice_alarms", &[("kind", kind.name())], count);
    }
}

/// What the compiler did.
fn work(text: &mut Text, fabric: &Fabric, state: &State) {
    let work = fabric.work();
    let name = "sluice_changes_compiled_total";
    text.family(name, "counter", "Changes of intent or placement compiled.");
    text.sample(name, &[], work.changes);
    let name = "sluice_nve_recompiled_total";
    text.family(name, "counter", "Changes that gave the NVE other tables.");
    for nve in state.nves() {
        let count = work.recompiled.get(&nve.id).copied().unwrap_or(0);
        text.sample(name, &[("nve", &nve.name)], count);
    }
}

fn managers(text: &mut Text, statuses: &[SubscriberStatus]) {
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&SubscriberStatus) -> u64| {
        text.family(name, kind, help);
        for status in statuses {
            text.sample(name, &[("manager", &status.name)], value(status));
        }
    };
    family(
        "sluice_manager_connected",
        "gauge",
        "Whether the manager's events are followed.",
        |s| u64::from(s.connected_since.is_some()),
    );
    family(
        "sluice_manager_connections_total",
        "counter",
        "Connections begun.",
        |s| s.connections,
    );
    family(
        "sluice_manager_duplicates_total",
        "counter",
        "Events that came twice.",
        |s| s.duplicates,
    );
    family(
        "sluice_manager_inventories_total",
        "counter",
        "Inventories taken.",
        |s| s.inventories,
    );
    family(
        "sluice_manager_unread_vms",
        "gauge",
        "VMs of the newest inventory that cannot be read and are skipped.",
        |s| s.unread_vms,
    );
    family(
        "sluice_manager_resyncs_total",
        "counter",
        "Inventories taken because events may have been missed.",
        |s| s.resyncs,
    );
    family(
        "sluice_manager_malformed_total",
        "counter",
        "Messages skipped.",
        |s| s.malformed,
    );
    manager_details(text, statuses);
}

/// What is not a count per manager.
fn manager_details(text: &mut Text, statuses: &[SubscriberStatus]) {
    let name = "sluice_manager_events_total";
    text.family(name, "counter", "Events taken, by type.");
    for status in statuses {
        for (kind, count) in &status.events_by_type {
            let labels = [("manager", status.name.as_str()), ("type", kind)];
            text.sample(name, &labels, count);
        }
    }
    let name = "sluice_manager_connected_since_seconds";
    text.family(name, "gauge", "When the stream came up, Unix time.");
    for status in statuses {
        if let Some(since) = status.connected_since {
            let labels = [("manager", status.name.as_str())];
            text.sample(name, &labels, since.unix_timestamp());
        }
    }
    let name = "sluice_manager_lag_seconds";
    text.family(
        name,
        "gauge",
        "Age of the last event when it had been taken.",
    );
    for status in statuses {
        if let Some(lag) = status.lag_seconds {
            text.sample(name, &[("manager", &status.name)], lag);
        }
    }
    let name = "sluice_manager_missing";
    text.family(name, "gauge", "What the manager does without.");
    for status in statuses {
        for feature in &status.missing {
            let labels = [("manager", status.name.as_str()), ("feature", feature)];
            text.sample(name, &labels, 1);
        }
    }
}

fn sessions(text: &mut Text, nves: &[(String, NveStatus)]) {
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&NveStatus) -> u64| {
        text.family(name, kind, help);
        for (nve, status) in nves {
            text.sample(name, &[("nve", nve)], value(status));
        }
    };
    family(
        "sluice_nve_connected",
        "gauge",
        "Whether the NVE has a session.",
        |s| u64::from(s.connection.is_some()),
    );
    family(
        "sluice_nve_in_sync",
        "gauge",
        "Whether the NVE has the tables it should.",
        |s| u64::from(s.in_sync),
    );
    family(
        "sluice_nve_generation",
        "gauge",
        "Generation in force.",
        |s| s.generation,
    );
    family(
        "sluice_nve_sessions_total",
        "counter",
        "Sessions begun.",
        |s| s.counts.sessions,
    );
    family(
        "sluice_nve_syncs_skipped_total",
        "counter",
        "Sessions that needed no sync.",
        |s| s.counts.syncs_skipped,
    );
    family(
        "sluice_nve_syncs_full_total",
        "counter",
        "Full states applied.",
        |s| s.counts.syncs_full,
    );
    family(
        "sluice_nve_syncs_incremental_total",
        "counter",
        "Changes applied.",
        |s| s.counts.syncs_incremental,
    );
    family(
        "sluice_nve_refused_total",
        "counter",
        "Transactions refused.",
        |s| s.counts.refused,
    );
}

fn counters(text: &mut Text, nves: &[(String, NveStatus)]) {
    let stats = || {
        nves.iter()
            .filter_map(|(nve, status)| Some((nve.as_str(), status.last_stats?.stats)))
    };
    text.family(
        "sluice_nve_dropped_packets_total",
        "counter",
        "Frames dropped, by reason.",
    );
    for (nve, stats) in stats() {
        for (reason, count) in DropReason::ALL.iter().zip(stats.drops) {
            let labels = [("nve", nve), ("reason", reason.name())];
            text.sample("sluice_nve_dropped_packets_total", &labels, count);
        }
    }
    let mut nics = |name: &str, help: &str, value: fn(&NicStats) -> u64| {
        text.family(name, "counter", help);
        for (nve, stats) in stats() {
            for (nic, counts) in [("trunk", stats.trunk), ("uplink", stats.uplink)] {
                text.sample(name, &[("nve", nve), ("nic", nic)], value(&counts));
            }
        }
    };
    nics(
        "sluice_nve_received_packets_total",
        "Frames received.",
        |nic| nic.rx_packets,
    );
    nics(
        "sluice_nve_received_bytes_total",
        "Bytes received.",
        |nic| nic.rx_bytes,
    );
    nics("sluice_nve_sent_packets_total", "Frames sent.", |nic| {
        nic.tx_packets
    });
    nics("sluice_nve_sent_bytes_total", "Bytes sent.", |nic| {
        nic.tx_bytes
    });
    let mut gauges = |name: &str, kind: &str, help: &str, value: fn(&Stats) -> u64| {
        text.family(name, kind, help);
        for (nve, stats) in stats() {
            text.sample(name, &[("nve", nve)], value(&stats));
        }
    };
    gauges(
        "sluice_nve_answers_total",
        "counter",
        "Requests of VMs that the NVE answered.",
        |s| s.answers,
    );
    gauges("sluice_nve_heap_used_bytes", "gauge", "Heap in use.", |s| {
        s.heap_used
    });
    gauges("sluice_nve_heap_size_bytes", "gauge", "Heap in all.", |s| {
        s.heap_size
    });
    gauges(
        "sluice_nve_busy_microseconds_total",
        "counter",
        "Poll loop busy.",
        |s| s.busy_us,
    );
    processors(text, nves);
    text.family("sluice_nve_records", "gauge", "Records in force, by table.");
    for (nve, stats) in stats() {
        let t = stats.tables;
        for (table, count) in [
            ("vap", t.vaps),
            ("fdb", t.fdb),
            ("neighbor", t.neighbors),
            ("flood", t.flood),
        ] {
            text.sample(
                "sluice_nve_records",
                &[("nve", nve), ("table", table)],
                count,
            );
        }
    }
}

/// What each processor does.
fn processors(text: &mut Text, nves: &[(String, NveStatus)]) {
    let mut family = |name: &str, help: &str, value: fn(&ProcessorStats) -> u64| {
        text.family(name, "counter", help);
        for (nve, status) in nves {
            let list = status.last_stats.iter();
            let list = list.flat_map(|last| last.stats.processors.as_slice());
            for (number, stats) in list.enumerate() {
                let number = number.to_string();
                text.sample(name, &[("nve", nve), ("processor", &number)], value(stats));
            }
        }
    };
    family(
        "sluice_nve_processor_busy_microseconds_total",
        "Poll loop busy, by processor.",
        |s| s.busy_us,
    );
    family(
        "sluice_nve_processor_received_packets_total",
        "Frames received, by processor.",
        |s| s.rx_packets,
    );
    family(
        "sluice_nve_processor_sent_packets_total",
        "Frames sent, by processor.",
        |s| s.tx_packets,
    );
    family(
        "sluice_nve_processor_handed_packets_total",
        "Frames received that were another processor's, by processor.",
        |s| s.handed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.sample("a", &[("nve", "x\"y\\z\n")], 1);
        text.sample("b", &[], 2);
        assert_eq!(text.0, "a{nve=\"x\\\"y\\\\z\\n\"} 1\nb 2\n");
    }
}
