//! Verdicts on flows.

use nve_protocol::{Vlan, Vni};

use super::key::{FlowKey, Origin};
use crate::connections::{Fresh, Handle};
use crate::forward::Rewrite;
use crate::tables::{MeterIndex, VtepIndex};

/// Where the packets of a flow leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Vap(Vlan),
    Tunnel(VtepIndex),
}

/// The verdict: what is done to each packet of the flow. Its layout is such that no
/// field is across a boundary of 16 bytes, by which it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub(crate) struct Path {
    /// The sender's connection and the receiver's.
    pub(crate) connections: [Option<Handle>; 2],
    /// New addresses, and the largest IP packet, if it is routed.
    pub(crate) rewrite: Option<(Rewrite, u16)>,
    /// The network it is delivered in.
    pub(crate) vni: Vni,
    /// Spreads flows over the source ports of outer headers.
    pub(crate) entropy: u32,
    pub(crate) exit: Exit,
    /// What meters what the sender sends.
    pub(crate) egress: Option<MeterIndex>,
    /// What meters what the receiver gets.
    pub(crate) ingress: Option<MeterIndex>,
    /// How packets are marked.
    pub(crate) dscp: Option<u8>,
    /// What of this there is.
    has: Has,
}

/// Parts of a verdict that not every flow has, in one byte: the fast path asks once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Has(u8);

impl Has {
    pub(crate) const CONNECTION: Has = Has(1);
    pub(crate) const REWRITE: Has = Has(2);
    pub(crate) const METER: Has = Has(4);
    pub(crate) const MARK: Has = Has(8);

    /// Whether there is none at all.
    #[inline(always)]
    pub(crate) fn nothing(self) -> bool {
        self.0 == 0
    }

    /// Whether there is one of `parts`.
    #[inline(always)]
    pub(crate) fn any(self, parts: Has) -> bool {
        self.0 & parts.0 != 0
    }

    /// Both.
    pub(crate) const fn and(self, other: Has) -> Has {
        Has(self.0 | other.0)
    }
}

impl Path {
    /// To this exit, in this network, and nothing more is done.
    pub(crate) const fn new(vni: Vni, exit: Exit) -> Path {
        Path {
            connections: [None; 2],
            rewrite: None,
            vni,
            entropy: 0,
            exit,
            egress: None,
            ingress: None,
            dscp: None,
            has: Has(0),
        }
    }

    fn note(mut self, part: Has, there: bool) -> Path {
        if there {
            self.has = self.has.and(part);
        }
        self
    }

    /// The same, and the sender's connection and the receiver's are followed.
    pub(crate) fn following(mut self, connections: [Option<Handle>; 2]) -> Path {
        self.connections = connections;
        self.note(Has::CONNECTION, connections.iter().any(Option::is_some))
    }

    /// The same, and packets get new addresses if they have at most so many bytes.
    pub(crate) fn rewriting(mut self, rewrite: Option<(Rewrite, u16)>) -> Path {
        self.rewrite = rewrite;
        self.note(Has::REWRITE, rewrite.is_some())
    }

    /// The same, within limits of what the sender sends and of what the receiver gets.
    pub(crate) fn metered(
        mut self,
        egress: Option<MeterIndex>,
        ingress: Option<MeterIndex>,
    ) -> Path {
        (self.egress, self.ingress) = (egress, ingress);
        self.note(Has::METER, egress.is_some() || ingress.is_some())
    }

    /// The same, and packets are marked.
    pub(crate) fn marking(mut self, dscp: Option<u8>) -> Path {
        self.dscp = dscp;
        self.note(Has::MARK, dscp.is_some())
    }

    /// The same, with what spreads flows over the source ports of outer headers.
    pub(crate) fn spread(self, entropy: u32) -> Path {
        Path { entropy, ..self }
    }

    /// The VAP that it leads to, if it is of packets of a VAP and there is nothing more.
    pub(super) fn across(&self, key: &FlowKey) -> Option<Vlan> {
        let is_plain = matches!(key.origin(), Some(Origin::Vap(_))) && self.has.nothing();
        match self.exit {
            Exit::Vap(vlan) if is_plain => Some(vlan),
            _ => None,
        }
    }

    /// What it has.
    #[inline(always)]
    pub(crate) fn has(&self) -> Has {
        self.has
    }
}

// The verdict fits a cache line.
const _: () = assert!(size_of::<Path>() + size_of::<Fresh>() <= 64);
