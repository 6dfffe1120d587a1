//! What `trace`, `drops` and `flows` show of an answer.

use std::fmt::Write;

use serde_json::Value;

use super::table::{printable, table};
use super::views::{cell, items, rows};

/// `trace`: one line a stage, in words.
pub(super) fn trace(answer: &Value) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, label: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{indent}{label:<10}{}", printable(value));
    };
    line("", "packet", &cell(&answer["packet"]));
    if let Some(next_hop) = answer["next_hop"].as_str() {
        line("", "to MAC", next_hop);
    }
    let hops = items(answer, "hops");
    let name = |hop: &Value| cell(&hop["nve"]["name"]);
    for hop in hops {
        let before = hop["after"]
            .as_u64()
            .and_then(|at| hops.get(usize::try_from(at).ok()?));
        let after = before.map_or_else(String::new, |hop| format!(", from {}", name(hop)));
        line("", "", "");
        line("", &format!("{}{after}", name(hop)), "");
        for step in items(hop, "steps") {
            line("  ", &cell(&step["stage"]), &cell(&step["text"]));
        }
        if let Some(lost @ 1..) = hop["lost"].as_u64() {
            line("  ", "...", &format!("{lost} steps are left out"));
        }
        if let Some(error) = hop["error"].as_str() {
            line("  ", "error", error);
        }
    }
    let outcome = cell(&answer["outcome"]["text"]);
    let _ = writeln!(text, "\noutcome: {}", printable(&outcome));
    trimmed(&text)
}

/// Without spaces at the ends of lines.
fn trimmed(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// `drops`.
pub(super) fn drops(answer: &Value) -> String {
    let head = ["NUMBER", "TIME", "PACKET", "FROM", "REASON"];
    let cells = |drop: &Value| drop_cells(drop).to_vec();
    let mut text = match items(answer, "drops") {
        [] => "no drops\n".to_owned(),
        drops => table(&head, &rows(drops, cells)),
    };
    if let Some(lost @ 1..) = answer["lost"].as_u64() {
        let _ = writeln!(text, "{lost} older drops are forgotten");
    }
    text
}

fn drop_cells(drop: &Value) -> [String; 5] {
    let time = match (drop["at"].as_str(), drop["at_ms"].as_u64()) {
        (Some(at), _) => at.to_owned(),
        (None, ms) => format!("{} ms after boot", ms.unwrap_or(0)),
    };
    [
        cell(&drop["number"]),
        time,
        cell(&drop["packet_text"]),
        cell(&drop["from_text"]),
        cell(&drop["text"]),
    ]
}

/// A line of `drops --follow`.
pub(super) fn drop_line(drop: &Value) -> String {
    let [_, time, packet, from, reason] = drop_cells(drop);
    printable(&format!("{time}  {packet}  from {from}  {reason}"))
}

/// `flows`.
pub(super) fn flows(answer: &Value) -> String {
    let head = ["FLOW", "FROM", "TO", "IDLE", "SENDER", "RECEIVER"];
    let cells = |flow: &Value| {
        vec![
            cell(&flow["tuple_text"]),
            cell(&flow["from_text"]),
            cell(&flow["to_text"]),
            format!("{} ms", cell(&flow["idle_ms"])),
            cell(&flow["sender_text"]),
            cell(&flow["receiver_text"]),
        ]
    };
    let mut text = match items(answer, "flows") {
        [] => "no flows\n".to_owned(),
        flows => table(&head, &rows(flows, cells)),
    };
    if answer["truncated"] == true {
        text.push_str("there are more; --port shows those of one port\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trace_reads_from_top_to_bottom() {
        let step = |stage: &str, text: &str| json!({"stage": stage, "text": text});
        let answer = json!({
            "packet": "tcp 10.0.0.11:49152 > 10.0.1.5:443, SYN, 40 bytes",
            "next_hop": "02:00:00:00:00:01 of router r1, gateway 10.0.0.1",
            "hops": [
                {"nve": {"name": "nve-a"}, "lost": 0, "steps": [
                    step("from", "port web-1 (vm a1), VLAN 101"),
                    step("send", "to VTEP 192.0.2.12 (NVE nve-b), VNI 5001"),
                ]},
                {"nve": {"name": "nve-b"}, "after": 0, "lost": 2, "steps": [
                    step("dropped", "security_group: \u{1b}no"),
                ]},
                {"nve": {"name": "nve-c"}, "after": 0, "lost": 0, "steps": [],
                 "error": "NVE nve-c is not connected"},
            ],
            "outcome": {"text": "dropped on nve-b: security_group"},
        });
        let expected = "\
packet    tcp 10.0.0.11:49152 > 10.0.1.5:443, SYN, 40 bytes
to MAC    02:00:00:00:00:01 of router r1, gateway 10.0.0.1

nve-a
  from      port web-1 (vm a1), VLAN 101
  send      to VTEP 192.0.2.12 (NVE nve-b), VNI 5001

nve-b, from nve-a
  dropped   security_group: no
  ...       2 steps are left out

nve-c, from nve-a
  error     NVE nve-c is not connected

outcome: dropped on nve-b: security_group
";
        assert_eq!(trace(&answer), expected);
    }

    #[test]
    fn drops_and_flows_fit_a_line_each() {
        let drop = json!({"number": 7, "at": null, "at_ms": 12, "packet_text": "tcp a > b",
            "from_text": null, "text": "untagged: no tag"});
        let shown = drops(&json!({"drops": [drop], "lost": 3}));
        assert!(
            shown.ends_with("7       12 ms after boot  tcp a > b  -     untagged: no tag\n3 older drops are forgotten\n"),
            "{shown}"
        );
        assert_eq!(
            drop_line(&drop),
            "12 ms after boot  tcp a > b  from -  untagged: no tag"
        );
        assert_eq!(drops(&json!({"drops": []})), "no drops\n");
        let flow = json!({"tuple_text": "t", "from_text": "f", "to_text": "o", "idle_ms": 5,
            "sender_text": "s", "receiver_text": null});
        let shown = flows(&json!({"flows": [flow], "truncated": true}));
        assert!(
            shown.contains("t     f     o   5 ms  s       -\nthere are more"),
            "{shown}"
        );
        assert_eq!(flows(&json!({"flows": []})), "no flows\n");
    }
}
