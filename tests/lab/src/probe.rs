//! Single attempts by one protocol, to see what security groups let through.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// How long an answer may take.
const ATTEMPT: Duration = Duration::from_millis(300);

/// Connections that nobody has taken yet, at most.
const BACKLOG: i32 = 16;

/// First bytes of a packet that is none of TCP, UDP and ICMP: read as SCTP (RFC 9260,
/// section 3), it goes from port 12345 to port 12345 and holds an INIT chunk.
const RAW: [u8; 32] = [
    0x30, 0x39, 0x30, 0x39, 0, 0, 0, 0, 0x53, 0x4c, 0x55, 0x49, 1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0,
    0, 0, 1, 0, 1, 0, 0, 0, 1,
];

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Echo request and reply of ICMP or ICMPv6, by ping(8).
    Ping,
    /// A TCP connection to a port.
    Tcp(u16),
    /// A datagram to a UDP port, and back.
    Udp(u16),
    /// One packet of another IP protocol.
    Raw(u8),
}

impl Probe {
    /// Whether it gets from `source` to `to` in `target`, and the answer back.
    pub fn passes(self, source: &Netns, target: &Netns, to: IpAddr) -> Result<bool> {
        match self {
            Probe::Ping => echo(source, to),
            Probe::Tcp(port) => connect(source, target, (to, port).into()),
            Probe::Udp(port) => exchange(source, target, (to, port).into()),
            Probe::Raw(protocol) => raw(source, target, to, protocol),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Ping => f.write_str("ping"),
            Probe::Tcp(port) => write!(f, "TCP {port}"),
            Probe::Udp(port) => write!(f, "UDP {port}"),
            Probe::Raw(47) => f.write_str("GRE"),
            Probe::Raw(50) => f.write_str("ESP"),
            Probe::Raw(132) => f.write_str("SCTP"),
            Probe::Raw(protocol) => write!(f, "IP protocol {protocol}"),
        }
    }
}

fn echo(source: &Netns, to: IpAddr) -> Result<bool> {
    source.run(|| {
        let status = Command::new("ping")
            .args(["-n", "-q", "-c", "1", "-W"])
            .arg(ATTEMPT.as_secs_f32().to_string())
            .arg(to.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot run ping")?;
        Ok(status.success())
    })
}

fn connect(source: &Netns, target: &Netns, to: SocketAddr) -> Result<bool> {
    let listener = target.run(|| bound(to, Type::STREAM))?;
    listener.listen(BACKLOG)?;
    source.run(|| Ok(TcpStream::connect_timeout(&to, ATTEMPT).is_ok()))
}

/// A socket at that address, beside those of other attempts.
fn bound(at: SocketAddr, kind: Type) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

fn exchange(source: &Netns, target: &Netns, to: SocketAddr) -> Result<bool> {
    let server = UdpSocket::from(target.run(|| bound(to, Type::DGRAM))?);
    let any: IpAddr = match to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let client = source.run(|| Ok(UdpSocket::bind((any, 0))?))?;
    server.set_read_timeout(Some(ATTEMPT))?;
    client.set_read_timeout(Some(ATTEMPT))?;
    client.connect(to)?;
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let mut bytes = [0; 64];
            if let Ok((length, from)) = server.recv_from(&mut bytes) {
                // Lost answers are the client's to notice.
                let _ = server.send_to(bytes.get(..length).unwrap_or_default(), from);
            }
        });
        client.send(&RAW)?;
        let mut bytes = [0; 64];
        let answered = client
            .recv(&mut bytes)
            .is_ok_and(|length| length == RAW.len());
        // It only waits for what is lost anyway.
        let _ = answering.join();
        Ok(answered)
    })
}

/// The receiver of such packets is a raw socket (raw(7)).
fn raw(source: &Netns, target: &Netns, to: IpAddr, protocol: u8) -> Result<bool> {
    let to = SocketAddr::from((to, 0));
    let open = || {
        let kind = Protocol::from(i32::from(protocol));
        Ok(Socket::new(Domain::for_address(to), Type::RAW, Some(kind))?)
    };
    let mut receiver = target.run(open)?;
    receiver.bind(&to.into())?;
    receiver.set_read_timeout(Some(ATTEMPT))?;
    source.run(open)?.send_to(&RAW, &to.into())?;
    let deadline = Instant::now() + ATTEMPT;
    let mut bytes = [0; 128];
    while Instant::now() < deadline {
        match receiver.read(&mut bytes) {
            // Of IPv4 the header comes along.
            Ok(length) if bytes.get(..length).unwrap_or_default().ends_with(&RAW) => {
                return Ok(true);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
