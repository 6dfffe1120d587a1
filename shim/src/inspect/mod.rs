//! Looking into running NVEs: what would become of a packet, what was dropped, which
//! flows there are, what passes a port.
//!
//! NVEs answer in numbers and identifiers ([`nve_protocol::inspect`]); here their
//! answers get the names that operators know, and a packet is followed from NVE to
//! NVE.
//!
//! Invariants: what an NVE answers is not trusted: every list, every loop and every
//! wait is bounded; nothing that is asked changes what an NVE does with a frame.

pub mod capture;
pub mod explain;
pub mod frame;
pub mod logs;
pub mod names;
pub mod pcapng;
pub mod probe;
pub mod trace;

use std::net::IpAddr;
use std::sync::Arc;

use nve_protocol::inspect::{Failure, Question};
use nve_protocol::{PortId, Vlan};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::compile::Scope;
use crate::fabric::Fabric;
use crate::intent::State;
use crate::model::{Nve, Port};
use crate::southbound::{AskError, Reply};
use names::Names;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// There is no NVE with that id.
    #[error("there is no NVE {0}")]
    NoNve(Uuid),
    /// What is asked for cannot be.
    #[error("{reason}")]
    Invalid {
        /// Which field of the request is at fault.
        field: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// It cannot be now, or not at this NVE.
    #[error("{0}")]
    Conflict(String),
    /// The NVE does not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl InspectError {
    fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        InspectError::Invalid {
            field,
            reason: reason.into(),
        }
    }

    /// From the error of asking the NVE of that name.
    fn of_asking(nve: &str, error: AskError) -> Self {
        let text = format!("NVE {nve} {error}");
        match error {
            AskError::Failed(Failure::NoVap | Failure::Busy) => InspectError::Conflict(text),
            AskError::Failed(Failure::BadProbe) => InspectError::invalid("frame", text),
            _ => InspectError::Unavailable(text),
        }
    }
}

/// A look at one moment's intent, and the running NVEs.
#[derive(Clone)]
pub struct Inspector {
    fabric: Fabric,
    state: Arc<State>,
}

/// A port where it is attached.
#[derive(Debug, Clone, Copy)]
pub struct PortAt<'a> {
    /// The port.
    pub port: &'a Port,
    /// Its tag there.
    pub vlan: Vlan,
}

impl Inspector {
    /// By the intent of now.
    pub fn new(fabric: &Fabric) -> Self {
        Inspector {
            fabric: fabric.clone(),
            state: fabric.controller().snapshot(),
        }
    }

    /// The NVE with that id.
    ///
    /// # Errors
    /// When there is none.
    pub fn nve(&self, id: Uuid) -> Result<&Nve, InspectError> {
        self.state.nve(id).ok_or(InspectError::NoNve(id))
    }

    fn names(&self) -> Names<'_> {
        Names::new(&self.state)
    }

    async fn ask(&self, nve: &Nve, question: Question) -> Result<Reply, InspectError> {
        let answer = self.fabric.registry().ask(nve.id, question).await;
        answer.map_err(|error| InspectError::of_asking(&nve.name, error))
    }

    /// The port of that name or UUID at an NVE.
    ///
    /// # Errors
    /// When there is none, several have the name, or it is not there: the text says
    /// where it is.
    pub fn port_at(&self, nve: &Nve, key: &str) -> Result<PortAt<'_>, InspectError> {
        let id = key.parse::<Uuid>().ok();
        let named: Vec<&Port> = match id.and_then(|id| self.state.port(id)) {
            Some(port) => vec![port],
            None => {
                let ports = self.state.ports();
                ports.filter(|port| port.common.name == key).collect()
            }
        };
        let here = named.iter().filter_map(|port| {
            let (at, vlan) = self.fabric.place(port.common.id)?;
            (at == nve.id).then_some(PortAt { port, vlan })
        });
        let here: Vec<PortAt<'_>> = here.collect();
        match (here.as_slice(), named.as_slice()) {
            ([port], _) => Ok(*port),
            ([], []) => Err(InspectError::invalid(
                "port",
                format!("there is no port {key:?}; `nvectl port list` lists all"),
            )),
            ([], [port]) => Err(InspectError::Conflict(self.elsewhere(nve, port))),
            ([], several) => Err(InspectError::Conflict(format!(
                "none of the {} ports {key:?} is on NVE {}; `nvectl placement list` says where they are",
                several.len(),
                nve.name
            ))),
            (several, _) => Err(InspectError::invalid(
                "port",
                format!(
                    "{} ports {key:?} are on NVE {}; give the UUID of one",
                    several.len(),
                    nve.name
                ),
            )),
        }
    }

    /// Where a port is that is not at that NVE.
    fn elsewhere(&self, nve: &Nve, port: &Port) -> String {
        let name = self.names().port(port.common.id);
        let place = self.fabric.place(port.common.id);
        match place.and_then(|(at, _)| self.state.nve(at)) {
            Some(at) => format!(
                "port {name} is on NVE {} (host {}), not on {}",
                at.name, at.host_name, nve.name
            ),
            None => format!(
                "port {name} is on no NVE; `nvectl placement list` says what keeps it from being attached"
            ),
        }
    }

    /// The port behind a tag of an NVE, if it can be told.
    fn port_behind(&self, nve: &Nve, vlan: Vlan) -> Option<PortId> {
        let tables = self.fabric.desired_tables(nve.id)?;
        let port = tables.port_at(Scope::Vap(nve.id, vlan))?;
        Some(PortId(port.into_bytes()))
    }

    /// The NVE with that VTEP address.
    fn nve_at(&self, vtep: IpAddr) -> Option<&Nve> {
        self.state.nves().find(|nve| nve.vtep == vtep)
    }

    /// When the NVE of now booted, by its counters; `None` before it reported any.
    fn booted_at(&self, nve: Uuid) -> Option<OffsetDateTime> {
        let status = self.fabric.registry().status(nve)?;
        let last = status.last_stats?;
        // Counters from before it connected may be from before it booted.
        if last.at < status.connection?.since {
            return None;
        }
        let uptime = i64::try_from(last.stats.uptime_ms).ok()?;
        let booted = last.at.checked_sub(Duration::milliseconds(uptime))?;
        // The NVE may say anything.
        (1970..=9999).contains(&booted.year()).then_some(booted)
    }
}
