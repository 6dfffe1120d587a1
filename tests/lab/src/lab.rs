//! A lab: hypervisors with their NVEs, and the VMs on them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::fabric::{Fabric, Offloads, Ports, Underlay};
use crate::nve::{Identity, Nve};
use uuid::Uuid;

/// One hypervisor.
#[derive(Debug)]
pub struct Hypervisor {
    /// Host name, as lifecycle events give it.
    pub name: String,
    /// Host UUID, likewise.
    pub uuid: Uuid,
    /// Its devices.
    pub ports: Ports,
    /// What its NVE is.
    pub identity: Identity,
    /// Its NVE, once booted.
    pub nve: Option<Nve>,
}

/// A lab. All of it goes when it is dropped.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: guests before the switches that they hang on.
    /// The hypervisors.
    pub hypervisors: Vec<Hypervisor>,
    /// Switches and cables.
    pub fabric: Fabric,
    /// Version of IP between the NVEs.
    pub underlay: Underlay,
    /// Directory of its logs.
    pub dir: PathBuf,
}

impl Lab {
    /// Makes two hypervisors without guests, with logs in `dir`, for appliances with so
    /// many processors.
    pub fn two_hypervisors(dir: &Path, underlay: Underlay, processors: u8) -> Result<Lab> {
        Lab::with(Offloads::Off, dir, underlay, processors)
    }

    /// The same with a vSwitch that has such offloads.
    pub fn with(offloads: Offloads, dir: &Path, underlay: Underlay, processors: u8) -> Result<Lab> {
        fs::create_dir_all(dir)?;
        let fabric = Fabric::start(dir, offloads)?;
        let hypervisors = [('a', 11), ('b', 12)]
            .into_iter()
            .map(|(letter, number)| {
                let ports = fabric.add_hypervisor(letter, processors)?;
                Ok(Hypervisor {
                    name: ports.bridge.clone(),
                    uuid: Uuid::new_v4(),
                    ports,
                    identity: Identity::generate(number, letter, underlay)?,
                    nve: None,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Lab {
            hypervisors,
            fabric,
            underlay,
            dir: dir.to_owned(),
        })
    }
}
