//! Plans changes of clusters: named sets of hosts that VMs move between.
//!
//! Ports keep their VLAN tags when their hosts come into another cluster, so a change
//! that would give two of them one tag there is refused.

use std::collections::BTreeSet;

use serde::Deserialize;
use uuid::Uuid;

use super::nve::check_name;
use super::{Context, IntentError, Plan, State, set, tag};
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
/// When its name or a host is another's, and when a tag would be two ports'.
pub fn create(
    state: &State,
    context: Context<'_>,
    request: NewCluster,
) -> Result<Plan<Cluster>, IntentError> {
    if state.clusters().count() >= MAX_CLUSTERS {
        return Err(invalid("name", format!("there are {MAX_CLUSTERS} already")));
    }
    let cluster = Cluster {
        id: Uuid::new_v4(),
        name: request.name,
        hosts: request.hosts,
    };
    put(state, context, cluster)
}

/// Plans a change of a cluster. Its ports keep their tags.
///
/// # Errors
/// When there is none, when its new name or a host is another's, and when a tag would
/// be two ports' of this cluster or the default one.
pub fn update(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: ClusterChange,
) -> Result<Plan<Cluster>, IntentError> {
    check_changeable(id)?;
    let mut cluster = find(state, id)?.clone();
    set(&mut cluster.name, change.name);
    set(&mut cluster.hosts, change.hosts);
    put(state, context, cluster)
}

/// Plans the end of a cluster; its hosts are in the default one then.
///
/// # Errors
/// When there is none, and when a tag would be two ports' of the default cluster.
pub fn delete(state: &State, context: Context<'_>, id: Uuid) -> Result<Plan<()>, IntentError> {
    check_changeable(id)?;
    find(state, id)?;
    plan(state, context, id, Mutation::DeleteCluster(id), ())
}

/// The cluster, or the refusal that names it.
pub fn find(state: &State, id: Uuid) -> Result<&Cluster, IntentError> {
    state
        .cluster(id)
        .ok_or(IntentError::not_found("cluster", id))
}

/// A plan of that change of a cluster, unless a tag would be two ports' after it.
fn plan<T>(
    state: &State,
    context: Context<'_>,
    id: Uuid,
    change: Mutation,
    result: T,
) -> Result<Plan<T>, IntentError> {
    let mut after = state.clone();
    after.apply(&change);
    // Hosts that it has no more are in the default one.
    tag::check_clusters(state, &after, context, [id, Uuid::nil()])?;
    Ok(Plan::one(change, result))
}

fn put(
    state: &State,
    context: Context<'_>,
    cluster: Cluster,
) -> Result<Plan<Cluster>, IntentError> {
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
    let change = Mutation::PutCluster(cluster.clone());
    plan(state, context, id, change, cluster)
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
