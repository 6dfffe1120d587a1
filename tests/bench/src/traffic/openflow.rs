//! What Open vSwitch is told to do the same: flows and meters (ovs-ofctl(8),
//! OpenFlow 1.3).
//!
//! Tables: 0 sorts by origin, 1 asks the connection tracker's answer, 2 routes, 3
//! delivers; register 0 holds the network. Megaflows make one lookup of them all
//! but for the connection tracker, which costs a second one. Its meter stands
//! before the tracker, or the tracker's second lookup would need it, too.

use nve_protocol::Mac;

use super::network::{BLUE, MAX_PAIRS, Network, Pair, RED, Vm, pair};
use super::scenario::Scenario;
use super::tables::LIMIT_KBPS;

/// OpenFlow port numbers of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Port {
    /// The trunk.
    Trunk = 1,
    /// The VXLAN port, or in the scenario without work the uplink.
    Tunnel = 2,
}

const TRUNK: u16 = Port::Trunk as u16;
const TUNNEL: u16 = Port::Tunnel as u16;

/// `OFPVID_PRESENT`: a tag is there (OpenFlow 1.3, section 7.2.3.7).
const PRESENT: u16 = 0x1000;

/// Connection tracking zone.
const ZONE: u16 = 1;

/// The flows of the bridge, one a line.
pub fn flows(scenario: Scenario) -> Vec<String> {
    let Scenario::Nve { place, stateful } = scenario else {
        return vec![
            format!("in_port={TRUNK},actions=output:{TUNNEL}"),
            format!("in_port={TUNNEL},actions=output:{TRUNK}"),
        ];
    };
    let mut flows = Vec::new();
    for number in 0..MAX_PAIRS {
        let Pair { first, second } = pair(place, number);
        for vm in [&first, &second] {
            flows.extend(vm.vlan.map(|vlan| from_vm(vm, vlan, stateful)));
            flows.push(deliver(vm, place.is_across()));
            if place.is_routed() {
                flows.push(route(vm));
            }
        }
        if place.is_across() {
            flows.push(from_tunnel(&first, stateful));
        }
    }
    if stateful {
        flows.extend(track());
    }
    flows.push("table=2,priority=0,actions=goto_table:3".to_owned());
    flows
}

/// The meters of the bridge, one a line.
pub fn meters(scenario: Scenario) -> Vec<String> {
    let Scenario::Nve {
        place,
        stateful: true,
    } = scenario
    else {
        return Vec::new();
    };
    let pairs = (0..MAX_PAIRS).map(|number| pair(place, number));
    let vms = pairs.flat_map(|pair| [pair.first, pair.second]);
    vms.filter_map(|vm| vm.vlan)
        .map(|vlan| format!("meter={vlan},kbps,band=type=drop,rate={LIMIT_KBPS}"))
        .collect()
}

/// What a VM sends; anti-spoofing is in the match.
fn from_vm(vm: &Vm, vlan: u16, stateful: bool) -> String {
    let (network, next) = (vm.network.vni, admitted(stateful));
    let action = format!("pop_vlan,set_field:{network}->reg0,{next}");
    if stateful {
        let Vm { mac, ip, .. } = vm;
        format!(
            "table=0,priority=10,in_port={TRUNK},dl_vlan={vlan},dl_src={mac},ip,nw_src={ip},\
             actions=meter:{vlan},{action}"
        )
    } else {
        format!("table=0,priority=10,in_port={TRUNK},dl_vlan={vlan},actions={action}")
    }
}

/// What comes out of the tunnel for a VM.
fn from_tunnel(vm: &Vm, stateful: bool) -> String {
    let (network, next) = (vm.network.vni, admitted(stateful));
    let meter = match vm.vlan {
        Some(vlan) if stateful => format!("meter:{vlan},"),
        _ => String::new(),
    };
    format!(
        "table=0,priority=10,in_port={TUNNEL},tun_id={network},dl_dst={},ip,\
         actions={meter}set_field:{network}->reg0,{next}",
        vm.mac
    )
}

fn admitted(stateful: bool) -> String {
    if stateful {
        format!("ct(table=1,zone={ZONE})")
    } else {
        "goto_table:2".to_owned()
    }
}

/// A stateful group that allows UDP both ways.
fn track() -> [String; 2] {
    [
        "table=1,priority=10,ct_state=+trk+est-inv,ip,actions=goto_table:2".to_owned(),
        format!(
            "table=1,priority=10,ct_state=+trk+new-inv,udp,\
             actions=ct(commit,zone={ZONE}),goto_table:2"
        ),
    ]
}

/// What the router does with packets for a VM.
fn route(vm: &Vm) -> String {
    let other = match vm.network {
        BLUE => RED,
        _ => BLUE,
    };
    let rewrite = |source: Mac, destination: Mac| {
        format!("set_field:{source}->eth_src,set_field:{destination}->eth_dst")
    };
    format!(
        "table=2,priority=10,reg0={},dl_dst={},ip,nw_dst={},\
         actions=dec_ttl,{},set_field:{}->reg0,goto_table:3",
        other.vni,
        other.gateway_mac,
        vm.ip,
        rewrite(vm.network.gateway_mac, vm.mac),
        vm.network.vni,
    )
}

fn deliver(vm: &Vm, across: bool) -> String {
    let Network { vni, .. } = vm.network;
    let action = match vm.vlan {
        None => format!("set_field:{vni}->tun_id,output:{TUNNEL}"),
        Some(vlan) => {
            let output = match across {
                true => format!("output:{TRUNK}"),
                false => "in_port".to_owned(),
            };
            let tag = PRESENT | vlan;
            format!("push_vlan:0x8100,set_field:{tag}->vlan_vid,{output}")
        }
    };
    format!(
        "table=3,priority=10,reg0={vni},dl_dst={},actions={action}",
        vm.mac
    )
}
