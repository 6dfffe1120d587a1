//! What each table shows of an answer.

use std::fmt::Write;

use nve_protocol::Table;
use serde_json::Value;

use super::table::{printable, table};

/// A field as people read it; `-` if it is absent.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn items<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn rows(items: &[Value], cells: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
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
        "LAG S",
        "INVENTORIES",
        "RESYNCS",
        "MALFORMED",
        "MISSING",
        "LAST ERROR",
    ];
    let keys = [
        "name",
        "url",
        "connected_since",
        "events",
        "last_event_at",
        "lag_seconds",
        "inventories",
        "resyncs",
        "malformed",
        "missing",
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
    text.push_str(&processors(stats));
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

/// Empty if the NVE does not tell.
fn processors(stats: &Value) -> String {
    let head = [
        "PROCESSOR",
        "RX PACKETS",
        "TX PACKETS",
        "HANDED OVER",
        "BUSY",
    ];
    let list = stats["processors"].as_array();
    let rows: Vec<Vec<String>> = list
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(number, one)| {
            let counters = ["rx_packets", "tx_packets", "handed"].map(|key| cell(&one[key]));
            std::iter::once(number.to_string())
                .chain(counters)
                .chain([duration(&one["busy_us"])])
                .collect()
        })
        .collect();
    match rows.is_empty() {
        true => String::new(),
        false => table(&head, &rows) + "\n",
    }
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
        vec![
            cell(&port["id"]),
            cell(&port["name"]),
            cell(&port["status"]),
            cell(&port["mac_address"]),
            fixed_ips(port),
            cell(&port["binding:host_id"]),
            cell(&port["segmentation_id"]),
        ]
    };
    table(&head, &rows(items(answer, "ports"), cells))
}

/// Texts of items in one cell; `-` if there are none.
fn joined(items: &[Value], text: impl Fn(&Value) -> String) -> String {
    match items.is_empty() {
        true => "-".to_owned(),
        false => items.iter().map(text).collect::<Vec<_>>().join(","),
    }
}

fn fixed_ips(port: &Value) -> String {
    joined(items(port, "fixed_ips"), |ip| cell(&ip["ip_address"]))
}

/// `router list`; each has its `interfaces` with it.
pub(super) fn routers(answer: &Value) -> String {
    let cells = |router: &Value| {
        let route = |route: &Value| {
            format!(
                "{} via {}",
                cell(&route["destination"]),
                cell(&route["nexthop"])
            )
        };
        vec![
            cell(&router["id"]),
            cell(&router["name"]),
            yes_no(&router["admin_state_up"]).to_owned(),
            joined(items(router, "interfaces"), fixed_ips),
            joined(items(router, "routes"), route),
        ]
    };
    table(
        &["ID", "NAME", "UP", "INTERFACES", "ROUTES"],
        &rows(items(answer, "routers"), cells),
    )
}

/// `group list`.
pub(super) fn groups(answer: &Value) -> String {
    let cells = |group: &Value| {
        vec![
            cell(&group["id"]),
            cell(&group["name"]),
            cell(&group["project_id"]),
            yes_no(&group["stateful"]).to_owned(),
            items(group, "security_group_rules").len().to_string(),
        ]
    };
    table(
        &["ID", "NAME", "PROJECT", "STATEFUL", "RULES"],
        &rows(items(answer, "security_groups"), cells),
    )
}

/// `group show`; it has its `ports` with it.
pub(super) fn group(group: &Value) -> String {
    let mut text = String::new();
    for key in ["name", "id", "project_id", "description"] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key:<20}{}", printable(&cell(&group[key])));
    }
    let _ = writeln!(text, "{:<20}{}\n", "stateful", yes_no(&group["stateful"]));
    let rule = |rule: &Value| {
        vec![
            cell(&rule["id"]),
            cell(&rule["direction"]),
            cell(&rule["ethertype"]),
            cell(&rule["protocol"]),
            ports_of_rule(rule),
            other_side(rule),
        ]
    };
    text.push_str(&table(
        &[
            "RULE",
            "DIRECTION",
            "ETHERTYPE",
            "PROTOCOL",
            "PORTS",
            "OTHER SIDE",
        ],
        &rows(items(group, "security_group_rules"), rule),
    ));
    text.push('\n');
    let port = |port: &Value| vec![cell(&port["id"]), cell(&port["name"]), fixed_ips(port)];
    text.push_str(&table(
        &["PORT", "NAME", "ADDRESSES"],
        &rows(items(group, "ports"), port),
    ));
    text
}

fn ports_of_rule(rule: &Value) -> String {
    match (&rule["port_range_min"], &rule["port_range_max"]) {
        (min, max) if min == max || max.is_null() => cell(min),
        (min, max) => format!("{}-{}", cell(min), cell(max)),
    }
}

fn other_side(rule: &Value) -> String {
    let group = &rule["remote_group_id"];
    let addresses = &rule["remote_address_group_id"];
    match (group.is_null(), addresses.is_null()) {
        (false, _) => format!("group {}", cell(group)),
        (_, false) => format!("address group {}", cell(addresses)),
        _ => cell(&rule["remote_ip_prefix"]),
    }
}

/// `qos list`.
pub(super) fn policies(answer: &Value) -> String {
    let cells = |policy: &Value| {
        vec![
            cell(&policy["id"]),
            cell(&policy["name"]),
            yes_no(&policy["shared"]).to_owned(),
            yes_no(&policy["is_default"]).to_owned(),
            joined(items(policy, "rules"), qos_rule),
        ]
    };
    table(
        &["ID", "NAME", "SHARED", "DEFAULT", "RULES"],
        &rows(items(answer, "policies"), cells),
    )
}

fn qos_rule(rule: &Value) -> String {
    let way = cell(&rule["direction"]);
    match rule["type"].as_str() {
        Some("bandwidth_limit") => format!("{way} {} kbit/s", cell(&rule["max_kbps"])),
        Some("packet_rate_limit") => format!("{way} {} kpps", cell(&rule["max_kpps"])),
        _ => format!("dscp {}", cell(&rule["dscp_mark"])),
    }
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
        let first = ["vm_name", "vm_status"].map(|key| cell(&vnic[key]));
        let last = ["segmentation_id", "port_id", "progress"].map(|key| cell(&vnic[key]));
        first.into_iter().chain([host(vnic)]).chain(last).collect()
    };
    table(&head, &rows(items(answer, "placement"), cells))
}

/// A vNIC's host, and where its VM may come up if it migrates.
fn host(vnic: &Value) -> String {
    let (host, migration) = (cell(&vnic["host_name"]), &vnic["migration"]);
    let to = items(migration, "to").iter().filter_map(Value::as_str);
    let to = to.collect::<Vec<_>>().join(" or ");
    match migration["awake"].is_null() && !to.is_empty() {
        true => format!("{host}, to {to}"),
        false => host,
    }
}

/// `cluster list`.
pub(super) fn clusters(answer: &Value) -> String {
    let head = [
        "NAME",
        "HOSTS",
        "LEASED",
        "SEEN",
        "QUARANTINED",
        "RESERVED",
        "FREE",
    ];
    let cells = |cluster: &Value| {
        let hosts = items(cluster, "hosts").iter().filter_map(Value::as_str);
        let hosts = hosts.collect::<Vec<_>>().join(" ");
        let tags = ["leased", "seen", "quarantined", "reserved", "free"];
        let tags = tags.map(|key| cell(&cluster["tags"][key]));
        [cell(&cluster["name"]), cell(&Value::from(hosts))]
            .into_iter()
            .chain(tags)
            .collect()
    };
    table(&head, &rows(items(answer, "clusters"), cells))
}

/// `alarm list`.
pub(super) fn alarms(answer: &Value) -> String {
    let cells = |alarm: &Value| {
        ["kind", "cluster", "message"]
            .map(|key| cell(&alarm[key]))
            .into()
    };
    let rows = rows(items(answer, "alarms"), cells);
    table(&["KIND", "CLUSTER", "WHAT"], &rows)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_shows_ranges_and_other_sides() {
        let rule = |min: Value, max: Value, key: &str, value: &str| {
            let mut rule = json!({"id": "r", "direction": "ingress", "ethertype": "IPv4",
                "protocol": "tcp", "port_range_min": min, "port_range_max": max});
            rule[key] = json!(value);
            rule
        };
        let shown = group(
            &json!({"name": "web", "stateful": true, "security_group_rules": [
            rule(json!(80), json!(81), "remote_ip_prefix", "10.0.0.0/8"),
            rule(json!(8), Value::Null, "remote_group_id", "g"),
            rule(Value::Null, Value::Null, "remote_address_group_id", "a"),
        ], "ports": [{"id": "p", "fixed_ips": []}]}),
        );
        let lines: Vec<&str> = shown.lines().collect();
        for (line, ports, side) in [(7, "80-81", "10.0.0.0/8"), (8, "8", "group g")] {
            assert!(lines[line].contains(&format!("  {ports}")), "{shown}");
            assert!(lines[line].ends_with(side), "{shown}");
        }
        assert!(lines[9].ends_with("-      address group a"), "{shown}");
        assert!(shown.ends_with("p     -     -\n"), "{shown}");
    }

    #[test]
    fn routers_and_policies_fit_a_line_each() {
        let answer = json!({"routers": [{"id": "r", "admin_state_up": true,
            "routes": [{"destination": "10.0.0.0/8", "nexthop": "10.7.0.9"}],
            "interfaces": [{"fixed_ips": [{"ip_address": "10.7.0.1"}]}]}]});
        let line = "r   -     yes  10.7.0.1    10.0.0.0/8 via 10.7.0.9\n";
        assert!(routers(&answer).ends_with(line), "{}", routers(&answer));
        let answer = json!({"policies": [{"id": "q", "name": "gold", "shared": false,
        "is_default": true, "rules": [
            {"type": "bandwidth_limit", "direction": "egress", "max_kbps": 5},
            {"type": "packet_rate_limit", "direction": "ingress", "max_kpps": 6},
            {"type": "dscp_marking", "dscp_mark": 26},
        ]}]});
        let line = "yes      egress 5 kbit/s,ingress 6 kpps,dscp 26\n";
        assert!(policies(&answer).ends_with(line), "{}", policies(&answer));
    }
}
