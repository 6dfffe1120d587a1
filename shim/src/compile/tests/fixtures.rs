//! Small objects with numbers for names.

use nve_protocol::{Mac, Vlan, Vni};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::events::types::{VmState, VmStatus, Vnic};
use crate::model::*;

pub(crate) fn id(kind: u8, number: u8) -> Uuid {
    Uuid::from_bytes([kind, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, number])
}

pub(crate) fn common(id: Uuid) -> Common {
    Common {
        id,
        name: String::new(),
        description: String::new(),
        project_id: String::new(),
        revision_number: 0,
        created_at: OffsetDateTime::UNIX_EPOCH,
        updated_at: OffsetDateTime::UNIX_EPOCH,
        tags: vec![],
    }
}

pub(crate) fn network(number: u8, up: bool) -> Network {
    let vni = Vni::new(5000 + u32::from(number)).unwrap();
    Network {
        common: common(id(1, number)),
        admin_state_up: up,
        shared: false,
        mtu: 1450,
        vni,
        port_security_enabled: true,
        qos_policy_id: None,
        dns_domain: String::new(),
    }
}

pub(crate) fn subnet(on: u8) -> Subnet {
    Subnet {
        common: common(id(9, on)),
        network_id: id(1, on),
        cidr: format!("10.0.{on}.0/24").parse().unwrap(),
        gateway_ip: Some([10, 0, on, 254].into()),
        enable_dhcp: true,
        allocation_pools: vec![],
        dns_nameservers: vec![],
        host_routes: vec![],
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
    }
}

pub(crate) fn router(number: u8, up: bool) -> Router {
    Router {
        common: common(id(10, number)),
        admin_state_up: up,
        routes: vec![],
        distributed: true,
        ha: false,
    }
}

pub(crate) fn route(destination: &str, nexthop: &str) -> HostRoute {
    HostRoute {
        destination: destination.parse().unwrap(),
        nexthop: nexthop.parse().unwrap(),
    }
}

/// The port `number`, as an interface of a router in network `on`.
pub(crate) fn interface(number: u8, on: u8, of: u8) -> Port {
    Port {
        device_id: id(10, of).to_string(),
        device_owner: ROUTER_INTERFACE.into(),
        binding_host_id: String::new(),
        segmentation_id: None,
        ..port(number, on, 1, true)
    }
}

pub(crate) fn group(number: u8, stateful: bool) -> SecurityGroup {
    SecurityGroup {
        common: common(id(11, number)),
        stateful,
        is_default: false,
    }
}

/// A rule of a group that allows anything in over IPv4.
pub(crate) fn rule(number: u8, of: u8) -> SecurityGroupRule {
    SecurityGroupRule {
        common: common(id(12, number)),
        security_group_id: id(11, of),
        direction: Direction::Ingress,
        ethertype: Ethertype::Ipv4,
        protocol: None,
        port_range_min: None,
        port_range_max: None,
        remote_ip_prefix: None,
        remote_group_id: None,
        remote_address_group_id: None,
    }
}

pub(crate) fn address_group(number: u8, addresses: &[&str]) -> AddressGroup {
    AddressGroup {
        common: common(id(13, number)),
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

pub(crate) fn policy(number: u8, max_kbps: u32) -> QosPolicy {
    let action = QosAction::BandwidthLimit {
        max_kbps,
        max_burst_kbps: 0,
        direction: Direction::Egress,
    };
    QosPolicy {
        common: common(id(14, number)),
        shared: false,
        is_default: false,
        rules: vec![QosRule {
            id: Uuid::nil(),
            action,
        }],
    }
}

pub(crate) fn pair(net: &str, mac: Mac) -> AddressPair {
    AddressPair {
        ip_address: net.parse().unwrap(),
        mac_address: mac,
    }
}

pub(crate) fn tag(number: u8) -> Vlan {
    Vlan::new(100 + u16::from(number)).unwrap()
}

pub(crate) fn host(number: u8) -> String {
    format!("hv-{number}")
}

pub(crate) fn port(number: u8, on: u8, bound: u8, up: bool) -> Port {
    Port {
        common: common(id(2, number)),
        network_id: id(1, on),
        admin_state_up: up,
        mac_address: Mac([2, 0, 0, 0, 0, number]),
        fixed_ips: vec![FixedIp {
            subnet_id: id(9, on),
            ip_address: [10, 0, on, number].into(),
        }],
        device_id: String::new(),
        device_owner: String::new(),
        binding_host_id: host(bound),
        segmentation_id: Some(tag(number % 3)),
        segmentation_id_named: false,
        port_security_enabled: false,
        security_groups: vec![],
        allowed_address_pairs: vec![],
        extra_dhcp_opts: vec![],
        qos_policy_id: None,
        dns_name: String::new(),
    }
}

pub(crate) fn nve(number: u8) -> Nve {
    Nve {
        id: id(3, number),
        name: format!("nve-{number}"),
        host_name: host(number),
        host_uuid: None,
        vtep: [192, 0, 2, number].into(),
        public_key: format!("{number:064x}"),
    }
}

pub(crate) fn vtep(number: u8, on: u8) -> Vtep {
    let endpoint = Endpoint {
        network_id: id(1, on),
        mac_address: Mac([2, 0, 0, 0, 9, number]),
        ip_address: Some([10, 0, on, 200 + number].into()),
    };
    Vtep {
        id: id(4, number),
        name: String::new(),
        address: [198, 51, 100, number].into(),
        networks: vec![id(1, on)],
        endpoints: vec![endpoint],
    }
}

pub(crate) fn vm(number: u8, at: u8, status: VmStatus, ports: &[u8], second: i64) -> PlacedVm {
    let vnic = |port: &u8| Vnic {
        vnic_name: "eth0".into(),
        vnic_uuid: id(6, *port),
        pg_name: format!("{}_{}", id(2, *port), tag(port % 3)),
        pg_uuid: id(7, *port),
        mac: Mac([2, 0, 0, 0, 0, *port]),
        port_segmentation_id: tag(port % 3).get(),
        ip_list: vec![],
        ipv6_list: vec![],
    };
    PlacedVm {
        manager: "lab".into(),
        as_of: OffsetDateTime::from_unix_timestamp(second).unwrap(),
        deleted: false,
        migration: None,
        departed: None,
        vm: VmState {
            vm_name: String::new(),
            vm_uuid: id(5, number),
            vm_status: status,
            host_name: host(at),
            host_uuid: id(8, at),
            vnic_list: ports.iter().map(vnic).collect(),
        },
    }
}
