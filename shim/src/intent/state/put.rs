//! Networks, subnets, ports and NVEs together with their index entries.

use uuid::Uuid;

use super::{State, disown};
use crate::model::{Network, Nve, Port, Subnet};

impl State {
    pub(super) fn put_network(&mut self, network: &Network) {
        let id = network.common.id;
        self.delete_network(id);
        self.network_by_vni.insert_mut(network.vni, id);
        if let Some(policy) = network.qos_policy_id {
            self.networks_by_policy.insert_mut((policy, id), ());
        }
        self.networks.insert_mut(id, network.clone());
    }

    pub(super) fn delete_network(&mut self, id: Uuid) {
        if let Some(old) = self.networks.get(&id) {
            disown(&mut self.network_by_vni, &old.vni, id);
            if let Some(policy) = old.qos_policy_id {
                self.networks_by_policy.remove_mut(&(policy, id));
            }
        }
        self.networks.remove_mut(&id);
    }

    pub(super) fn put_subnet(&mut self, subnet: &Subnet) {
        let id = subnet.common.id;
        self.delete_subnet(id);
        self.subnets_by_network
            .insert_mut((subnet.network_id, id), ());
        self.subnets.insert_mut(id, subnet.clone());
    }

    pub(super) fn delete_subnet(&mut self, id: Uuid) {
        if let Some(old) = self.subnets.get(&id) {
            self.subnets_by_network.remove_mut(&(old.network_id, id));
        }
        self.subnets.remove_mut(&id);
    }

    pub(super) fn put_port(&mut self, port: &Port) {
        let id = port.common.id;
        self.delete_port(id);
        let network = port.network_id;
        self.ports_by_network.insert_mut((network, id), ());
        self.port_by_mac.insert_mut((network, port.mac_address), id);
        for ip in &port.fixed_ips {
            self.port_by_address
                .insert_mut((ip.subnet_id, ip.ip_address), id);
        }
        self.take_tag(port);
        if let Some(router) = port.router() {
            self.interfaces_by_router.insert_mut((router, id), ());
            self.interfaces_by_network.insert_mut((network, id), ());
        }
        for group in &port.security_groups {
            self.ports_by_group.insert_mut((*group, id), ());
        }
        if let Some(policy) = port.qos_policy_id {
            self.ports_by_policy.insert_mut((policy, id), ());
        }
        self.ports.insert_mut(id, port.clone());
    }

    pub(super) fn delete_port(&mut self, id: Uuid) {
        let Some(old) = self.ports.get(&id).cloned() else {
            return;
        };
        let network = old.network_id;
        self.ports_by_network.remove_mut(&(network, id));
        disown(&mut self.port_by_mac, &(network, old.mac_address), id);
        for ip in &old.fixed_ips {
            disown(
                &mut self.port_by_address,
                &(ip.subnet_id, ip.ip_address),
                id,
            );
        }
        if let Some(router) = old.router() {
            self.interfaces_by_router.remove_mut(&(router, id));
            self.interfaces_by_network.remove_mut(&(network, id));
        }
        for group in &old.security_groups {
            self.ports_by_group.remove_mut(&(*group, id));
        }
        if let Some(policy) = old.qos_policy_id {
            self.ports_by_policy.remove_mut(&(policy, id));
        }
        self.leave_tag(&old);
        self.ports.remove_mut(&id);
    }

    pub(super) fn put_nve(&mut self, nve: &Nve) {
        self.delete_nve(nve.id);
        self.nve_by_host.insert_mut(nve.host_name.clone(), nve.id);
        self.nves.insert_mut(nve.id, nve.clone());
    }

    pub(super) fn delete_nve(&mut self, id: Uuid) {
        if let Some(old) = self.nves.get(&id) {
            disown(&mut self.nve_by_host, &old.host_name, id);
        }
        self.nves.remove_mut(&id);
    }
}
