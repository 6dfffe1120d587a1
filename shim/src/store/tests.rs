use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nve_protocol::Vni;
use redb::backends::FileBackend;
use redb::{StorageBackend, StorageError};
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::model::{Common, Network};

fn network(name: &str) -> Network {
    Network {
        common: Common {
            id: Uuid::new_v4(),
            name: name.into(),
            description: String::new(),
            project_id: String::new(),
            revision_number: 0,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            tags: vec![],
        },
        admin_state_up: true,
        shared: false,
        mtu: 1450,
        vni: Vni::new(4096).unwrap(),
        port_security_enabled: true,
        qos_policy_id: None,
        dns_domain: String::new(),
    }
}

fn keeps_the_newest_value(store: &dyn Store) {
    let mut first = network("first");
    let second = network("second");
    let event = Uuid::new_v4();
    store
        .commit(&[
            Mutation::PutNetwork(first.clone()),
            Mutation::PutNetwork(second.clone()),
            Mutation::PutCursor("lab".into(), Uuid::new_v4()),
        ])
        .unwrap();
    first.common.name = "renamed".into();
    store
        .commit(&[
            Mutation::PutNetwork(first.clone()),
            Mutation::DeleteNetwork(second.common.id),
            Mutation::PutCursor("lab".into(), event),
        ])
        .unwrap();
    let mut rows = store.load().unwrap();
    rows.sort_by_key(|row| matches!(row, Mutation::PutCursor(..)));
    assert_eq!(
        rows,
        [
            Mutation::PutNetwork(first),
            Mutation::PutCursor("lab".into(), event),
        ]
    );
}

#[test]
fn the_memory_store_keeps_the_newest_value() {
    keeps_the_newest_value(&MemoryStore::default());
}

#[test]
fn the_embedded_store_keeps_the_newest_value_for_this_user_only() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("made");
    let store = EmbeddedStore::open(&data_dir).unwrap();
    keeps_the_newest_value(&store);
    let before = store.load().unwrap();
    drop(store);
    assert_eq!(
        EmbeddedStore::open(&data_dir).unwrap().load().unwrap(),
        before
    );
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    assert_eq!(mode(&data_dir.join("sluice.redb")), 0o600);
}

/// What goes wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// It cannot be written.
    Write,
    /// What is written is flushed, but that is not told.
    Flush,
    /// The same, and then it cannot be opened either.
    Open,
}

/// A file with faults.
#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    fault: Arc<Mutex<Fault>>,
}

impl Faulty {
    fn check(&self, faults: &[Fault]) -> std::io::Result<()> {
        let fault = *self.fault.lock().unwrap();
        match faults.contains(&fault) {
            true => Err(std::io::Error::other("the disk is broken")),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check(&[Fault::Write])?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync_data()?;
        self.check(&[Fault::Flush, Fault::Open])
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check(&[Fault::Write])?;
        self.file.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        let mut fault = self.fault.lock().unwrap();
        // What was wrong is so no more when the file is opened again.
        if matches!(*fault, Fault::Write | Fault::Flush) {
            *fault = Fault::None;
        }
        self.file.close()
    }
}

/// A store whose file has that fault whenever it is told so.
fn faulty(dir: &Path) -> (EmbeddedStore, Arc<Mutex<Fault>>) {
    let fault = Arc::new(Mutex::new(Fault::None));
    let shared = fault.clone();
    let connect = move |file| {
        let backend = Faulty {
            file: FileBackend::new(file)?,
            fault: shared.clone(),
        };
        backend.check(&[Fault::Open]).map_err(StorageError::from)?;
        embedded::database(backend)
    };
    let store = EmbeddedStore::open_with(dir, Box::new(connect));
    (store.unwrap(), fault)
}

/// A commit of one network; its name is the only thing that matters.
fn put(store: &EmbeddedStore, name: &str) -> Result<(), StoreError> {
    store.commit(&[Mutation::PutNetwork(network(name))])
}

fn names(store: &EmbeddedStore) -> Vec<String> {
    let rows = store.load().unwrap().into_iter();
    let mut names: Vec<String> = rows
        .map(|row| match row {
            Mutation::PutNetwork(network) => network.common.name,
            other => panic!("nothing else was put: {other:?}"),
        })
        .collect();
    names.sort();
    names
}

#[test]
fn after_an_error_of_the_disk_the_next_change_is_taken_and_the_store_has_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let (store, fault) = faulty(dir.path());
    put(&store, "a").unwrap();
    for (number, wrong) in [Fault::Write, Fault::Flush].into_iter().enumerate() {
        let before = names(&store);
        *fault.lock().unwrap() = wrong;
        let outcome = put(&store, &format!("b{number}"));
        assert!(!matches!(outcome, Err(StoreError::InDoubt(_))));
        let is_in = names(&store).len() > before.len();
        assert_eq!(outcome.is_ok(), is_in, "{wrong:?}: {outcome:?}");
        put(&store, &format!("c{number}")).unwrap();
    }
    assert_eq!(names(&store), ["a", "b1", "c0", "c1"]);
    let before = names(&store);
    drop(store);
    let store = EmbeddedStore::open(dir.path()).unwrap();
    assert_eq!(names(&store), before, "nor after a restart");
}

#[test]
fn a_commit_is_in_doubt_until_the_file_can_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (store, fault) = faulty(dir.path());
    put(&store, "a").unwrap();
    *fault.lock().unwrap() = Fault::Open;
    let doubt = put(&store, "b");
    assert!(matches!(doubt, Err(StoreError::InDoubt(_))), "{doubt:?}");
    assert!(store.settle().is_err());
    assert!(put(&store, "c").is_err());
    *fault.lock().unwrap() = Fault::None;
    assert!(store.settle().unwrap());
    assert_eq!(names(&store), ["a", "b"]);
    put(&store, "c").unwrap();
    assert_eq!(names(&store), ["a", "b", "c"]);
}

#[test]
fn a_second_opener_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = EmbeddedStore::open(dir.path()).unwrap();
    let error = EmbeddedStore::open(dir.path()).err().unwrap();
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
}

#[test]
fn a_foreign_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sluice.redb"), "not a database").unwrap();
    assert!(EmbeddedStore::open(dir.path()).is_err());
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(dir.path()).unwrap());
    let file = dir.path().join("sluice.redb");
    let database = redb::Database::open(&file).unwrap();
    let change = database.begin_write().unwrap();
    change
        .open_table(redb::TableDefinition::<&str, u32>::new("meta"))
        .unwrap()
        .insert("schema", SCHEMA_VERSION + 1)
        .unwrap();
    change.commit().unwrap();
    drop(database);
    let error = EmbeddedStore::open(dir.path()).err().unwrap();
    assert!(
        matches!(error, StoreError::Newer { found, .. } if found == SCHEMA_VERSION + 1),
        "{error}"
    );
}

/// Rows as the first schema wrote them.
#[test]
fn what_the_first_schema_wrote_is_read() {
    let common = r#""common":{"id":"00000000-0000-0000-0000-000000000001","name":"a",
        "description":"","project_id":"p","revision_number":3,
        "created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","tags":[]}"#;
    let decode = |kind: record::Kind, rest: &str| {
        let row = format!("{{{common},{rest}}}");
        kind.decode("key", row.as_bytes()).unwrap()
    };
    let network = decode(
        record::Kind::Network,
        r#""admin_state_up":true,"shared":false,"mtu":1450,"vni":4096"#,
    );
    let Mutation::PutNetwork(network) = network else {
        panic!("{network:?}");
    };
    assert!(network.port_security_enabled);
    assert_eq!(network.qos_policy_id, None);
    let subnet = decode(
        record::Kind::Subnet,
        r#""network_id":"00000000-0000-0000-0000-000000000001","cidr":"10.0.0.0/24",
        "gateway_ip":null,"enable_dhcp":true,"allocation_pools":[],"dns_nameservers":[],
        "host_routes":[]"#,
    );
    assert!(matches!(subnet, Mutation::PutSubnet(s) if s.ipv6_ra_mode.is_none()));
    let port = decode(
        record::Kind::Port,
        r#""network_id":"00000000-0000-0000-0000-000000000001","admin_state_up":true,
        "mac_address":"02:00:00:00:00:01","fixed_ips":[],"device_id":"","device_owner":"",
        "binding_host_id":"","segmentation_id":7"#,
    );
    let Mutation::PutPort(port) = port else {
        panic!("{port:?}");
    };
    assert_eq!(port.segmentation_id.unwrap().get(), 7);
    assert!(!port.port_security_enabled && port.security_groups.is_empty());
}

#[test]
fn an_older_file_is_brought_to_this_schema() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sluice.redb");
    let meta = redb::TableDefinition::<&str, u32>::new("meta");
    let database = redb::Database::create(&file).unwrap();
    let change = database.begin_write().unwrap();
    change
        .open_table(meta)
        .unwrap()
        .insert("schema", 1)
        .unwrap();
    change.commit().unwrap();
    drop(database);
    assert_eq!(EmbeddedStore::open(dir.path()).unwrap().load().unwrap(), []);
    let database = redb::Database::open(&file).unwrap();
    let view = redb::ReadableDatabase::begin_read(&database).unwrap();
    let found = view.open_table(meta).unwrap().get("schema").unwrap();
    assert_eq!(found.unwrap().value(), SCHEMA_VERSION);
}

/// Names the data directory to the process that is killed.
const CHILD: &str = "SLUICE_TEST_STORE_CHILD";

/// Commits networks for ever, two per commit; prints the first's name once it is
/// acknowledged.
fn commit_until_killed(data_dir: &Path) -> ! {
    let store = EmbeddedStore::open(data_dir).unwrap();
    let mut out = std::io::stdout();
    loop {
        let name = Uuid::new_v4().to_string();
        let pair = [
            Mutation::PutNetwork(network(&name)),
            Mutation::PutNetwork(network(&name)),
        ];
        store.commit(&pair).unwrap();
        writeln!(out, "acknowledged {name}").unwrap();
        out.flush().unwrap();
    }
}

/// Runs [`commit_until_killed`] in a process, kills it after `life` and returns
/// the names that it acknowledged.
fn acknowledged_before_kill(data_dir: &Path, life: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("store::tests::what_was_acknowledged_survives_a_kill")
        .env(CHILD, data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut names = Vec::new();
    let mut end = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, name)) = line.split_once("acknowledged ") {
            names.push(name.to_owned());
            let end = *end.get_or_insert_with(|| Instant::now() + life);
            if Instant::now() >= end {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    names
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    if let Some(data_dir) = std::env::var_os(CHILD) {
        commit_until_killed(Path::new(&data_dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let life = Duration::from_millis(7 * round);
        acknowledged.extend(acknowledged_before_kill(dir.path(), life));
        let mut count = std::collections::HashMap::new();
        for row in EmbeddedStore::open(dir.path()).unwrap().load().unwrap() {
            let Mutation::PutNetwork(network) = row else {
                panic!("nothing else was put");
            };
            *count.entry(network.common.name).or_insert(0) += 1;
        }
        assert!(
            count.values().all(|n| *n == 2),
            "a commit is whole or absent"
        );
        for name in &acknowledged {
            assert!(count.contains_key(name), "round {round}: {name} is lost");
        }
    }
    assert!(
        acknowledged.len() >= 8,
        "every round acknowledged something"
    );
}
