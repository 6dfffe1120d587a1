//! The control session on a TCP connection of the host stack.

use core::net::SocketAddr;

use heapless::Vec;
use log::{debug, info, warn};
use nve_agent::{Action, Entropy, Phase, Session, SessionConfig};
use nve_datapath::{Nanos, Tables};
use nve_protocol::Stats;
use smoltcp::socket::tcp::{Socket, State};

use super::Clock;
use super::host::Host;
use super::lead::Led;
use crate::config::MAX_SHIMS;

/// First port of the range for outgoing connections (RFC 6335, section 6), and
/// how many there are.
const PORTS: (u16, u16) = (49_152, 16_384);

/// Most things done before frames have their turn again.
const STEPS: usize = 8;

/// Where the connection stands, as the session was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Closed,
    Opening,
    Open,
}

/// The control session with its connection.
pub struct Control<E> {
    session: Session<Tables, E>,
    shims: Vec<SocketAddr, MAX_SHIMS>,
    shim: Option<SocketAddr>,
    link: Link,
    phase: Phase,
    /// Counts connections, so that each has a port of its own.
    dialed: u16,
    clock: Clock,
}

impl<E: Entropy> Control<E> {
    /// A session with one of `shims`; `seed` is where its ports start.
    pub fn new(
        config: SessionConfig,
        entropy: E,
        shims: Vec<SocketAddr, MAX_SHIMS>,
        seed: u64,
        clock: Clock,
    ) -> Self {
        Control {
            session: Session::new(config, entropy),
            shims,
            shim: None,
            link: Link::Closed,
            phase: Phase::Waiting,
            dialed: (seed % u64::from(PORTS.1)) as u16,
            clock,
        }
    }

    /// Takes and gives what there is, at most one frame of each; returns when to
    /// be called again if nothing comes. Without shims there is no session.
    pub fn drive(
        &mut self,
        now: Nanos,
        host: &mut Host,
        led: &mut Led<'_>,
        stats: impl Fn(&Led<'_>) -> Stats,
    ) -> Nanos {
        if self.shims.is_empty() {
            return Nanos(u64::MAX);
        }
        for _ in 0..STEPS {
            self.follow_link(now, host.socket(), led);
            // Others do what was done first, and answer what they were asked.
            let behind = led.is_behind();
            let more = behind || self.receive(host.socket(), led);
            if let Some(parts) = led.take_answer(now) {
                self.session.answer(parts);
            }
            let waits = !led.is_level() || led.awaits_answer();
            if led.is_level() {
                self.transmit(host.socket(), led);
            }
            let action = self.session.poll(now);
            self.note_phase();
            match action {
                Action::Dial(index) => self.dial(index, host),
                Action::Close(reason) => {
                    warn!("control: {reason}");
                    self.hang_up(now, host.socket(), led);
                }
                Action::Report => self.session.report(now, &stats(led)),
                Action::WaitUntil(_) if more || waits => return now,
                Action::WaitUntil(time) => return time,
            }
        }
        now
    }

    /// Tells the session what became of its connection.
    fn follow_link(&mut self, now: Nanos, socket: &mut Socket<'_>, led: &mut Led<'_>) {
        match self.link {
            Link::Closed => {}
            Link::Opening => match socket.state() {
                State::SynSent => {}
                State::Established => {
                    self.link = Link::Open;
                    self.session.connected(now);
                }
                _ => self.hang_up(now, socket, led),
            },
            Link::Open => {
                // What came before the end is still to be read.
                if !socket.may_recv() && !socket.can_recv() {
                    self.hang_up(now, socket, led);
                }
            }
        }
    }

    fn hang_up(&mut self, now: Nanos, socket: &mut Socket<'_>, led: &mut Led<'_>) {
        socket.abort();
        self.link = Link::Closed;
        self.session.disconnected(now);
        led.abandon();
    }

    /// Gives the session bytes up to the end of a frame; true if there are more.
    fn receive(&mut self, socket: &mut Socket<'_>, led: &mut Led<'_>) -> bool {
        if self.link != Link::Open || !socket.can_recv() {
            return false;
        }
        let session = &mut self.session;
        let clock = self.clock;
        let taken = socket.recv(|bytes| {
            let received = session.receive(&clock, bytes, led);
            // After an error the session asks to close.
            let consumed = received.map_or(0, |received| received.consumed);
            let committed = received.is_ok_and(|received| received.committed);
            (consumed, (consumed, committed))
        });
        let Ok((consumed, committed)) = taken else {
            return false;
        };
        if committed {
            debug!("control: generation {}", self.session.generation());
        }
        consumed > 0 && socket.can_recv()
    }

    fn transmit(&mut self, socket: &mut Socket<'_>, led: &Led<'_>) {
        while self.link == Link::Open && socket.can_send() {
            let session = &mut self.session;
            session.announce(led.datapath.tables());
            let sent = socket.send(|room| {
                let count = session.transmit(room);
                (count, count)
            });
            if !matches!(sent, Ok(1..)) {
                return;
            }
        }
    }

    fn dial(&mut self, index: usize, host: &mut Host) {
        self.shim = self.shims.get(index).copied();
        let Some(shim) = self.shim else {
            return;
        };
        let port = PORTS.0 + self.dialed % PORTS.1;
        self.dialed = self.dialed.wrapping_add(1);
        debug!("control: dialing {shim}");
        self.link = Link::Opening;
        if let Err(problem) = host.connect(shim, port) {
            // The socket stays closed, which is told to the session next.
            warn!("control: {shim}: {problem}");
        }
    }

    /// Logs when a session begins and ends.
    fn note_phase(&mut self) {
        let phase = self.session.phase();
        let before = core::mem::replace(&mut self.phase, phase);
        if before == phase {
            return;
        }
        let Some(shim) = self.shim else {
            return;
        };
        if phase == Phase::Established {
            info!("control: session with {shim}");
        } else if before == Phase::Established {
            warn!("control: session with {shim} ended");
        }
    }
}
