//! Where a connection is in its life, and how long it may be idle there.

const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// TCP: a SYN.
    SynSent,
    /// TCP: a SYN of the other side.
    SynReceived,
    /// TCP: after that, an ACK.
    Established,
    /// TCP: begun with an ACK, of one side only.
    PickedUp,
    /// TCP: a FIN of the opener.
    OpenerClosed,
    /// TCP: a FIN of the other side.
    AnswererClosed,
    /// TCP: a FIN of both.
    Closed,
    /// TCP: an RST.
    Reset,
    /// UDP and UDP-Lite, of one side.
    Unanswered,
    /// UDP and UDP-Lite, of both.
    Answered,
    /// ICMP.
    Query,
    Other,
    /// Of any of them, when rules no longer allowed it.
    Cut,
}

impl State {
    /// Nanoseconds after the last packet until it is forgotten.
    pub(super) fn idle(self) -> u64 {
        SECOND
            * match self {
                State::SynSent => 120,
                State::SynReceived => 60,
                State::Established => 5 * 24 * 3600,
                State::PickedUp => 300,
                State::OpenerClosed | State::AnswererClosed | State::Closed => 120,
                State::Reset => 10,
                State::Unanswered => 30,
                State::Answered => 120,
                State::Query => 30,
                State::Other => 600,
                State::Cut => 180,
            }
    }

    /// Of a packet that opens a connection, with these flags of TCP.
    pub(super) fn opening(protocol: u8, flags: u8) -> Option<State> {
        let [syn, ack, rst, fin] = [0x02, 0x10, 0x04, 0x01].map(|flag| flags & flag != 0);
        match protocol {
            6 if rst || fin || syn == ack => None,
            6 if syn => Some(State::SynSent),
            6 => Some(State::PickedUp),
            17 | 136 => Some(State::Unanswered),
            1 | 58 => Some(State::Query),
            _ => Some(State::Other),
        }
    }

    /// Of a connection that was cut and is allowed again.
    pub(super) fn resuming(protocol: u8) -> State {
        State::opening(protocol, 0x10).unwrap_or(State::Other)
    }

    /// Whether a SYN begins another connection in its place.
    pub(super) fn is_over(self) -> bool {
        self.has_ended() || matches!(self, State::PickedUp | State::Cut)
    }

    /// Whether it makes room for others.
    pub(super) fn has_ended(self) -> bool {
        matches!(self, State::Closed | State::Reset)
    }

    /// After a packet of the opener or the other side, with these flags of TCP.
    pub(super) fn after(self, opener: bool, flags: u8) -> State {
        let [syn, ack, rst, fin] = [0x02, 0x10, 0x04, 0x01].map(|flag| flags & flag != 0);
        match self {
            State::Unanswered if !opener => State::Answered,
            State::Unanswered | State::Answered | State::Query | State::Other | State::Cut => self,
            _ if rst => State::Reset,
            State::Closed | State::Reset => self,
            State::OpenerClosed if fin && !opener => State::Closed,
            State::AnswererClosed if fin && opener => State::Closed,
            _ if fin && opener => State::OpenerClosed,
            _ if fin => State::AnswererClosed,
            State::SynSent if syn && !opener => State::SynReceived,
            State::SynReceived if ack && !syn && opener => State::Established,
            State::PickedUp if !opener => State::Established,
            _ => self,
        }
    }
}
