//! Address arithmetic of subnets: usable addresses, pools, allocation.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{IntentError, State};
use crate::model::{AllocationPool, Subnet};

impl AllocationPool {
    /// Whether the pool has that address.
    pub fn contains(&self, address: IpAddr) -> bool {
        (self.start..=self.end).contains(&address)
    }

    /// As Neutron's messages write it.
    fn text(&self) -> String {
        format!("{}-{}", self.start, self.end)
    }
}

/// First and last address that a port can have: without IPv4's network and broadcast
/// addresses and IPv6's subnet-router anycast address (RFC 4291, section 2.6.1),
/// except in point-to-point prefixes (RFC 3021, RFC 6164).
pub fn usable(cidr: IpNet) -> AllocationPool {
    let (start, end) = (cidr.network(), cidr.broadcast());
    if cidr.max_prefix_len() - cidr.prefix_len() <= 1 {
        return AllocationPool { start, end };
    }
    AllocationPool {
        start: next(start).unwrap_or(start),
        end: match end {
            IpAddr::V4(_) => previous(end).unwrap_or(end),
            IpAddr::V6(_) => end,
        },
    }
}

/// The gateway of a subnet whose creator names none: the first usable address.
pub fn default_gateway(cidr: IpNet) -> Option<IpAddr> {
    (cidr.prefix_len() < cidr.max_prefix_len()).then(|| usable(cidr).start)
}

/// All usable addresses but the gateway.
pub fn default_pools(cidr: IpNet, gateway: Option<IpAddr>) -> Vec<AllocationPool> {
    let whole = usable(cidr);
    let Some(gateway) = gateway.filter(|g| whole.contains(*g)) else {
        return vec![whole];
    };
    let below = previous(gateway).map(|end| AllocationPool { end, ..whole });
    let above = next(gateway).map(|start| AllocationPool { start, ..whole });
    [below, above]
        .into_iter()
        .flatten()
        .filter(|p| p.start <= p.end && whole.contains(p.start) && whole.contains(p.end))
        .collect()
}

/// Refuses pools that are malformed, overlap, leave the prefix or have the gateway.
pub fn check_pools(
    pools: &[AllocationPool],
    cidr: IpNet,
    gateway: Option<IpAddr>,
) -> Result<(), IntentError> {
    let whole = usable(cidr);
    let mut sorted = pools.to_vec();
    sorted.sort_by_key(|p| p.start);
    for pool in &sorted {
        if pool.start > pool.end || pool.start.is_ipv4() != pool.end.is_ipv4() {
            return Err(IntentError::InvalidPool(pool.text()));
        }
        if !whole.contains(pool.start) || !whole.contains(pool.end) {
            return Err(IntentError::PoolOutOfBounds {
                pool: pool.text(),
                cidr,
            });
        }
        if let Some(gateway) = gateway.filter(|g| pool.contains(*g)) {
            return Err(IntentError::GatewayInPool {
                gateway,
                pool: pool.text(),
            });
        }
    }
    match sorted.windows(2).find(|w| w[0].end >= w[1].start) {
        Some(w) => Err(IntentError::PoolsOverlap {
            first: w[0].text(),
            second: w[1].text(),
            cidr,
        }),
        None => Ok(()),
    }
}

/// An address of the subnet's pools that no port has and that is not in `taken`.
///
/// The one after the highest in use comes first, so that an address is used again
/// as late as possible; then gaps.
pub fn allocate(state: &State, subnet: &Subnet, taken: &[IpAddr]) -> Option<IpAddr> {
    let pools = &subnet.allocation_pools;
    let fresh = |pool: &AllocationPool| after_highest(state, subnet, pool, taken);
    let gap = |pool: &AllocationPool| first_gap(state, subnet, pool, taken);
    pools
        .iter()
        .find_map(fresh)
        .or_else(|| pools.iter().find_map(gap))
}

fn after_highest(
    state: &State,
    subnet: &Subnet,
    pool: &AllocationPool,
    taken: &[IpAddr],
) -> Option<IpAddr> {
    let used = state
        .addresses(subnet.common.id, pool.start, pool.end)
        .next_back();
    let also = taken.iter().copied().filter(|a| pool.contains(*a)).max();
    match used.max(also) {
        None => Some(pool.start),
        Some(highest) => next(highest).filter(|a| pool.contains(*a)),
    }
}

fn first_gap(
    state: &State,
    subnet: &Subnet,
    pool: &AllocationPool,
    taken: &[IpAddr],
) -> Option<IpAddr> {
    let mut candidate = pool.start;
    let mut used = state
        .addresses(subnet.common.id, pool.start, pool.end)
        .peekable();
    loop {
        let is_used = used.next_if_eq(&candidate).is_some();
        if !is_used && !taken.contains(&candidate) {
            return Some(candidate);
        }
        candidate = next(candidate).filter(|a| pool.contains(*a))?;
    }
}

/// The address one higher, unless it is the last of its family.
fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => a.to_bits().checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(a) => a.to_bits().checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

/// The address one lower, unless it is the first of its family.
fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => a.to_bits().checked_sub(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(a) => a.to_bits().checked_sub(1).map(|n| IpAddr::V6(n.into())),
    }
}
