//! A shim of a few lines: TCP by smoltcp, Noise, and it keeps what it hears. For
//! tests of the node in memory and of the image in QEMU.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use nve_protocol::{
    API_VERSION, Begin, Commit, Mac, NOISE_PATTERN, NOISE_PROLOGUE, Record, Stats, ToNve, ToShim,
    Welcome, codec, frame,
};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

/// The shim's end of the wire.
#[derive(Default)]
pub struct Wire {
    /// Frames that came in.
    pub incoming: VecDeque<Vec<u8>>,
    /// Frames to be sent.
    pub outgoing: VecDeque<Vec<u8>>,
}

pub struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub struct Outgoing<'w>(&'w mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'t> = Incoming;
    type TxToken<'t> = Outgoing<'t>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// Answers the handshake, welcomes, and keeps what it hears.
pub struct Shim {
    /// Where its frames are.
    pub wire: Wire,
    key: [u8; 32],
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    handshake: Option<snow::HandshakeState>,
    noise: Option<snow::TransportState>,
    stream: Vec<u8>,
    outbox: VecDeque<u8>,
    /// Every message of the appliance so far.
    pub heard: Vec<ToShim>,
}

fn responder(key: &[u8; 32]) -> snow::HandshakeState {
    snow::Builder::new(NOISE_PATTERN.parse().unwrap())
        .local_private_key(key)
        .unwrap()
        .prologue(NOISE_PROLOGUE)
        .unwrap()
        .build_responder()
        .unwrap()
}

impl Shim {
    /// A shim with this static key at these addresses, port 6653.
    pub fn new(key: [u8; 32], mac: Mac, address: Ipv4Addr) -> Shim {
        let mut wire = Wire::default();
        let config = Config::new(EthernetAddress(mac.0).into());
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|list| list.push(IpCidr::new(address.into(), 24)).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = || SocketBuffer::new(vec![0; 65_536]);
        let socket = sockets.add(Socket::new(buffer(), buffer()));
        Shim {
            wire,
            key,
            interface,
            sockets,
            socket,
            handshake: None,
            noise: None,
            stream: Vec::new(),
            outbox: VecDeque::new(),
            heard: Vec::new(),
        }
    }

    /// Its only socket.
    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// Handles what has come in at `now`.
    pub fn poll(&mut self, now: Duration) {
        let time = Instant::from_micros(now.as_micros() as i64);
        self.interface.poll(time, &mut self.wire, &mut self.sockets);
        if !self.socket().is_open() {
            self.socket().listen(6653).unwrap();
            self.stream.clear();
            self.outbox.clear();
            self.handshake = Some(responder(&self.key));
            self.noise = None;
        }
        while self.socket().can_recv() {
            let bytes = self.socket().recv(|bytes| (bytes.len(), bytes.to_vec()));
            self.stream.extend(bytes.unwrap());
        }
        while let Some((message, length)) = frame::split(&self.stream).unwrap() {
            let message = message.to_vec();
            self.stream.drain(..length);
            self.take(&message);
        }
        self.flush();
        self.interface.poll(time, &mut self.wire, &mut self.sockets);
    }

    fn take(&mut self, message: &[u8]) {
        let mut room = vec![0; frame::MAX_NOISE];
        if let Some(mut handshake) = self.handshake.take() {
            handshake.read_message(message, &mut room).unwrap();
            let length = handshake.write_message(&[], &mut room).unwrap();
            self.noise = Some(handshake.into_transport_mode().unwrap());
            self.write(&room[..length]);
            return;
        }
        let noise = self.noise.as_mut().unwrap();
        let length = noise.read_message(message, &mut room).unwrap();
        let mut rest = &room[..length];
        while let Some((message, more)) = codec::decode::<ToShim>(rest).unwrap() {
            rest = more;
            if matches!(message, ToShim::Hello(_)) {
                self.send(&[ToNve::Welcome(Welcome {
                    api_version: API_VERSION,
                    stats_interval_ms: 500,
                    dead_after_ms: 15_000,
                })]);
            }
            self.heard.push(message);
        }
    }

    /// Sends these messages, in as many frames as they take.
    pub fn send(&mut self, messages: &[ToNve]) {
        let mut plain = Vec::new();
        for message in messages {
            let mut room = [0; codec::MAX_MESSAGE];
            let length = codec::encode(message, &mut room).unwrap();
            if plain.len() + length > frame::MAX_PLAINTEXT {
                self.seal(&plain);
                plain.clear();
            }
            plain.extend_from_slice(&room[..length]);
        }
        self.seal(&plain);
    }

    fn seal(&mut self, plain: &[u8]) {
        let mut room = vec![0; frame::MAX_NOISE];
        let noise = self.noise.as_mut().unwrap();
        let length = noise.write_message(plain, &mut room).unwrap();
        self.write(&room[..length]);
    }

    fn write(&mut self, message: &[u8]) {
        self.outbox.extend(frame::header(message.len()).unwrap());
        self.outbox.extend(message);
    }

    /// Gives TCP what it has room for.
    fn flush(&mut self) {
        while self.socket().can_send() && !self.outbox.is_empty() {
            let (front, _) = self.outbox.as_slices();
            let front = front.to_vec();
            let sent = self.socket().send_slice(&front).unwrap();
            self.outbox.drain(..sent);
        }
    }

    /// Sends a full state.
    pub fn send_state(&mut self, generation: u64, records: &[Record]) {
        let begin = Begin {
            generation,
            full: true,
        };
        let commit = Commit {
            generation,
            digest: records.iter().collect(),
        };
        let mut messages = vec![ToNve::Begin(begin)];
        messages.extend(records.iter().map(|record| ToNve::Put(*record)));
        messages.push(ToNve::Commit(commit));
        self.send(&messages);
    }

    /// How many sessions there were.
    pub fn sessions(&self) -> usize {
        let hello = |message: &&ToShim| matches!(message, ToShim::Hello(_));
        self.heard.iter().filter(hello).count()
    }

    /// Generation that was applied last.
    pub fn applied(&self) -> Option<u64> {
        self.heard.iter().rev().find_map(|message| match message {
            ToShim::Applied(applied) => Some(applied.generation),
            _ => None,
        })
    }

    /// The last report of its counters.
    pub fn stats(&self) -> Option<&Stats> {
        self.heard.iter().rev().find_map(|message| match message {
            ToShim::Stats(stats) => Some(stats),
            _ => None,
        })
    }
}
