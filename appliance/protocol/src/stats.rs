//! Counters that an appliance reports, and the reasons for which it drops.

use serde::{Deserialize, Serialize};

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
    /// Underlay IPv4 header with a wrong checksum, version or length.
    OuterIp = "outer_ip",
    /// Underlay IPv4 fragment; VXLAN is never fragmented (RFC 7348, section 4.3).
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
    /// The next hop of a VTEP has not answered ARP yet.
    UnderlayUnresolved = "underlay_unresolved",
    /// Larger than the egress MTU.
    TooBig = "too_big",
    /// No free buffer for a copy.
    NoBuffer = "no_buffer",
    /// The egress queue was full.
    QueueFull = "queue_full",
    /// Partial checksum whose offsets lie in the Ethernet header or outside the frame.
    BadOffload = "bad_offload",
    /// The VM's frame carries a VLAN tag of its own (RFC 7348, section 6.1).
    InnerVlan = "inner_vlan",
    /// Malformed ARP, or ARP with another sender MAC than the frame's.
    Arp = "arp",
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
    /// ARP requests answered from the tables.
    pub arp_replies: u64,
    /// Dropped frames, one counter for each of [`DropReason::ALL`].
    pub drops: [u64; DropReason::COUNT],
    /// Microseconds that the poll loop was busy.
    pub busy_us: u64,
    /// Bytes of heap in use.
    pub heap_used: u64,
    /// Bytes of heap in all.
    pub heap_size: u64,
}
