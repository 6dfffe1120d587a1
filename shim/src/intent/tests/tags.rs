//! VLAN tags within clusters.

use std::time::Instant;

use serde_json::{Value, json};
use time::Duration;
use uuid::Uuid;

use super::super::testing::Bench;
use super::super::{IntentError, cluster, port};
use crate::events::types::{EventType, LifecycleEvent, VmState, VmStatus, Vnic};
use crate::model::{Cluster, Mutation, Network, PlacedVm, Port};
use crate::placement::{Teller, plan_event};

fn tag(port: &Port) -> u16 {
    port.segmentation_id.unwrap().get()
}

fn on(host: &str) -> Value {
    json!({"binding:host_id": host})
}

fn bench() -> (Bench, Network) {
    let mut bench = Bench::default();
    let net = bench.network(json!({})).unwrap();
    (bench, net)
}

impl Bench {
    fn cluster(&mut self, name: &str, hosts: &[&str]) -> Result<Cluster, IntentError> {
        let request = json!({"name": name, "hosts": hosts});
        let request = serde_json::from_value(request).unwrap();
        self.carry_out(|state, context| cluster::create(state, context, request))
    }

    fn delete_port(&mut self, port: &Port) {
        self.carry_out(|s, c| port::delete(s, c, port.common.id))
            .unwrap();
    }

    /// Only so many tags are left to ports.
    fn narrow(&mut self, tags: u16) {
        self.settings.tags.reserved = vec![tags + 1..=4094];
    }

    /// A VM's vNIC is on a tag of a host.
    fn sight(&mut self, host: &str, pg_name: &str, tag: u16) -> Uuid {
        let vm_uuid = Uuid::new_v4();
        let vnic = Vnic {
            vnic_name: String::new(),
            vnic_uuid: Uuid::new_v4(),
            pg_name: pg_name.into(),
            pg_uuid: Uuid::nil(),
            mac: nve_protocol::Mac([2, 0, 0, 0, 0, 1]),
            port_segmentation_id: tag,
            ip_list: vec![],
            ipv6_list: vec![],
        };
        let vm = VmState {
            vm_name: String::new(),
            vm_uuid,
            vm_status: VmStatus::Stop,
            host_name: host.into(),
            host_uuid: Uuid::nil(),
            vnic_list: vec![vnic],
        };
        self.state.apply(&Mutation::PutVm(PlacedVm {
            manager: "lab".into(),
            as_of: self.now,
            vm,
            deleted: false,
            migration: None,
            departed: None,
        }));
        vm_uuid
    }
}

#[test]
fn a_tag_is_one_ports_in_its_cluster_and_clusters_do_not_interfere() {
    let (mut bench, net) = bench();
    bench.narrow(3);
    bench.cluster("east", &["a", "b"]).unwrap();
    bench.cluster("west", &["c"]).unwrap();
    for (host, expected) in [("a", 1), ("b", 2), ("a", 3), ("c", 1), ("c", 2), ("c", 3)] {
        assert_eq!(
            tag(&bench.port(&net, on(host)).unwrap()),
            expected,
            "{host}"
        );
    }
    let error = bench.port(&net, on("c")).unwrap_err();
    assert!(
        error.to_string().contains("host c of cluster west"),
        "{error}"
    );
    assert!(error.to_string().contains("4091 are reserved"), "{error}");
    let named = json!({"binding:host_id": "b", "segmentation_id": 5});
    let error = bench.port(&net, named).unwrap_err();
    assert!(matches!(error, IntentError::TagReserved(_)), "{error}");
}

#[test]
fn a_port_keeps_its_tag_within_its_cluster() {
    let (mut bench, net) = bench();
    let port = bench.port(&net, on("a")).unwrap();
    let moved = bench.change_port(port.common.id, on("b")).unwrap();
    assert_eq!(tag(&moved), tag(&port));
    let other = bench.port(&net, on("a")).unwrap();
    assert_ne!(tag(&other), tag(&port));
    let back = bench.change_port(port.common.id, on("a")).unwrap();
    assert_eq!(tag(&back), tag(&port));
}

#[test]
fn a_used_up_cluster_shares_tags_and_changes_them_at_migration() {
    let (mut bench, net) = bench();
    bench.narrow(2);
    let one = bench.port(&net, on("a")).unwrap();
    let two = bench.port(&net, on("b")).unwrap();
    let shared = bench.port(&net, on("b")).unwrap();
    assert_eq!((tag(&one), tag(&two), tag(&shared)), (1, 2, 1));
    let moved = bench.change_port(shared.common.id, on("a")).unwrap();
    assert_eq!(tag(&moved), 2, "1 is taken there");
    // Its old one is not given out on b at once.
    let error = bench.port(&net, on("b")).unwrap_err();
    assert!(error.to_string().contains("1 are in quarantine"), "{error}");
    bench.now += Duration::minutes(5);
    assert_eq!(tag(&bench.port(&net, on("b")).unwrap()), 1);
    // One that a user named stays.
    let named = json!({"binding:host_id": "c", "segmentation_id": 2});
    let named = bench.port(&net, named).unwrap();
    let error = bench.change_port(named.common.id, on("a")).unwrap_err();
    assert!(matches!(error, IntentError::TagInUse { .. }), "{error}");
}

#[test]
fn a_released_tag_is_in_quarantine_for_others() {
    let (mut bench, net) = bench();
    bench.narrow(2);
    let one = bench.port(&net, on("a")).unwrap();
    bench.delete_port(&one);
    assert_eq!(tag(&bench.port(&net, on("a")).unwrap()), 2);
    let named = json!({"binding:host_id": "a", "segmentation_id": 1});
    let error = bench.port(&net, named.clone()).unwrap_err();
    assert!(error.to_string().contains("quarantine until"), "{error}");
    bench.now += Duration::minutes(5);
    let again = bench.port(&net, named).unwrap();
    bench.delete_port(&again);
    assert_eq!(
        bench.state.quarantines().count(),
        1,
        "ended ones are forgotten"
    );
    bench.settings.tags.quarantine = Duration::ZERO;
    let other = bench.port(&net, on("b")).unwrap();
    bench.delete_port(&other);
    assert_eq!(bench.state.quarantines().count(), 1);
}

/// What one more VM costs must not depend on how many there are.
#[test]
fn twenty_thousand_vms_may_be_on_one_vlan() {
    const STEP: usize = 1000;
    const STEPS: usize = 20;
    let mut bench = Bench::default();
    let mut step = |change: &mut dyn FnMut(&mut Bench, usize)| {
        let begun = Instant::now();
        for number in 0..STEP {
            // As the controller does: whoever reads still has the state before.
            let _before = bench.state.clone();
            change(&mut bench, number);
        }
        begun.elapsed()
    };
    let mut vms = Vec::new();
    let come = Vec::from_iter((0..STEPS).map(|_| {
        step(&mut |bench, number| {
            let host = format!("hv-{}", number % 500);
            vms.push(bench.sight(&host, "VM Network", 7));
        })
    }));
    let go = Vec::from_iter((0..STEPS).map(|_| {
        step(&mut |bench, _| {
            let vm = vms.pop().unwrap();
            bench.state.apply(&Mutation::DeleteVm(vm));
        })
    }));
    // The quickest of several, since others may keep the processor busy.
    let least = |steps: &[std::time::Duration]| *steps.iter().min().unwrap();
    let (few, many) = (least(&come[..4]), least(&come[STEPS - 4..]));
    assert!(many < few * 5, "coming, they took {come:?}");
    let (few, many) = (least(&go[STEPS - 4..]), least(&go[..4]));
    assert!(many < few * 5, "going, they took {go:?}");
}

/// Two ports whose tags were in quarantine on their host leave it with their VM.
#[test]
fn what_a_change_puts_into_quarantine_stays_there_whatever_had_ended() {
    let (mut bench, net) = bench();
    let was_on = |port: &Port| {
        let (host, tag) = ("a".to_owned(), port.segmentation_id.unwrap());
        (host, tag)
    };
    let ports = [on("a"), on("a")].map(|port| bench.port(&net, port).unwrap());
    for port in &ports {
        for host in ["b", "a"] {
            bench.change_port(port.common.id, on(host)).unwrap();
        }
    }
    bench.now += Duration::minutes(5);
    let ended = bench.state.ended_quarantines(bench.now).count();
    assert_eq!(ended, 4, "of two ports on two hosts");
    let vm = bench.sight("a", "", 1);
    let mut moved = bench.state.vm(vm).unwrap().vm.clone();
    moved.host_name = "c".into();
    let vnic = moved.vnic_list.remove(0);
    moved.vnic_list = Vec::from(ports.each_ref().map(|port| Vnic {
        pg_name: format!("{}_{}", port.common.id, tag(port)),
        port_segmentation_id: tag(port),
        ..vnic.clone()
    }));
    let event = LifecycleEvent {
        event_id: Uuid::new_v4(),
        timestamp: bench.now,
        event_type: EventType::HaFinish,
        destination_host_name: None,
        vm: moved,
    };
    let teller = Teller {
        name: "lab",
        lists: true,
    };
    bench
        .carry_out(|state, context| Ok(plan_event(state, context, teller, &event)))
        .unwrap();
    let kept = bench.state.quarantines();
    let kept: Vec<_> = kept.map(|q| (q.host.clone(), q.tag)).collect();
    assert_eq!(kept, ports.each_ref().map(was_on));
}

#[test]
fn tags_of_vnics_that_managers_tell_of_are_not_given_out() {
    let (mut bench, net) = bench();
    bench.sight("b", "VM Network", 1);
    let gone = Uuid::new_v4();
    bench.sight("a", &format!("{gone}_2"), 2);
    assert_eq!(tag(&bench.port(&net, on("a")).unwrap()), 3);
    let named = json!({"binding:host_id": "a", "segmentation_id": 2});
    let error = bench.port(&net, named).unwrap_err();
    assert!(error.to_string().contains(&gone.to_string()), "{error}");
    // It is what is on another host that matters within the cluster.
    bench.cluster("east", &["a"]).unwrap();
    let named = json!({"binding:host_id": "a", "segmentation_id": 1});
    assert_eq!(tag(&bench.port(&net, named).unwrap()), 1);
}

#[test]
fn a_port_that_is_bound_later_gets_another_tag_if_its_own_is_taken() {
    let (mut bench, net) = bench();
    let unbound = bench.port(&net, on("")).unwrap();
    bench.sight("a", "VM Network", tag(&unbound));
    let bound = bench.change_port(unbound.common.id, on("a")).unwrap();
    assert_ne!(tag(&bound), tag(&unbound));
    let renamed = bench.change_port(unbound.common.id, json!({"name": "x"}));
    assert_eq!(tag(&renamed.unwrap()), tag(&bound));
}

#[test]
fn a_host_is_in_one_cluster_and_a_name_is_one_clusters() {
    let (mut bench, _) = bench();
    let east = bench.cluster("east", &["b", "a", "a"]).unwrap();
    assert_eq!(east.hosts, ["a", "b"]);
    let refused = |bench: &mut Bench, name: &str, hosts: &[&str], words: &str| {
        let error = bench.cluster(name, hosts).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&mut bench, "west", &["a"], "cluster east");
    refused(&mut bench, "east", &[], "name east");
    refused(&mut bench, "default", &[], "name default");
    refused(&mut bench, "", &[], "a name has");
    let change = serde_json::from_value(json!({"hosts": ["c"]})).unwrap();
    bench
        .carry_out(|s, c| cluster::update(s, c, east.id, change))
        .unwrap();
    assert!(bench.state.cluster_of("a").is_nil());
    assert_eq!(bench.state.cluster_of("c"), east.id);
    bench
        .carry_out(|s, c| cluster::delete(s, c, east.id))
        .unwrap();
    assert!(bench.state.cluster_of("c").is_nil());
    let default = bench.carry_out(|s, c| cluster::delete(s, c, Uuid::nil()));
    assert!(matches!(default, Err(IntentError::InvalidField { .. })));
}

/// Expects a refusal that names all of these.
#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, IntentError>, words: &[&str]) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, IntentError::TagsMeet { .. }), "{error}");
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn hosts_whose_ports_have_one_tag_do_not_come_into_one_cluster() {
    let (mut bench, net) = bench();
    let east = bench.cluster("east", &["a"]).unwrap();
    let one = bench.port(&net, on("a")).unwrap();
    let named = json!({"binding:host_id": "b", "segmentation_id": tag(&one)});
    let two = bench.port(&net, named).unwrap();
    let hosts = |hosts: &[&str]| {
        let change = json!({"hosts": hosts});
        serde_json::from_value::<cluster::ClusterChange>(change).unwrap()
    };
    let both = [one.common.id, two.common.id].map(|id| id.to_string());
    let both = both.each_ref().map(String::as_str);
    // Into a cluster, out of one, and at the end of one.
    for change in [&["a", "b"][..], &[]] {
        let changed = bench.carry_out(|s, c| cluster::update(s, c, east.id, hosts(change)));
        refused(changed, &both);
    }
    let deleted = bench.carry_out(|s, c| cluster::delete(s, c, east.id));
    refused(deleted, &["host a", "host b"]);
    // What does not bring them together may be done.
    bench
        .carry_out(|s, c| cluster::update(s, c, east.id, hosts(&["a", "c"])))
        .unwrap();
    // So may all, when one has another tag.
    let other = json!({"segmentation_id": 77});
    bench.change_port(one.common.id, other).unwrap();
    bench
        .carry_out(|s, c| cluster::update(s, c, east.id, hosts(&["a", "b"])))
        .unwrap();
    bench
        .carry_out(|s, c| cluster::delete(s, c, east.id))
        .unwrap();
}

#[test]
fn a_cluster_that_has_used_its_tags_up_shares_those_of_hosts_that_come_to_it() {
    let (mut bench, net) = bench();
    bench.narrow(2);
    let east = bench.cluster("east", &["a"]).unwrap();
    for host in ["a", "a", "b"] {
        bench.port(&net, on(host)).unwrap();
    }
    let change = serde_json::from_value(json!({"hosts": ["a", "b"]})).unwrap();
    bench
        .carry_out(|s, c| cluster::update(s, c, east.id, change))
        .unwrap();
    // Those that shared a tag before may stay where they are, whatever else comes.
    let freed = bench.state.ports().find(|port| tag(port) == 2);
    let freed = freed.unwrap().clone();
    bench.settings.tags.quarantine = Duration::ZERO;
    bench.delete_port(&freed);
    bench.narrow(3);
    let change = serde_json::from_value(json!({"hosts": ["a", "b", "c"]})).unwrap();
    bench
        .carry_out(|s, c| cluster::update(s, c, east.id, change))
        .unwrap();
}
