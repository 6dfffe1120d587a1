//! Plans changes of clusters: named sets of hosts that VMs move between.

use std::collections::BTreeSet;

use serde::Deserialize;
use uuid::Uuid;

use super::nve::check_name;
use super::{IntentError, Plan, State, set};
use crate::model::{Cluster, Mutation};

/// Name of the cluster of all hosts that are in no other.
pub const DEFAULT: &str = "default";
/// Most clusters.
const MAX_CLUSTERS: usize = 1024;
/// Most hosts of a cluster.
const MAX_HOSTS: usize = 4096;

/// A cluster to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCluster {
    /// Name for people; unique.
    pub name: String,
    /// Names of its hosts, as in events.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// A change of a cluster; absent is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterChange {
    /// New name.
    pub name: Option<String>,
    /// All its hosts.
    pub hosts: Option<Vec<String>>,
}

/// Plans a new cluster.
///
/// # Errors
/// When its name or a host is another's.
pub fn create(state: &State, request: NewCluster) -> Result<Plan<Cluster>, IntentError> {
    if state.clusters().count() >= MAX_CLUSTERS {
        return Err(invalid("name", format!("there are {MAX_CLUSTERS} already")));
    }
    let cluster = Cluster {
        id: Uuid::new_v4(),
        name: request.name,
        hosts: request.hosts,
    };
    put(state, cluster)
}

/// Plans a change of a cluster. Its ports keep their tags.
///
/// # Errors
/// When there is none, and when its new name or a host is another's.
pub fn update(
    state: &State,
    id: Uuid,
    change: ClusterChange,
) -> Result<Plan<Cluster>, IntentError> {
    check_changeable(id)?;
    let mut cluster = find(state, id)?.clone();
    set(&mut cluster.name, change.name);
    set(&mut cluster.hosts, change.hosts);
    put(state, cluster)
}

/// Plans the end of a cluster; its hosts are in the default one then.
///
/// # Errors
/// When there is none.
pub fn delete(state: &State, id: Uuid) -> Result<Plan<()>, IntentError> {
    check_changeable(id)?;
    find(state, id)?;
    Ok(Plan::one(Mutation::DeleteCluster(id), ()))
}

/// The cluster, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&Cluster, IntentError> {
    state
        .cluster(id)
        .ok_or(IntentError::not_found("cluster", id))
}

fn put(state: &State, cluster: Cluster) -> Result<Plan<Cluster>, IntentError> {
    let Cluster { id, name, hosts } = cluster;
    let name = check_name("name", name)?;
    let other = state.clusters().find(|other| other.name == name);
    let taken = other.is_some_and(|other| other.id != id);
    if taken || name == DEFAULT {
        return Err(IntentError::Taken {
            field: "name",
            holder: "another cluster".to_owned(),
            value: name,
        });
    }
    if hosts.len() > MAX_HOSTS {
        return Err(invalid(
            "hosts",
            format!("a cluster has at most {MAX_HOSTS}"),
        ));
    }
    for host in &hosts {
        check_name("hosts", host.clone())?;
        let owner = state.cluster_of(host);
        if owner != id && !owner.is_nil() {
            return Err(IntentError::Taken {
                field: "hosts",
                value: host.clone(),
                holder: format!("cluster {}", state.cluster_name(owner)),
            });
        }
    }
    let hosts: BTreeSet<String> = hosts.into_iter().collect();
    let cluster = Cluster {
        id,
        name,
        hosts: hosts.into_iter().collect(),
    };
    Ok(Plan::one(Mutation::PutCluster(cluster.clone()), cluster))
}

fn check_changeable(id: Uuid) -> Result<(), IntentError> {
    match id.is_nil() {
        true => Err(invalid(
            "id",
            "the default cluster cannot change: it has the hosts that are in no other".to_owned(),
        )),
        false => Ok(()),
    }
}

fn invalid(field: &'static str, reason: String) -> IntentError {
    IntentError::InvalidField { field, reason }
}
