//! `nve-hosted`: the NVE appliance in a process, between two vhost-user sockets.

use std::fs;
use std::io::{BufReader, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use nix::poll::{PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use nve_datapath::Nanos;
use nve_hosted::churn::Churn;
use nve_hosted::clock::{Clock, ticks};
use nve_hosted::heap::LargePages;
use nve_hosted::memory::{Pages, Shared};
use nve_hosted::node::{Hosted, Source, shared_bytes};
use nve_hosted::report::Report;
use nve_hosted::vhost_user::VhostUser;
use nve_kernel::config::Config;
use nve_kernel::node::Looped;
use nve_protocol::{Record, Stats};

#[global_allocator]
static HEAP: LargePages = LargePages;

/// Between two looks at signals and sockets, in nanoseconds.
const HOUSEKEEPING: u64 = 100_000_000;

/// How long the loop polls without finding anything before it sleeps, in nanoseconds.
const SPIN: u64 = 50_000;

const SECOND: u64 = 1_000_000_000;

/// Runs the NVE appliance in this process, as front end of two vhost-user sockets.
///
/// Example, with a back end that listens at both sockets:
///
///   nve-hosted --trunk /run/trunk.sock --uplink /run/uplink.sock \
///       --config nve.json --tables tables.jsonl --cpu 1 --stats 1
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Cli {
    /// Socket at which the back end of the trunk listens.
    #[arg(long)]
    trunk: PathBuf,
    /// Socket at which the back end of the uplink listens.
    #[arg(long)]
    uplink: PathBuf,
    /// The appliance's configuration, the same as for the image; NICs by MAC address.
    #[arg(long)]
    config: PathBuf,
    /// Take tables from this file, records of the control protocol, one JSON object per
    /// line, and dial no shim.
    #[arg(long)]
    tables: Option<PathBuf>,
    /// Change the tables all the time: put and delete the records in this file, one in
    /// each transaction, from SIGUSR1 on until SIGUSR2. Wants --tables.
    #[arg(long, requires = "tables")]
    churn: Option<PathBuf>,
    /// Transactions per second of --churn.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    churn_rate: u32,
    /// Run on this processor and never sleep.
    #[arg(long)]
    cpu: Option<usize>,
    /// Print counters as a line of JSON every so many seconds, and at the end.
    #[arg(long, value_name = "SECONDS")]
    stats: Option<f64>,
    /// MiB of memory that tables, flow cache and connections are sized for.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(16..=65536))]
    memory: u64,
    /// Share pages of 2 MiB with the back ends (see vm.nr_hugepages).
    #[arg(long)]
    huge: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let config = read_config(&cli.config)?;
    env_logger::Builder::new()
        .filter_level(config.log_level)
        .format(|out, record| writeln!(out, "{} {}", record.level(), record.args()))
        .init();
    let source = match &cli.tables {
        None => Source::Shims,
        Some(path) => Source::Records(read_records(path)?),
    };
    let changes = cli.churn.as_deref().map(read_records).transpose()?;
    let changing = Arc::new(AtomicUsize::new(0));
    for (signal, on) in [
        (signal_hook::consts::SIGUSR1, 1),
        (signal_hook::consts::SIGUSR2, 0),
    ] {
        signal_hook::flag::register_usize(signal, changing.clone(), on)?;
    }
    Clock::get();
    let heap = cli.memory << 20;
    let pages = if cli.huge { Pages::Huge } else { Pages::Small };
    let mut memory = Shared::new(shared_bytes(&config, heap), pages)?;
    let trunk = VhostUser::connect(&cli.trunk, memory.region()).context("trunk")?;
    let uplink = VhostUser::connect(&cli.uplink, memory.region()).context("uplink")?;
    let mut hosted = Hosted::new(&config, source, heap, &mut memory, [trunk, uplink])?;
    let datapath = hosted.node().datapath();
    let churn =
        changes.map(|records| Churn::start(&config, records, cli.churn_rate, changing, datapath));
    let churn = churn.transpose()?;
    // The thread that makes changes stays where it is.
    if let Some(cpu) = cli.cpu {
        pin(cpu).with_context(|| format!("processor {cpu}"))?;
    }
    log::info!("ready");
    Loop {
        hosted,
        churn,
        report: Report::default(),
        stats: cli
            .stats
            .map(|seconds| (seconds.max(0.01) * SECOND as f64) as u64),
        sleeps: cli.cpu.is_none(),
    }
    .run(&stop)
}

fn read_config(path: &Path) -> Result<Config> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    Config::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn read_records(path: &Path) -> Result<Vec<Record>> {
    let file = fs::File::open(path).with_context(|| path.display().to_string())?;
    nve_hosted::records::read(BufReader::new(file)).with_context(|| path.display().to_string())
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// The appliance's loop, with what a process has around it.
struct Loop {
    hosted: Hosted<VhostUser>,
    churn: Option<Churn>,
    report: Report,
    /// Nanoseconds between two lines of counters.
    stats: Option<u64>,
    /// Whether it waits for interrupts when there is nothing to do.
    sleeps: bool,
}

impl Loop {
    /// Polls until `stop`, or until a back end goes away.
    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let clock = Clock::get();
        let mut before = ticks();
        let mut now = clock.at(before);
        let mut last_busy = now;
        let mut next_line = self.stats.map(|interval| Nanos(now.0 + interval));
        let mut housekeeping = now;
        loop {
            let mut busy = self.hosted.poll(now)?;
            busy |= self.change(now)?;
            let after = ticks();
            if busy {
                self.report.busy_cycles += after.wrapping_sub(before);
                self.report.busy_turns += 1;
                last_busy = now;
            }
            before = after;
            now = clock.at(after);
            if now >= housekeeping {
                housekeeping = Nanos(now.0 + HOUSEKEEPING);
                if stop.load(Ordering::Relaxed) {
                    return self.finish(now);
                }
                self.check()?;
                if let (Some(due), Some(interval)) = (next_line, self.stats)
                    && now >= due
                {
                    next_line = Some(Nanos(due.0 + interval));
                    self.print(now)?;
                }
                // What this took is not the node's.
                before = ticks();
            }
            if self.sleeps && !busy && now.0.saturating_sub(last_busy.0) >= SPIN {
                self.sleep(now)?;
                before = ticks();
                now = clock.at(before);
                last_busy = now;
            }
        }
    }

    fn finish(mut self, now: Nanos) -> Result<()> {
        match self.stats {
            Some(_) => self.print(now),
            None => Ok(()),
        }
    }

    /// Takes a change of the tables that is due; whether there was one.
    #[inline]
    fn change(&mut self, now: Nanos) -> Result<bool> {
        let Some(churn) = &mut self.churn else {
            return Ok(false);
        };
        if !churn.is_due(now) {
            return Ok(false);
        }
        churn.turn(now, self.hosted.node().datapath())?;
        Ok(true)
    }

    fn print(&mut self, now: Nanos) -> Result<()> {
        let generation = self.churn.as_ref().map_or(0, Churn::generation);
        let line = self.report.line(&Stats {
            generation,
            ..self.hosted.stats(now)
        })?;
        Ok(writeln!(stdout().lock(), "{line}")?)
    }

    fn check(&self) -> Result<()> {
        for (name, handle) in ["trunk", "uplink"].iter().zip(self.hosted.handles()) {
            handle.with(|device| device.check()).context(*name)?;
        }
        Ok(())
    }

    /// Waits for frames, timers or the end of a connection.
    fn sleep(&mut self, now: Nanos) -> Result<()> {
        if !self.hosted.node().arm_interrupts() {
            let until = self.hosted.node().deadline().0.saturating_sub(now.0);
            let millis = until.min(HOUSEKEEPING).div_ceil(1_000_000);
            self.wait(PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO))?;
        }
        self.hosted.node().disarm_interrupts();
        Ok(())
    }

    fn wait(&self, timeout: PollTimeout) -> Result<()> {
        let [trunk, uplink] = self.hosted.handles();
        trunk.with(|trunk| {
            uplink.with(|uplink| {
                let [a, b] = trunk.watched();
                let [c, d] = uplink.watched();
                let mut watched = [a, b, c, d];
                match poll(&mut watched, timeout) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
                trunk.clear_interrupt();
                uplink.clear_interrupt();
                Ok(())
            })
        })
    }
}
