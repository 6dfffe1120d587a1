//! The operator's CLI.

use std::process::ExitCode;

use clap::Parser;
use shim::nvectl::{self, Arguments};

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nvectl: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(nvectl::run(Arguments::parse())) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nvectl: {error}");
            ExitCode::FAILURE
        }
    }
}
