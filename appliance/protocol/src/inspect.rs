//! Questions about a running NVE, and their answers: what would become of a packet,
//! what was dropped, which flows there are, what passes a VAP.
//!
//! The shim numbers its questions and asks one at a time. An answer comes in parts,
//! each with the number of its question, and ends with [`Part::Done`] or
//! [`Part::Failed`]. The NVE keeps nothing of a question but a running capture, which
//! ends [by itself](CAPTURE_TIMEOUT_MS) when nobody asks for it any more: lists are
//! read on from where the last answer ended. No question changes what the NVE does
//! with a frame.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::handover::{Handover, Known};
use crate::policy::{Direction, Limit};
use crate::stats::DropReason;
use crate::types::{Mac, PortId, Prefix, RouterId, RuleId, Vlan, Vni};

/// Most parts of an answer, the last one included.
pub const MAX_PARTS: usize = 256;

/// Longest frame that can be asked about, in bytes without tag and FCS.
pub const MAX_PROBE: u16 = 9216;

/// Milliseconds after which a capture ends that nobody asks for.
pub const CAPTURE_TIMEOUT_MS: u64 = 5_000;

/// Front of a frame that is asked about.
pub type ProbeHead = Bytes<512>;

/// Front of a frame that leaves.
pub type Head = Bytes<192>;

/// Bytes of a captured frame, or of a piece of it.
pub type Piece = Bytes<640>;

/// A question with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Repeated in each part of the answer.
    pub number: u32,
    /// What is asked.
    pub question: Question,
}

/// What is asked.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack; boxing needs a heap"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What would become of a frame now: [`Part::Step`]s.
    Trace(Probe),
    /// The drops after one with that number, oldest first: [`Part::Drop`]s.
    Drops {
        /// Number of the last drop that is known; 0 for none.
        after: u64,
    },
    /// Entries of the flow cache: [`Part::Flow`]s.
    Flows {
        /// Where the last answer ended; 0 to begin.
        cursor: u32,
        /// Only those from or to this VAP.
        vlan: Option<Vlan>,
    },
    /// Frames from and to a VAP since the last answer: [`Part::Frame`]s. Begins the
    /// capture if there is none.
    Capture(Capture),
    /// What is known of a VAP's traffic, for another NVE: [`Part::Known`]s.
    Handover(Handover),
}

/// A frame that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Where it comes from.
    pub origin: Origin,
    /// Its bytes without tag and FCS, at most [`MAX_PROBE`].
    pub length: u16,
    /// The first of them; zeros follow.
    pub head: ProbeHead,
}

/// Where a frame comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A VM of this host.
    Vap {
        /// Its tag.
        vlan: Vlan,
    },
    /// A tunnel.
    Tunnel(Tunnel),
}

/// A capture, as each question for its frames names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Tells captures apart; chosen by who begins it.
    pub id: u32,
    /// The VAP.
    pub vlan: Vlan,
    /// The port that must be behind it: none else's frames are told.
    pub port: PortId,
    /// Most bytes that are kept of a frame.
    pub snap: u16,
}

/// A part of an answer, with the question's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// As in the [`Ask`].
    pub number: u32,
    /// What is told.
    pub part: Part,
}

/// A part of an answer.
#[expect(
    clippy::large_enum_variant,
    reason = "moved at most twice; boxing would be a heap block for each"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What a stage would do with the frame.
    Step(Step),
    /// A drop.
    Drop(Dropped),
    /// An entry of the flow cache.
    Flow(Flow),
    /// A captured frame, or a piece of it.
    Frame(Captured),
    /// Something that is known of a VAP's traffic.
    Known(Known),
    /// The answer's end.
    Done(Done),
    /// The answer's end: it is not whole.
    Failed(Failure),
}

/// The end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// Where to go on: the newest drop that was told of, or the cursor of the flow cache
    /// or the handover, which is 0 at its end.
    pub next: u64,
    /// What there was beside what is told: drops that are forgotten, frames that the
    /// capture had no room for, steps beyond [`MAX_PARTS`].
    pub lost: u64,
    /// Whether there is more at once.
    pub more: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The probe is no Ethernet frame, or longer than [`MAX_PROBE`].
    BadProbe,
    /// There is no such VAP, or another port is behind it.
    NoVap,
    /// Another capture is running.
    Busy,
    /// Memory is short.
    OutOfMemory,
}

/// What a stage does with a traced frame, in the order of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Where it came from.
    From(Via),
    /// Its source is one that the VM may use.
    Source(Source),
    /// The NVE answers it itself, or takes it without an answer.
    Responder(Responder),
    /// A VAP's security groups let it pass.
    Admitted(Admitted),
    /// It is addressed to a router.
    Router {
        /// The router.
        router: RouterId,
        /// Address of its interface on the sender's network.
        gateway: IpAddr,
    },
    /// The router's way for it.
    Route {
        /// What matched: the prefix of an interface's subnet, or an extra route.
        prefix: Prefix,
        /// The network that it goes to.
        vni: Vni,
        /// Who gets it there.
        next_hop: IpAddr,
        /// The next hop's MAC address.
        mac: Mac,
        /// Bytes of the largest IP packet in that network.
        mtu: u16,
    },
    /// Who has the MAC address that it is for.
    Receiver(Receiver),
    /// A VAP's QoS policy meters it.
    Meter {
        /// The VAP.
        vlan: Vlan,
        /// Of what the VM sends, or gets.
        direction: Direction,
        /// The limit.
        limit: Limit,
    },
    /// It is marked.
    Mark {
        /// The code point.
        dscp: u8,
    },
    /// It is routed: its hop limit is one less, and it gets new MAC addresses.
    Rewrite {
        /// The router's.
        source: Mac,
        /// The next hop's.
        destination: Mac,
    },
    /// It is sent on in pieces.
    Fragment {
        /// Bytes of the largest IP packet.
        mtu: u16,
    },
    /// It leaves, as it is then or answered.
    Send(Leaving),
    /// It is dropped, or a copy of it is.
    Drop {
        /// Why.
        reason: DropReason,
        /// Whose security groups or limits are the reason.
        blame: Option<Blame>,
    },
}

/// A VAP and who is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its tag.
    pub vlan: Vlan,
    /// Its port.
    pub port: PortId,
}

/// Why a frame's source is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The port has no port security.
    Unchecked,
    /// It is one of the VAP's addresses.
    Address {
        /// MAC address.
        mac: Mac,
        /// IP addresses that go with it.
        prefix: Prefix,
        /// Whether they are a fixed IP; if not, an allowed address pair.
        fixed: bool,
    },
    /// The link-local address that is made of one of the VAP's MAC addresses.
    LinkLocal,
    /// The MAC address is the VAP's, and the protocol has no IP address.
    Mac,
    /// It has no address yet and asks for one, or tests it.
    Unspecified,
}

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Responder {
    /// ARP.
    Arp,
    /// Neighbor discovery, router solicitations included.
    NeighborDiscovery,
    /// DHCP for IPv4.
    Dhcpv4,
    /// DHCP for IPv6.
    Dhcpv6,
    /// A gateway that is pinged.
    Echo,
    /// A gateway that tells why it does not forward (ICMP, ICMPv6).
    Icmp,
}

/// How a VAP's security groups let a packet pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// The VAP.
    pub vlan: Vlan,
    /// Out of the VM, or into it.
    pub direction: Direction,
    /// Whether the VAP has port security: without, all passes.
    pub checked: bool,
    /// The rule that allows it, or its connection; `None` if it needs none.
    pub rule: Option<RuleId>,
    /// Where the connection stands that it is of; `None` if it opens one, or is of
    /// none.
    pub connection: Option<ConnectionState>,
    /// Whether it opens a connection.
    pub opens: bool,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// TCP: a SYN, not answered.
    SynSent,
    /// TCP: a SYN and its answer.
    SynReceived,
    /// TCP: both sides have acknowledged.
    Established,
    /// TCP: picked up in its middle, the answerer not heard yet.
    PickedUp,
    /// TCP: the opener has sent FIN.
    OpenerClosed,
    /// TCP: the answerer has sent FIN.
    AnswererClosed,
    /// TCP: both have sent FIN.
    Closed,
    /// TCP: one side has sent RST.
    Reset,
    /// UDP and UDP-Lite: not answered.
    Unanswered,
    /// UDP and UDP-Lite: answered.
    Answered,
    /// A query of ICMP or ICMPv6 and its answers.
    Query,
    /// Any other protocol.
    Other,
    /// No rule allows it any more.
    Cut,
}

/// Who gets a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiver {
    /// A VAP of this NVE.
    Vap(Place),
    /// A station behind a VTEP, by the FDB.
    Fdb {
        /// The network.
        vni: Vni,
        /// The station.
        mac: Mac,
        /// The VTEP.
        vtep: IpAddr,
    },
    /// All members of the network.
    All {
        /// The network.
        vni: Vni,
    },
    /// Whoever may have an address that no table knows.
    Unknown {
        /// The network.
        vni: Vni,
        /// The address.
        mac: Mac,
    },
}

/// A frame that leaves the NVE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Where to.
    pub to: Via,
    /// Its bytes, without FCS.
    pub length: u16,
    /// The first of them, with the tag or the outer headers.
    pub head: Head,
}

/// By which a frame comes or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The trunk: a VM of this host.
    Vap(Place),
    /// The uplink: another VTEP.
    Tunnel(Tunnel),
}

/// A network at a VTEP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The network.
    pub vni: Vni,
    /// The VTEP at the other end.
    pub vtep: IpAddr,
}

/// Whose policy is the reason of a drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blame {
    /// The VAP.
    pub vlan: Vlan,
    /// Its port.
    pub port: PortId,
    /// Out of the VM, or into it.
    pub direction: Direction,
    /// The rule that allowed the connection until it was cut.
    pub rule: Option<RuleId>,
}

/// A drop, as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Counts drops since boot, from 1.
    pub number: u64,
    /// Milliseconds from boot.
    pub at_ms: u64,
    /// Why.
    pub reason: DropReason,
    /// Where it came from; `None` if it got no further than its tag or its outer
    /// headers.
    pub from: Option<Via>,
    /// Whose security groups or limits are the reason.
    pub blame: Option<Blame>,
    /// What its headers say, if it has them.
    pub packet: Option<Packet>,
}

/// What a frame's headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Sender's MAC address.
    pub source_mac: Mac,
    /// Receiver's MAC address.
    pub destination_mac: Mac,
    /// What follows the Ethernet header.
    pub ethertype: u16,
    /// Of IP packets.
    pub ip: Option<Tuple>,
}

/// Addresses, protocol and ports of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuple {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; of ICMP the type.
    pub source_port: u16,
    /// Destination port; of ICMP the code.
    pub destination_port: u16,
}

/// An entry of the flow cache: the verdict for one direction of one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Where its packets come from.
    pub from: Via,
    /// What makes packets this flow. Of ICMP the ports are type and code.
    pub tuple: Tuple,
    /// Identifier of ICMP echoes.
    pub echo: Option<u16>,
    /// Where they leave.
    pub to: Via,
    /// New MAC addresses, source first, if they are routed.
    pub rewrite: Option<(Mac, Mac)>,
    /// How they are marked.
    pub dscp: Option<u8>,
    /// Whether the sender's limit meters them.
    pub egress_meter: bool,
    /// Whether the receiver's limit meters them.
    pub ingress_meter: bool,
    /// The sender's connection.
    pub sender: Option<Tracked>,
    /// The receiver's connection.
    pub receiver: Option<Tracked>,
    /// Milliseconds since the last packet, in steps of about a second.
    pub idle_ms: u32,
}

/// A connection of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracked {
    /// Where it stands.
    pub state: ConnectionState,
    /// The rule that allows it.
    pub rule: RuleId,
}

/// A captured frame, or a piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// Counts the capture's frames, from 1.
    pub number: u64,
    /// Microseconds from boot.
    pub at_us: u64,
    /// Out of the VM, or into it.
    pub direction: Direction,
    /// The frame's bytes, without tag and FCS.
    pub length: u16,
    /// Bytes of it that were kept.
    pub kept: u16,
    /// Where in the kept bytes the piece begins.
    pub offset: u16,
    /// The piece.
    pub piece: Piece,
}
