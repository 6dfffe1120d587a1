//! A device that does what it likes, whenever it likes.

use std::collections::HashSet;

use proptest::prelude::*;

use super::super::fake::Handle;
use super::super::header::{self, HEADER};
use super::{PLAIN, flush, frame, pool, start};
use crate::virtio::{Features, VirtioNet};
use crate::{Burst, Drain, Nic, Packet, PartialChecksum, Pool, Segmentation};

/// More than two bursts have, so that whole ones and their remainders meet all of this.
const SLOTS: usize = 64;

const BUFFERS: usize = 256;

/// What a hostile device and the driver's user may do, in any order.
#[derive(Debug, Clone)]
enum Act {
    /// The device returns a slot, or none of its own.
    Give {
        queue: usize,
        id: u32,
        length: u32,
    },
    Take {
        queue: usize,
    },
    SetIndex {
        queue: usize,
        index: u16,
    },
    /// It says something else of what it returned before.
    Tell {
        queue: usize,
        number: u16,
        id: u32,
    },
    Deliver {
        header: [u8; HEADER],
        length: usize,
        count: usize,
    },
    /// It sends some of what it has and returns it.
    Collect,
    Fetch,
    Receive,
    /// The user sends all that it has, at once or one by one.
    Send {
        at_once: bool,
    },
    Flush,
    Remind,
}

fn any_header() -> impl Strategy<Value = [u8; HEADER]> {
    let large = header::emit_large(
        PartialChecksum {
            start: 38,
            offset: 16,
        },
        70,
        Segmentation {
            size: 1448,
            is_ipv4: true,
        },
    );
    let over = |header: [u8; HEADER]| {
        (0..6u8).prop_map(move |buffers| {
            let mut header = header;
            header[10] = buffers;
            header
        })
    };
    prop_oneof![
        6 => Just(PLAIN),
        1 => over(PLAIN),
        1 => over(large),
        1 => any::<[u8; HEADER]>(),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    let queue = || 0..2usize;
    let id = || prop_oneof![6 => 0..SLOTS as u32, 1 => any::<u32>()];
    let length = prop_oneof![0..3000u32, any::<u32>()];
    let index = prop_oneof![0..40u16, any::<u16>()];
    prop_oneof![
        3 => (queue(), id(), length).prop_map(|(queue, id, length)| Act::Give { queue, id, length }),
        1 => queue().prop_map(|queue| Act::Take { queue }),
        1 => (queue(), index).prop_map(|(queue, index)| Act::SetIndex { queue, index }),
        1 => (queue(), 0..80u16, id()).prop_map(|(queue, number, id)| Act::Tell { queue, number, id }),
        9 => (any_header(), 0..1900usize, 1..40usize)
            .prop_map(|(header, length, count)| Act::Deliver { header, length, count }),
        4 => Just(Act::Collect),
        6 => Just(Act::Fetch),
        6 => Just(Act::Receive),
        4 => any::<bool>().prop_map(|at_once| Act::Send { at_once }),
        4 => Just(Act::Flush),
        1 => Just(Act::Remind),
    ]
}

/// The driver, its device, and what its user has received.
struct Bench {
    nic: VirtioNet<Handle>,
    device: Handle,
    pool: &'static Pool,
    kept: Vec<Packet>,
}

impl Bench {
    fn act(&mut self, act: Act) {
        let (nic, device) = (&mut self.nic, &self.device);
        match act {
            Act::Give { queue, id, length } => device.set(|d| d.rings[queue].give(id, length)),
            Act::Take { queue } => device.set(|d| {
                d.rings[queue].take();
            }),
            Act::SetIndex { queue, index } => device.set(|d| d.rings[queue].set_index(index)),
            Act::Tell { queue, number, id } => device.set(|d| d.rings[queue].tell(number, id, 72)),
            Act::Deliver {
                header,
                length,
                count,
            } => {
                for _ in 0..count {
                    device.deliver(header, &[&frame(length)]);
                }
            }
            Act::Collect => drop(device.collect()),
            Act::Fetch => {
                nic.fetch(60);
            }
            Act::Receive => {
                let mut burst = Burst::new();
                nic.receive(&mut burst);
                for packet in &burst {
                    assert!(packet.len() <= 128 + 2000 + 64);
                    assert!(packet.large_len() <= 64 * 2200);
                }
                self.kept.extend(burst);
            }
            Act::Send { at_once: false } => {
                for packet in self.kept.drain(..) {
                    let _ = nic.send(packet);
                }
            }
            Act::Send { at_once: true } => {
                while !self.kept.is_empty() {
                    let count = self.kept.len().min(crate::BURST);
                    let mut burst: Burst = self.kept.drain(..count).collect();
                    nic.send_all(Drain::new(&mut burst));
                }
            }
            Act::Flush => flush(nic),
            Act::Remind => nic.remind(),
        }
    }

    /// Takes what is left in the driver, of which nobody else knows.
    fn finish(&mut self) {
        for _ in 0..4 * SLOTS {
            if !self.nic.fetch(60) {
                return;
            }
            self.act(Act::Receive);
        }
        panic!("there is always more");
    }

    /// Every buffer is in one place: free, with the user, or with the device.
    fn assert_none_is_shared_or_lost(mut self) {
        let with_device = self.nic.with_device();
        self.kept.extend(std::iter::from_fn(|| self.pool.take()));
        let with_user = self.kept.iter().flat_map(Packet::spaces);
        let all: Vec<_> = with_user.chain(with_device).collect();
        let distinct: HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), distinct.len()), (BUFFERS, BUFFERS));
    }
}

proptest! {
    #[test]
    fn no_device_makes_the_driver_panic_or_share_a_buffer(
        acts in proptest::collection::vec(any_act(), 1..80),
        with_checksums: bool,
    ) {
        let features = match with_checksums {
            true => Features::all(),
            false => Features::all() - Features::CSUM,
        };
        let device = Handle::new(features, SLOTS as u32);
        let pool = pool(BUFFERS);
        let nic = start(&device, pool).unwrap();
        let mut bench = Bench { nic, device, pool, kept: Vec::new() };
        for act in acts {
            bench.act(act);
            prop_assert!(pool.available() <= BUFFERS);
        }
        bench.finish();
        bench.assert_none_is_shared_or_lost();
    }
}
