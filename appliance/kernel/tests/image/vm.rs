//! A running image and its console.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What a boot may take under TCG on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration that is right.
pub const GOOD: &str = include_str!("../../../../image/example.json");

/// A running image whose console is being read.
pub struct Vm {
    qemu: Child,
    lines: Receiver<String>,
    /// What it wrote so far, line by line.
    pub seen: Vec<String>,
    config: PathBuf,
}

impl Vm {
    /// Boots `image` with a configuration and further arguments for QEMU.
    pub fn boot(image: &Path, config: &str, arguments: &[&str]) -> Vm {
        let path = env::temp_dir().join(format!(
            "nve-boot-{}-{:?}.json",
            std::process::id(),
            thread::current().id()
        ));
        fs::write(&path, config).expect("the temporary directory can be written");
        let mut qemu = Command::new("qemu-system-x86_64")
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args(["-accel", "tcg", "-serial", "stdio"])
            // With one at most, QEMU 7.2 translates no memory barriers.
            .args(["-smp", "1,maxcpus=2"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
            .arg("-kernel")
            .arg(image)
            .arg("-initrd")
            .arg(&path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("qemu-system-x86_64 has to be installed");
        let (sender, lines) = channel();
        follow(qemu.stdout.take().expect("piped"), "", sender.clone());
        follow(qemu.stderr.take().expect("piped"), "qemu: ", sender);
        Vm {
            qemu,
            lines,
            seen: Vec::new(),
            config: path,
        }
    }

    /// The next line of the console; `None` when it has ended.
    fn next_line(&mut self, end: Instant) -> Option<&str> {
        let left = end.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => self.seen.push(line),
            Err(RecvTimeoutError::Timeout) => panic!("not in time: {:#?}", self.seen),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        self.seen.last().map(String::as_str)
    }

    /// Reads the console up to a line that contains `text`.
    pub fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while let Some(line) = self.next_line(end) {
            if line.contains(text) {
                return;
            }
        }
        let status = self.qemu.wait();
        panic!("ended ({status:?}) without {text:?}: {:#?}", self.seen);
    }

    /// Reads the console to its end; returns the exit status.
    pub fn finish(&mut self) -> i32 {
        let end = Instant::now() + PATIENCE;
        while self.next_line(end).is_some() {}
        let status = self.qemu.wait().expect("a child can be waited for");
        status.code().expect("it was not killed")
    }

    /// Time that it has taken of the host's processors.
    pub fn processor_time(&self) -> Duration {
        /// `sysconf(_SC_CLK_TCK)`, which is the same on every Linux.
        const PER_SECOND: u64 = 100;

        let path = format!("/proc/{}/stat", self.qemu.id());
        let stat = fs::read_to_string(path).expect("it runs");
        // proc_pid_stat(5): utime and stime are fields 14 and 15, the name is the second.
        let (_, behind) = stat.rsplit_once(')').expect("the name is in parentheses");
        let fields = behind.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / PER_SECOND)
    }

    /// Lines of the console at a level, without time and level.
    pub fn at_level(&self, level: &str) -> Vec<&str> {
        self.seen
            .iter()
            .filter_map(|line| line.split_once("] ")?.1.strip_prefix(level))
            .map(str::trim)
            .collect()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Both fail only if there is nothing left to clean up.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        let _ = fs::remove_file(&self.config);
    }
}

/// Sends each line of `output`, behind `prefix`, until it ends.
fn follow(output: impl Read + Send + 'static, prefix: &'static str, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(format!("{prefix}{line}")).is_err() {
                break;
            }
        }
    });
}

/// Path of an image that was built.
pub fn image(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/image")
        .join(name);
    let path = match env::var_os("SLUICE_IMAGE") {
        Some(path) if name == "nve.elf" => PathBuf::from(path),
        _ => built,
    };
    assert!(
        path.exists(),
        "{} is missing: see image/README.md",
        path.display()
    );
    path
}
