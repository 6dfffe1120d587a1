//! An appliance of a few lines that does as a test tells it.

use nve_protocol::frame::{self, HEADER, TAG};
use nve_protocol::{
    API_VERSION, Hello, NOISE_PATTERN, NOISE_PROLOGUE, NveId, TableDigest, TableSizes, ToNve,
    ToShim, codec,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// A connection after the handshake.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    noise: snow::TransportState,
}

/// Starts a handshake; returns its first frame with it.
pub(super) fn first_frame(keys: &KeyPair, shim: &[u8; 32]) -> (snow::HandshakeState, Vec<u8>) {
    let mut noise = snow::Builder::new(NOISE_PATTERN.parse().unwrap())
        .local_private_key(keys.private())
        .unwrap()
        .remote_public_key(shim)
        .unwrap()
        .prologue(NOISE_PROLOGUE)
        .unwrap()
        .build_initiator()
        .unwrap();
    let mut room = [0; 200];
    let length = noise.write_message(&[], &mut room).unwrap();
    let mut bytes = frame::header(length).unwrap().to_vec();
    bytes.extend_from_slice(&room[..length]);
    (noise, bytes)
}

impl Peer {
    pub(super) async fn connect(shim: &Shim, keys: &KeyPair) -> Self {
        let mut stream = TcpStream::connect(shim.address).await.unwrap();
        let (mut noise, bytes) = first_frame(keys, shim.keys.public());
        stream.write_all(&bytes).await.unwrap();
        let answer = read_frame(&mut stream).await.unwrap();
        assert_eq!(noise.read_message(&answer, &mut [0; 100]).unwrap(), 0);
        let noise = noise.into_transport_mode().unwrap();
        Peer { stream, noise }
    }

    /// Connects and says hello as the NVE of `config`.
    pub(super) async fn greet(shim: &Shim, config: &NativeConfig, digest: TableDigest) -> Self {
        let mut peer = Self::connect(shim, &config.keys).await;
        let mut hello = hello(config);
        hello.digest = digest;
        peer.send(&ToShim::Hello(hello)).await;
        peer
    }

    pub(super) async fn send(&mut self, message: &ToShim) {
        let mut room = [0; codec::MAX_MESSAGE];
        let length = codec::encode(message, &mut room).unwrap();
        self.send_bytes(&room[..length]).await;
    }

    pub(super) async fn send_bytes(&mut self, plain: &[u8]) {
        let mut room = vec![0; plain.len() + TAG];
        let length = self.noise.write_message(plain, &mut room).unwrap();
        let header = frame::header(length).unwrap();
        self.stream.write_all(&header).await.unwrap();
        self.stream.write_all(&room).await.unwrap();
    }

    /// The messages of the next frame; `None` if the shim has closed.
    pub(super) async fn receive(&mut self) -> Option<Vec<ToNve>> {
        let sealed = read_frame(&mut self.stream).await?;
        let mut plain = vec![0; sealed.len()];
        let length = self.noise.read_message(&sealed, &mut plain).unwrap();
        let mut rest = &plain[..length];
        let mut messages = Vec::new();
        while let Some((message, more)) = codec::decode(rest).unwrap() {
            messages.push(message);
            rest = more;
        }
        Some(messages)
    }

    /// Receives up to the next commit.
    pub(super) async fn transaction(&mut self) -> Vec<ToNve> {
        let mut messages = Vec::new();
        while !matches!(messages.last(), Some(ToNve::Commit(_))) {
            let received = self.receive().await.unwrap();
            let wanted = received
                .into_iter()
                .filter(|message| !matches!(message, ToNve::Welcome(_) | ToNve::Ping(_)));
            messages.extend(wanted);
        }
        messages
    }
}

pub(super) fn hello(config: &NativeConfig) -> Hello {
    Hello {
        api_version: API_VERSION,
        nve: NveId(config.nve.into_bytes()),
        version: "test".try_into().unwrap(),
        generation: 1,
        digest: TableDigest::default(),
        boot_us: 0,
        capacity: TableSizes::default(),
    }
}

/// The next frame; `None` if the connection ends before.
pub(super) async fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(header))];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

/// Whether the shim closes the connection before it says anything.
pub(super) async fn closed_in_silence(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(LIMIT, stream.read(&mut [0; 1])).await;
    matches!(read.unwrap(), Ok(0) | Err(_))
}
