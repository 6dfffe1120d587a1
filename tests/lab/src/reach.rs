//! Who reaches whom: ping and a TCP transfer between namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;

/// Bytes of a TCP transfer: enough for segments of full size and a full window.
const TRANSFER: usize = 256 * 1024;

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether `target` answers one of up to `count` pings from `source`.
pub fn ping(source: &Netns, target: impl Into<IpAddr>, count: u32) -> Result<bool> {
    let target = target.into().to_string();
    source.run(|| {
        for _ in 0..count {
            let status = Command::new("ping")
                .args(["-n", "-q", "-c", "1", "-W", "1", &target])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .context("cannot run ping")?;
            if status.success() {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Sends [`TRANSFER`] bytes from `source` to a listener at `address` in `target`;
/// whether all arrived as sent.
pub fn transfer(source: &Netns, target: &Netns, address: impl Into<IpAddr>) -> Result<bool> {
    let address = address.into();
    let listener = target.run(|| Ok(TcpListener::bind((address, 0))?))?;
    let at = listener.local_addr()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&listener));
        let sent = source.run(|| Ok(send(at)));
        // Ends the receiver's wait when nothing came; refused when it has ended.
        let _ = target.run(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?));
        let received = receiver.join().unwrap_or_default();
        Ok(sent?.is_ok() && received == pattern())
    })
}

fn send(at: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&pattern())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    ensure!(rest.is_empty(), "the receiver sent something");
    Ok(())
}

/// What the first connection brings.
fn receive(listener: &TcpListener) -> Vec<u8> {
    let mut received = Vec::new();
    if let Ok((mut stream, _)) = listener.accept() {
        // On a time-out the transfer is what came until then.
        let _ = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.read_to_end(&mut received));
    }
    received
}

/// Bytes that show a loss or a repetition of a segment.
fn pattern() -> Vec<u8> {
    (0..TRANSFER / 4)
        .flat_map(|word| u32::try_from(word).unwrap_or_default().to_be_bytes())
        .collect()
}
