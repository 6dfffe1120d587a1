//! Dialogues of VMs with the responders, over one set of tables.

extern crate std;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use etherparse::PacketBuilder;
use nve_protocol::{
    Address, Gateway, Neighbor, PortId, Prefix, Presence, Record, RouterId, TableSizes, Vap, Vlan,
    Vni,
};

use super::*;
use crate::spoof;
use crate::wire::arp::{Operation, Packet};

mod dhcp4;
mod dhcp6;
mod hostile;
mod neighbors;
mod ra;
mod spoofing;

pub(super) const ROUTER: Mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 1]);
pub(super) const VIP: &str = "10.0.0.99";

pub(super) fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

pub(super) fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

pub(super) fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn vni() -> Vni {
    Vni::new(5001).unwrap()
}

/// One VAP's frames and what comes back.
pub(super) struct Rig {
    pub(super) tables: Tables,
    pub(super) vap: Vap,
    pub(super) reply: Reply,
}

impl Rig {
    /// A network of 10.0.0.0/24 and 2001:db8::/64 with a router at .254 and ::fe.
    /// The VAP is .1 and ::1 and shares .99; .2 and ::2 are others.
    pub(super) fn new() -> Rig {
        let vlan = Vlan::new(101).unwrap();
        let vap = Vap {
            vlan,
            port: PortId([1; 16]),
            vni: vni(),
            mac: mac(1),
            port_security: true,
            presence: Presence::Active,
        };
        let mut rig = Rig {
            tables: Tables::new(TableSizes::uniform(100)),
            vap,
            reply: Reply::new(),
        };
        rig.put(Record::Vap(vap));
        for (ip, fixed) in [("10.0.0.1", true), ("2001:db8::1", true), (VIP, false)] {
            rig.put(Record::Address(Address {
                vlan,
                mac: mac(1),
                prefix: Prefix::host(ip.parse().unwrap()),
                fixed,
            }));
        }
        for (ip, last) in [
            ("10.0.0.1", 1),
            ("10.0.0.2", 2),
            ("2001:db8::1", 1),
            ("2001:db8::2", 2),
            (VIP, 9),
        ] {
            rig.put(Record::Neighbor(Neighbor {
                vni: vni(),
                ip: ip.parse().unwrap(),
                mac: mac(last),
            }));
        }
        for (ip, prefix) in [
            ("10.0.0.254", "10.0.0.0/24"),
            ("2001:db8::fe", "2001:db8::/64"),
        ] {
            rig.put(Record::Gateway(Gateway {
                vni: vni(),
                ip: ip.parse().unwrap(),
                prefix: prefix.parse().unwrap(),
                mac: ROUTER,
                router: RouterId([7; 16]),
            }));
        }
        rig
    }

    pub(super) fn put(&mut self, record: Record) {
        self.tables.put(&record).unwrap();
    }

    /// Without port security, the VM's frames are not checked.
    pub(super) fn trusted(mut self) -> Rig {
        self.vap.port_security = false;
        self.put(Record::Vap(self.vap));
        self
    }

    /// Sends a frame with a tag, through the anti-spoofing check.
    pub(super) fn send(&mut self, untagged: &[u8]) -> Result<Answer, DropReason> {
        let frame = [&untagged[..12], &[0x81, 0, 0, 101], &untagged[12..]].concat();
        let headers = Headers::parse(&frame)?;
        spoof::source(&self.tables, &self.vap, &headers, &frame)?;
        let request = Request {
            tables: &self.tables,
            vap: &self.vap,
            headers: &headers,
            frame: &frame,
        };
        answer(&request, &mut self.reply)
    }

    /// Whether there is a further answer to a frame, after `told` of them.
    pub(super) fn send_more(&mut self, untagged: &[u8], told: usize) -> bool {
        let headers = Headers::parse(untagged).unwrap();
        let request = Request {
            tables: &self.tables,
            vap: &self.vap,
            headers: &headers,
            frame: untagged,
        };
        answer_more(&request, told, &mut self.reply).unwrap()
    }
}

pub(super) fn arp(operation: Operation, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let packet = Packet {
        operation,
        sender_mac: sender.0,
        sender_ip: sender.1,
        target_mac: Mac([0; 6]),
        target_ip: target,
    };
    [&[0xff; 6][..], &sender.0.0, &[8, 6], &packet.emit()].concat()
}

/// A frame with an ICMPv6 message, checksummed by another library. The message
/// starts with its type; the group's MAC address is made of the destination.
pub(super) fn icmp6(from: Mac, source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let to = nd_mac(destination);
    let mut frame = Vec::new();
    let rest = [message[4], message[5], message[6], message[7]];
    PacketBuilder::ethernet2(from.0, to.0)
        .ipv6(source.octets(), destination.octets(), 255)
        .icmpv6_raw(message[0], message[1], rest)
        .write(&mut frame, &message[8..])
        .unwrap();
    frame
}

fn nd_mac(destination: Ipv6Addr) -> Mac {
    match destination.is_multicast() {
        true => wire_nd::group_mac(destination),
        false => mac(2),
    }
}
