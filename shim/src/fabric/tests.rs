use super::*;
use crate::compile::tests::{id, network, nve, policy, port, vm};
use crate::controller::TransactError;
use crate::events::types::VmStatus;
use crate::intent::{Plan, Settings};
use crate::model::Port;
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
