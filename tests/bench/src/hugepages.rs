//! Huge pages of 2 MiB, which the devices under test share with the generator.

use std::fs;

use anyhow::{Context, Result, ensure};

const TOTAL: &str = "/proc/sys/vm/nr_hugepages";
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// Pages that were added; they go when dropped.
#[derive(Debug)]
pub struct HugePages {
    before: u64,
}

impl HugePages {
    /// Sees to it that `wanted` pages are free. Needs root.
    pub fn reserve(wanted: u64) -> Result<HugePages> {
        let before = read(TOTAL)?;
        let missing = wanted.saturating_sub(read(FREE)?);
        let pages = HugePages { before };
        if missing > 0 {
            set(before + missing)?;
        }
        let free = read(FREE)?;
        ensure!(
            free >= wanted,
            "there are {free} free huge pages of 2 MiB, and {wanted} are needed: is memory free?"
        );
        Ok(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Err(error) = set(self.before) {
            eprintln!("huge pages stay reserved: {error:#}");
        }
    }
}

fn read(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("no number in {path}"))
}

fn set(pages: u64) -> Result<()> {
    fs::write(TOTAL, pages.to_string()).with_context(|| format!("cannot write {TOTAL}"))
}
