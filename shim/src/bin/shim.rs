//! The daemon.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use shim::config::{self, Config, EXAMPLE, Log, LogFormat};
use shim::southbound::KeyPair;
use shim::{notice, serve};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Sluice's control plane: VM lifecycle events and Neutron's intent in, tables of
/// NVEs out.
#[derive(Parser)]
#[command(name = "shim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon.
    #[command(after_help = "Examples:\n  \
        shim example-config > shim.toml\n  \
        shim serve --config shim.toml\n  \
        curl http://127.0.0.1:9696/v2.0/networks")]
    Serve {
        /// Configuration file; without one, every key has its default.
        #[arg(long, env = "SLUICE_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Run the notice module of a hypervisor manager: of hosts with libvirt, if the
    /// configuration has any, or with VMs that are what its own REST interface says.
    #[command(after_help = "Examples:\n  \
        shim notice --config notice.toml\n  \
        curl --digest -u shim:$(cat /var/lib/sluice/notice/password) \\\n    \
        http://127.0.0.1:9697/v1/inventory")]
    Notice {
        /// Configuration file; without one, every key has its default.
        #[arg(long, env = "SLUICE_NOTICE_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Make a key pair: the private key goes into FILE, the public one is printed.
    #[command(after_help = "Examples:\n  \
        shim keygen /etc/sluice/nve-a.key   # public key for POST /v1/nves")]
    Keygen {
        /// Where the private key is kept; if the file exists, only its public key is
        /// printed.
        file: PathBuf,
    },
    /// Print a configuration file with every key and its default.
    ExampleConfig,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { config } => {
            let config = match config {
                Some(path) => Config::load(&path)?,
                None => Config::default(),
            };
            start_log(&config.log)?;
            runtime()?.block_on(async { serve::run(config, stop_signal()?).await })
        }
        Command::Notice { config } => {
            let config = match config {
                Some(path) => config::read(&path)?,
                None => notice::Config::default(),
            };
            start_log(&config.log)?;
            runtime()?.block_on(async { Ok(notice::run(config, stop_signal()?).await?) })
        }
        Command::Keygen { file } => {
            println!("{}", KeyPair::load_or_create(&file)?.public_hex());
            Ok(())
        }
        Command::ExampleConfig => {
            print!("{EXAMPLE}");
            Ok(())
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level)
        .with_context(|| format!("log.level: {:?} is no filter", log.level))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Or a reader of the log that goes away takes the daemon along.
        .log_internal_errors(false);
    match log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

/// Completes on SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
