//! A full trunk and 100,000 remote MAC addresses in the memory that is promised.

use anyhow::{Result, ensure};

use super::Context;
use crate::figures::full_house;

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    for figure in full_house::measure(&context.dir, &context.artifacts)? {
        println!("  {figure}");
        ensure!(figure.is_met(), "a goal is missed: {figure}");
    }
    Ok(())
}
