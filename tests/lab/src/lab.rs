//! A lab: hypervisors with their NVEs, and the VMs on them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::fabric::{Fabric, Ports};
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
    /// Directory of its logs.
    pub dir: PathBuf,
}

impl Lab {
    /// Makes two hypervisors without guests, with logs in `dir`.
    pub fn two_hypervisors(dir: &Path) -> Result<Lab> {
        fs::create_dir_all(dir)?;
        let fabric = Fabric::start(dir)?;
        let hypervisors = ['a', 'b']
            .into_iter()
            .enumerate()
            .map(|(index, letter)| {
                let ports = fabric.add_hypervisor(letter)?;
                Ok(Hypervisor {
                    name: ports.bridge.clone(),
                    uuid: Uuid::new_v4(),
                    ports,
                    identity: Identity::generate(index, letter)?,
                    nve: None,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Lab {
            hypervisors,
            fabric,
            dir: dir.to_owned(),
        })
    }
}
