//! Routers: their interfaces, which are the networks' gateways, and routes.
//!
//! Invariants: each gateway is in the list of its network and in that of its
//! router, both sorted by key; no list and no router is empty; a router counts
//! its routes by length, so that a lookup tries only lengths that there are.

use core::net::IpAddr;

use alloc::vec::Vec;
use hashbrown::HashMap;
use nve_protocol::{Gateway, Prefix, Route, RouterId, Vni};

use super::TableError;
use super::macs::Fast;

/// How a router reaches an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The interface that packets leave by.
    pub gateway: Gateway,
    /// The station on that interface's network that gets them.
    pub next_hop: IpAddr,
    /// What matched: the interface's prefix or a route's.
    pub prefix: Prefix,
}

#[derive(Debug)]
struct Router {
    interfaces: Vec<Gateway>,
    /// How many routes there are of each length: IPv4 up to 32, then IPv6.
    lengths: [u16; 33 + 129],
    routes: u32,
}

impl Default for Router {
    fn default() -> Self {
        Router {
            interfaces: Vec::new(),
            lengths: [0; 33 + 129],
            routes: 0,
        }
    }
}

impl Router {
    fn is_empty(&self) -> bool {
        self.interfaces.is_empty() && self.routes == 0
    }

    /// The interface whose subnet has `ip`; of several, the longest prefix.
    fn interface(&self, ip: IpAddr) -> Option<&Gateway> {
        self.interfaces
            .iter()
            .filter(|gateway| gateway.prefix.contains(ip))
            .max_by_key(|gateway| gateway.prefix.length())
    }

    fn count(&mut self, destination: Prefix) -> Option<&mut u16> {
        self.lengths.get_mut(slot(destination))
    }
}

/// Place of a prefix's length in [`Router::lengths`].
fn slot(prefix: Prefix) -> usize {
    let family = if prefix.address().is_ipv4() { 0 } else { 33 };
    family + usize::from(prefix.length())
}

/// All routers of which this NVE is a part.
#[derive(Debug, Default)]
pub(super) struct Routers {
    by_network: HashMap<Vni, Vec<Gateway>, Fast>,
    routers: HashMap<RouterId, Router, Fast>,
    routes: HashMap<(RouterId, Prefix), IpAddr, Fast>,
}

impl Routers {
    pub(super) fn gateways(&self, vni: Vni) -> &[Gateway] {
        self.by_network
            .get(&vni)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    pub(super) fn gateway(&self, vni: Vni, ip: IpAddr) -> Option<&Gateway> {
        let list = self.gateways(vni);
        let at = find(list, vni, ip).ok()?;
        list.get(at)
    }

    /// All interfaces of a router.
    pub(super) fn interfaces(&self, router: RouterId) -> &[Gateway] {
        let router = self.routers.get(&router);
        router.map_or(&[], |router| router.interfaces.as_slice())
    }

    /// The interface of a router with this address.
    pub(super) fn owner(&self, router: RouterId, ip: IpAddr) -> Option<&Gateway> {
        let router = self.routers.get(&router)?;
        router.interfaces.iter().find(|gateway| gateway.ip == ip)
    }

    pub(super) fn hop(&self, id: RouterId, ip: IpAddr) -> Option<Hop> {
        let router = self.routers.get(&id)?;
        let connected = router.interface(ip);
        if let Some((prefix, next_hop)) = self.longest(id, router, ip)
            && connected.is_none_or(|gateway| gateway.prefix.length() < prefix.length())
        {
            let gateway = *router.interface(next_hop)?;
            return Some(Hop {
                gateway,
                next_hop,
                prefix,
            });
        }
        connected.map(|gateway| Hop {
            gateway: *gateway,
            next_hop: ip,
            prefix: gateway.prefix,
        })
    }

    fn longest(&self, id: RouterId, router: &Router, ip: IpAddr) -> Option<(Prefix, IpAddr)> {
        if router.routes == 0 {
            return None;
        }
        let (base, width) = if ip.is_ipv4() { (0, 32u8) } else { (33, 128) };
        (0..=width)
            .rev()
            .filter(|length| router.lengths.get(base + usize::from(*length)) != Some(&0))
            .find_map(|length| {
                let prefix = Prefix::around(ip, length)?;
                let next_hop = self.routes.get(&(id, prefix))?;
                Some((prefix, *next_hop))
            })
    }

    pub(super) fn put_gateway(&mut self, gateway: &Gateway) -> Result<Option<Gateway>, TableError> {
        self.reserve_gateway(gateway).inspect_err(|_| {
            self.drop_empty(gateway.vni, gateway.router);
        })?;
        let old = self.delete_gateway(gateway.vni, gateway.ip);
        // Room for both was reserved.
        insert(self.by_network.entry(gateway.vni).or_default(), gateway);
        let router = self.routers.entry(gateway.router).or_default();
        insert(&mut router.interfaces, gateway);
        Ok(old)
    }

    fn reserve_gateway(&mut self, gateway: &Gateway) -> Result<(), TableError> {
        let out = |_| TableError::OutOfMemory;
        self.by_network.try_reserve(1).map_err(out)?;
        self.routers.try_reserve(1).map_err(out)?;
        let list = self.by_network.entry(gateway.vni).or_default();
        list.try_reserve(1).map_err(|_| TableError::OutOfMemory)?;
        let router = self.routers.entry(gateway.router).or_default();
        let room = router.interfaces.try_reserve(1);
        room.map_err(|_| TableError::OutOfMemory)
    }

    pub(super) fn delete_gateway(&mut self, vni: Vni, ip: IpAddr) -> Option<Gateway> {
        let list = self.by_network.get_mut(&vni)?;
        let at = find(list, vni, ip).ok()?;
        let gateway = list.remove(at);
        if let Some(router) = self.routers.get_mut(&gateway.router)
            && let Ok(at) = find(&router.interfaces, vni, ip)
        {
            router.interfaces.remove(at);
        }
        self.drop_empty(vni, gateway.router);
        Some(gateway)
    }

    pub(super) fn has_route(&self, router: RouterId, destination: Prefix) -> bool {
        self.routes.contains_key(&(router, destination))
    }

    pub(super) fn put_route(&mut self, route: &Route) -> Result<Option<Route>, TableError> {
        let out = |_| TableError::OutOfMemory;
        self.routes.try_reserve(1).map_err(out)?;
        self.routers.try_reserve(1).map_err(out)?;
        let key = (route.router, route.destination);
        let old = self.routes.insert(key, route.next_hop);
        if old.is_none() {
            let router = self.routers.entry(route.router).or_default();
            router.routes += 1;
            if let Some(count) = router.count(route.destination) {
                *count = count.saturating_add(1);
            }
        }
        Ok(old.map(|next_hop| Route { next_hop, ..*route }))
    }

    pub(super) fn delete_route(&mut self, id: RouterId, destination: Prefix) -> Option<Route> {
        let next_hop = self.routes.remove(&(id, destination))?;
        let router = self.routers.get_mut(&id)?;
        router.routes -= 1;
        if let Some(count) = router.count(destination) {
            *count -= 1;
        }
        if router.is_empty() {
            self.routers.remove(&id);
        }
        Some(Route {
            router: id,
            destination,
            next_hop,
        })
    }

    fn drop_empty(&mut self, vni: Vni, router: RouterId) {
        if self.by_network.get(&vni).is_some_and(Vec::is_empty) {
            self.by_network.remove(&vni);
        }
        if self.routers.get(&router).is_some_and(Router::is_empty) {
            self.routers.remove(&router);
        }
    }
}

fn find(list: &[Gateway], vni: Vni, ip: IpAddr) -> Result<usize, usize> {
    list.binary_search_by_key(&(vni, ip), |gateway| (gateway.vni, gateway.ip))
}

/// Inserts into a list that has room for it.
fn insert(list: &mut Vec<Gateway>, gateway: &Gateway) {
    match find(list, gateway.vni, gateway.ip) {
        Ok(at) => {
            if let Some(place) = list.get_mut(at) {
                *place = *gateway;
            }
        }
        Err(at) => list.insert(at, *gateway),
    }
}
