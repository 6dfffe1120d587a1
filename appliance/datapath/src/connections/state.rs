//! What is known of a connection's life, and how long it may be idle.
//!
//! TCP is followed by its flags alone, never by sequence numbers: a middle that
//! sees only some of the packets would be wrong about windows. What a forged flag
//! can do is to shorten the time that an idle connection is kept.

use nve_protocol::inspect::ConnectionState;

use crate::packet::protocol;

/// FIN in the flags of TCP (RFC 9293, section 3.1).
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;
/// Flags that may change the state of a settled connection.
pub const CHANGES: u8 = SYN | FIN | RST;

/// Declares [`State`] and [`Timeouts`] with what is kept for how long.
macro_rules! states {
    ($($(#[$doc:meta])+ $state:ident, $(#[$time_doc:meta])+ $timeout:ident = $seconds:literal;)+) => {
        /// Where a connection is in its life. The opener is who sent the packet
        /// that opened it, the answerer is the other side.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum State {
            $($(#[$doc])+ $state,)+
        }

        impl State {
            /// Every state.
            pub const ALL: &'static [State] = &[$(State::$state),+];
        }

        impl From<State> for ConnectionState {
            fn from(state: State) -> ConnectionState {
                match state { $(State::$state => ConnectionState::$state),+ }
            }
        }

        impl From<ConnectionState> for State {
            fn from(state: ConnectionState) -> State {
                match state { $(ConnectionState::$state => State::$state),+ }
            }
        }

        /// How long a connection may be idle in each state, in seconds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Timeouts {
            $($(#[$time_doc])+ pub $timeout: u32,)+
        }

        impl Default for Timeouts {
            fn default() -> Self {
                Timeouts { $($timeout: $seconds,)+ }
            }
        }

        impl Timeouts {
            /// Seconds in one state.
            pub const fn get(&self, state: State) -> u32 {
                match state { $(State::$state => self.$timeout),+ }
            }
        }
    };
}

// The numbers are those of Linux (nf_conntrack-sysctl) where it has them.
states! {
    /// TCP: a SYN, not answered.
    SynSent,
    /// After a SYN.
    syn_sent = 120;
    /// TCP: a SYN and its answer.
    SynReceived,
    /// After the answer to a SYN.
    syn_received = 60;
    /// TCP: both sides have acknowledged.
    Established,
    /// Of an established TCP connection.
    established = 432_000;
    /// TCP: picked up in its middle, the answerer not heard yet.
    PickedUp,
    /// Of a TCP connection in whose middle only one side was seen.
    picked_up = 300;
    /// TCP: the opener has sent FIN.
    OpenerClosed,
    /// After the opener's FIN.
    opener_closed = 120;
    /// TCP: the answerer has sent FIN.
    AnswererClosed,
    /// After the answerer's FIN.
    answerer_closed = 120;
    /// TCP: both have sent FIN.
    Closed,
    /// After both FINs.
    closed = 120;
    /// TCP: one side has sent RST.
    Reset,
    /// After RST.
    reset = 10;
    /// UDP and UDP-Lite: not answered.
    Unanswered,
    /// Of UDP without an answer.
    unanswered = 30;
    /// UDP and UDP-Lite: answered.
    Answered,
    /// Of UDP with an answer.
    answered = 120;
    /// A query of ICMP or ICMPv6 and its answers.
    Query,
    /// After a query of ICMP.
    query = 30;
    /// Any other protocol.
    Other,
    /// Of any other protocol.
    other = 600;
    /// No rule allows it any more: its packets are denied, so that none of them
    /// opens it again from its middle.
    Cut,
    /// After the last packet of a connection that was cut. More than TCP's longest
    /// time between retransmissions (RFC 6298, section 2.5; 120 in practice).
    cut = 180;
}

impl State {
    /// How many states there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The state of a new connection; `None` if the packet opens none: of TCP all
    /// but a SYN, or an ACK that is of an older connection.
    pub(crate) fn opening(number: u8, flags: u8) -> Option<State> {
        match number {
            protocol::TCP => match flags & (SYN | ACK | RST | FIN) {
                SYN => Some(State::SynSent),
                ACK => Some(State::PickedUp),
                _ => None,
            },
            protocol::UDP | protocol::UDP_LITE => Some(State::Unanswered),
            protocol::ICMP | protocol::ICMPV6 => Some(State::Query),
            _ => Some(State::Other),
        }
    }

    /// The state of a connection that was cut and is allowed again.
    pub(crate) fn resuming(number: u8) -> State {
        State::opening(number, ACK).unwrap_or(State::Other)
    }

    /// Whether connections of a protocol come into this state.
    pub(crate) fn suits(self, number: u8) -> bool {
        match self {
            State::Cut => true,
            State::Unanswered | State::Answered => {
                matches!(number, protocol::UDP | protocol::UDP_LITE)
            }
            State::Query => matches!(number, protocol::ICMP | protocol::ICMPV6),
            State::Other => State::opening(number, ACK) == Some(State::Other),
            _ => number == protocol::TCP,
        }
    }

    /// Whether a packet of the connection is instead the first of a new one on the
    /// same ports.
    pub(crate) fn is_reopened_by(self, flags: u8) -> bool {
        let over = matches!(
            self,
            State::Closed | State::Reset | State::PickedUp | State::Cut
        );
        over && flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// The state after a packet; `flags` are 0 if it is not TCP.
    pub(crate) fn after(self, opener: bool, flags: u8) -> State {
        match self {
            State::Unanswered if !opener => State::Answered,
            State::Unanswered | State::Answered | State::Query | State::Other | State::Cut => self,
            _ if flags & RST != 0 => State::Reset,
            State::Reset | State::Closed => self,
            _ if flags & FIN != 0 => self.after_fin(opener),
            // An answer, or a SYN of its own (simultaneous open).
            State::SynSent if !opener && flags & SYN != 0 => State::SynReceived,
            State::SynReceived if opener && flags & (SYN | ACK) == ACK => State::Established,
            State::PickedUp if !opener => State::Established,
            _ => self,
        }
    }

    /// Whether no packet without one of [`CHANGES`] changes it, and none with them leads
    /// to a state in which one would.
    pub(crate) fn is_settled(self) -> bool {
        !matches!(
            self,
            State::SynSent | State::SynReceived | State::PickedUp | State::Unanswered
        )
    }

    fn after_fin(self, opener: bool) -> State {
        match (self, opener) {
            (State::OpenerClosed, false) | (State::AnswererClosed, true) => State::Closed,
            (_, true) => State::OpenerClosed,
            (_, false) => State::AnswererClosed,
        }
    }

    /// How much is lost with the connection: 0 little to 2 much.
    pub(crate) fn worth(self) -> u8 {
        match self {
            State::Closed | State::Reset => 0,
            State::SynSent
            | State::SynReceived
            | State::PickedUp
            | State::Unanswered
            | State::Query
            | State::Cut => 1,
            State::Established
            | State::OpenerClosed
            | State::AnswererClosed
            | State::Answered
            | State::Other => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use State::*;

    const SYN_ACK: u8 = SYN | ACK;
    const FIN_ACK: u8 = FIN | ACK;
    const RST_ACK: u8 = RST | ACK;
    const PSH_ACK: u8 = 0x08 | ACK;

    #[test]
    fn tcp_goes_by_its_flags() {
        // Lives, packet by packet: whether of the opener, its flags, the state after.
        let lives: &[&[(bool, u8, State)]] = &[
            &[
                (true, SYN, SynSent),
                (true, SYN, SynSent),
                (false, SYN_ACK, SynReceived),
                (false, SYN_ACK, SynReceived),
                (true, ACK, Established),
                (true, PSH_ACK, Established),
                (false, PSH_ACK, Established),
                (true, FIN_ACK, OpenerClosed),
                (true, FIN_ACK, OpenerClosed),
                (false, ACK, OpenerClosed),
                (false, FIN_ACK, Closed),
                (true, ACK, Closed),
                (true, FIN_ACK, Closed),
            ],
            &[
                (true, SYN, SynSent),
                (false, SYN_ACK, SynReceived),
                (true, PSH_ACK, Established),
                (false, FIN_ACK, AnswererClosed),
                (false, FIN_ACK, AnswererClosed),
                (true, FIN_ACK, Closed),
                (false, RST, Reset),
            ],
            &[
                (true, SYN, SynSent),
                (false, RST_ACK, Reset),
                (true, ACK, Reset),
                (false, FIN, Reset),
            ],
            // Simultaneous open.
            &[
                (true, SYN, SynSent),
                (false, SYN, SynReceived),
                (true, SYN_ACK, SynReceived),
                (true, ACK, Established),
            ],
            // An old connection's ACK does not establish the new one.
            &[
                (true, SYN, SynSent),
                (false, ACK, SynSent),
                (true, RST, Reset),
            ],
            &[
                (true, ACK, PickedUp),
                (true, ACK, PickedUp),
                (false, PSH_ACK, Established),
                (false, SYN, Established),
                (true, RST_ACK, Reset),
            ],
        ];
        for life in lives {
            let mut state = None;
            for (opener, flags, wanted) in *life {
                let next = match state {
                    None => State::opening(protocol::TCP, *flags).unwrap(),
                    Some(state) => State::after(state, *opener, *flags),
                };
                assert_eq!(next, *wanted, "{state:?} {opener} {flags:#x}");
                state = Some(next);
            }
        }
    }

    #[test]
    fn only_a_syn_or_an_ack_opens_tcp() {
        for flags in 0..=u8::MAX {
            let opens = State::opening(protocol::TCP, flags).is_some();
            assert_eq!(opens, matches!(flags & 0x17, SYN | ACK), "{flags:#x}");
        }
    }

    #[test]
    fn settled_states_stay_settled() {
        for state in State::ALL.iter().filter(|state| state.is_settled()) {
            for flags in 0..=u8::MAX {
                for opener in [false, true] {
                    let next = state.after(opener, flags);
                    assert!(next.is_settled(), "{state:?} {flags:#x}");
                    assert!(
                        flags & CHANGES != 0 || next == *state,
                        "{state:?} {flags:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_syn_reopens_what_is_over() {
        for state in State::ALL {
            let over = matches!(state, Closed | Reset | PickedUp | Cut);
            assert_eq!(state.is_reopened_by(SYN), over);
            assert!(!state.is_reopened_by(SYN_ACK) && !state.is_reopened_by(0));
        }
    }

    #[test]
    fn other_protocols_go_by_answers() {
        assert_eq!(State::opening(protocol::UDP, 0), Some(Unanswered));
        assert_eq!(Unanswered.after(true, 0), Unanswered);
        assert_eq!(Unanswered.after(false, 0), Answered);
        assert_eq!(State::opening(protocol::ICMPV6, 0), Some(Query));
        assert_eq!(State::opening(47, 0), Some(Other));
        for state in [Answered, Query, Other, Cut] {
            assert_eq!(state.after(false, 0), state);
        }
        let ordinary = Timeouts::default();
        assert_eq!(ordinary.get(Established), 5 * 24 * 3600);
        assert_eq!(ordinary.get(Unanswered), 30);
    }
}
