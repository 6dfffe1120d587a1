//! Everything fails between managers and shim while VMs come, move and go; then the
//! placement is the managers' inventory, and no NVE has anything that is not in it.
//!
//! `CHAOS_SEED` sets the seed; what is random is so by it alone, but the processes
//! take their time as they like.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nve_protocol::{PortId, Presence, Record};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use shim::compile::Compiler;
use shim::events::types::VmState;
use uuid::Uuid;

use super::disturb::Way;
use super::managers::Manager;
use super::plant::{Plant, vnic};

const OPERATIONS: usize = 500;
const MANAGERS: usize = 3;
/// Hosts of one manager.
const HOSTS: usize = 4;
/// Between two operations, so that connections come and go among them.
const PAUSE: Duration = Duration::from_millis(20);
/// For all to be known once nothing fails any more.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// A VM that was made and not deleted.
struct Vm {
    id: Uuid,
    manager: usize,
    ports: Vec<Value>,
}

struct World {
    plant: Plant,
    managers: Vec<Manager>,
    ways: Vec<Way>,
    networks: Vec<String>,
    nves: BTreeMap<String, Uuid>,
    vms: Vec<Vm>,
    chance: StdRng,
    counts: BTreeMap<&'static str, usize>,
}

fn host(manager: usize, number: usize) -> String {
    format!("hv-{manager}-{number}")
}

impl World {
    async fn new(seed: u64) -> World {
        let managers: Vec<Manager> = (0..MANAGERS).map(|_| Manager::start()).collect();
        let mut ways = Vec::new();
        for (manager, salt) in managers.iter().zip(1..) {
            ways.push(Way::to(&manager.address, seed ^ salt).await);
        }
        let urls = ways.iter().enumerate();
        let urls: Vec<(String, String)> = urls
            .map(|(number, way)| (format!("manager-{number}"), way.url.clone()))
            .collect();
        let plant = Plant::start(&urls).await;
        let hosts: Vec<String> = (0..MANAGERS)
            .flat_map(|manager| (0..HOSTS).map(move |number| host(manager, number)))
            .collect();
        let nves = plant.nves(&hosts).await;
        let networks = vec![plant.network().await, plant.network().await];
        World {
            plant,
            managers,
            ways,
            networks,
            nves: hosts.into_iter().zip(nves).collect(),
            vms: Vec::new(),
            chance: StdRng::seed_from_u64(seed),
            counts: BTreeMap::new(),
        }
    }

    fn any_host(&mut self, manager: usize) -> String {
        host(manager, self.chance.random_range(0..HOSTS))
    }

    async fn port(&mut self, host: &str) -> Value {
        let network = self.networks.choose(&mut self.chance).unwrap().clone();
        // Half of them are bound, as Nova does it.
        let bound = if self.chance.random() { host } else { "" };
        self.plant.ports(&network, bound, 1).await.remove(0)
    }

    fn count(&mut self, what: &'static str, done: bool) {
        let what = if done { what } else { "refused" };
        *self.counts.entry(what).or_default() += 1;
    }

    async fn create(&mut self) {
        let manager = self.chance.random_range(0..MANAGERS);
        let host = self.any_host(manager);
        let id = Uuid::from_u128(self.chance.random());
        let mut ports = Vec::new();
        for _ in 0..self.chance.random_range(1..3) {
            ports.push(self.port(&host).await);
        }
        let vm = json!({"vm_name": "vm", "vm_uuid": id, "host_name": host,
            "power_on": self.chance.random::<bool>(),
            "vnic_list": ports.iter().map(vnic).collect::<Vec<_>>()});
        let done = self.managers[manager].post("/v1/lab/vms", &vm).await;
        // A manager that was killed may have made it before it could say so.
        self.vms.push(Vm { id, manager, ports });
        self.count("created", done);
    }

    async fn delete(&mut self, at: usize) {
        let Vm { id, manager, ports } = self.vms.swap_remove(at);
        let path = format!("/v1/lab/vms/{id}");
        let done = self.managers[manager].delete(&path).await;
        // Users delete ports along with VMs, or keep them.
        for port in ports {
            if self.chance.random() {
                let path = format!("/v2.0/ports/{}", port["id"].as_str().unwrap());
                self.plant.rest.delete(&path).await.unwrap();
            }
        }
        self.count("deleted", done);
    }

    async fn change(&mut self, at: usize) {
        let (id, manager) = (self.vms[at].id, self.vms[at].manager);
        let path = format!("/v1/lab/vms/{id}");
        let host = self.any_host(manager);
        let to = json!({"host_name": host});
        let (what, path, body) = match self.chance.random_range(0..10) {
            0..2 => ("powered", format!("{path}/power-on"), json!({})),
            2..4 => ("powered", format!("{path}/power-off"), json!({})),
            4..7 => ("moved", format!("{path}/move"), to),
            7..9 => ("failed over", format!("{path}/fail-over"), to),
            _ => {
                let port = self.port(&host).await;
                let body = vnic(&port);
                self.vms[at].ports.push(port);
                ("attached", format!("{path}/vnics"), body)
            }
        };
        let done = self.managers[manager].post(&path, &body).await;
        self.count(what, done);
    }

    async fn operate(&mut self) {
        let most = 60;
        let at = match self.vms.len() {
            0 => None,
            len => Some(self.chance.random_range(0..len)),
        };
        match (at, self.chance.random_range(0..10)) {
            (None, _) => self.create().await,
            (Some(_), 0..3) if self.vms.len() < most => self.create().await,
            (Some(at), 0..2) => self.delete(at).await,
            (Some(at), 3) => self.delete(at).await,
            (Some(at), _) => self.change(at).await,
        }
    }

    /// Lets something fail, now and then.
    async fn fail(&mut self) {
        let victim = self.chance.random_range(0..MANAGERS);
        match self.chance.random_range(0..100) {
            0..2 => {
                self.managers[victim].kill();
                let down = self.chance.random_range(0..400);
                tokio::time::sleep(Duration::from_millis(down)).await;
                self.managers[victim].restart();
                self.count("managers killed", true);
            }
            2..5 => {
                self.ways[victim].cut();
                self.count("connections cut", true);
            }
            5..6 => {
                self.ways[victim].silence();
                self.count("connections silent", true);
            }
            _ => {}
        }
    }

    /// What the managers say that there is.
    async fn inventory(&self) -> BTreeMap<Uuid, VmState> {
        let mut all = BTreeMap::new();
        for manager in &self.managers {
            let vms = manager.inventory().await.vms.into_iter();
            all.extend(vms.map(|vm| (vm.vm_uuid, vm)));
        }
        all
    }

    /// What the shim thinks that there is.
    fn placement(&self) -> BTreeMap<Uuid, VmState> {
        let state = self.plant.fabric.controller().snapshot();
        let vms = state.vms().filter(|placed| !placed.deleted);
        vms.map(|placed| (placed.vm.vm_uuid, placed.vm.clone()))
            .collect()
    }

    /// How many VMs move, as far as the shim knows, or have left a host not long ago.
    fn moving(&self) -> usize {
        self.plant.fabric.moves().borrow().len()
    }

    async fn settle(&self) -> Duration {
        self.ways.iter().for_each(Way::calm);
        let begun = Instant::now();
        let wanted = self.inventory().await;
        while self.placement() != wanted || self.moving() > 0 {
            if begun.elapsed() > SETTLED_WITHIN {
                let statuses = self.plant.managers.iter().map(|manager| manager.get());
                let statuses: Vec<_> = statuses.collect();
                assert_eq!(self.placement(), wanted, "{statuses:#?}");
                assert_eq!(self.moving(), 0, "{:?}", self.plant.fabric.moves());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        begun.elapsed()
    }

    /// Whether each NVE has the VAPs of its host's running VMs, and knows all others
    /// of their networks where they are, and nothing else: no VM moves any more.
    fn check_tables(&self, inventory: &BTreeMap<Uuid, VmState>) -> usize {
        let state = self.plant.fabric.controller().snapshot();
        let whole = Compiler::new(&state);
        let mut expected: BTreeMap<&str, BTreeSet<(u16, Uuid)>> = BTreeMap::new();
        for vm in inventory.values().filter(|vm| vm.vm_status.forwards()) {
            for vnic in &vm.vnic_list {
                if let Some(port) = vnic.port_id().filter(|port| state.port(*port).is_some()) {
                    let vaps = expected.entry(&vm.host_name).or_default();
                    vaps.insert((vnic.port_segmentation_id, port));
                }
            }
        }
        let mut vaps = 0;
        for (host, nve) in &self.nves {
            let tables = self.plant.fabric.desired_tables(*nve).unwrap();
            assert_eq!(Some(&tables), whole.tables(*nve), "{host}");
            let own = tables.records().filter_map(|record| match record {
                Record::Vap(vap) => {
                    assert_eq!(vap.presence, Presence::Active);
                    let PortId(port) = vap.port;
                    Some((vap.vlan.get(), Uuid::from_bytes(port)))
                }
                _ => None,
            });
            let own: BTreeSet<(u16, Uuid)> = own.collect();
            vaps += own.len();
            let expected = expected.remove(host.as_str()).unwrap_or_default();
            assert_eq!(own, expected, "VAPs on {host}");
        }
        assert!(expected.is_empty(), "{expected:?}");
        vaps
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_placement_is_the_inventory_in_the_end() {
    let given = std::env::var("CHAOS_SEED").ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("CHAOS_SEED={seed}");
    let mut world = World::new(seed).await;
    let begun = Instant::now();
    for _ in 0..OPERATIONS {
        world.fail().await;
        world.operate().await;
        tokio::time::sleep(PAUSE).await;
    }
    let operated = begun.elapsed();
    let settled = world.settle().await;
    let inventory = world.inventory().await;
    let vaps = world.check_tables(&inventory);
    println!(
        "{OPERATIONS} operations in {:.1} s, settled {:.1} s after the last: {} VMs, {vaps} VAPs",
        operated.as_secs_f64(),
        settled.as_secs_f64(),
        inventory.len()
    );
    println!("{:?}", world.counts);
    for manager in &world.plant.managers {
        let status = manager.get();
        println!(
            "{}: {} connections, {} events, {} duplicates, {} inventories, {} resyncs",
            status.name,
            status.connections,
            status.events,
            status.duplicates,
            status.inventories,
            status.resyncs
        );
    }
}
