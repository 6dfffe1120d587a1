//! With libvirt's own test driver, which is a host in this process: no daemon, no root.

use std::sync::mpsc::{self, Receiver};

use virt::connect::Connect;

use super::*;

/// A host with one domain, `test`, that runs, and one network. Read from a file it is each
/// connection's own; `test:///default` would be one host for all tests of this process.
const URI: &str = concat!("test://", env!("CARGO_MANIFEST_DIR"), "/src/tests/host.xml");
const PATIENCE: Duration = Duration::from_secs(10);

fn listener() -> (Listener, Receiver<Event>) {
    let (sender, receiver) = mpsc::channel();
    let tell = move |event| drop(sender.send(event));
    (Arc::new(tell), receiver)
}

fn connected() -> (Connection, Receiver<Event>) {
    let (listener, receiver) = listener();
    (Connection::open(URI, &listener).unwrap(), receiver)
}

#[test]
fn domains_are_listed_and_found() {
    let (host, _events) = connected();
    assert!(!host.host_name().unwrap().is_empty());
    assert!(host.capabilities().unwrap().contains("<host>"));
    assert!(host.is_alive());
    let domains: Vec<(Uuid, Found)> = host.domains().unwrap().collect();
    let [(uuid, Ok(Some(domain)))] = &domains[..] else {
        panic!("{domains:?}");
    };
    assert_eq!(*uuid, domain.uuid);
    assert_eq!((&*domain.name, domain.status), ("test", Status::Running));
    assert!(domain.xml.contains("<domain"));
    assert_eq!(host.domain(domain.uuid).unwrap().as_ref(), Some(domain));
    assert_eq!(host.domain(Uuid::from_u128(7)).unwrap(), None);
}

#[test]
fn what_happens_is_told_while_the_connection_is_there() {
    let (host, events) = connected();
    let uuid = host.domains().unwrap().next().unwrap().0;
    let handle = Handle::lookup_by_uuid(&host.connect, uuid).unwrap();
    handle.suspend().unwrap();
    let what = Happening::Changed;
    let told = events.recv_timeout(PATIENCE);
    assert_eq!(told, Ok(Event::Domain { uuid, what }));
    assert_eq!(host.domain(uuid).unwrap().unwrap().status, Status::Paused);
    drop(host);
    handle.resume().unwrap();
    assert!(events.recv_timeout(Duration::from_millis(200)).is_err());
}

#[test]
fn one_that_is_started_is_off_until_it_runs() {
    let paused = |reason: u32| {
        let reason = i32::try_from(reason).unwrap();
        status(virt_sys::VIR_DOMAIN_PAUSED, reason)
    };
    assert_eq!(paused(virt_sys::VIR_DOMAIN_PAUSED_STARTING_UP), Status::Off);
    let migrating = paused(virt_sys::VIR_DOMAIN_PAUSED_MIGRATION);
    assert_eq!(migrating, Status::Migrating);
    assert_eq!(paused(virt_sys::VIR_DOMAIN_PAUSED_USER), Status::Paused);
}

#[test]
fn a_connection_is_closed_with_its_last_user() {
    let (host, _events) = connected();
    let mut last = Connect::clone(&host.connect);
    drop(host);
    assert_eq!(last.close(), Ok(0), "references are left");
}

#[test]
fn a_listener_is_given_up_with_its_connection() {
    let (listener, _events) = listener();
    let host = Connection::open(URI, &listener).unwrap();
    assert!(Arc::strong_count(&listener) > 1);
    drop(host);
    assert_eq!(Arc::strong_count(&listener), 1);
}

#[test]
fn port_groups_come_and_go() {
    let (host, _events) = connected();
    assert_eq!(host.network("none").unwrap(), None);
    let network = |host: &Connection| host.network("default").unwrap().unwrap();
    let xml = "<portgroup name='p_101'><vlan><tag id='101'/></vlan></portgroup>";
    assert!(!network(&host).contains("portgroup"));
    let parts = [Part::Config, Part::Live];
    for part in parts {
        host.add_port_group("default", part, xml).unwrap();
        assert!(host.add_port_group("default", part, xml).is_err());
    }
    assert!(network(&host).contains("p_101"));
    let described = host.network_parts("default").unwrap().unwrap();
    assert_eq!(
        described.iter().map(|(part, _)| *part).collect::<Vec<_>>(),
        parts
    );
    assert!(described.iter().all(|(_, xml)| xml.contains("p_101")));
    for part in parts {
        host.delete_port_group("default", part, xml).unwrap();
        assert!(host.delete_port_group("default", part, xml).is_err());
    }
    assert!(!network(&host).contains("p_101"));
    assert_eq!(host.network_parts("none").unwrap(), None);
    let mut descriptions = host.descriptions().unwrap();
    assert_eq!(descriptions.next().unwrap().unwrap().0, "test");
    drop(descriptions);
    let absent = host.add_port_group("none", Part::Live, xml).unwrap_err();
    assert!(absent.to_string().contains("none"), "{absent}");
}

#[test]
fn one_that_is_not_there_says_so() {
    let (listener, _events) = listener();
    let refused = Connection::open("qemu+unix:///system?socket=/nonexistent", &listener);
    assert!(refused.unwrap_err().to_string().contains("/nonexistent"));
}

#[test]
fn what_others_wrote_is_one_line_of_bounded_length() {
    assert_eq!(
        one_line("it's \"so\"\n\x1b[31m"),
        "it's \"so\"\\n\\u{1b}[31m"
    );
    let long = one_line(&"ä".repeat(5000));
    assert!(long.len() < 310 && long.ends_with('…'));
}
