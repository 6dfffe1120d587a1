//! Marking of IP packets with a differentiated services code point (RFC 2474).

use crate::checksum;
use crate::wire::{array, put, u16_at};

/// Largest code point: it has six bits.
pub const MAX: u8 = 63;

/// Writes `dscp` into the IP header at `at` of `frame`, and leaves the bits for
/// explicit congestion notification (RFC 3168) as they are. What is no IP header
/// stays as it is. Transport checksums do not cover the field.
pub fn mark(frame: &mut [u8], at: usize, dscp: u8) {
    let Some([first, second]) = array::<2>(frame, at) else {
        return;
    };
    let word = u16::from_be_bytes([first, second]);
    let dscp = u16::from(dscp & MAX);
    match first >> 4 {
        4 => {
            let marked = word & 0xff03 | dscp << 2;
            if let Some(sum) = u16_at(frame, at + 10) {
                let sum = checksum::adjust(sum, word, marked);
                put(frame, at, &marked.to_be_bytes());
                put(frame, at + 10, &sum.to_be_bytes());
            }
        }
        6 => {
            let marked = word & 0xf03f | dscp << 6;
            put(frame, at, &marked.to_be_bytes());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use etherparse::{IpDscp, IpEcn, Ipv4Header, Ipv6Header};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_the_code_point_changes(
            dscp in 0..=MAX,
            before in 0..=MAX,
            ecn in 0u8..4,
            addresses: [u8; 8],
            id: u16,
        ) {
            let [source, destination] = [&addresses[..4], &addresses[4..]]
                .map(|octets| <[u8; 4]>::try_from(octets).unwrap());
            let mut four = Ipv4Header::new(8, 64, etherparse::IpNumber::UDP, source, destination)
                .unwrap();
            four.dscp = IpDscp::try_new(before).unwrap();
            four.ecn = IpEcn::try_new(ecn).unwrap();
            four.identification = id;
            four.header_checksum = four.calc_header_checksum();
            let mut frame = Vec::from([0xa5; 18]);
            four.write_raw(&mut frame).unwrap();
            mark(&mut frame, 18, dscp);
            prop_assert_eq!(&frame[..18], [0xa5; 18]);
            four.dscp = IpDscp::try_new(dscp).unwrap();
            four.header_checksum = four.calc_header_checksum();
            prop_assert_eq!(Ipv4Header::from_slice(&frame[18..]).unwrap().0, four);

            let mut six = Ipv6Header {
                traffic_class: before << 2 | ecn,
                flow_label: u32::from(id).try_into().unwrap(),
                ..Ipv6Header::default()
            };
            let mut packet = six.to_bytes();
            mark(&mut packet, 0, dscp);
            six.traffic_class = dscp << 2 | ecn;
            prop_assert_eq!(Ipv6Header::from_slice(&packet).unwrap().0, six);
        }

        #[test]
        fn nothing_else_is_touched(bytes: [u8; 24], at in 0usize..40, length in 0usize..24) {
            let mut frame = bytes;
            mark(&mut frame[..length], at, 63);
            let version = bytes[..length].get(at).map(|byte| byte >> 4);
            let whole = match version {
                Some(4) => at + 12 <= length,
                Some(6) => at + 2 <= length,
                _ => false,
            };
            if !whole {
                prop_assert_eq!(frame, bytes);
            }
        }
    }
}
