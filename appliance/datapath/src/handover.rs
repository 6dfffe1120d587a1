//! What is known of a VAP's traffic, told to another NVE and taken over from one.
//!
//! It is told page by page, while frames go on: what changes behind a page is told when
//! it is asked for what had packets of late. Taking the same over twice changes nothing.
//! What is told is not believed further than it has to be: rules are asked at the first
//! packet of a connection, and of a limit it can only become less that is left.

use nve_protocol::handover::{self, Handover, Known, TakeOver};
use nve_protocol::inspect::{Done, Failure, Part};
use nve_protocol::{Direction, Vlan};

use crate::connections::{Connection, State};
use crate::inspect::Parts;
use crate::{Datapath, Nanos, Role};

const MILLI: u64 = 1_000_000;

impl Datapath {
    /// Tells a page of what is known of a VAP's traffic; with the first one, what is left
    /// of its limits.
    pub(crate) fn hand_over(
        &self,
        now: Nanos,
        asked: &Handover,
        parts: &mut Parts,
    ) -> Result<Done, Failure> {
        let vap = self.tables.vap_at(&asked.place).ok_or(Failure::NoVap)?;
        // Several processors have the same limits.
        if asked.cursor == 0 && self.underlay.role() != Role::Other {
            for direction in [Direction::Egress, Direction::Ingress] {
                let level = self.tables.level(vap.vlan, direction, now);
                if let Some(level) = level {
                    parts.push(Part::Known(Known::Level(level)));
                }
            }
        }
        let within = Nanos(u64::from(asked.within_ms) * MILLI);
        let next = self
            .security
            .page(vap.vlan, asked.cursor, now, within, |connection| {
                parts.push(Part::Known(Known::Connection(told(&connection))));
            });
        Ok(Done {
            next,
            lost: 0,
            more: next != 0,
        })
    }

    /// Takes over what another NVE knew of a VAP's traffic.
    pub fn take_over(&mut self, now: Nanos, told: &TakeOver) {
        let Some(vap) = self.tables.vap_at(&told.place) else {
            return;
        };
        let (vlan, is_tracked) = (vap.vlan, vap.port_security);
        match &told.known {
            Known::Level(level) => self.tables.lower(vlan, level, now),
            Known::Connection(connection) => {
                if let Some(connection) = believed(vlan, connection)
                    && is_tracked
                {
                    // One without room begins anew, if rules allow that.
                    let _ = self.security.import(&connection, now);
                }
            }
        }
    }
}

fn told(connection: &Connection) -> handover::Connection {
    handover::Connection {
        opener: connection.opener,
        protocol: connection.protocol,
        local: connection.local,
        remote: connection.remote,
        local_port: connection.local_port,
        remote_port: connection.remote_port,
        state: connection.state.into(),
        idle_ms: u32::try_from(connection.idle.0.div_ceil(MILLI)).unwrap_or(u32::MAX),
        rule: connection.rule,
    }
}

/// The connection, if there can be one like it.
fn believed(vlan: Vlan, told: &handover::Connection) -> Option<Connection> {
    let state = State::from(told.state);
    let possible = told.local.is_ipv4() == told.remote.is_ipv4() && state.suits(told.protocol);
    possible.then_some(Connection {
        vlan,
        opener: told.opener,
        protocol: told.protocol,
        local: told.local,
        remote: told.remote,
        local_port: told.local_port,
        remote_port: told.remote_port,
        state,
        idle: Nanos(u64::from(told.idle_ms) * MILLI),
        rule: told.rule,
    })
}
