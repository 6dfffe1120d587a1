//! Captures on a cable, decoded by tshark(1), which the product has no part in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::netns::Netns;
use crate::process::{self, Daemon};
use crate::wait;

/// How long nothing new may come until all frames are taken to be in the file.
const SETTLE: Duration = Duration::from_millis(300);

/// How long that may take, where something always comes.
const PATIENCE: Duration = Duration::from_secs(3);

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Daemon,
    file: PathBuf,
}

/// A capture that is complete.
#[derive(Debug)]
pub struct Frames(PathBuf);

impl Capture {
    /// Captures every frame on `device`, in both directions, to `dir`.
    pub fn start(netns: &Netns, device: &str, dir: &Path) -> Result<Capture> {
        let file = dir.join(format!("{device}.pcap"));
        let log = dir.join(format!("{device}.tcpdump.log"));
        let mut tcpdump = Command::new("tcpdump");
        tcpdump
            .args(["-i", device, "-n", "-s", "0", "-U", "--immediate-mode"])
            .args(["-Z", "root", "-w"])
            .arg(&file);
        let mut tcpdump = Daemon::spawn("tcpdump", netns, &mut tcpdump, &log)?;
        wait::until_true("tcpdump", Duration::from_secs(10), || {
            tcpdump.check()?;
            Ok(process::tail(&log, 5).contains("listening on"))
        })?;
        Ok(Capture { tcpdump, file })
    }

    /// Ends the capture once nothing more comes.
    pub fn stop(mut self) -> Result<Frames> {
        let start = Instant::now();
        let mut size = None;
        while start.elapsed() < PATIENCE {
            let now = Some(fs::metadata(&self.file)?.len());
            if std::mem::replace(&mut size, now) == now {
                break;
            }
            thread::sleep(SETTLE);
        }
        self.tcpdump.kill()?;
        Ok(Frames(self.file))
    }
}

impl Frames {
    /// A capture that somebody else made.
    pub fn read(file: &Path) -> Frames {
        Frames(file.to_owned())
    }

    /// The given fields of each frame that matches `filter`, both in Wireshark's
    /// words. A field that occurs more than once, as in the outer and the inner
    /// header, is separated by commas, outer first. Checksums are verified.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        let mut tshark = Command::new("tshark");
        tshark
            .args(["-n", "-T", "fields", "-Y", filter])
            .arg("-r")
            .arg(&self.0);
        for protocol in ["ip", "udp", "tcp"] {
            tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
        }
        for field in fields {
            tshark.args(["-e", field]);
        }
        let printed = process::output(&mut tshark)?;
        Ok(printed.lines().map(split).collect())
    }

    /// How many frames match `filter`.
    pub fn count(&self, filter: &str) -> Result<usize> {
        Ok(self.fields(filter, &["frame.number"])?.len())
    }
}

fn split(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}
