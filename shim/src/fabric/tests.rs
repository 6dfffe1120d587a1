use super::*;
use crate::compile::tests::{id, network, nve, policy, port, tag, vm};
use crate::controller::TransactError;
use crate::events::types::VmStatus;
use crate::intent::{Occupant, Plan, Settings, Who};
use crate::model::{PlacedVm, Port};
use crate::store::MemoryStore;

struct Bench {
    fabric: Fabric,
    port: Uuid,
}

impl Bench {
    async fn new() -> Bench {
        let store = Box::new(MemoryStore::default());
        let controller = Controller::open(store, Settings::default()).unwrap();
        let bench = Bench {
            fabric: Fabric::new(controller, Arc::default()),
            port: id(2, 1),
        };
        bench
            .put(vec![
                Mutation::PutQosPolicy(policy(1, 100)),
                Mutation::PutNetwork(network(1, true)),
                Mutation::PutNve(nve(1)),
                Mutation::PutNve(nve(2)),
            ])
            .await;
        bench.run_on(1, 1, None).await;
        bench
    }

    async fn put(&self, mutations: Vec<Mutation>) {
        let plan = Plan {
            mutations,
            result: (),
        };
        let done = self.fabric.controller.transact(|_| Ok(plan)).await;
        let done: Result<(), TransactError> = done;
        done.unwrap();
    }

    /// The port's VM runs on that host since that second, with that policy.
    async fn run_on(&self, host: u8, second: i64, policy: Option<Uuid>) {
        self.put(vec![
            Mutation::PutPort(Port {
                qos_policy_id: policy,
                ..port(1, 1, host, true)
            }),
            Mutation::PutVm(vm(1, host, VmStatus::Running, &[1], second)),
        ])
        .await;
    }

    fn tables(&self, nve: u8) -> Arc<NveTables> {
        self.fabric.desired_tables(id(3, nve)).unwrap()
    }

    fn acknowledge(&self, nve: u8, tables: Arc<NveTables>) {
        self.fabric.registry().acknowledge(id(3, nve), tables);
    }

    /// Whether the port is active, and whether it is in force.
    fn status(&self) -> (bool, bool) {
        let attachment = self.fabric.attachment(self.port);
        let in_force = attachment.is_some_and(|attachment| attachment.in_force);
        (self.fabric.is_active(self.port), in_force)
    }
}

#[tokio::test]
async fn a_port_stays_active_over_changes_where_it_is() {
    let bench = Bench::new().await;
    assert_eq!(bench.status(), (false, false));
    bench.acknowledge(1, bench.tables(1));
    assert_eq!(bench.status(), (true, true));
    for policy in [Some(id(14, 1)), None, Some(id(14, 1))] {
        bench.run_on(1, 1, policy).await;
        assert!(bench.status().0, "{policy:?}");
    }
    assert_eq!(bench.status(), (true, false));
    bench.acknowledge(1, bench.tables(1));
    assert_eq!(bench.status(), (true, true));
    // What an NVE has after it was booted is not known.
    bench.run_on(1, 1, None).await;
    bench.acknowledge(1, Arc::default());
    assert_eq!(bench.status(), (false, false));
}

#[tokio::test]
async fn a_new_place_waits_for_its_newest_policy() {
    let bench = Bench::new().await;
    bench.acknowledge(1, bench.tables(1));
    bench.run_on(1, 1, Some(id(14, 1))).await;
    bench.run_on(2, 2, Some(id(14, 1))).await;
    assert_eq!(bench.status(), (false, false), "moved");
    let first = bench.tables(2);
    bench.run_on(2, 2, None).await;
    bench.acknowledge(2, first);
    assert_eq!(bench.status(), (false, false), "with the policy before");
    bench.acknowledge(2, bench.tables(2));
    assert_eq!(bench.status(), (true, true));
    // Back where it was established once: as if it had never been there.
    bench.acknowledge(1, bench.tables(1));
    bench.run_on(1, 3, Some(id(14, 1))).await;
    let first = bench.tables(1);
    bench.run_on(1, 3, None).await;
    bench.acknowledge(1, first);
    assert_eq!(bench.status(), (false, false));
}

/// What a VM's manager tells of it.
fn event(kind: &str, placed: PlacedVm) -> LifecycleEvent {
    LifecycleEvent {
        event_id: Uuid::new_v4(),
        timestamp: placed.as_of,
        event_type: kind.parse().unwrap(),
        vm: placed.vm,
        destination_host_name: None,
    }
}

/// Two VMs of a network, on hosts 1 and 2.
async fn two_vms() -> Bench {
    let bench = Bench::new().await;
    bench
        .put(vec![
            Mutation::PutPort(port(2, 1, 2, true)),
            Mutation::PutVm(vm(2, 2, VmStatus::Running, &[2], 1)),
        ])
        .await;
    bench
}

impl Bench {
    async fn tell(&self, event: LifecycleEvent) -> Outcome {
        self.fabric.take_event("lab", event).await.unwrap()
    }

    /// Takes an inventory of that second.
    async fn list(&self, second: i64, vms: Vec<PlacedVm>) {
        let inventory = Inventory {
            timestamp: time::OffsetDateTime::from_unix_timestamp(second).unwrap(),
            last_event_id: None,
            vms: vms.into_iter().map(|placed| placed.vm).collect(),
            unread: vec![],
        };
        self.fabric
            .inventory("lab", inventory, false)
            .await
            .unwrap();
    }

    /// VAPs of an NVE, and VTEPs that it knows.
    fn knows(&self, nve: u8) -> (usize, BTreeSet<std::net::IpAddr>) {
        let tables = self.tables(nve);
        let vaps = tables
            .records()
            .filter(|r| matches!(r, nve_protocol::Record::Vap(_)));
        let vteps = tables.records().filter_map(|record| match record {
            nve_protocol::Record::Fdb(fdb) => Some(fdb.vtep),
            nve_protocol::Record::Flood(flood) => Some(flood.vtep),
            _ => None,
        });
        (vaps.count(), vteps.collect())
    }
}

#[tokio::test]
async fn nothing_leads_to_a_dead_host_once_high_availability_has_finished() {
    let bench = two_vms().await;
    let dead = [192, 0, 2, 1].into();
    assert_eq!(bench.knows(1).0, 1);
    assert!(bench.knows(2).1.contains(&dead));
    bench.acknowledge(1, bench.tables(1));
    let moved = vm(1, 2, VmStatus::Running, &[1], 5);
    assert_eq!(bench.tell(event("hafinish", moved)).await, Outcome::Applied);
    // The NVE of the dead host is told to have nothing, should it come back.
    assert_eq!(bench.tables(1).records().count(), 0);
    assert_eq!(bench.knows(2), (2, BTreeSet::new()));
    assert_eq!(
        bench.status(),
        (false, false),
        "not before the new NVE has it"
    );
    bench.acknowledge(2, bench.tables(2));
    assert_eq!(bench.status(), (true, true));
    let bound = |state: &State| state.port(id(2, 1)).unwrap().binding_host_id.clone();
    assert_eq!(bench.fabric.controller().read(bound), "hv-2");
}

#[tokio::test]
async fn a_vm_that_is_off_is_withdrawn_everywhere() {
    let bench = two_vms().await;
    let off = vm(2, 2, VmStatus::Running, &[2], 5);
    bench.tell(event("vmpoweroff", off)).await;
    assert_eq!(bench.tables(2).records().count(), 0);
    assert_eq!(bench.knows(1), (1, BTreeSet::new()));
    assert!(bench.fabric.place(id(2, 2)).is_none());
    let on = vm(2, 2, VmStatus::Running, &[2], 6);
    bench.tell(event("vmpoweron", on)).await;
    assert_eq!(bench.knows(1), (1, [[192, 0, 2, 2].into()].into()));
}

#[tokio::test]
async fn a_deleted_vms_tag_is_released_when_the_inventory_confirms() {
    let bench = two_vms().await;
    let (first, second) = (
        vm(1, 1, VmStatus::Running, &[1], 1),
        vm(2, 2, VmStatus::Running, &[2], 1),
    );
    bench.list(2, vec![first.clone(), second.clone()]).await;
    let gone = vm(2, 2, VmStatus::Running, &[2], 5);
    bench.tell(event("vmdeleted", gone)).await;
    assert_eq!(bench.knows(1), (1, BTreeSet::new()), "withdrawn at once");
    bench.put(vec![Mutation::DeletePort(id(2, 2))]).await;
    let left = tag(2);
    let on_tag = |state: &State| Vec::from_iter(state.occupants(Uuid::nil(), left));
    let who = bench.fabric.controller().read(on_tag);
    assert!(matches!(
        who[..],
        [Occupant {
            who: Who::Vnic(..),
            ..
        }]
    ));
    // One from before proves nothing.
    bench.list(4, vec![first.clone()]).await;
    assert_eq!(bench.fabric.controller().read(on_tag), who);
    bench.list(6, vec![first]).await;
    let who = bench.fabric.controller().read(on_tag);
    assert!(matches!(who[0].who, Who::Quarantine(..)), "{who:?}");
    assert_eq!(who.len(), 1);
    assert_eq!(
        bench.fabric.controller().read(|state| state.vms().count()),
        1
    );
}

/// That an NVE has heard the port's VM.
async fn awake(bench: &Bench, nve: u8) {
    let place = Place {
        vlan: tag(1),
        port: nve_protocol::PortId(bench.port.into_bytes()),
    };
    bench.fabric.awake(id(3, nve), place).await;
}

#[tokio::test]
async fn a_port_stays_active_while_its_vm_migrates() {
    let bench = two_vms().await;
    bench.acknowledge(1, bench.tables(1));
    bench.acknowledge(2, bench.tables(2));
    let start = LifecycleEvent {
        destination_host_name: Some("hv-2".into()),
        ..event("livemigratestart", vm(1, 1, VmStatus::Running, &[1], 5))
    };
    awake(&bench, 2).await;
    assert_eq!(bench.fabric.moves().borrow().len(), 0, "nothing to hear");
    bench.tell(start).await;
    assert_eq!(bench.status(), (true, true));
    assert_eq!(bench.fabric.asides(bench.port).len(), 1);
    bench.acknowledge(2, bench.tables(2));
    awake(&bench, 2).await;
    assert_eq!(bench.fabric.place(bench.port), Some((id(3, 2), tag(1))));
    assert_eq!(bench.status(), (true, false), "it is awake there");
    bench.acknowledge(2, bench.tables(2));
    assert_eq!(bench.status(), (true, true));
    assert!(!bench.fabric.is_known_everywhere(id(1, 1)));
    bench.acknowledge(1, bench.tables(1));
    assert!(bench.fabric.is_known_everywhere(id(1, 1)));
    let finish = event("livemigratefinish", vm(1, 2, VmStatus::Running, &[1], 6));
    bench.tell(finish).await;
    assert_eq!(bench.status(), (true, true));
    let departed = {
        let moves = bench.fabric.moves();
        let moves = moves.borrow();
        moves
            .get(&id(5, 1))
            .and_then(|placed| placed.departed.clone())
    };
    let departed = departed.unwrap();
    assert!(bench.fabric.settle(id(5, 1), departed).await.unwrap());
    assert_eq!(bench.fabric.moves().borrow().len(), 0);
    assert_eq!(bench.fabric.asides(bench.port), []);
}
