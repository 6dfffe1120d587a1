//! Connections, as the flow cache lets them be seen.

use nve_datapath::*;
use nve_protocol::*;

use crate::rig::*;

/// The rig with VAP 101 in a stateful group that lets out everything and nothing in.
fn rig() -> Rig {
    let mut rig = Rig::new();
    let group = GroupId([0xbb; 16]);
    let vlan = Vlan::new(101).unwrap();
    for record in open_group(101) {
        if let Record::Binding(_) = record {
            rig.datapath
                .update(rig.now, |tables| tables.delete(&record.key()));
        }
    }
    rig.put(&[
        Record::Binding(Binding { vlan, group }),
        Record::Group(Group {
            group,
            stateful: true,
        }),
        Record::Rule(Rule {
            id: RuleId([0xbb; 16]),
            group,
            direction: Direction::Egress,
            family: Family::Ipv4,
            protocol: None,
            low: 0,
            high: u16::MAX,
            remote: Remote::Any,
        }),
    ]);
    rig
}

fn reply() -> Vec<u8> {
    let mut reply = untagged(mac(3), mac(1), 10);
    // Ports the other way round.
    reply[34..38].copy_from_slice(&[0x13, 0x88, 0x0f, 0xa0]);
    reply[40..42].fill(0);
    tunnelled(PEER, RED, &reply)
}

#[test]
fn packets_of_a_known_flow_keep_its_connection() {
    let mut rig = rig();
    let packet = with_tag(&untagged(mac(1), mac(3), 10), 101);
    // Longer in all than a connection without an answer may be idle.
    for _ in 0..20 {
        rig.now.0 += 20_000_000_000;
        assert_eq!(rig.trunk(&packet).verdict, Verdict::Send(Side::Uplink));
    }
    let answer = rig.uplink(&reply());
    assert_eq!(answer.verdict, Verdict::Send(Side::Trunk));
}

#[test]
fn a_connection_that_was_idle_too_long_is_over() {
    let mut rig = rig();
    let packet = with_tag(&untagged(mac(1), mac(3), 10), 101);
    assert_eq!(rig.trunk(&packet).verdict, Verdict::Send(Side::Uplink));
    rig.now.0 += 31_000_000_000;
    rig.assert_dropped(Side::Uplink, &reply(), DropReason::SecurityGroup);
    // The flow cache knows the flow still, and opens another connection for it.
    assert_eq!(rig.trunk(&packet).verdict, Verdict::Send(Side::Uplink));
    assert_eq!(rig.uplink(&reply()).verdict, Verdict::Send(Side::Trunk));
}
