//! VLAN tags of ports (the paper, section II.B.3): unique among the ports of a host.

use nve_protocol::Vlan;
use uuid::Uuid;

use super::{IntentError, State};

/// The tag for `port` on `host` (empty if it is bound to none): the one wanted, if it
/// is free there, or else the one that fewest ports anywhere have.
///
/// While there are fewer ports than tags, chosen tags differ everywhere, so a port
/// that moves to another host finds its tag free.
pub fn choose(
    state: &State,
    port: Uuid,
    host: &str,
    wanted: Option<Vlan>,
) -> Result<Vlan, IntentError> {
    match wanted {
        Some(tag) => check_free(state, port, host, tag).map(|()| tag),
        None => least_used(state, host).ok_or_else(|| IntentError::NoTagLeft(host.to_owned())),
    }
}

fn check_free(state: &State, port: Uuid, host: &str, tag: Vlan) -> Result<(), IntentError> {
    match state.port_by_tag(host, tag) {
        Some(holder) if holder.common.id != port => Err(IntentError::TagInUse {
            port,
            tag,
            host: host.to_owned(),
            holder: holder.common.id,
        }),
        _ => Ok(()),
    }
}

fn least_used(state: &State, host: &str) -> Option<Vlan> {
    let mut used_here = state.tags_on(host).peekable();
    let mut best: Option<(u32, Vlan)> = None;
    for tag in (1..=Vlan::MAX).filter_map(Vlan::new) {
        if used_here.next_if_eq(&tag).is_some() {
            continue;
        }
        let ports = state.ports_with_tag(tag);
        if ports == 0 {
            return Some(tag);
        }
        if best.is_none_or(|(fewest, _)| ports < fewest) {
            best = Some((ports, tag));
        }
    }
    best.map(|(_, tag)| tag)
}
