//! ARP (RFC 826), with probes and announcements (RFC 5227).

use nve_protocol::DropReason;

use super::{Answer, Reply, Request};
use crate::wire::arp::{Operation, Packet};
use crate::wire::ethernet;

/// Answers requests for addresses in the tables. Replies, and requests that tell
/// of the sender's own address, pass: others want to hear them.
pub(super) fn answer(request: &Request<'_>, reply: &mut Reply) -> Result<Answer, DropReason> {
    let body = request.frame.get(request.headers.network..);
    let packet = body.and_then(Packet::parse).ok_or(DropReason::Arp)?;
    let announces = packet.sender_ip == packet.target_ip;
    if packet.operation != Operation::Request || announces {
        return Ok(Answer::Pass);
    }
    let probe = packet.sender_ip.is_unspecified();
    let Some((mac, _)) = request.owner(packet.target_ip.into(), probe) else {
        return Ok(Answer::Pass);
    };
    reply.ethernet(packet.sender_mac, mac, ethernet::ARP)?;
    reply.push(&packet.answer(mac).emit())?;
    Ok(Answer::Reply)
}
