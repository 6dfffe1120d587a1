//! Any bytes on either side: no panic, each frame has one fate, lengths add up.

use crate::rig::*;
use nve_datapath::*;
use proptest::prelude::*;

fn mutated(frame: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = frame.len();
    let edits = prop::collection::vec((0..length, any::<u8>()), 0..6);
    (edits, 0..=length).prop_map(move |(edits, cut)| {
        let mut frame = frame.clone();
        for (at, value) in edits {
            frame[at] = value;
        }
        // Mostly whole frames.
        if cut % 3 == 0 {
            frame.truncate(cut);
        }
        frame
    })
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        mutated(with_tag(&untagged(mac(1), mac(2), 30), 101)),
        mutated(with_tag(&untagged(mac(1), mac(3), 30), 101)),
        mutated(arp_request(101, mac(1), ip(1), ip(2))),
        mutated(tunnelled(PEER, RED, &untagged(mac(3), mac(1), 30))),
        mutated(underlay_arp_reply(PEER, PEER_MAC)),
    ]
}

fn partial() -> impl Strategy<Value = Option<PartialChecksum>> {
    let inside = (0u16..120, 0u16..40);
    prop::option::of(prop_oneof![inside, any::<(u16, u16)>()])
        .prop_map(|p| p.map(|(start, offset)| PartialChecksum { start, offset }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn every_frame_has_one_fate(bytes in frame(), partial in partial(), trunk: bool) {
        let mut rig = Rig::new();
        let side = if trunk { Side::Trunk } else { Side::Uplink };
        let outcome = rig.process(side, &bytes, partial);
        match outcome.verdict {
            Verdict::Send(_) => prop_assert!(!outcome.sent.is_empty()),
            Verdict::Drop(_) | Verdict::Host => prop_assert_eq!(outcome.sent.len(), 0),
            Verdict::Done => prop_assert!(trunk && !outcome.sent.is_empty()),
        }
        for sent in &outcome.sent {
            match sent.side {
                Side::Uplink => {
                    prop_assert!(trunk, "split horizon");
                    prop_assert_eq!(sent.bytes.len(), bytes.len() - 4 + 50);
                    detunnel(sent);
                }
                Side::Trunk => {
                    prop_assert_eq!(&sent.bytes[12..14], &[0x81, 0x00]);
                    prop_assert!(sent.bytes.len() <= bytes.len() + 4);
                }
            }
        }
    }
}
