//! What the shim needs of libvirt, without unsafe code for its users: a connection to
//! one host that says what happens to its domains, what they are, and port groups of its
//! networks.
//!
//! libvirt's C library by the `virt` crate. That one cannot register for events, which
//! [`callbacks`] does; all of this crate's unsafe code is there.
//!
//! Calls block until the host answers. Events come from a thread of their own, which
//! libvirt's event loop runs in from the first connection on; it also keeps connections
//! alive, so that calls to a host that is gone fail after [`KEEPALIVE`] times
//! [`KEEPALIVES`].

mod callbacks;
mod reference;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use uuid::Uuid;
use virt::domain::Domain as Handle;
use virt::error::ErrorNumber;
use virt::network::Network;
use virt::{error, event};

use callbacks::Callbacks;
use reference::Reference;

/// Who is told of events, in the thread of the event loop: it must not block, nor panic,
/// which would end the process.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Between two signs of life on an idle connection.
pub const KEEPALIVE: Duration = Duration::from_secs(2);
/// Signs of life that may stay away.
pub const KEEPALIVES: u32 = 3;

/// What libvirt did not do, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("libvirt: {0}")]
pub struct Error(String);

impl From<error::Error> for Error {
    fn from(error: error::Error) -> Self {
        Error(one_line(error.message()))
    }
}

/// The beginning of a text that somebody else wrote, as one line, fit for a log.
#[must_use]
pub fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut line = String::new();
    for c in text.chars() {
        if line.len() >= LONGEST {
            line.push('…');
            break;
        }
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

/// What a connection tells by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something happened to a domain.
    Domain {
        /// Its UUID.
        uuid: Uuid,
        /// What.
        what: Happening,
    },
    /// The connection is no more.
    Closed,
}

/// What happened to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// It was started to receive a migration (`Started Migrated`).
    Arriving,
    /// It was stopped because it has migrated (`Stopped Migrated`).
    Left,
    /// It was defined, undefined, started, stopped, paused or resumed in another way, or
    /// a device came or went: look at it.
    Changed,
}

/// What a domain is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is off, or crashed, or being started: a host that starts one says so once it
    /// runs.
    Off,
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It is paused for a migration, in or out.
    Migrating,
}

/// A domain at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// What it is doing.
    pub status: Status,
    /// Its description, of the running one if it is on.
    pub xml: String,
}

/// A part of a network. libvirt writes one after the other, so what ends in between leaves
/// them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// As it will start next; a transient network has none.
    Config,
    /// As it runs, if it does.
    Live,
}

/// A domain, or nothing if there is none.
pub type Found = Result<Option<Domain>, Error>;

/// A connection to one host. It is closed when it is dropped.
#[derive(Debug)]
pub struct Connection {
    // Dropped in this order: what is registered with a connection before it is closed.
    _callbacks: Callbacks,
    connect: Reference,
}

impl Connection {
    /// Connects to the host at `uri`, as virsh(1) does, and has `listener` told from then
    /// on. Blocks as long as the operating system tries to.
    ///
    /// # Errors
    /// When there is no such host, or it does not want us.
    pub fn open(uri: &str, listener: &Listener) -> Result<Self, Error> {
        start_event_loop()?;
        let connect = Reference::open(uri)?;
        let seconds = i32::try_from(KEEPALIVE.as_secs()).unwrap_or(i32::MAX);
        // A host in this process, as of the test driver, needs no signs of life.
        unless(
            ErrorNumber::NoSupport,
            connect.set_keep_alive(seconds, KEEPALIVES),
        )?;
        Ok(Connection {
            _callbacks: Callbacks::register(&connect, listener)?,
            connect,
        })
    }

    /// What the host calls itself.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn host_name(&self) -> Result<String, Error> {
        Ok(self.connect.get_hostname()?)
    }

    /// Description of the host; its UUID is in it.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn capabilities(&self) -> Result<String, Error> {
        Ok(self.connect.get_capabilities()?)
    }

    /// Whether calls have a chance: what failed nevertheless, failed by itself.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    /// All domains, on or off, with what is said of each when it is asked for; nothing of
    /// one that has gone meanwhile.
    ///
    /// # Errors
    /// When the connection fails, and for each domain as of [`Self::domain`].
    pub fn domains(&self) -> Result<impl Iterator<Item = (Uuid, Found)>, Error> {
        let handles = self.connect.list_all_domains(0)?;
        Ok(handles.into_iter().filter_map(|handle| {
            // Without a call: a handle has its UUID.
            let uuid = handle.get_uuid().ok()?;
            Some((uuid, look(&handle)))
        }))
    }

    /// The domain with that UUID, if there is one.
    ///
    /// # Errors
    /// When the connection fails, or the host cannot say what the domain is.
    pub fn domain(&self, uuid: Uuid) -> Found {
        match unless(
            ErrorNumber::NoDomain,
            Handle::lookup_by_uuid(&self.connect, uuid),
        )? {
            None => Ok(None),
            Some(handle) => look(&handle),
        }
    }

    /// Names and descriptions of all domains, on or off; of one that is on both what it is
    /// and what it will be when it is started again. Each is read when it is asked for.
    ///
    /// # Errors
    /// When the connection fails, or the host cannot describe a domain.
    pub fn descriptions(
        &self,
    ) -> Result<impl Iterator<Item = Result<(String, String), Error>>, Error> {
        let handles = self.connect.list_all_domains(0)?;
        Ok(handles.into_iter().flat_map(|handle| {
            let both = [0, virt_sys::VIR_DOMAIN_XML_INACTIVE];
            both.into_iter()
                .filter_map(move |flags| describe(&handle, flags).transpose())
        }))
    }

    /// Description of a network, of the running one if it is on; none if there is no
    /// such network.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn network(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(match self.find_network(name)? {
            None => None,
            Some(network) => unless(ErrorNumber::NoNetwork, network.get_xml_desc(0))?,
        })
    }

    /// Descriptions of a network, one for each part that it has, its configuration first;
    /// none if there is no such network.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn network_parts(&self, name: &str) -> Result<Option<Vec<(Part, String)>>, Error> {
        let Some(network) = self.find_network(name)? else {
            return Ok(None);
        };
        let mut parts = Vec::new();
        for part in [Part::Config, Part::Live] {
            let Some(has) = unless(ErrorNumber::NoNetwork, part.is_of(&network))? else {
                return Ok(None);
            };
            if !has {
                continue;
            }
            let Some(xml) = unless(ErrorNumber::NoNetwork, part.describe(&network))? else {
                return Ok(None);
            };
            parts.push((part, xml));
        }
        Ok(Some(parts))
    }

    /// Adds a `<portgroup>` to one part of a network.
    ///
    /// # Errors
    /// When there is no such network or part of it, or it has one of that name.
    pub fn add_port_group(&self, network: &str, part: Part, xml: &str) -> Result<(), Error> {
        let command = virt_sys::VIR_NETWORK_UPDATE_COMMAND_ADD_LAST;
        self.update_port_group(network, part, command, xml)
    }

    /// Deletes the `<portgroup>` of that name from one part of a network.
    ///
    /// # Errors
    /// When there is no such network or part of it, or no such port group in it.
    pub fn delete_port_group(&self, network: &str, part: Part, xml: &str) -> Result<(), Error> {
        let command = virt_sys::VIR_NETWORK_UPDATE_COMMAND_DELETE;
        self.update_port_group(network, part, command, xml)
    }

    fn update_port_group(
        &self,
        network: &str,
        part: Part,
        command: virt_sys::virNetworkUpdateCommand,
        xml: &str,
    ) -> Result<(), Error> {
        let found = self.find_network(network)?;
        let network = found.ok_or_else(|| Error(format!("there is no network {network:?}")))?;
        let section = virt_sys::VIR_NETWORK_SECTION_PORTGROUP;
        Ok(network.update(command, section, -1, xml, part.update())?)
    }

    fn find_network(&self, name: &str) -> Result<Option<Network>, Error> {
        unless(
            ErrorNumber::NoNetwork,
            Network::lookup_by_name(&self.connect, name),
        )
    }
}

impl Part {
    fn is_of(self, network: &Network) -> Result<bool, error::Error> {
        match self {
            Part::Config => network.is_persistent(),
            Part::Live => network.is_active(),
        }
    }

    fn describe(self, network: &Network) -> Result<String, error::Error> {
        let running = || network.get_xml_desc(0);
        match self {
            Part::Config => match network.get_xml_desc(virt_sys::VIR_NETWORK_XML_INACTIVE) {
                // libvirt's test driver describes nothing else.
                Err(error) if error.code() == ErrorNumber::InvalidArg => running(),
                described => described,
            },
            Part::Live => running(),
        }
    }

    /// Flags of a call that changes it.
    const fn update(self) -> u32 {
        match self {
            Part::Config => virt_sys::VIR_NETWORK_UPDATE_AFFECT_CONFIG,
            Part::Live => virt_sys::VIR_NETWORK_UPDATE_AFFECT_LIVE,
        }
    }
}

/// The domain as it is; none if it has gone meanwhile.
fn look(handle: &Handle) -> Found {
    let Some(xml) = unless(ErrorNumber::NoDomain, handle.get_xml_desc(0))? else {
        return Ok(None);
    };
    let Some((state, reason)) = unless(ErrorNumber::NoDomain, handle.get_state())? else {
        return Ok(None);
    };
    Ok(Some(Domain {
        name: handle.get_name()?,
        uuid: handle.get_uuid()?,
        status: status(state, reason),
        xml,
    }))
}

/// Its name and a description; none if it has gone meanwhile.
fn describe(handle: &Handle, flags: u32) -> Result<Option<(String, String)>, Error> {
    match unless(ErrorNumber::NoDomain, handle.get_xml_desc(flags))? {
        None => Ok(None),
        Some(xml) => Ok(Some((handle.get_name()?, xml))),
    }
}

fn status(state: virt_sys::virDomainState, reason: i32) -> Status {
    let is = |paused| u32::try_from(reason) == Ok(paused);
    match state {
        virt_sys::VIR_DOMAIN_RUNNING
        | virt_sys::VIR_DOMAIN_BLOCKED
        | virt_sys::VIR_DOMAIN_SHUTDOWN => Status::Running,
        virt_sys::VIR_DOMAIN_PAUSED if is(virt_sys::VIR_DOMAIN_PAUSED_MIGRATION) => {
            Status::Migrating
        }
        virt_sys::VIR_DOMAIN_PAUSED if is(virt_sys::VIR_DOMAIN_PAUSED_STARTING_UP) => Status::Off,
        virt_sys::VIR_DOMAIN_PAUSED | virt_sys::VIR_DOMAIN_PMSUSPENDED => Status::Paused,
        _ => Status::Off,
    }
}

/// The result, or nothing if it failed because of `number`.
fn unless<T>(number: ErrorNumber, result: Result<T, error::Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == number => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Has libvirt's event loop run in a thread of its own, once. It never ends.
fn start_event_loop() -> Result<(), Error> {
    static STARTED: OnceLock<Result<(), Error>> = OnceLock::new();
    let start = || {
        error::clear_error_callback();
        event::event_register_default_impl()?;
        let run = || {
            loop {
                if event::event_run_default_impl().is_err() {
                    std::thread::sleep(KEEPALIVE);
                }
            }
        };
        let thread = std::thread::Builder::new().name("libvirt events".to_owned());
        thread
            .spawn(run)
            .map_err(|error| Error(format!("no thread for events: {error}")))?;
        Ok(())
    };
    STARTED.get_or_init(start).clone()
}

#[cfg(test)]
mod tests;
