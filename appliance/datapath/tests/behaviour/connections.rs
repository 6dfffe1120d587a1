//! Connections, as the flow cache lets them be seen.

use nve_datapath::*;
use nve_protocol::*;

use crate::rig::*;

/// The rig with VAP 101 in a stateful group that lets out everything and nothing in.
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.leave_open_group(101);
    rig.put(&group_that_lets_out(101, RuleId([0xbb; 16])));
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

/// Packets of one tick are not all followed, but those that matter are.
#[test]
fn a_connection_that_begins_anew_at_once_is_followed() {
    for end in [&[FIN | ACK, FIN | ACK][..], &[RST]] {
        let mut rig = rig();
        let send = |rig: &mut Rig, own: bool, flags: u8| match own {
            true => {
                let frame = with_tag(&tcp(1, 3, (4000, 80), flags), 101);
                assert_eq!(rig.trunk(&frame).verdict, Verdict::Send(Side::Uplink));
            }
            false => {
                let frame = tunnelled(PEER, RED, &tcp(3, 1, (80, 4000), flags));
                assert_eq!(rig.uplink(&frame).verdict, Verdict::Send(Side::Trunk));
            }
        };
        let open = |rig: &mut Rig| {
            send(rig, true, SYN);
            send(rig, false, SYN | ACK);
            for own in [true, false, true, false, true] {
                send(rig, own, ACK);
            }
        };
        open(&mut rig);
        for (own, flags) in [true, false].into_iter().zip(end) {
            let frame = match own {
                true => with_tag(&tcp(1, 3, (4000, 80), *flags), 101),
                false => tunnelled(PEER, RED, &tcp(3, 1, (80, 4000), *flags)),
            };
            let side = if own { Side::Trunk } else { Side::Uplink };
            assert!(matches!(
                rig.process(side, &frame, None).verdict,
                Verdict::Send(_)
            ));
        }
        open(&mut rig);
        // Longer than a connection may be idle that is not established.
        rig.now.0 += 200_000_000_000;
        let late = tunnelled(PEER, RED, &tcp(3, 1, (80, 4000), ACK));
        assert_eq!(
            rig.uplink(&late).verdict,
            Verdict::Send(Side::Trunk),
            "{end:?}"
        );
    }
}
