//! From a configuration and an amount of memory to what a node is made of: sizes,
//! addresses and identity. The same on the bare machine and in a process.

use core::num::NonZeroU8;

use nve_agent::SessionConfig;
use nve_datapath::{Config as DatapathConfig, HEADROOM, Uplink, connections};
use nve_nic::Pool;
use nve_protocol::{MAX_PROCESSORS, Mac, TableSizes};

use crate::config::Config;
use crate::node::Addresses;

/// MTU of a trunk whose NIC announces none, in bytes.
pub const TRUNK_MTU: u16 = 1500;

/// MTU of an uplink for which neither configuration nor NIC have one: a trunk's
/// with the headers of VXLAN.
pub const UPLINK_MTU: u16 = 1600;

/// Ethernet header with two tags, in bytes.
const ETHERNET: usize = 22;

/// Heap at which the product holds what it promises at 64 MiB of memory, in bytes.
const PROMISED_AT: u64 = 48 << 20;

/// Flows that are remembered, and connections that are tracked, at 64 MiB.
const FLOWS: u64 = 1 << 16;
const CONNECTIONS: u64 = 1 << 16;

/// The part of the heap beyond what the promises take that each of the flow cache and
/// the connection table gets: one in so many.
const BEYOND: u64 = 4;

/// How many processors an NVE uses of those that there are, with `heap` bytes of memory
/// and so many pairs of queues of trunk and uplink: each has a pair of both, and a copy of
/// the tables.
pub fn processors(available: usize, pairs: [usize; 2], heap: u64) -> usize {
    let [trunk, uplink] = pairs;
    let affordable = usize::try_from(heap / PROMISED_AT).unwrap_or(usize::MAX);
    let most = available.min(trunk).min(uplink).min(affordable);
    most.clamp(1, MAX_PROCESSORS)
}

/// The uplink's MTU: the configured one, which its NIC has to have, else the NIC's.
/// The error is what the NIC has.
pub fn uplink_mtu(config: &Config, nic: Option<u16>) -> Result<u16, u16> {
    match (config.uplink.mtu, nic) {
        (Some(wanted), Some(has)) if wanted > has => Err(has),
        (Some(wanted), _) => Ok(wanted),
        (None, has) => Ok(has.unwrap_or(UPLINK_MTU)),
    }
}

/// Packet buffers of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// How many.
    pub count: usize,
    /// Bytes of a frame that fit into each.
    pub room: usize,
}

impl Buffers {
    /// Buffers for IP packets of `mtu` bytes, within a tenth of the heap.
    pub fn within(heap: u64, mtu: u16) -> Buffers {
        /// Both receive queues, full transmit queues and bursts on their way.
        const MOST: usize = 2048;
        /// Both receive queues and a burst.
        const LEAST: usize = 768;

        let room = usize::from(mtu) + ETHERNET;
        let share = usize::try_from(heap).unwrap_or(usize::MAX) / 10;
        let count = (share / Pool::bytes(1, HEADROOM, room)).clamp(LEAST, MOST);
        Buffers { count, room }
    }

    /// Bytes of memory that they take.
    pub fn bytes(&self) -> usize {
        Pool::bytes(self.count, HEADROOM, self.room)
    }
}

/// Addresses of an uplink whose NIC has `mac`; `seed` is random.
pub fn addresses(config: &Config, mac: Mac, mtu: u16, seed: u64) -> Addresses {
    Addresses {
        mac,
        address: config.uplink.address,
        prefix: config.uplink.prefix,
        gateway: config.uplink.gateway,
        mtu,
        seed,
    }
}

/// Identity and keys for the control session; `boot_us` is how long it took to get
/// here, in microseconds.
pub fn session(config: &Config, capacity: TableSizes, boot_us: u64) -> SessionConfig {
    let shims = u8::try_from(config.shims.len()).unwrap_or(u8::MAX);
    SessionConfig {
        nve: config.nve_id,
        // A version that is too long for the message is left out of it.
        version: env!("CARGO_PKG_VERSION").try_into().unwrap_or_default(),
        private_key: config.private_key.clone(),
        shim_public_key: config.shim_public_key,
        capacity,
        boot_us,
        shim_count: NonZeroU8::new(shims).unwrap_or(NonZeroU8::MIN),
    }
}

/// The datapath's configuration with `heap` bytes of memory.
pub fn datapath(
    addresses: &Addresses,
    trunk_mtu: u16,
    trunk_checksum: bool,
    heap: u64,
) -> DatapathConfig {
    let beyond = heap.saturating_sub(PROMISED_AT) / BEYOND;
    let connections = scaled(CONNECTIONS, heap)
        .saturating_add(entries(beyond, connections::BYTES_PER_CONNECTION));
    DatapathConfig {
        uplink: Uplink {
            mac: addresses.mac,
            address: addresses.address,
            prefix: addresses.prefix,
            gateway: addresses.gateway,
            mtu: addresses.mtu,
        },
        trunk_mtu,
        trunk_checksum,
        flows: scaled(FLOWS, heap).saturating_add(entries(beyond, nve_datapath::BYTES_PER_FLOW)),
        seed: addresses.seed,
        connections: connections::Config {
            connections,
            connections_per_vap: connections / 4,
            fragments: 1024,
            // Another secret than the flow cache's.
            seed: !addresses.seed.rotate_left(32),
            timeouts: connections::Timeouts::default(),
        },
    }
}

/// Of what the product promises at 64 MiB, the part that `heap` bytes allow.
fn scaled(records: u64, heap: u64) -> u32 {
    (records * heap.min(PROMISED_AT) / PROMISED_AT) as u32
}

/// Entries of `size` bytes that fit.
fn entries(bytes: u64, size: usize) -> u32 {
    u32::try_from(bytes / size as u64).unwrap_or(u32::MAX)
}

/// What the tables may hold with `heap` bytes of memory.
pub fn capacity(heap: u64) -> TableSizes {
    let scaled = |records| scaled(records, heap);
    TableSizes {
        vaps: 4094,
        fdb: scaled(100_000),
        neighbors: scaled(100_000),
        flood: scaled(65_536),
        peers: scaled(65_536),
        networks: scaled(16_384),
        subnets: scaled(16_384),
        dns: scaled(16_384),
        host_routes: scaled(16_384),
        gateways: scaled(16_384),
        routes: scaled(65_536),
        addresses: scaled(65_536),
        dhcp_options: scaled(16_384),
        groups: scaled(16_384),
        rules: scaled(65_536),
        members: scaled(131_072),
        bindings: scaled(65_536),
        qos: 4094,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(heap: u64) -> DatapathConfig {
        let addresses = Addresses {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            address: [192, 0, 2, 1].into(),
            prefix: 24,
            gateway: None,
            mtu: 1600,
            seed: 1,
        };
        datapath(&addresses, TRUNK_MTU, false, heap)
    }

    #[test]
    fn memory_beyond_the_promises_is_for_flows_and_connections() {
        let small = sized(PROMISED_AT);
        assert_eq!(
            (small.flows, small.connections.connections),
            (65_536, 65_536)
        );
        let half = sized(PROMISED_AT / 2);
        assert_eq!((half.flows, half.connections.connections), (32_768, 32_768));
        let large = sized(PROMISED_AT + (1 << 30));
        let taken = |flows: u32, connections: u32| {
            u64::from(flows) * nve_datapath::BYTES_PER_FLOW as u64
                + u64::from(connections) * connections::BYTES_PER_CONNECTION as u64
        };
        let more = taken(
            large.flows - small.flows,
            large.connections.connections - small.connections.connections,
        );
        assert!(more <= 1 << 29, "{more}");
        assert!(large.flows > 1 << 20, "{}", large.flows);
    }

    #[test]
    fn a_processor_needs_a_pair_of_queues_of_both_nics_and_memory() {
        let plenty = 1 << 40;
        assert_eq!(processors(4, [8, 8], plenty), 4);
        assert_eq!(processors(4, [2, 8], plenty), 2);
        assert_eq!(processors(4, [8, 3], plenty), 3);
        assert_eq!(processors(4, [8, 8], 2 * PROMISED_AT + 5), 2);
        assert_eq!(processors(100, [100, 100], plenty), MAX_PROCESSORS);
        assert_eq!(processors(1, [0, 0], 0), 1);
    }

    #[test]
    fn buffers_are_within_a_tenth_of_the_heap_or_the_least() {
        let most = Buffers::within(1 << 40, 1600);
        assert_eq!(most.count, 2048);
        let least = Buffers::within(1 << 20, 9000);
        assert_eq!((least.count, least.room), (768, 9022));
        let some = Buffers::within(24 << 20, 1600);
        assert!(
            some.bytes() <= (24 << 20) / 10 && some.count > 768,
            "{some:?}"
        );
    }
}
