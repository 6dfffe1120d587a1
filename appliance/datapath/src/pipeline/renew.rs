//! Verdicts of earlier epochs: whether they are good in this one.
//!
//! What a verdict was made of follows from its key and from itself, so an entry of the
//! flow cache need not say. [`Datapath::is_good`] names all that the stages read; the
//! tables note the same for each record (`Tables::note_change`). In the order of the
//! stages:
//!
//! | what is read | scope |
//! |---|---|
//! | the sender's record, addresses, QoS, groups and their rules | its VAP |
//! | gateways of its network, their routers' interfaces and routes | that network |
//! | MTU of the network that it is routed to | that network |
//! | neighbor with the address of the next hop | the station that it was found to be |
//! | VAP or VTEP of the receiver | the station |
//! | the receiver's record, QoS, groups and their rules | its VAP |
//! | groups that the other end is a member of | its address |
//! | VTEPs that a network takes frames from | the network's tunnels |
//!
//! As long as no scope has changed, what it was found by is the same too: a VAP's
//! network, a gateway's router, a next hop. So slots of VTEPs and meters in a verdict
//! are those of the same records. The connections of a verdict are allowed: the rules
//! that allowed them are of the same scopes.

use super::Datapath;
use crate::Nanos;
use crate::flow::{Exit, FlowKey, Origin, Path, Slot};
use crate::tables::Scope;

impl Datapath {
    /// The entry of a flow that is of an earlier epoch, if it is good in this one as well.
    #[inline(never)]
    pub(super) fn renew(&mut self, home: Slot, key: &FlowKey, now: Nanos) -> Option<Slot> {
        let (at, path, epoch) = self.flows.find_old(home, key)?;
        if !self.is_good(key, path, epoch) {
            return None;
        }
        self.flows.renew(at, self.epoch, now);
        Some(at)
    }

    /// Whether what was decided in an epoch would be decided now.
    pub(crate) fn is_good(&self, key: &FlowKey, path: &Path, epoch: u32) -> bool {
        let Some(since) = self.tables.changes().since(epoch) else {
            return false;
        };
        let Some(origin) = key.origin() else {
            return false;
        };
        let (source, destination) = key.addresses();
        let sent = match origin {
            Origin::Vap(tag) => self.tables.vap(tag).is_some_and(|vap| {
                since.same(Scope::Vap(vap.vlan))
                    && since.same(Scope::Network(vap.vni))
                    && since.same(Scope::Address(destination))
            }),
            Origin::Tunnel(vni, _) => since.same(Scope::Tunnels(vni)),
        };
        let (routed, station) = match &path.rewrite {
            Some((to, _)) => (since.same(Scope::Network(path.vni)), to.destination),
            None => (true, key.receiver()),
        };
        let got = match path.exit {
            Exit::Vap(vlan) => since.same(Scope::Vap(vlan)) && since.same(Scope::Address(source)),
            Exit::Tunnel(_) => true,
        };
        sent && routed && got && since.same(Scope::Station(path.vni, station))
    }
}
