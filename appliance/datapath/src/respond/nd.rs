//! Neighbor solicitations (RFC 4861, section 7.2) and duplicate address detection
//! (RFC 4862, section 5.4).

use core::net::IpAddr;

use nve_protocol::DropReason;

use super::{ALL_NODES, Answer, Reply, Request};
use crate::packet::{Ip, protocol};
use crate::reply::Envelope;
use crate::spoof;
use crate::wire::nd::{self, Advertisement, Message};

/// Answers solicitations for addresses in the tables.
///
/// A test for a duplicate of such an address is answered as its owner would. One
/// of an address that is not the VM's own and in no table goes nowhere: it could
/// only keep another VM from an address that it is about to take.
pub(super) fn answer(
    request: &Request<'_>,
    ip: &Ip,
    reply: &mut Reply,
) -> Result<Answer, DropReason> {
    let message = Message::parse(ip, request.frame).ok_or(DropReason::NeighborDiscovery)?;
    let Message::NeighborSolicitation { target, .. } = message else {
        return Ok(Answer::Pass);
    };
    let probe = ip.source.is_unspecified();
    let Some((mac, router)) = request.owner(target.into(), probe) else {
        let own = spoof::owns(request.tables, request.vap, target.into());
        return match probe && request.vap.port_security && !own {
            true => Err(DropReason::NeighborDiscovery),
            false => Ok(Answer::Pass),
        };
    };
    let (destination, destination_mac) = match probe {
        true => (IpAddr::V6(ALL_NODES), nd::group_mac(ALL_NODES)),
        false => (ip.source, request.headers.source),
    };
    reply.ip(&Envelope {
        source_mac: mac,
        destination_mac,
        source: target.into(),
        destination,
        protocol: protocol::ICMPV6,
        hop_limit: nd::HOP_LIMIT,
        traffic_class: 0,
    })?;
    let advertisement = Advertisement {
        target,
        mac,
        router,
        solicited: !probe,
    };
    reply.push(&advertisement.emit())?;
    reply.finish()?;
    Ok(Answer::Reply)
}
