//! VLAN tags of ports (the paper, section II.B.3): unique within the cluster of the
//! port's host, so that the port keeps its tag wherever in the cluster its VM goes.
//!
//! When a cluster has used its tags up, they are shared between its hosts, and unique
//! on each: a port then gets another tag when it is bound to a host where its own is
//! taken. Ports that are bound to no host yet get tags that nobody has, as long as
//! there are any.
//!
//! Invariant: no tag is given out on a host where a port, a vNIC or a quarantine that
//! is not the asking port's is on it.

use nve_protocol::Vlan;
use time::OffsetDateTime;
use uuid::Uuid;

use super::state::{Occupant, Occupants, Who, on_host};
use super::{Context, IntentError, State};
use crate::model::{Mutation, Port, Quarantine};

/// Quarantines that have ended and are forgotten with each new one.
const FORGOTTEN: usize = 8;

/// What a port is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Any tag.
    Any,
    /// The tag that it has, or another if that is taken.
    Keep(Vlan),
    /// This tag.
    Named(Vlan),
}

/// The tag for `port` on `host` (empty if it is bound to none).
///
/// # Errors
/// When the tag that is named is taken, and when none is left.
pub fn choose(
    state: &State,
    context: Context<'_>,
    port: Uuid,
    host: &str,
    wish: Wish,
) -> Result<Vlan, IntentError> {
    let asking = Asking {
        state,
        context,
        port,
        host,
        cluster: state.cluster_of(host),
    };
    match wish {
        Wish::Named(tag) => asking.named(tag).map(|()| tag),
        Wish::Keep(tag) if asking.named(tag).is_ok() => Ok(tag),
        Wish::Any | Wish::Keep(_) if host.is_empty() => Ok(asking.least_used()),
        Wish::Any | Wish::Keep(_) => asking.any(),
    }
}

/// Keeps the tag that a port had on its host from others for a while.
pub fn release(context: Context<'_>, port: &Port) -> Option<Mutation> {
    let tag = port.segmentation_id?;
    quarantine(context, &port.binding_host_id, tag, port.common.id)
}

/// Keeps a tag on a host from all ports but this one for a while.
pub fn quarantine(context: Context<'_>, host: &str, tag: Vlan, port: Uuid) -> Option<Mutation> {
    let lasts = context.settings.tags.quarantine;
    let kept = !host.is_empty() && !lasts.is_zero();
    kept.then(|| {
        Mutation::PutQuarantine(Quarantine {
            host: host.to_owned(),
            tag,
            port,
            until: context.now + lasts,
        })
    })
}

/// Forgets quarantines that have ended, in proportion to those that the whole plan
/// puts. It may put one of them anew, so they are forgotten before anything else.
pub fn forget_ended(state: &State, context: Context<'_>, plan: &mut Vec<Mutation>) {
    let puts = |mutation: &&Mutation| matches!(mutation, Mutation::PutQuarantine(_));
    let most = FORGOTTEN * plan.iter().filter(puts).count();
    let ended = state.ended_quarantines(context.now).take(most);
    let ended = ended.map(|(host, tag)| Mutation::DeleteQuarantine(host.to_owned(), tag));
    plan.splice(0..0, ended);
}

/// Refuses clusters of hosts as they are in `after` if they bring ports with one tag
/// together that were in different clusters, unless a cluster that comes out has used
/// its tags up and shares them anyway.
///
/// # Errors
/// With the first two such ports.
pub fn check_clusters(
    state: &State,
    after: &State,
    context: Context<'_>,
    clusters: impl IntoIterator<Item = Uuid>,
) -> Result<(), IntentError> {
    for cluster in clusters {
        let mut tags = after.occupied(cluster);
        let Some(clash) = tags.find_map(|(tag, occupants)| clash(state, tag, occupants)) else {
            continue;
        };
        let asking = Asking {
            state: after,
            context,
            port: Uuid::nil(),
            host: "",
            cluster,
        };
        if !asking.is_used_up() {
            return Err(clash);
        }
    }
    Ok(())
}

/// The refusal that names two of these ports which are in different clusters now.
fn clash(state: &State, tag: Vlan, occupants: &Occupants) -> Option<IntentError> {
    let mut leases = occupants.iter().filter_map(|on| match on.who {
        Who::Port(port) => Some((port, &*on.host)),
        Who::Vnic(..) | Who::Quarantine(..) => None,
    });
    let (port, host) = leases.next()?;
    let home = state.cluster_of(host);
    let (other, other_host) = leases.find(|(_, host)| state.cluster_of(host) != home)?;
    Some(IntentError::TagsMeet {
        tag,
        port,
        host: host.to_owned(),
        other,
        other_host: other_host.to_owned(),
    })
}

/// A port that asks for a tag on a host.
struct Asking<'a> {
    state: &'a State,
    context: Context<'a>,
    port: Uuid,
    host: &'a str,
    cluster: Uuid,
}

impl<'a> Asking<'a> {
    /// Whether the port can have that tag.
    fn named(&self, tag: Vlan) -> Result<(), IntentError> {
        if self.context.settings.tags.is_reserved(tag) {
            return Err(IntentError::TagReserved(tag));
        }
        if self.host.is_empty() {
            return Ok(());
        }
        let occupants = self.state.occupants(self.cluster, tag);
        let Some(other) = self.barring(&occupants) else {
            return Ok(());
        };
        let here = on_host(&occupants, self.host);
        let only_elsewhere = self.barring(here).is_none();
        // A tag that is shared already stays so, as long as it is not on this host.
        let is_own = occupants.iter().any(|on| on.who == Who::Port(self.port));
        if only_elsewhere && (is_own || self.is_used_up()) {
            return Ok(());
        }
        Err(IntentError::TagInUse {
            port: self.port,
            tag,
            host: self.host.to_owned(),
            holder: describe(other),
        })
    }

    /// The first of these that keeps a tag from the port.
    fn barring<'o>(
        &self,
        occupants: impl IntoIterator<Item = &'o Occupant>,
    ) -> Option<&'o Occupant> {
        let mut occupants = occupants.into_iter();
        occupants.find(|occupant| occupant.bars(self.port, self.context.now))
    }

    /// The tags that the configuration leaves, ascending.
    fn tags(&self) -> impl Iterator<Item = Vlan> + use<'a> {
        let rules = &self.context.settings.tags;
        let all = (1..=Vlan::MAX).filter_map(Vlan::new);
        all.filter(|tag| !rules.is_reserved(*tag))
    }

    /// The tags of the cluster, ascending, with who keeps them from others.
    fn candidates(&self) -> impl Iterator<Item = (Vlan, Occupants)> {
        let mut occupied = self.state.occupied(self.cluster).peekable();
        self.tags().map(move |tag| {
            while occupied.next_if(|(other, _)| *other < tag).is_some() {}
            let occupants = occupied.next_if(|(other, _)| *other == tag);
            let occupants = occupants.map(|(_, occupants)| occupants.clone());
            (tag, occupants.unwrap_or_default())
        })
    }

    fn is_used_up(&self) -> bool {
        self.candidates()
            .all(|(_, occupants)| self.barring(&occupants).is_some())
    }

    /// A tag that is free in the cluster and that fewest ports elsewhere have, or else
    /// one that is free on the host and that fewest others of the cluster are on.
    fn any(&self) -> Result<Vlan, IntentError> {
        let free = self
            .candidates()
            .filter(|(_, occupants)| self.barring(occupants).is_none());
        let free = free.map(|(tag, _)| (self.state.ports_with_tag(tag), tag));
        if let Some(tag) = least(free) {
            return Ok(tag);
        }
        let free_here = self.candidates().filter(|(_, occupants)| {
            let here = on_host(occupants, self.host);
            self.barring(here).is_none()
        });
        let free_here = free_here.map(|(tag, occupants)| (occupants.len() as u32, tag));
        least(free_here).ok_or_else(|| self.none_left())
    }

    /// The tag that is nowhere, or else that fewest ports have.
    fn least_used(&self) -> Vlan {
        let clusters: Vec<Uuid> = self.state.clusters().map(|cluster| cluster.id).collect();
        let is_on = |tag, cluster: &Uuid| {
            let occupants = self.state.occupants(*cluster, tag);
            self.barring(&occupants).is_some()
        };
        let scored = self.tags().map(|tag| {
            let ports = self.state.ports_with_tag(tag);
            let somewhere = [Uuid::nil()].iter().chain(&clusters).any(|c| is_on(tag, c));
            (2 * ports + u32::from(somewhere), tag)
        });
        // The configuration leaves some tags.
        least(scored).unwrap_or(super::state::FIRST_TAG)
    }

    fn none_left(&self) -> IntentError {
        let mut ports = 0;
        let mut vnics = 0;
        let mut quarantined = 0;
        for (_, occupants) in self.candidates() {
            let here: Vec<_> = on_host(&occupants, self.host).map(|on| on.who).collect();
            if here.iter().any(|who| matches!(who, Who::Port(_))) {
                ports += 1;
            } else if here.iter().any(|who| matches!(who, Who::Vnic(..))) {
                vnics += 1;
            } else {
                quarantined += 1;
            }
        }
        IntentError::NoTagLeft {
            host: self.host.to_owned(),
            cluster: self.state.cluster_name(self.cluster).to_owned(),
            ports,
            vnics,
            quarantined,
            reserved: usize::from(Vlan::MAX) - self.tags().count(),
        }
    }
}

/// The least by score, and of equals the lowest tag; a score of 0 ends the search.
fn least(scored: impl Iterator<Item = (u32, Vlan)>) -> Option<Vlan> {
    let mut best: Option<(u32, Vlan)> = None;
    for (score, tag) in scored {
        if score == 0 {
            return Some(tag);
        }
        if best.is_none_or(|(least, _)| score < least) {
            best = Some((score, tag));
        }
    }
    best.map(|(_, tag)| tag)
}

fn describe(occupant: &Occupant) -> String {
    let host = &occupant.host;
    match occupant.who {
        Who::Port(port) => format!("by port {port} on host {host}"),
        Who::Vnic(vm, Some(port)) => format!("by port {port} of VM {vm} on host {host}"),
        Who::Vnic(vm, None) => format!("by a port group of VM {vm} on host {host}"),
        Who::Quarantine(port, until) => format!(
            "by port {port}, which left it on host {host}: it is in quarantine until {}",
            rfc3339(until)
        ),
    }
}

fn rfc3339(moment: OffsetDateTime) -> String {
    let text = moment.format(&time::format_description::well_known::Rfc3339);
    text.unwrap_or_default()
}
