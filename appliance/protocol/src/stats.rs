//! Counters that an appliance reports, and the reasons for which it drops.

use serde::{Deserialize, Serialize};

use crate::processors::Processors;
use crate::record::TableSizes;

/// Declares [`DropReason`] with its names and texts in one place.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why the datapath dropped a frame. Each has a counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),+];

            /// Name in the protocol, in metrics and in tables.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name),+ }
            }

            /// One sentence for operators.
            pub const fn text(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its headers say.
    Truncated = "truncated",
    /// On the trunk without a VLAN tag.
    Untagged = "untagged",
    /// VLAN tag of no VAP.
    UnknownVlan = "unknown_vlan",
    /// Source MAC is not the VAP's.
    SourceMac = "source_mac",
    /// Destination is the sender itself.
    Hairpin = "hairpin",
    /// Link-local group address that bridges do not forward (IEEE 802.1Q, 8.6.3).
    LinkLocalGroup = "link_local_group",
    /// Underlay frame for another station or of a protocol the NVE does not speak.
    NotForUs = "not_for_us",
    /// Underlay IP header with a wrong checksum, version or length.
    OuterIp = "outer_ip",
    /// Underlay IP fragment; VXLAN is never fragmented (RFC 7348, section 4.3).
    OuterFragment = "outer_fragment",
    /// Underlay UDP length or checksum wrong.
    OuterUdp = "outer_udp",
    /// VXLAN flags without the I bit (RFC 7348, section 5).
    VxlanFlags = "vxlan_flags",
    /// VXLAN from an address that is no VTEP of the network.
    UnknownVtep = "unknown_vtep",
    /// VNI of no local VAP.
    UnknownVni = "unknown_vni",
    /// Came out of the tunnel for a MAC address that is not local (split horizon).
    SplitHorizon = "split_horizon",
    /// No receiver: unknown unicast in a network without other members.
    NoReceiver = "no_receiver",
    /// The next hop of a VTEP has not answered ARP or neighbor discovery yet.
    UnderlayUnresolved = "underlay_unresolved",
    /// Larger than the egress MTU.
    TooBig = "too_big",
    /// No free buffer for a copy.
    NoBuffer = "no_buffer",
    /// The egress queue was full.
    QueueFull = "queue_full",
    /// Checksum or segmentation that was left to be done and does not fit the frame.
    BadOffload = "bad_offload",
    /// The VM's frame carries a VLAN tag of its own (RFC 7348, section 6.1).
    InnerVlan = "inner_vlan",
    /// Malformed ARP, or ARP whose sender is not one of the VAP's addresses.
    Arp = "arp",
    /// IPv4 or IPv6 header of a VM's packet with a wrong version, length, checksum
    /// or chain of extension headers.
    MalformedIp = "malformed_ip",
    /// Transport header cut short, or a first fragment too small to hold it.
    MalformedTransport = "malformed_transport",
    /// Source IP address is not one of the VAP's.
    SourceIp = "source_ip",
    /// Malformed neighbor discovery, or with an address that is not the VAP's.
    NeighborDiscovery = "neighbor_discovery",
    /// Router advertisement or redirect from a VM.
    RouterAdvertisement = "router_advertisement",
    /// DHCP server's message from a VM.
    DhcpServer = "dhcp_server",
    /// Malformed DHCP, or nothing to lease.
    Dhcp = "dhcp",
    /// No security group rule allows it.
    SecurityGroup = "security_group",
    /// The port has as many connections as it may, or the table is full.
    ConnectionLimit = "connection_limit",
    /// Fragment whose first fragment was not seen or not allowed.
    Fragment = "fragment",
    /// The router has no route.
    NoRoute = "no_route",
    /// The router's next hop is no known address of its network.
    NoNeighbor = "no_neighbor",
    /// Hop limit (IPv4: TTL) used up at the router.
    HopLimit = "hop_limit",
    /// Source or destination that a router does not forward (RFC 1812, 5.3.7).
    Martian = "martian",
    /// For the router itself, and nothing that it answers.
    Gateway = "gateway",
    /// Over the rate of the sender's or the receiver's QoS policy.
    RateLimit = "rate_limit",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Place of the reason's counter in [`Stats::drops`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Traffic of one NIC since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NicStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received, without FCS.
    pub rx_bytes: u64,
    /// Frames handed to the device.
    pub tx_packets: u64,
    /// Bytes handed to the device, without FCS.
    pub tx_bytes: u64,
    /// Frames that the device described wrongly (bad length, bad id).
    pub device_errors: u64,
}

/// A report of an appliance's counters, all since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Milliseconds since boot.
    pub uptime_ms: u64,
    /// Generation in force.
    pub generation: u64,
    /// Records in force.
    pub tables: TableSizes,
    /// The NIC towards the vSwitch.
    pub trunk: NicStats,
    /// The NIC towards other VTEPs.
    pub uplink: NicStats,
    /// Requests of VMs that the NVE answered itself: ARP, neighbor discovery,
    /// DHCP, ICMP to gateways.
    pub answers: u64,
    /// Dropped frames, one counter for each of [`DropReason::ALL`].
    #[serde(with = "drop_counts")]
    pub drops: [u64; DropReason::COUNT],
    /// Microseconds that poll loops were busy, of all processors together.
    pub busy_us: u64,
    /// Each processor's part; images that have only one may not tell.
    #[serde(default)]
    pub processors: Processors,
    /// Bytes of heap in use.
    pub heap_used: u64,
    /// Bytes of heap in all.
    pub heap_size: u64,
}

/// A list of exactly one number per [`DropReason`]; serde itself knows arrays of
/// up to 32.
mod drop_counts {
    use core::fmt;

    use serde::de::{Error, SeqAccess, Visitor};
    use serde::ser::SerializeSeq;
    use serde::{Deserializer, Serializer};

    use super::DropReason;

    type Counts = [u64; DropReason::COUNT];

    pub(super) fn serialize<S: Serializer>(counts: &Counts, out: S) -> Result<S::Ok, S::Error> {
        let mut list = out.serialize_seq(Some(counts.len()))?;
        for count in counts {
            list.serialize_element(count)?;
        }
        list.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Counts, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Counts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number for each reason")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Counts, A::Error> {
                let mut counts = [0; DropReason::COUNT];
                for (at, count) in counts.iter_mut().enumerate() {
                    *count = list
                        .next_element()?
                        .ok_or_else(|| A::Error::invalid_length(at, &self))?;
                }
                match list.next_element::<u64>()? {
                    None => Ok(counts),
                    Some(_) => Err(A::Error::invalid_length(DropReason::COUNT + 1, &self)),
                }
            }
        }
        input.deserialize_seq(List)
    }
}
