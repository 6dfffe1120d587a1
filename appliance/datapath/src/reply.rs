//! A frame of the NVE's own, written from front to back.
//!
//! Headers are written with zeros for what depends on the rest; [`Reply::finish`]
//! fills in lengths and checksums. Invariant: a reply is at most
//! [`Reply::CAPACITY`] bytes; what does not fit is an error, and the frame is of
//! no use then.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nve_protocol::{DropReason, Mac};

use crate::checksum::{self, Sum};
use crate::packet::protocol;
use crate::wire::{array, ethernet, put, u16_at};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const IP_AT: usize = ethernet::HEADER;

/// An untagged Ethernet frame for the VAP that is answered.
#[derive(Debug, Clone, Default)]
pub struct Reply(heapless::Vec<u8, { Reply::CAPACITY }>);

/// Who sends a packet to whom, and what it carries. Both addresses are of one
/// family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) source_mac: Mac,
    pub(crate) destination_mac: Mac,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    /// DSCP in the upper six bits.
    pub(crate) traffic_class: u8,
}

impl Reply {
    /// Bytes of the largest frame: an IP packet of 1500 bytes.
    pub const CAPACITY: usize = 1514;

    /// An empty one.
    pub const fn new() -> Reply {
        Reply(heapless::Vec::new())
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Starts a frame over.
    pub(crate) fn ethernet(
        &mut self,
        destination: Mac,
        source: Mac,
        ethertype: u16,
    ) -> Result<(), DropReason> {
        self.0.clear();
        self.push(&destination.0)?;
        self.push(&source.0)?;
        self.push(&ethertype.to_be_bytes())
    }

    /// Starts a frame over with an IP header.
    pub(crate) fn ip(&mut self, envelope: &Envelope) -> Result<(), DropReason> {
        let ethertype = match envelope.source {
            IpAddr::V4(_) => ethernet::IPV4,
            IpAddr::V6(_) => ethernet::IPV6,
        };
        self.ethernet(envelope.destination_mac, envelope.source_mac, ethertype)?;
        match (envelope.source, envelope.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.push(&ipv4_header(envelope, source, destination))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.push(&ipv6_header(envelope, source, destination))
            }
            _ => Err(DropReason::MalformedIp),
        }
    }

    /// Starts a frame over with IP and UDP headers.
    pub(crate) fn udp(
        &mut self,
        envelope: &Envelope,
        source_port: u16,
        destination_port: u16,
    ) -> Result<(), DropReason> {
        self.ip(envelope)?;
        self.push(&source_port.to_be_bytes())?;
        self.push(&destination_port.to_be_bytes())?;
        self.push(&[0; 4])
    }

    /// Appends to the frame.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        self.0
            .extend_from_slice(bytes)
            .map_err(|_| DropReason::NoBuffer)
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Overwrites what is already there.
    pub(crate) fn patch(&mut self, at: usize, value: &[u8]) {
        put(&mut self.0, at, value);
    }

    /// Completes an IP packet: its lengths and checksums.
    pub(crate) fn finish(&mut self) -> Result<(), DropReason> {
        let (header, protocol) = match u16_at(&self.0, ethernet::ADDRESSES) {
            Some(ethernet::IPV4) => (IPV4_HEADER, self.0.get(IP_AT + 9).copied()),
            _ => (IPV6_HEADER, self.0.get(IP_AT + 6).copied()),
        };
        let transport = IP_AT + header;
        let payload = self.len().saturating_sub(transport);
        // The capacity is less than 64 KiB.
        let length = payload as u16;
        if protocol == Some(protocol::UDP) {
            self.patch(transport + 4, &length.to_be_bytes());
        }
        let pseudo = if header == IPV4_HEADER {
            self.patch(IP_AT + 2, &(length + IPV4_HEADER as u16).to_be_bytes());
            let sum = checksum::of(self.0.get(IP_AT..transport).unwrap_or_default());
            self.patch(IP_AT + 10, &sum.to_be_bytes());
            match protocol {
                Some(protocol::UDP) => self.pseudo_v4(length)?,
                _ => Sum::default(),
            }
        } else {
            self.patch(IP_AT + 4, &length.to_be_bytes());
            self.pseudo_v6(protocol.unwrap_or_default(), payload)?
        };
        let field = match protocol {
            Some(protocol::UDP) => 6,
            _ => 2,
        };
        let body = self.0.get(transport..).unwrap_or_default();
        let sum = match pseudo.with(body).finish() {
            // Zero would say that there is no checksum (RFC 768); both are the same number.
            0 if field == 6 => 0xffff,
            sum => sum,
        };
        self.patch(transport + field, &sum.to_be_bytes());
        Ok(())
    }

    fn pseudo_v4(&self, length: u16) -> Result<Sum, DropReason> {
        let [source, destination] =
            [IP_AT + 12, IP_AT + 16].map(|at| array::<4>(&self.0, at).map(Ipv4Addr::from));
        let both = source.zip(destination).ok_or(DropReason::Truncated)?;
        Ok(Sum::default().with_pseudo_v4(both.0, both.1, protocol::UDP, length))
    }

    fn pseudo_v6(&self, protocol: u8, length: usize) -> Result<Sum, DropReason> {
        let [source, destination] =
            [IP_AT + 8, IP_AT + 24].map(|at| array::<16>(&self.0, at).map(Ipv6Addr::from));
        let both = source.zip(destination).ok_or(DropReason::Truncated)?;
        Ok(Sum::default().with_pseudo_v6(both.0, both.1, protocol, length))
    }
}

fn ipv4_header(envelope: &Envelope, source: Ipv4Addr, destination: Ipv4Addr) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    put(&mut header, 0, &[0x45, envelope.traffic_class]);
    put(&mut header, 8, &[envelope.hop_limit, envelope.protocol]);
    put(&mut header, 12, &source.octets());
    put(&mut header, 16, &destination.octets());
    header
}

fn ipv6_header(envelope: &Envelope, source: Ipv6Addr, destination: Ipv6Addr) -> [u8; IPV6_HEADER] {
    let mut header = [0; IPV6_HEADER];
    let class = envelope.traffic_class;
    put(&mut header, 0, &[0x60 | class >> 4, class << 4]);
    put(&mut header, 6, &[envelope.protocol, envelope.hop_limit]);
    put(&mut header, 8, &source.octets());
    put(&mut header, 24, &destination.octets());
    header
}
