//! Captures as files that Wireshark and tcpdump read (pcapng,
//! draft-ietf-opsawg-pcapng). Everything is in network byte order.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use nve_protocol::Direction;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::{DataLink, Endianness};

/// `if_tsresol`: timestamps are nanoseconds.
const NANOSECONDS: u8 = 9;
/// `epb_flags`: the two lowest bits say which way, as the interface sees it.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// Writing into a vector has no way to fail.
const FITS: &str = "a vector takes all";

/// Media type of the files.
pub const MEDIA_TYPE: &str = "application/x-pcapng";
/// Block type of a packet.
pub const PACKET_BLOCK: u32 = 6;

/// A file that is being written.
pub struct Pcapng(PcapNgWriter<Vec<u8>>);

impl Pcapng {
    /// A file with one interface.
    pub fn new(name: &str, description: &str, snap: u16) -> Self {
        let writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Big);
        let mut file = Pcapng(writer.expect(FITS));
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: u32::from(snap),
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfDescription(Cow::Borrowed(description)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        file.0.write_pcapng_block(interface).expect(FITS);
        file
    }

    /// Adds a frame of which `data` was kept; `at` counts from 1970. What the VM
    /// gets comes in at its interface.
    pub fn frame(&mut self, at: Duration, direction: Direction, length: u16, data: &[u8]) {
        let flags = match direction {
            Direction::Ingress => INBOUND,
            Direction::Egress => OUTBOUND,
        };
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: at,
            original_len: u32::from(length),
            data: Cow::Borrowed(data),
            options: vec![EnhancedPacketOption::Flags(flags)],
        };
        self.0.write_pcapng_block(block).expect(FITS);
    }

    /// Adds how many frames there were, and how many of them are missing.
    pub fn statistics(&mut self, at: Duration, received: u64, lost: u64) {
        let block = InterfaceStatisticsBlock {
            interface_id: 0,
            timestamp: u64::try_from(at.as_nanos()).unwrap_or(u64::MAX),
            options: vec![
                InterfaceStatisticsOption::IsbIfRecv(received),
                InterfaceStatisticsOption::IsbIfDrop(lost),
            ],
        };
        self.0.write_pcapng_block(block).expect(FITS);
    }

    /// Takes what has been written since the last time: whole blocks.
    pub fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(self.0.get_mut()))
    }
}
