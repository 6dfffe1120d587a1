//! The appliance as a host on the uplink: ARP or neighbor discovery, ICMP echo and
//! TCP, by smoltcp.

use core::net::{IpAddr, SocketAddr};

use alloc::vec;
use alloc::vec::Vec;
use nve_datapath::wire::nd;
use nve_datapath::{Nanos, Side};
use nve_nic::{Nic, Packet};
use nve_protocol::Mac;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{ConnectError, Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use super::Forwarder;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Bytes of the control connection that may wait to be read: several frames.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Bytes of the control connection that may wait to be acknowledged.
const SEND_BUFFER: usize = 32 * 1024;

/// How long the control connection's data may stay unacknowledged.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at the stack that nothing asks for, in nanoseconds.
const IDLE: u64 = 10_000_000_000;

/// The uplink's addresses.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// MAC address of the NIC.
    pub mac: Mac,
    /// Address of the VTEP.
    pub address: IpAddr,
    /// Length of its prefix in bits.
    pub prefix: u8,
    /// Next hop to other subnets, of the same family.
    pub gateway: Option<IpAddr>,
    /// Longest IP packet in bytes.
    pub mtu: u16,
    /// Random number for what must not be guessed.
    pub seed: u64,
}

/// The host stack, with one TCP socket for the control session.
pub struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    control: SocketHandle,
    mtu: usize,
}

impl core::fmt::Debug for Host {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Host")
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// A host with `addresses`, whose frames come from and go to `forwarder`.
    pub fn new<N: Nic>(addresses: &Addresses, forwarder: &mut Forwarder<N>, now: Nanos) -> Host {
        let mtu = usize::from(addresses.mtu);
        let mut config = Config::new(EthernetAddress(addresses.mac.0).into());
        config.random_seed = addresses.seed;
        let mut link = Link { forwarder, mtu };
        let mut interface = Interface::new(config, &mut link, instant(now));
        interface.update_ip_addrs(|list| {
            // The list is empty and has two places.
            let _ = list.push(IpCidr::new(addresses.address.into(), addresses.prefix));
            if addresses.address.is_ipv6() {
                // Routers ask from their link-local addresses, and are answered there.
                let link_local = nd::link_local(addresses.mac);
                let _ = list.push(IpCidr::new(IpAddress::Ipv6(link_local), 64));
            }
        });
        // The table is empty and has a place.
        let _ = match addresses.gateway {
            Some(IpAddr::V4(gateway)) => interface.routes_mut().add_default_ipv4_route(gateway),
            Some(IpAddr::V6(gateway)) => interface.routes_mut().add_default_ipv6_route(gateway),
            None => Ok(None),
        };
        let mut sockets = SocketSet::new(Vec::new());
        let control = sockets.add(control_socket());
        Host {
            interface,
            sockets,
            control,
            mtu,
        }
    }

    /// The control session's socket.
    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.control)
    }

    /// Opens the control session's connection from `port`.
    pub fn connect(&mut self, to: SocketAddr, port: u16) -> Result<(), ConnectError> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.control);
        socket.connect(self.interface.context(), (to.ip(), to.port()), port)
    }

    /// Handles frames that came in and sends what is due. Returns when to be
    /// called again if no frame comes.
    pub fn poll<N: Nic>(&mut self, now: Nanos, forwarder: &mut Forwarder<N>) -> Nanos {
        let mut link = Link {
            forwarder,
            mtu: self.mtu,
        };
        let time = instant(now);
        self.interface.poll(time, &mut link, &mut self.sockets);
        let delay = self.interface.poll_delay(time, &self.sockets);
        let delay = delay.map_or(IDLE, |delay| delay.total_micros().saturating_mul(1000));
        Nanos(now.0.saturating_add(delay.min(IDLE)))
    }
}

fn control_socket() -> Socket<'static> {
    let receive = SocketBuffer::new(vec![0; RECEIVE_BUFFER]);
    let send = SocketBuffer::new(vec![0; SEND_BUFFER]);
    let mut socket = Socket::new(receive, send);
    socket.set_timeout(Some(TIMEOUT));
    // Answers are small and awaited: they go out at once.
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

fn instant(now: Nanos) -> Instant {
    Instant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}

/// The uplink as smoltcp sees it.
struct Link<'f, N> {
    forwarder: &'f mut Forwarder<N>,
    mtu: usize,
}

impl<N: Nic> Device for Link<'_, N> {
    type RxToken<'t>
        = Received
    where
        Self: 't;
    type TxToken<'t>
        = Sending<'t, N>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(Received, Sending<'_, N>)> {
        // A frame stays queued until there is a buffer for its answer.
        let answer = self.forwarder.ports().take()?;
        let packet = self.forwarder.take_host_frame()?;
        let forwarder = &mut *self.forwarder;
        Some((
            Received(packet),
            Sending {
                forwarder,
                packet: answer,
            },
        ))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sending<'_, N>> {
        let packet = self.forwarder.ports().take()?;
        let forwarder = &mut *self.forwarder;
        Some(Sending { forwarder, packet })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET;
        capabilities
    }
}

/// A frame that came in.
struct Received(Packet);

impl smoltcp::phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0.bytes())
    }
}

/// A buffer for a frame that goes out.
struct Sending<'f, N> {
    forwarder: &'f mut Forwarder<N>,
    packet: Packet,
}

impl<N: Nic> smoltcp::phy::TxToken for Sending<'_, N> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, length: usize, f: F) -> R {
        let start = self.packet.start();
        self.packet
            .set_range(start, length)
            .expect("buffers are made for the MTU");
        let result = f(self.packet.bytes_mut());
        // TCP sends again what a full queue refuses.
        let _ = self
            .forwarder
            .ports_mut()
            .nic(Side::Uplink)
            .send(self.packet);
        result
    }
}
