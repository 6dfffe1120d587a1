//! Who reaches whom.

use anyhow::{Result, ensure};

use super::Context;
use crate::site::Site;

/// See [`super::CASES`].
pub(super) fn run(context: &Context) -> Result<()> {
    let site = Site::with_six_vms(&context.dir, &context.artifacts)?;
    let matrix = site.matrix()?;
    println!("{matrix}");
    let faults = matrix.faults();
    ensure!(faults.is_empty(), "{}", faults.join(", "));
    Ok(())
}
