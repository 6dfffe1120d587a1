//! Carries TCP connections from the machine of the user into the lab.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::Result;

use crate::netns::Netns;

/// Listens on the loopback of `host` and carries each connection to `target` in
/// `lab`, until the process ends. The port is `target`'s, or another one when that
/// is taken. Returns where it listens.
pub fn start(host: &Netns, lab: &Netns, target: SocketAddr) -> Result<SocketAddr> {
    let listener = host.run(|| {
        let any = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        Ok(any(target.port()).or_else(|_| any(0))?)
    })?;
    let address = listener.local_addr()?;
    let lab = lab.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let lab = lab.clone();
            thread::spawn(move || {
                // A connection that breaks is its two ends' concern.
                let _ = carry(client, &lab, target);
            });
        }
    });
    Ok(address)
}

fn carry(client: TcpStream, lab: &Netns, target: SocketAddr) -> Result<()> {
    let server = lab.run(|| Ok(TcpStream::connect(target)?))?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let request = thread::spawn(move || copy(from_client, to_server));
    copy(server, client);
    // It ends when the client does.
    let _ = request.join();
    Ok(())
}

/// Copies until the end of `from`, and passes the end on.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
