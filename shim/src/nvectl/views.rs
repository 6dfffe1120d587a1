//! What each table shows of an answer.

use std::fmt::Write;

use nve_protocol::Table;
use serde_json::Value;

use super::table::{printable, table};

/// A field as people read it; `-` if it is absent.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn items<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().map_or(&[], Vec::as_slice)
}

fn rows(items: &[Value], cells: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    items.iter().map(cells).collect()
}

fn yes_no(value: &Value) -> &'static str {
    match value.as_bool() {
        Some(true) => "yes",
        _ => "no",
    }
}

/// Microseconds in the unit that fits.
fn duration(microseconds: &Value) -> String {
    match microseconds.as_u64() {
        None => "-".to_owned(),
        Some(us @ 0..10_000) => format!("{us} us"),
        Some(us @ 10_000..10_000_000) => format!("{} ms", us / 1000),
        Some(us) => format!("{} s", us / 1_000_000),
    }
}

/// `nve list`.
pub(super) fn nves(answer: &Value) -> String {
    let head = [
        "NAME",
        "HOST",
        "VTEP",
        "STATE",
        "IN SYNC",
        "GENERATION",
        "VAPS",
        "BOOT",
        "DROPS",
    ];
    let cells = |nve: &Value| {
        let drops: u64 = nve["drops"]
            .as_object()
            .map_or(0, |d| d.values().filter_map(Value::as_u64).sum());
        vec![
            cell(&nve["name"]),
            cell(&nve["host_name"]),
            cell(&nve["vtep"]),
            cell(&nve["state"]),
            yes_no(&nve["in_sync"]).to_owned(),
            cell(&nve["generation"]),
            cell(&nve["desired"]["vaps"]),
            duration(&nve["image"]["boot_us"]),
            drops.to_string(),
        ]
    };
    table(&head, &rows(items(answer, "nves"), cells))
}

/// `manager list`.
pub(super) fn managers(answer: &Value) -> String {
    let head = [
        "NAME",
        "URL",
        "CONNECTED SINCE",
        "EVENTS",
        "LAST EVENT",
        "INVENTORIES",
        "MALFORMED",
        "LAST ERROR",
    ];
    let keys = [
        "name",
        "url",
        "connected_since",
        "events",
        "last_event_at",
        "inventories",
        "malformed",
        "last_error",
    ];
    let cells = |manager: &Value| keys.map(|key| cell(&manager[key])).to_vec();
    table(&head, &rows(items(answer, "managers"), cells))
}

/// `nve show`.
pub(super) fn nve(nve: &Value) -> String {
    let stats = &nve["last_stats"]["stats"];
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<20}{}", printable(&value));
    };
    for key in ["name", "id", "host_name", "vtep", "public_key", "state"] {
        line(key, cell(&nve[key]));
    }
    line("version", cell(&nve["image"]["version"]));
    line("address", cell(&nve["connection"]["address"]));
    line("connected since", cell(&nve["connection"]["since"]));
    line("boot", duration(&nve["image"]["boot_us"]));
    line("in sync", yes_no(&nve["in_sync"]).to_owned());
    line("generation", cell(&nve["generation"]));
    line("digest", cell(&nve["digest"]));
    line(
        "connect to applied",
        duration(&nve["connect_to_applied_us"]),
    );
    line("last commit", duration(&nve["last_applied"]["apply_us"]));
    line(
        "uptime",
        duration(&Value::from(
            stats["uptime_ms"].as_u64().map(|ms| ms * 1000),
        )),
    );
    line(
        "heap",
        format!(
            "{} of {} bytes",
            cell(&stats["heap_used"]),
            cell(&stats["heap_size"])
        ),
    );
    line("answers", cell(&stats["answers"]));
    let capacity = &nve["image"]["capacity"];
    let sizes: Vec<_> = Table::ALL
        .iter()
        .map(|kind| kind.name())
        .map(|key| {
            let cells = [&nve["desired"][key], &stats["tables"][key], &capacity[key]];
            std::iter::once(key.to_owned())
                .chain(cells.map(cell))
                .collect()
        })
        .collect();
    text.push('\n');
    text.push_str(&table(
        &["TABLE", "DESIRED", "IN FORCE", "CAPACITY"],
        &sizes,
    ));
    text.push('\n');
    text.push_str(&nics(stats));
    text.push('\n');
    text.push_str(&drops(nve));
    text
}

fn nics(stats: &Value) -> String {
    let head = [
        "NIC",
        "RX PACKETS",
        "RX BYTES",
        "TX PACKETS",
        "TX BYTES",
        "DEVICE ERRORS",
    ];
    let keys = [
        "rx_packets",
        "rx_bytes",
        "tx_packets",
        "tx_bytes",
        "device_errors",
    ];
    let rows = ["trunk", "uplink"].map(|nic| {
        let cells = keys.map(|key| cell(&stats[nic][key]));
        std::iter::once(nic.to_owned()).chain(cells).collect()
    });
    table(&head, &rows)
}

fn drops(nve: &Value) -> String {
    let drops = nve["drops"].as_object();
    let text = |name: &str| {
        let all = nve_protocol::DropReason::ALL.iter();
        all.copied()
            .find(|reason| reason.name() == name)
            .map_or("", |reason| reason.text())
    };
    let rows: Vec<Vec<String>> = drops
        .into_iter()
        .flatten()
        .map(|(name, count)| vec![name.clone(), cell(count), text(name).to_owned()])
        .collect();
    match rows.is_empty() {
        true => "no drops\n".to_owned(),
        false => table(&["DROPS BY REASON", "PACKETS", "MEANING"], &rows),
    }
}

/// `port list`.
pub(super) fn ports(answer: &Value) -> String {
    let head = [
        "ID",
        "NAME",
        "STATUS",
        "MAC",
        "ADDRESSES",
        "HOST",
        "SEGMENTATION ID",
    ];
    let cells = |port: &Value| {
        let ips = items(port, "fixed_ips")
            .iter()
            .map(|ip| cell(&ip["ip_address"]));
        vec![
            cell(&port["id"]),
            cell(&port["name"]),
            cell(&port["status"]),
            cell(&port["mac_address"]),
            ips.collect::<Vec<_>>().join(","),
            cell(&port["binding:host_id"]),
            cell(&port["segmentation_id"]),
        ]
    };
    table(&head, &rows(items(answer, "ports"), cells))
}

/// `vtep list`.
pub(super) fn vteps(answer: &Value) -> String {
    let cells = |vtep: &Value| {
        vec![
            cell(&vtep["id"]),
            cell(&vtep["name"]),
            cell(&vtep["address"]),
            items(vtep, "networks").len().to_string(),
            items(vtep, "endpoints").len().to_string(),
        ]
    };
    table(
        &["ID", "NAME", "ADDRESS", "NETWORKS", "ENDPOINTS"],
        &rows(items(answer, "vteps"), cells),
    )
}

/// `placement list`.
pub(super) fn placement(answer: &Value) -> String {
    let head = ["VM", "STATUS", "HOST", "VLAN", "PORT", "PROGRESS"];
    let cells = |vnic: &Value| {
        let keys = [
            "vm_name",
            "vm_status",
            "host_name",
            "segmentation_id",
            "port_id",
            "progress",
        ];
        keys.iter().map(|key| cell(&vnic[*key])).collect()
    };
    table(&head, &rows(items(answer, "placement"), cells))
}

/// `event list`.
pub(super) fn events(answer: &Value) -> String {
    items(answer, "events")
        .iter()
        .map(|event| event_line(event) + "\n")
        .collect()
}

/// A line of `event list` and `event watch`.
pub(super) fn event_line(event: &Value) -> String {
    let keys = [
        "timestamp",
        "manager",
        "event_type",
        "vm_name",
        "host_name",
        "vm_status",
        "outcome",
    ];
    printable(&keys.map(|key| cell(&event[key])).join("  "))
}
