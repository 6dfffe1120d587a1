//! Security groups, address groups and QoS policies: lookups and index entries.

use uuid::Uuid;

use super::{State, disown, members};
use crate::model::{AddressGroup, Network, Port, QosPolicy, SecurityGroup, SecurityGroupRule};

/// Looking things up.
impl State {
    /// The security group with that id.
    pub fn security_group(&self, id: Uuid) -> Option<&SecurityGroup> {
        self.security_groups.get(&id)
    }

    /// All security groups, by id.
    pub fn security_groups(&self) -> impl Iterator<Item = &SecurityGroup> {
        self.security_groups.values()
    }

    /// The security group of the project's ports that name none.
    pub fn default_group(&self, project: &str) -> Option<&SecurityGroup> {
        self.security_group(*self.default_groups.get(project)?)
    }

    /// The ports that are members of a security group, by id.
    pub fn ports_of_group(&self, group: Uuid) -> impl Iterator<Item = &Port> {
        members(&self.ports_by_group, group).filter_map(|id| self.port(id))
    }

    /// The security group rule with that id.
    pub fn rule(&self, id: Uuid) -> Option<&SecurityGroupRule> {
        self.rules.get(&id)
    }

    /// All security group rules, by id.
    pub fn rules(&self) -> impl Iterator<Item = &SecurityGroupRule> {
        self.rules.values()
    }

    /// The rules of a security group, by id.
    pub fn rules_of(&self, group: Uuid) -> impl Iterator<Item = &SecurityGroupRule> {
        members(&self.rules_by_group, group).filter_map(|id| self.rule(id))
    }

    /// The rules, by id, whose other side is that security group or address group.
    pub fn rules_about(&self, remote: Uuid) -> impl Iterator<Item = &SecurityGroupRule> {
        members(&self.rules_by_remote, remote).filter_map(|id| self.rule(id))
    }

    /// The address group with that id.
    pub fn address_group(&self, id: Uuid) -> Option<&AddressGroup> {
        self.address_groups.get(&id)
    }

    /// All address groups, by id.
    pub fn address_groups(&self) -> impl Iterator<Item = &AddressGroup> {
        self.address_groups.values()
    }

    /// The QoS policy with that id.
    pub fn qos_policy(&self, id: Uuid) -> Option<&QosPolicy> {
        self.qos_policies.get(&id)
    }

    /// All QoS policies, by id.
    pub fn qos_policies(&self) -> impl Iterator<Item = &QosPolicy> {
        self.qos_policies.values()
    }

    /// The ports, by id, that name the QoS policy themselves.
    pub fn ports_of_policy(&self, policy: Uuid) -> impl Iterator<Item = &Port> {
        members(&self.ports_by_policy, policy).filter_map(|id| self.port(id))
    }

    /// The networks, by id, whose ports have the QoS policy unless they name another.
    pub fn networks_of_policy(&self, policy: Uuid) -> impl Iterator<Item = &Network> {
        members(&self.networks_by_policy, policy).filter_map(|id| self.network(id))
    }

    /// The QoS policy in force for a port: its own, or else its network's, which is
    /// not for ports of the network itself, such as routers' interfaces.
    pub fn policy_in_force(&self, port: &Port) -> Option<&QosPolicy> {
        let of_network = || {
            let network = self.network(port.network_id)?;
            network
                .qos_policy_id
                .filter(|_| !port.device_owner.starts_with("network:"))
        };
        self.qos_policy(port.qos_policy_id.or_else(of_network)?)
    }
}

/// Objects together with their index entries.
impl State {
    pub(super) fn put_security_group(&mut self, group: &SecurityGroup) {
        let id = group.common.id;
        self.delete_security_group(id);
        if group.is_default {
            self.default_groups
                .insert_mut(group.common.project_id.clone(), id);
        }
        self.security_groups.insert_mut(id, group.clone());
    }

    pub(super) fn delete_security_group(&mut self, id: Uuid) {
        if let Some(old) = self.security_groups.get(&id).filter(|g| g.is_default) {
            disown(&mut self.default_groups, &old.common.project_id, id);
        }
        self.security_groups.remove_mut(&id);
    }

    pub(super) fn put_rule(&mut self, rule: &SecurityGroupRule) {
        let id = rule.common.id;
        self.delete_rule(id);
        self.rules_by_group
            .insert_mut((rule.security_group_id, id), ());
        for remote in remotes(rule) {
            self.rules_by_remote.insert_mut((remote, id), ());
        }
        self.rules.insert_mut(id, rule.clone());
    }

    pub(super) fn delete_rule(&mut self, id: Uuid) {
        let Some(old) = self.rules.get(&id) else {
            return;
        };
        self.rules_by_group.remove_mut(&(old.security_group_id, id));
        for remote in remotes(old) {
            self.rules_by_remote.remove_mut(&(remote, id));
        }
        self.rules.remove_mut(&id);
    }
}

/// The groups that the other side of a rule is.
fn remotes(rule: &SecurityGroupRule) -> impl Iterator<Item = Uuid> + use<> {
    [rule.remote_group_id, rule.remote_address_group_id]
        .into_iter()
        .flatten()
}
