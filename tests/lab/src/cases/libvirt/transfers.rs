//! TCP connections that a guest opens to a server and that go on for ever: by one it
//! sends what its own ping prints, by the other it only receives.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use socket2::SockRef;

use super::pings::{Replies, Reply, after};
use super::timeline::now;
use crate::netns::Netns;

/// TCP port to which the guest sends.
const UPLOAD: u16 = 7001;
/// TCP port from which it receives.
const DOWNLOAD: u16 = 7002;

/// What the guest runs. The first connection's content shows whether all of it came.
const TASK: &str = "until ping -c 1 -W 1 SERVER; do sleep 1; done >/dev/null 2>&1
(sleep 1000000 | nc SERVER 7002 >/dev/null; echo \"the download ended\" >/dev/ttyS0) &
(ping -i 0.01 SERVER | nc SERVER 7001; echo \"the upload ended\" >/dev/ttyS0) &
";

/// Bytes and pause of the download: slow enough to leave the guest time for the rest.
const BLOCK: [u8; 1024] = [0x5a; 1024];
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes that wait at the server at most: what is beyond them the guest acknowledged.
const WAITING: usize = 4096;

/// What has come of the connections. The threads end with them, or with the process.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// Connections that were opened, and that ended.
    opened: AtomicU64,
    ended: AtomicU64,
    uploaded: Mutex<Replies>,
    downloaded: AtomicU64,
}

/// How far the connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Lines that came from the guest.
    pub(super) uploaded: u64,
    /// Bytes that went to it.
    pub(super) downloaded: u64,
}

impl Transfers {
    /// The guest's task, for a server there.
    pub(super) fn task(server: Ipv4Addr) -> String {
        TASK.replace("SERVER", &server.to_string())
    }

    /// Serves the guest in `netns`.
    pub(super) fn serve(netns: &Netns) -> Result<Arc<Transfers>> {
        let transfers = Arc::new(Transfers::default());
        for (port, serve) in [
            (UPLOAD, Transfers::receive as fn(&Transfers, &TcpStream)),
            (DOWNLOAD, Transfers::send),
        ] {
            let listener = netns.run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?))?;
            let transfers = Arc::clone(&transfers);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    transfers.opened.fetch_add(1, Ordering::Relaxed);
                    serve(&transfers, &stream);
                    transfers.ended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(transfers)
    }

    fn receive(&self, stream: &TcpStream) {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let Some(number) = after(&line, "seq=") else {
                continue;
            };
            let at = now();
            self.uploaded().0.push(Reply { at, number });
        }
    }

    fn send(&self, mut stream: &TcpStream) {
        // Without it progress is seen late, and is there all the same.
        let _ = SockRef::from(stream).set_send_buffer_size(WAITING);
        while stream.write_all(&BLOCK).is_ok() {
            self.downloaded
                .fetch_add(BLOCK.len() as u64, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    }

    fn uploaded(&self) -> std::sync::MutexGuard<'_, Replies> {
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the guest's own ping printed.
    pub(super) fn replies(&self) -> Replies {
        self.uploaded().clone()
    }

    /// How far they are.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            uploaded: self.uploaded().0.len() as u64,
            downloaded: self.downloaded.load(Ordering::Relaxed),
        }
    }

    /// Whether both are open, and are the ones that were opened first.
    pub(super) fn are_the_same(&self) -> bool {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.opened), count(&self.ended)) == (2, 0)
    }
}
