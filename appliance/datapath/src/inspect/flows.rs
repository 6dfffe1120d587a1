//! The flow cache's entries, page by page.

use nve_protocol::Vlan;
use nve_protocol::inspect::{Done, Flow, Part, Tracked, Tunnel, Via};

use super::{Parts, steps};
use crate::connections::Handle;
use crate::flow::{Cached, Exit, Origin, Peer};
use crate::tables::Tables;
use crate::{Datapath, Nanos};

/// Most entries in an answer.
const PAGE: usize = 32;

/// Most sets that are looked through for an answer.
const SETS: u32 = 4096;

impl Datapath {
    /// Tells the entries that are good, from the set with number `cursor` on.
    pub(super) fn list_flows(
        &self,
        now: Nanos,
        cursor: u32,
        vlan: Option<Vlan>,
        parts: &mut Parts,
    ) -> Done {
        let mut told = 0;
        let end = cursor.saturating_add(SETS).min(self.flows.sets());
        for set in cursor..end {
            if told >= PAGE {
                return unfinished(set);
            }
            for cached in self.flows.in_set(set, now) {
                let concerns = |vlan| cached.concerns(vlan);
                if self.is_good(cached.key, cached.path, cached.epoch)
                    && vlan.is_none_or(concerns)
                    && let Some(flow) = self.flow(now, &cached)
                {
                    parts.push(Part::Flow(flow));
                    told += 1;
                }
            }
        }
        match end < self.flows.sets() {
            true => unfinished(end),
            false => Done::default(),
        }
    }

    fn flow(&self, now: Nanos, cached: &Cached<'_>) -> Option<Flow> {
        let path = cached.path;
        let [sender, receiver] = path.connections;
        Some(Flow {
            from: match cached.key.origin()? {
                Origin::Vap(vlan) => steps::via_vap(self.tables.vap(vlan)?),
                Origin::Tunnel(vni, peer) => {
                    let vtep = match peer {
                        Peer::Address(address) => address.into(),
                        Peer::Slot(slot) => self.tables.vteps().nth(slot.into())??,
                    };
                    Via::Tunnel(Tunnel { vni, vtep })
                }
            },
            tuple: cached.key.tuple(),
            echo: cached.key.echo(),
            to: exit(&self.tables, path.exit, path.vni)?,
            rewrite: path.rewrite.map(|(to, _)| (to.source, to.destination)),
            dscp: path.dscp,
            egress_meter: path.egress.is_some(),
            ingress_meter: path.ingress.is_some(),
            sender: self.tracked(sender, now),
            receiver: self.tracked(receiver, now),
            idle_ms: cached.idle_ms,
        })
    }

    fn tracked(&self, handle: Option<Handle>, now: Nanos) -> Option<Tracked> {
        let connection = self.security.connection(handle?, now)?;
        Some(Tracked {
            state: connection.state.into(),
            rule: connection.rule,
        })
    }
}

fn exit(tables: &Tables, exit: Exit, vni: nve_protocol::Vni) -> Option<Via> {
    match exit {
        Exit::Vap(vlan) => tables.vap(vlan.get()).map(steps::via_vap),
        Exit::Tunnel(vtep) => {
            let vtep = tables.vtep(vtep)?;
            Some(Via::Tunnel(Tunnel { vni, vtep }))
        }
    }
}

/// An answer that goes on with that set.
fn unfinished(set: u32) -> Done {
    Done {
        next: set.into(),
        lost: 0,
        more: true,
    }
}
