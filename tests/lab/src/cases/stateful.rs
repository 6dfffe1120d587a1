//! Answers pass without a rule of their own; a rule that goes takes its connections
//! with it, and no others.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::Context;
use super::table_v::{addresses, passes, routed_site};
use crate::netns::Netns;
use crate::probe::Probe;
use crate::site::Site;
use crate::tenant::obeys;

/// How long a byte may be on its way where none should get there.
const ATTEMPT: Duration = Duration::from_millis(300);

/// How long it may be on its way, with a segment lost, where it should.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ports of the two connections.
const CUT: u16 = 80;
const KEPT: u16 = 81;

/// The VMs that connect: on the server's NVE, on the other, and from behind the router.
const CLIENTS: [&str; 3] = ["a1", "b1", "b2"];

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let site = routed_site(context)?;
    // Nothing may be sent to the clients but answers.
    let quiet = site.add_group("quiet")?;
    for client in CLIENTS {
        site.change_port(client, &json!({"security_groups": [quiet]}))?;
    }
    let served = site.add_group("served")?;
    site.change_port("a2", &json!({"security_groups": [served]}))?;
    let targets = addresses(site.guest("a2")?)?;
    for (ethertype, at) in ["IPv4", "IPv6"].into_iter().zip(targets) {
        let open = |port: u16| {
            let rule = json!({"ethertype": ethertype, "protocol": "tcp",
                "port_range_min": port, "port_range_max": port});
            site.allow(&served, &rule)
        };
        let kept = open(KEPT)?;
        for client in CLIENTS {
            let rule = open(CUT)?;
            cut(&site, client, at, &rule)?;
        }
        site.disallow(&kept)?;
    }
    Ok(())
}

/// Two connections of `client`; the rule that allows one of them goes.
fn cut(site: &Site, client: &str, at: IpAddr, rule: &str) -> Result<()> {
    let (source, target) = (&site.guest(client)?.vm.netns, &site.guest("a2")?.vm.netns);
    for port in [CUT, KEPT] {
        obeys(&format!("{client} may connect to {at} port {port}"), || {
            Probe::Tcp(port).passes(source, target, at)
        })?;
    }
    let (mut first, mut second) = (
        Connection::open(source, target, (at, CUT).into())?,
        Connection::open(source, target, (at, KEPT).into())?,
    );
    ensure!(
        first.echoes(PATIENCE)? && second.echoes(PATIENCE)?,
        "answers do not pass"
    );
    let back = passes(
        site,
        "a2",
        client,
        address_like(site, client, at)?,
        Probe::Tcp(22),
    )?;
    ensure!(!back, "more than answers passes to {client}");
    site.disallow(rule)?;
    let what = format!("the rule went, and with it the connection of {client} to {at}");
    obeys(&what, || Ok(!first.echoes(ATTEMPT)?))?;
    ensure!(second.echoes(PATIENCE)?, "another connection was cut too");
    Ok(())
}

/// The address of a VM that is of the same family as `like`.
fn address_like(site: &Site, name: &str, like: IpAddr) -> Result<IpAddr> {
    let [ip, ip6] = addresses(site.guest(name)?)?;
    Ok(if like.is_ipv6() { ip6 } else { ip })
}

/// An established TCP connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(source: &Netns, target: &Netns, to: SocketAddr) -> Result<Connection> {
        let listener = target.run(|| Ok(TcpListener::bind(to)?))?;
        let client = source.run(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
        }
        Ok(Connection { client, server })
    }

    /// Whether a byte gets there and back, in that time each way.
    fn echoes(&mut self, patience: Duration) -> Result<bool> {
        let Connection { client, server } = self;
        for end in [&*client, &*server] {
            end.set_read_timeout(Some(patience))?;
        }
        let mut byte = [0];
        let mut exchange = || {
            client.write_all(b"?")?;
            server.read_exact(&mut byte)?;
            server.write_all(&byte)?;
            client.read_exact(&mut byte)
        };
        let echoed: std::io::Result<()> = exchange();
        Ok(echoed.is_ok())
    }
}
