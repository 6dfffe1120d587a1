//! Pages of a VAP's connections, and what is taken over.

extern crate std;
use std::vec::Vec;

use nve_protocol::Direction;

use super::*;
use crate::connections::{ACK, Config, State, Timeouts};

const RULE: RuleId = RuleId([1; 16]);
const FOREVER: Nanos = Nanos(u64::MAX);
const TICKS: u64 = 1 << TICK;

fn vlan(id: u16) -> Vlan {
    Vlan::new(id).unwrap()
}

fn connection(id: u16, port: u16) -> Connection {
    Connection {
        vlan: vlan(id),
        opener: Direction::Egress,
        protocol: 6,
        local: [10, 0, 0, 1].into(),
        remote: [10, 0, 0, 2].into(),
        local_port: port,
        remote_port: 80,
        state: State::Established,
        idle: Nanos(0),
        rule: RULE,
    }
}

fn table(connections: u32) -> Connections {
    Connections::new(&Config {
        connections,
        connections_per_vap: connections,
        fragments: 0,
        seed: 42,
        timeouts: Timeouts::default(),
    })
}

/// Ports of a page, and where it goes on.
fn page(table: &Connections, id: u16, cursor: u64) -> (Vec<u16>, u64) {
    let mut ports = Vec::new();
    let next = table.page(vlan(id), cursor, Nanos(0), FOREVER, |connection| {
        ports.push(connection.local_port);
    });
    (ports, next)
}

fn slot_of(table: &Connections, connection: &Connection) -> u32 {
    let key = ConnectionKey::new(
        connection.vlan,
        connection.protocol,
        (connection.local, connection.remote),
        (connection.local_port, connection.remote_port),
    );
    table.find(&key).unwrap()
}

/// 300 connections of VAP 1 between such of VAP 2.
fn full() -> Connections {
    let mut table = table(600);
    for port in 0..300 {
        for id in [1, 2] {
            let imported = table.import(&connection(id, port), Nanos(0));
            assert_eq!(imported, Ok(()));
        }
    }
    table
}

#[test]
fn pages_have_each_connection_once_oldest_first() {
    let table = full();
    let (mut cursor, mut ports, mut pages) = (0, Vec::new(), 0);
    loop {
        let (more, next) = page(&table, 1, cursor);
        assert!(more.len() <= TOLD && next >> 56 == 0);
        ports.extend(more);
        pages += 1;
        if next == 0 {
            break;
        }
        cursor = next;
    }
    assert_eq!(ports, (0..300).collect::<Vec<_>>());
    assert_eq!(pages, 3);
    assert_eq!(page(&table, 3, 0), (Vec::new(), 0));
}

#[test]
fn a_cursor_whose_connection_is_gone_begins_anew() {
    let mut table = full();
    let (_, next) = page(&table, 1, 0);
    let at = slot_of(&table, &connection(1, TOLD as u16));
    table.remove(at);
    assert_eq!(page(&table, 1, next).0[0], 0);
    // The slot has another connection by now.
    table.import(&connection(1, 999), Nanos(0)).unwrap();
    assert_eq!(slot_of(&table, &connection(1, 999)), at);
    assert_eq!(page(&table, 1, next).0[0], 0);
    // Or one of another VAP, or never had any.
    let (_, other) = page(&table, 2, 0);
    for odd in [other, u64::MAX, u64::from(u32::MAX)] {
        assert_eq!(page(&table, 1, odd).0[0], 0);
    }
}

#[test]
fn no_page_looks_at_more_than_it_may() {
    let mut table = table(2 * LOOKED_AT as u32);
    let old = Nanos(1_000_000_000);
    for port in 0..LOOKED_AT as u16 + 10 {
        table.import(&connection(1, port), old).unwrap();
    }
    let now = Nanos(100_000_000_000);
    let mut told = 0;
    let mut tell = |_| told += 1;
    let next = table.page(vlan(1), 0, now, Nanos(0), &mut tell);
    assert_ne!(next, 0, "none is told, and it goes on");
    assert_eq!(table.page(vlan(1), next, now, Nanos(0), &mut tell), 0);
    assert_eq!(told, 0);
}

#[test]
fn what_was_seen_later_stays() {
    let now = Nanos(1000 * TICKS);
    let told = |idle: u64, state| Connection {
        state,
        idle: Nanos(idle * TICKS),
        ..connection(1, 5)
    };
    let state = |table: &Connections| table.of_vap(vlan(1), now).next().unwrap().state;
    let mut table = table(10);
    table.import(&told(20, State::SynSent), now).unwrap();
    table.import(&told(10, State::Established), now).unwrap();
    assert_eq!(state(&table), State::Established);
    table.import(&told(11, State::SynReceived), now).unwrap();
    table.import(&told(10, State::Reset), now).unwrap();
    assert_eq!(state(&table), State::Established);
    table.import(&told(9, State::Cut), now).unwrap();
    assert_eq!(state(&table), State::Cut);
    assert_eq!(table.count(), 1);
}

#[test]
fn what_was_seen_here_itself_is_older_only_by_a_margin() {
    let now = Nanos(1000 * TICKS);
    let told = |idle: u64| Connection {
        state: State::OpenerClosed,
        idle: Nanos(idle * TICKS),
        ..connection(1, 5)
    };
    for (idle, stays) in [(11, true), (10, true), (8, true), (7, false), (0, false)] {
        let mut table = table(10);
        table.import(&connection(1, 5), Nanos(0)).unwrap();
        let slot = slot_of(&table, &connection(1, 5));
        table.allow(slot, RULE, 7);
        let seen = Nanos(now.0 - 10 * TICKS);
        table.follow(slot, Direction::Egress, ACK, seen);
        table.import(&told(idle), now).unwrap();
        let state = table.of_vap(vlan(1), now).next().unwrap().state;
        assert_eq!(state == State::Established, stays, "{idle}");
    }
}

#[test]
fn what_has_expired_is_not_taken() {
    let mut table = table(10);
    let old = Connection {
        state: State::Reset,
        idle: Nanos(11_000_000_000),
        ..connection(1, 5)
    };
    table.import(&old, Nanos(0)).unwrap();
    assert_eq!(table.count(), 0);
}
