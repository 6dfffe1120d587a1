//! The table against a plain list, and who gets room in it.

extern crate std;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const RULE: RuleId = RuleId([1; 16]);
const OUT: Direction = Direction::Egress;

fn config(connections: u32, connections_per_vap: u32) -> Config {
    Config {
        connections,
        connections_per_vap,
        fragments: 16,
        seed: 42,
        timeouts: Timeouts::default(),
    }
}

fn vlan(id: u16) -> Vlan {
    Vlan::new(id).unwrap()
}

fn key(id: u16, port: u16) -> ConnectionKey {
    let ip = |last| IpAddr::from([10, 0, 0, last]);
    ConnectionKey::new(vlan(id), 6, (ip(1), ip(2)), (port, 80))
}

fn seconds(seconds: u64) -> Nanos {
    Nanos(seconds * 1_000_000_000)
}

impl Connections {
    fn put(&mut self, id: u16, port: u16, state: State, now: Nanos) -> Result<Handle, DropReason> {
        self.insert(key(id, port), OUT, state, RULE, now, 1)
    }

    /// Panics if an invariant does not hold.
    fn check(&self) {
        assert_eq!(self.entries.len(), self.cold.len());
        assert!(self.entries.len() <= self.capacity);
        let used: Vec<u32> = (0..self.entries.len() as u32)
            .filter(|slot| self.entry(*slot).is_some())
            .collect();
        assert_eq!(used.len(), self.count);
        for slot in &used {
            assert_eq!(self.find(&self.entry(*slot).unwrap().key), Some(*slot));
        }
        let mut listed = 0;
        for (id, share) in self.shares.iter().enumerate().take(16) {
            let (mut slot, mut before, mut count) = (share.oldest, NONE, 0);
            while let Some(entry) = self.entry(slot) {
                assert_eq!(usize::from(entry.key.vlan()), id);
                let cold = self.cold[slot as usize];
                assert_eq!(cold.older, before);
                (before, slot) = (slot, cold.newer);
                count += 1;
            }
            assert_eq!((slot, share.newest, share.count), (NONE, before, count));
            listed += count as usize;
            if id != usize::from(self.greediest) {
                assert!(share.count <= self.rival);
            }
        }
        assert_eq!(listed, self.count);
        let mut free = 0;
        let mut slot = self.free;
        while let Some(entry) = self.entries.get(slot as usize) {
            assert_eq!(entry.key, ConnectionKey::FREE);
            slot = entry.next;
            free += 1;
        }
        assert_eq!(free + used.len(), self.entries.len());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u16, u16, usize),
    Remove(u16, u16),
    Touch(usize, u8),
    Cut(u16, u16),
    Age(u64, usize),
    Forget(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let (id, port) = (1u16..6, 0u16..6);
    prop_oneof![
        8 => (id.clone(), port.clone(), 0..State::COUNT).prop_map(|(i, p, s)| Step::Put(i, p, s)),
        2 => (id.clone(), port.clone()).prop_map(|(i, p)| Step::Remove(i, p)),
        4 => (0usize..60, any::<u8>()).prop_map(|(handle, flags)| Step::Touch(handle, flags)),
        1 => (id.clone(), port).prop_map(|(i, p)| Step::Cut(i, p)),
        2 => (0u64..200, 0usize..20).prop_map(|(time, budget)| Step::Age(time, budget)),
        1 => id.prop_map(Step::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn handles_and_lists_hold(
        steps in proptest::collection::vec(step(), 1..150),
        capacity in 0u32..20,
        per_vap in 0u32..8,
    ) {
        let mut table = Connections::new(&config(capacity, per_vap));
        let mut handles: Vec<(Handle, ConnectionKey)> = Vec::new();
        let mut now = seconds(1 << 20);
        for step in steps {
            match step {
                Step::Put(id, port, state) => {
                    if table.find(&key(id, port)).is_some() {
                        continue;
                    }
                    let before = table.share(vlan(id));
                    match table.put(id, port, State::ALL[state], now) {
                        Ok(handle) => handles.push((handle, key(id, port))),
                        Err(reason) => {
                            assert_eq!(reason, DropReason::ConnectionLimit);
                            let after = table.share(vlan(id));
                            // Nothing to refuse is counted where there is no table.
                            assert_eq!(after.refused, before.refused + u64::from(capacity > 0));
                            let most = (1..6).map(|id| table.share(vlan(id)).count).max();
                            assert!(after.count >= per_vap || Some(after.count) == most);
                        }
                    }
                }
                Step::Remove(id, port) => {
                    if let Some(slot) = table.find(&key(id, port)) {
                        table.remove(slot);
                        assert_eq!(table.find(&key(id, port)), None);
                    }
                }
                Step::Touch(at, flags) => {
                    if let Some((handle, key)) = handles.get(at) {
                        let is = table.find(key).and_then(|slot| table.handle(slot)) == Some(*handle);
                        let touched = table.touch(*handle, OUT, flags, now, &Changes::new()).is_ok();
                        assert!(is || !touched);
                        assert_eq!(table.slot(*handle).is_some(), is);
                    }
                }
                Step::Cut(id, port) => {
                    if let Some(slot) = table.find(&key(id, port)) {
                        table.cut(slot, now, 1);
                    }
                }
                Step::Age(time, budget) => {
                    now.0 += seconds(time).0;
                    let count = table.count();
                    assert_eq!(table.age(now, budget), count - table.count());
                }
                Step::Forget(id) => {
                    table.forget(vlan(id));
                    assert_eq!(table.share(vlan(id)).count, 0);
                }
            }
            table.check();
        }
        let wait = u64::from(Timeouts::default().established) + 1;
        now.0 += seconds(wait).0;
        table.age(now, capacity as usize);
        assert_eq!(table.count(), 0);
    }
}

#[test]
fn nothing_is_allocated_after_the_beginning() {
    let mut table = Connections::new(&config(100, 100));
    let (entries, cold) = (table.entries.capacity(), table.cold.capacity());
    for port in 0..200 {
        let put = table.put(1 + port % 5, port, State::Established, Nanos(0));
        assert_eq!(put.is_ok(), port < 100);
    }
    assert_eq!(table.count(), 100);
    assert_eq!(
        (table.entries.capacity(), table.cold.capacity()),
        (entries, cold)
    );
}

#[test]
fn a_vap_has_its_limit() {
    let mut table = Connections::new(&config(100, 10));
    let now = seconds(1000);
    for port in 0..10 {
        assert!(table.put(1, port, State::Established, now).is_ok());
    }
    let refused = table.put(1, 10, State::Established, now);
    assert_eq!(refused, Err(DropReason::ConnectionLimit));
    assert_eq!(table.share(vlan(1)).refused, 1);
    assert!(table.put(2, 0, State::Established, now).is_ok());
    // What is over makes room.
    let slot = table.find(&key(1, 3)).unwrap();
    table.follow(slot, OUT, RST, now);
    assert!(table.put(1, 10, State::Established, now).is_ok());
    assert_eq!(table.find(&key(1, 3)), None);
    assert_eq!(table.share(vlan(1)).count, 10);
}

#[test]
fn the_greediest_makes_room_for_the_others() {
    let mut table = Connections::new(&config(100, 100));
    let now = seconds(1000);
    for port in 0..30 {
        assert!(table.put(1, port, State::Established, now).is_ok());
    }
    for port in 0..70 {
        assert!(table.put(2, port, State::SynSent, now).is_ok());
    }
    let refused = table.put(2, 70, State::SynSent, now);
    assert_eq!(refused, Err(DropReason::ConnectionLimit));
    for port in 30..50 {
        assert!(table.put(1, port, State::Established, now).is_ok());
    }
    // None of what the other has was lost while one had more.
    assert!((0..50).all(|port| table.find(&key(1, port)).is_some()));
    for id in 3..13 {
        assert!(table.put(id, 0, State::Established, now).is_ok());
    }
    let counts = [1, 2, 3].map(|id| table.share(vlan(id)).count);
    assert_eq!((counts, table.count()), ([45, 45, 1], 100));
}

#[test]
fn what_is_worth_least_goes_first() {
    let mut table = Connections::new(&config(8, 8));
    let now = seconds(1000);
    for port in 0..8 {
        let state = match port {
            4 => State::Closed,
            5 => State::SynSent,
            _ => State::Established,
        };
        assert!(table.put(1, port, state, now).is_ok());
    }
    for (id, gone) in [(2, 4), (3, 5)] {
        assert!(table.put(id, 0, State::Established, now).is_ok());
        assert_eq!(table.find(&key(1, gone)), None, "{gone}");
        table.check();
    }
}

#[test]
fn rules_are_asked_again_about_what_their_change_concerns() {
    let mut table = Connections::new(&config(10, 10));
    let now = seconds(1000);
    let handle = table.put(1, 1, State::Established, now).unwrap();
    let slot = table.slot(handle).unwrap();
    let mut changes = Changes::new();
    changes.tell_apart();
    // Whoever has it asks once.
    changes.begin_epoch();
    assert_eq!(table.touch(handle, OUT, ACK, now, &changes), Err(Stale));
    table.allow(slot, RULE, changes.epoch());
    let concerns = |scope| {
        let (mut changes, mut table) = (changes.clone(), table.clone());
        changes.mark(scope);
        changes.begin_epoch();
        table.touch(handle, OUT, ACK, now, &changes).is_err()
    };
    let ip = |last| Scope::Address([10, 0, 0, last].into());
    assert!(concerns(Scope::Vap(vlan(1))) && concerns(ip(2)));
    assert!(!concerns(Scope::Vap(vlan(2))) && !concerns(ip(3)));
}

#[test]
fn epochs_of_long_ago_are_forgotten() {
    let mut table = Connections::new(&config(10, 10));
    for port in 0..9 {
        assert!(table.put(1, port, State::Established, seconds(1)).is_ok());
    }
    for (epoch, is_forgotten) in [(1 << 30, false), ((1 << 30) + 2, true)] {
        let changes = Changes::at(epoch);
        (0..3).for_each(|_| table.sweep(&changes));
        let is = |entry: &Entry| (entry.epoch == NEVER) == is_forgotten;
        assert!(table.entries.iter().all(is));
    }
}

#[test]
fn touch_follows_and_tells_when_to_look_again() {
    let mut table = Connections::new(&config(10, 10));
    let mut now = seconds(1000);
    let handle = table.put(1, 1, State::SynSent, now).unwrap();
    let state = |table: &Connections| table.entry(table.slot(handle).unwrap()).unwrap().state;
    let same = &Changes::new();
    assert_eq!(
        table.touch(handle, Direction::Ingress, SYN | ACK, now, same),
        Ok(false)
    );
    assert_eq!(table.touch(handle, OUT, ACK, now, same), Ok(true));
    assert_eq!(state(&table), State::Established);
    let mut changed = Changes::new();
    changed.mark_all();
    changed.begin_epoch();
    assert_eq!(table.touch(handle, OUT, ACK, now, &changed), Err(Stale));
    now.0 += seconds(400_000).0;
    assert_eq!(table.touch(handle, OUT, FIN | ACK, now, same), Ok(true));
    now.0 += seconds(119).0;
    assert_eq!(table.touch(handle, OUT, ACK, now, same), Ok(true));
    now.0 += seconds(121).0;
    assert_eq!(table.touch(handle, OUT, ACK, now, same), Err(Stale));
    let beyond = Handle::new(7, 0).unwrap();
    assert_eq!(table.touch(beyond, OUT, ACK, now, same), Err(Stale));
}

#[test]
fn a_vap_cannot_drive_out_the_fragments_of_others() {
    let mut memory = Fragments::new(16, 1);
    let piece = |id, packet| Piece {
        vlan: vlan(id),
        direction: OUT,
        protocol: 17,
        id: packet,
        source: IpAddr::from([10, 0, 0, 1]),
        destination: IpAddr::from([10, 0, 0, 2]),
    };
    let first = FirstFragment {
        connection: None,
        service: 53,
    };
    for packet in 0..3 {
        memory.insert(piece(1, packet), first, Nanos(1));
    }
    for packet in 0..1000 {
        memory.insert(piece(2, packet), first, Nanos(2));
    }
    for packet in 0..3 {
        assert_eq!(memory.find(&piece(1, packet), Nanos(3)), Some(first));
    }
    assert_eq!(memory.find(&piece(2, 999), Nanos(3)), Some(first));
    assert_eq!(memory.find(&piece(3, 999), Nanos(3)), None);
    let none = Fragments::new(0, 1);
    assert_eq!(none.find(&piece(1, 0), Nanos(0)), None);
}
