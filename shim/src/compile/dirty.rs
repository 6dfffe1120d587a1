//! Which objects a change concerns: itself, and those whose records are made
//! with a look at it.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::network::networks_of;
use super::source::Source;
use crate::intent::State;
use crate::model::{Mutation, Network, QosPolicy, Router};
use crate::placement::Claims;

/// What is to be compiled anew.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) sources: BTreeSet<Source>,
    /// Networks all of whose records may be other ones.
    pub(super) networks: BTreeSet<Uuid>,
}

/// The state before and after a change, and where ports are now.
struct Around<'a> {
    before: &'a State,
    after: &'a State,
    claims: &'a Claims,
}

impl Dirty {
    /// All objects of a state.
    pub(super) fn all(state: &State) -> Dirty {
        let mut sources: BTreeSet<Source> =
            state.ports().map(|o| Source::Port(o.common.id)).collect();
        sources.extend(state.networks().map(|o| Source::Network(o.common.id)));
        sources.extend(state.subnets().map(|o| Source::Subnet(o.common.id)));
        sources.extend(state.routers().map(|o| Source::Router(o.common.id)));
        let groups = state.security_groups();
        sources.extend(groups.map(|o| Source::SecurityGroup(o.common.id)));
        sources.extend(state.rules().map(|o| Source::Rule(o.common.id)));
        let groups = state.address_groups();
        sources.extend(groups.map(|o| Source::AddressGroup(o.common.id)));
        sources.extend(state.vteps().map(|o| Source::Vtep(o.id)));
        Dirty {
            sources,
            networks: BTreeSet::new(),
        }
    }

    /// Collects what a mutation concerns, and has `claims` follow it. `before` and
    /// `after` are around all mutations of a transaction.
    pub(super) fn touch(
        &mut self,
        before: &State,
        after: &State,
        claims: &mut Claims,
        mutation: &Mutation,
    ) {
        if let Mutation::PutVm(placed) = mutation {
            return self.vm(before, after, claims, placed.vm.vm_uuid);
        }
        if let Mutation::DeleteVm(id) = mutation {
            return self.vm(before, after, claims, *id);
        }
        let around = Around {
            before,
            after,
            claims,
        };
        match mutation {
            Mutation::PutNetwork(network) => self.network(&around, network.common.id),
            Mutation::DeleteNetwork(id) => self.network(&around, *id),
            Mutation::PutSubnet(subnet) => self.subnet(&around, subnet.common.id),
            Mutation::DeleteSubnet(id) => self.subnet(&around, *id),
            Mutation::PutPort(port) => self.lease(&around, port.common.id),
            Mutation::DeletePort(id) => self.lease(&around, *id),
            Mutation::PutRouter(router) => self.router(&around, router.common.id),
            Mutation::DeleteRouter(id) => self.router(&around, *id),
            Mutation::PutSecurityGroup(group) => self.one(Source::SecurityGroup(group.common.id)),
            Mutation::DeleteSecurityGroup(id) => self.one(Source::SecurityGroup(*id)),
            Mutation::PutSecurityGroupRule(rule) => self.one(Source::Rule(rule.common.id)),
            Mutation::DeleteSecurityGroupRule(id) => self.one(Source::Rule(*id)),
            Mutation::PutAddressGroup(group) => self.one(Source::AddressGroup(group.common.id)),
            Mutation::DeleteAddressGroup(id) => self.one(Source::AddressGroup(*id)),
            Mutation::PutQosPolicy(policy) => self.policy(&around, policy.common.id),
            Mutation::DeleteQosPolicy(id) => self.policy(&around, *id),
            Mutation::PutNve(nve) => self.nve(&around, nve.id),
            Mutation::DeleteNve(id) => self.nve(&around, *id),
            Mutation::PutVtep(vtep) => self.one(Source::Vtep(vtep.id)),
            Mutation::DeleteVtep(id) => self.one(Source::Vtep(*id)),
            Mutation::PutVm(_)
            | Mutation::DeleteVm(_)
            | Mutation::PutTombstone(_)
            | Mutation::DeleteTombstone(_)
            | Mutation::PutCursor(..)
            | Mutation::PutCluster(_)
            | Mutation::DeleteCluster(_)
            | Mutation::PutQuarantine(_)
            | Mutation::DeleteQuarantine(..) => {}
        }
    }

    fn one(&mut self, source: Source) {
        self.sources.insert(source);
    }

    /// A port's change can pass its tag to, or take it from, another port.
    fn port(&mut self, claims: &Claims, id: Uuid) {
        self.one(Source::Port(id));
        if let Some(place) = claims.place(id) {
            let sharing = claims.on_tag(&place.host, place.vlan);
            self.sources.extend(sharing.map(Source::Port));
        }
    }

    /// And no other port's VM is awaited on a tag that the port has a lease of.
    fn lease(&mut self, around: &Around<'_>, id: Uuid) {
        self.port(around.claims, id);
        let ports = [around.before, around.after].map(|state| state.port(id));
        for port in ports.into_iter().flatten() {
            let Some(tag) = port.segmentation_id else {
                continue;
            };
            let awaited = around.claims.aside_on_tag(&port.binding_host_id, tag);
            self.sources.extend(awaited.map(Source::Port));
        }
    }

    /// A network that comes, goes or has another administrative state passes the
    /// tags of its ports to, or takes them from, ports of other networks; and its
    /// VNI is in all its records.
    fn network(&mut self, around: &Around<'_>, id: Uuid) {
        self.one(Source::Network(id));
        let seen_by_others = |network: &Network| {
            (
                network.vni,
                network.admin_state_up,
                network.qos_policy_id,
                network.dns_domain.clone(),
            )
        };
        let before = around.before.network(id).map(seen_by_others);
        if before == around.after.network(id).map(seen_by_others) {
            return;
        }
        self.networks.insert(id);
        for state in [around.before, around.after] {
            for port in state.ports_of(id) {
                self.port(around.claims, port.common.id);
            }
            let subnets = state.subnets_of(id);
            self.sources
                .extend(subnets.map(|subnet| Source::Subnet(subnet.common.id)));
            let vteps = state
                .vteps()
                .filter(|vtep| networks_of(vtep).any(|on| on == id));
            self.sources.extend(vteps.map(|vtep| Source::Vtep(vtep.id)));
        }
    }

    /// A subnet's prefix is in the gateways of routers' interfaces.
    fn subnet(&mut self, around: &Around<'_>, id: Uuid) {
        self.one(Source::Subnet(id));
        let subnets = [around.before, around.after].map(|state| state.subnet(id));
        let [before, after] = subnets.map(|subnet| subnet.map(|subnet| subnet.cidr));
        if before == after {
            return;
        }
        for subnet in subnets.into_iter().flatten() {
            let interfaces = around.after.interfaces_on(subnet.network_id);
            self.sources
                .extend(interfaces.map(|port| Source::Port(port.common.id)));
        }
    }

    fn router(&mut self, around: &Around<'_>, id: Uuid) {
        self.one(Source::Router(id));
        let is_up = |router: &Router| router.admin_state_up;
        let before = around.before.router(id).is_some_and(is_up);
        if before != around.after.router(id).is_some_and(is_up) {
            let interfaces = around.after.interfaces_of(id);
            self.sources
                .extend(interfaces.map(|port| Source::Port(port.common.id)));
        }
    }

    /// Who names the policy in another state than before is concerned by that
    /// already.
    fn policy(&mut self, around: &Around<'_>, id: Uuid) {
        let rules = |policy: &QosPolicy| policy.rules.clone();
        let before = around.before.qos_policy(id).map(rules);
        if before == around.after.qos_policy(id).map(rules) {
            return;
        }
        let state = around.after;
        let through_networks = state
            .networks_of_policy(id)
            .flat_map(|network| state.ports_of(network.common.id));
        let ports = state.ports_of_policy(id).chain(through_networks);
        self.sources
            .extend(ports.map(|port| Source::Port(port.common.id)));
    }

    fn nve(&mut self, around: &Around<'_>, id: Uuid) {
        for state in [around.before, around.after] {
            if let Some(nve) = state.nve(id) {
                let ports = around.claims.on_host(&nve.host_name);
                self.sources.extend(ports.map(Source::Port));
            }
        }
    }

    /// Replaces a VM's claims by those of the newest state. Concerned are the ports
    /// of the old and the new ones, and whoever shares a tag with any place that
    /// these ports had or now have, or where their VM may come up or has been.
    fn vm(&mut self, before: &State, after: &State, claims: &mut Claims, id: Uuid) {
        let (old, new) = (before.vm(id), after.vm(id));
        let told = || old.into_iter().chain(new);
        let touched = |claims: &Claims| -> BTreeSet<Uuid> {
            told()
                .flat_map(|placed| claims.touched_by(placed))
                .collect()
        };
        let concerned = touched(claims);
        concerned.iter().for_each(|port| self.port(claims, *port));
        if let Some(old) = old {
            claims.remove(old);
        }
        if let Some(new) = new {
            // One transaction may name a VM twice.
            claims.remove(new);
            claims.add(new);
        }
        let concerned = &concerned | &touched(claims);
        concerned.iter().for_each(|port| self.port(claims, *port));
    }
}
