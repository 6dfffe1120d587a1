//! Looks into NVEs that answer by a script.

use std::sync::Mutex;

use nve_protocol::inspect::{
    Admitted, Blame, Captured, ConnectionState, Done, Dropped, Failure, Flow, Head, Leaving,
    Origin, Packet, Part, Piece, Place, Probe, Question, Receiver, Source, Step, Tracked, Tunnel,
    Tuple, Via,
};
use nve_protocol::{Direction, DropReason, Limit, Mac, PortId, RouterId, RuleId, Vlan, Vni};

use super::*;
use crate::events::types::{EventType, LifecycleEvent, VmState, VmStatus, Vnic};
use crate::southbound::Reply;
use crate::southbound::testing::ScriptedNve;

mod captures;
mod commands;
mod logs;
mod refusals;
mod traces;

const DONE: Done = Done {
    next: 0,
    lost: 0,
    more: false,
};

/// Two hosts with an NVE each; VM a1 with port web-1 on a blue network at the first,
/// VM b1 with port db-1 on a green one at the second, and a router between.
struct World {
    rest: Rest,
    fabric: Fabric,
    nves: [Uuid; 2],
    web: Value,
    db: Value,
    gateway: Mac,
    router: Uuid,
}

fn answer(parts: Vec<Part>) -> Option<Result<Reply, Failure>> {
    Some(Ok(Reply { parts, done: DONE }))
}

fn vlan(tag: u16) -> Vlan {
    Vlan::new(tag).unwrap()
}

fn id(resource: &Value) -> Uuid {
    text(resource, "id").parse().unwrap()
}

fn port_id(port: &Value) -> PortId {
    PortId(id(port).into_bytes())
}

fn mac(port: &Value) -> Mac {
    text(port, "mac_address").parse().unwrap()
}

impl World {
    async fn new() -> World {
        let store = Box::new(MemoryStore::default());
        let controller = Controller::open(store, Settings::default()).unwrap();
        let fabric = Fabric::new(controller, Arc::default());
        let ports = Arc::new(Active::default());
        let router = router(Api::new(fabric.clone()));
        let rest = Rest {
            router,
            ports,
            fabric: fabric.clone(),
        };
        let mut nves = [Uuid::nil(); 2];
        for (n, id) in (1..).zip(&mut nves) {
            *id = add_nve(&rest, n).await;
        }
        let [blue, green] = [
            network(&rest, "blue", 0).await,
            network(&rest, "green", 1).await,
        ];
        let web = port(&rest, &blue, "web-1", "10.0.0.11", 101).await;
        let db = port(&rest, &green, "db-1", "10.0.1.5", 102).await;
        let made = rest.create("router", json!({"name": "r1"})).await;
        let mut gateway = Mac([0; 6]);
        for subnet in [&green["subnet"], &blue["subnet"]] {
            let path = format!("/v2.0/routers/{}/add_router_interface", text(&made, "id"));
            let body = json!({"subnet_id": subnet});
            let interface = rest.put(&path, body).await.body;
            let path = format!("/v2.0/ports/{}", text(&interface, "port_id"));
            gateway = mac(&rest.get(&path).await.body["port"]);
        }
        place(&fabric, "a1", "host-1", &web, 101).await;
        place(&fabric, "b1", "host-2", &db, 102).await;
        World {
            rest,
            fabric,
            nves,
            web,
            db,
            gateway,
            router: id(&made),
        }
    }

    fn script<F>(&self, nve: usize, script: F) -> ScriptedNve
    where
        F: FnMut(&Question) -> Option<Result<Reply, Failure>> + Send + 'static,
    {
        ScriptedNve::start(self.fabric.registry(), self.nves[nve], script)
    }

    fn path(&self, nve: usize, rest: &str) -> String {
        format!("/v1/nves/{}/{rest}", self.nves[nve])
    }

    async fn trace(&self, body: Value) -> Answer {
        self.rest.post(&self.path(0, "trace"), body).await
    }

    /// The probe that the first NVE is asked about.
    async fn probe(&self, body: Value) -> (Probe, Value) {
        let asked = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&asked);
        let _nve = self.script(0, move |question| {
            let Question::Trace(probe) = question else {
                panic!("{question:?}");
            };
            *kept.lock().unwrap() = Some(*probe);
            answer(vec![])
        });
        let answer = self.trace(body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        (asked.lock().unwrap().unwrap(), answer.body)
    }

    fn web(&self) -> Place {
        Place {
            vlan: vlan(101),
            port: port_id(&self.web),
        }
    }

    fn db(&self) -> Place {
        Place {
            vlan: vlan(102),
            port: port_id(&self.db),
        }
    }

    /// A rule that a port's group has.
    async fn rule(&self, port: &Value, direction: &str) -> RuleId {
        let path = format!(
            "/v2.0/security-group-rules?security_group_id={}&direction={direction}&ethertype=IPv4",
            port["security_groups"][0].as_str().unwrap()
        );
        let rules = self.rest.get(&path).await.body;
        RuleId(id(&rules["security_group_rules"][0]).into_bytes())
    }

    async fn vni(&self, name: &str) -> Vni {
        let networks = self
            .rest
            .get(&format!("/v2.0/networks?name={name}"))
            .await
            .body;
        let vni = networks["networks"][0]["provider:segmentation_id"]
            .as_u64()
            .unwrap();
        Vni::new(u32::try_from(vni).unwrap()).unwrap()
    }
}

async fn add_nve(rest: &Rest, n: u8) -> Uuid {
    let request = json!({
        "name": format!("nve-{n}"), "host_name": format!("host-{n}"),
        "vtep": format!("192.0.2.{n}"), "public_key": format!("{n:02x}").repeat(32),
    });
    id(&rest.post("/v1/nves", request).await.body)
}

async fn network(rest: &Rest, name: &str, n: u8) -> Value {
    let mut network = rest.create("network", json!({"name": name})).await;
    let subnet = json!({"network_id": network["id"], "ip_version": 4,
        "cidr": format!("10.0.{n}.0/24"), "gateway_ip": format!("10.0.{n}.1")});
    network["subnet"] = rest.create("subnet", subnet).await["id"].clone();
    network
}

async fn port(rest: &Rest, network: &Value, name: &str, ip: &str, tag: u16) -> Value {
    let attributes = json!({"network_id": network["id"], "name": name, "segmentation_id": tag,
        "fixed_ips": [{"ip_address": ip}]});
    rest.create("port", attributes).await
}

async fn place(fabric: &Fabric, vm: &str, host: &str, port: &Value, tag: u16) {
    let vnic = Vnic {
        vnic_name: "eth0".into(),
        vnic_uuid: Uuid::new_v4(),
        pg_name: format!("{}_{tag}", id(port)),
        pg_uuid: Uuid::new_v4(),
        mac: mac(port),
        port_segmentation_id: tag,
        ip_list: vec![],
        ipv6_list: vec![],
    };
    let event = LifecycleEvent {
        event_id: Uuid::new_v4(),
        timestamp: time::OffsetDateTime::now_utc(),
        event_type: EventType::VmPowerOn,
        vm: VmState {
            vm_name: vm.into(),
            vm_uuid: Uuid::new_v4(),
            vm_status: VmStatus::Running,
            host_name: host.into(),
            host_uuid: Uuid::nil(),
            vnic_list: vec![vnic],
        },
        destination_host_name: None,
    };
    fabric.take_event("lab", event).await.unwrap();
}

/// What leaves for a VTEP with that frame inside, in IPv4 or IPv6.
fn into_tunnel(vni: Vni, vtep: &str, inner: &[u8], ipv4: bool) -> Step {
    let outer = if ipv4 { 50 } else { 70 };
    let mut bytes = vec![0; outer];
    bytes[12..14].copy_from_slice(if ipv4 { &[8, 0] } else { &[0x86, 0xdd] });
    bytes.extend_from_slice(inner);
    Step::Send(Leaving {
        to: Via::Tunnel(Tunnel {
            vni,
            vtep: vtep.parse().unwrap(),
        }),
        length: u16::try_from(bytes.len()).unwrap(),
        head: Head::front(&bytes),
    })
}

fn into_vap(place: Place) -> Step {
    Step::Send(Leaving {
        to: Via::Vap(place),
        length: 58,
        head: Head::front(&[0; 58]),
    })
}
