//! Frames from processor to processor.
//!
//! Between each two there is a ring in each direction, with one writer and one reader,
//! and one for buffers: who gets a frame gives an empty buffer for it, so that no pool
//! runs dry because another's owner forwards what came in here.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use heapless::spsc::{Consumer, Producer, Queue};
use nve_datapath::Side;
use nve_datapath::steering::{Place, Steering};
use nve_nic::{Burst, Loose, Packet, Pool};

use super::Team;

/// Frames that a ring holds, less one.
const RING: usize = 256;

/// Buffers that a pool keeps before it gives any away.
const KEPT: usize = 64;

/// A frame that came in on a side, elsewhere.
struct Handed {
    side: Side,
    frame: Loose,
}

/// One processor's ends of the rings to and from another.
struct Peer {
    frames_to: Producer<'static, Handed>,
    frames_from: Consumer<'static, Handed>,
    buffers_to: Producer<'static, Loose>,
    buffers_from: Consumer<'static, Loose>,
    /// Buffers that it has yet to get for its frames.
    owed: usize,
    /// Whether it was given something since it was last woken.
    is_unheard: bool,
}

/// One processor's ends of all its rings.
pub struct Links {
    own: usize,
    /// By number; `None` is the own one.
    peers: Vec<Option<Peer>>,
    steering: Steering,
    team: Arc<Team>,
    /// Whose frames are taken first in the next turn.
    next: usize,
    /// Frames that were given away.
    handed: u64,
}

/// How it went to take a peer's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// There are no more.
    All,
    /// There is no more room, or a large frame was taken.
    Enough,
    /// A large frame is next, which has to be taken by itself.
    Blocked,
}

impl Links {
    /// The links of all processors of a team, in order.
    pub fn all(team: &Arc<Team>, steering: Steering) -> Vec<Links> {
        let count = team.processors();
        let mut all: Vec<Links> = (0..count)
            .map(|own| Links {
                own,
                peers: (0..count).map(|_| None).collect(),
                steering,
                team: team.clone(),
                next: 0,
                handed: 0,
            })
            .collect();
        for low in 0..count {
            for high in low + 1..count {
                let (of_low, of_high) = pair();
                place(&mut all, low, high, of_low);
                place(&mut all, high, low, of_high);
            }
        }
        all
    }

    /// The own number.
    pub fn own(&self) -> usize {
        self.own
    }

    /// The processors.
    pub fn team(&self) -> &Arc<Team> {
        &self.team
    }

    /// How frames are spread.
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Frames that were given to others.
    pub fn handed(&self) -> u64 {
        self.handed
    }

    /// Gives away those frames of a burst that came in on `side` and are others'. Returns
    /// how many were lost because a ring was full, or `pool` nearly empty: who does not
    /// run must not have all buffers in its rings.
    pub fn steer(&mut self, side: Side, pool: &Pool, burst: &mut Burst) -> u64 {
        let mut lost = 0;
        for packet in core::mem::take(burst) {
            let to = match self.steering.place(side, packet.front()) {
                Place::Anywhere => self.own,
                Place::First => 0,
                Place::Owner(number) => number,
            };
            match self.peers.get_mut(to).and_then(Option::as_mut) {
                // It fits: not more than there were.
                None => drop(burst.push(packet)),
                Some(peer) => {
                    // Dropping a packet that was not handed over frees its buffer.
                    let is_handed = pool.available() > KEPT && peer.hand(side, packet).is_ok();
                    let counter = if is_handed {
                        &mut self.handed
                    } else {
                        &mut lost
                    };
                    *counter += 1;
                }
            }
        }
        lost
    }

    /// Takes frames that others gave, by the side that they came in on; a large one by
    /// itself. Everybody has a turn to be the first whose frames are taken.
    pub fn take(&mut self, pool: &'static Pool, trunk: &mut Burst, uplink: &mut Burst) {
        for _ in 0..self.peers.len() {
            let number = self.next;
            let following = number + 1;
            self.next = if following == self.peers.len() {
                0
            } else {
                following
            };
            let peer = self.peers.get_mut(number).and_then(Option::as_mut);
            match peer.map(|peer| peer.take(pool, trunk, uplink)) {
                None | Some(Taken::All) => {}
                Some(Taken::Enough) => return,
                Some(Taken::Blocked) => {
                    self.next = number;
                    return;
                }
            }
        }
    }

    /// Gives and takes buffers, and wakes who was given something.
    pub fn settle(&mut self, pool: &'static Pool) {
        for (number, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            while let Some(buffer) = peer.buffers_from.dequeue() {
                // Dropping the packet puts its buffer into the pool.
                drop(pool.adopt(buffer));
            }
            while peer.owed > 0 && pool.available() > KEPT && peer.buffers_to.ready() {
                let Some(packet) = pool.take() else { break };
                // There is room, as the loop's condition says.
                let _ = peer.buffers_to.enqueue(packet.leave());
                peer.owed -= 1;
            }
            if core::mem::take(&mut peer.is_unheard) {
                self.team.wake(number);
            }
        }
    }

    /// Whether something has come from another processor, mail or frames.
    pub fn has_any(&self) -> bool {
        let mut peers = self.peers.iter().flatten();
        self.team.has_mail(self.own)
            || (self.own == 0 && self.team.has_heard())
            || peers.any(|peer| !peer.frames_from.is_empty())
    }
}

impl Peer {
    fn take(&mut self, pool: &'static Pool, trunk: &mut Burst, uplink: &mut Burst) -> Taken {
        while !trunk.is_full() && !uplink.is_full() {
            let Some(next) = self.frames_from.peek() else {
                return Taken::All;
            };
            let is_large = next.frame.is_large();
            if is_large && !(trunk.is_empty() && uplink.is_empty()) {
                return Taken::Blocked;
            }
            let Some(Handed { side, frame }) = self.frames_from.dequeue() else {
                return Taken::All;
            };
            // All pools are over the same memory.
            let Ok(packet) = pool.adopt(frame) else {
                continue;
            };
            self.owed += packet.buffers();
            let burst = match side {
                Side::Trunk => &mut *trunk,
                Side::Uplink => &mut *uplink,
            };
            // There is room, as the loop's condition says.
            let _ = burst.push(packet);
            if is_large {
                return Taken::Enough;
            }
        }
        Taken::Enough
    }

    fn hand(&mut self, side: Side, packet: Packet) -> Result<(), Packet> {
        if !self.frames_to.ready() {
            return Err(packet);
        }
        let frame = packet.leave();
        // There is room, and nobody else fills it.
        let _ = self.frames_to.enqueue(Handed { side, frame });
        self.is_unheard = true;
        Ok(())
    }
}

fn place(all: &mut [Links], of: usize, number: usize, peer: Peer) {
    let links = all.get_mut(of);
    if let Some(place) = links.and_then(|links| links.peers.get_mut(number)) {
        *place = Some(peer);
    }
}

/// Both ends of all rings between two processors.
fn pair() -> (Peer, Peer) {
    let (frames_up, frames_up_end) = ring();
    let (frames_down, frames_down_end) = ring();
    let (buffers_up, buffers_up_end) = ring();
    let (buffers_down, buffers_down_end) = ring();
    let peer = |frames_to, frames_from, buffers_to, buffers_from| Peer {
        frames_to,
        frames_from,
        buffers_to,
        buffers_from,
        owed: 0,
        is_unheard: false,
    };
    (
        peer(frames_up, frames_down_end, buffers_up, buffers_down_end),
        peer(frames_down, frames_up_end, buffers_down, buffers_up_end),
    )
}

/// A ring's ends; it lives as long as the NVE.
fn ring<T>() -> (Producer<'static, T>, Consumer<'static, T>) {
    let queue: &'static mut Queue<T, RING> = Box::leak(Box::new(Queue::new()));
    queue.split()
}
