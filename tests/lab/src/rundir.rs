//! Run directories: logs, sockets, keys and captures of one invocation.
//!
//! Invariant: a directory without a [`KEEP`] file belongs to a living process
//! (named with its start time in [`OWNER`]) or is removed by the next [`sweep`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where all run directories are. In memory on most machines.
pub const BASE: &str = "/run/sluice-lab";

const OWNER: &str = "owner";
const KEEP: &str = "keep";

/// Makes the run directory of the calling process.
pub fn create() -> Result<PathBuf> {
    let pid = std::process::id();
    let dir = Path::new(BASE).join(pid.to_string());
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let started = start_time(pid).context("no start time of our own in /proc")?;
    fs::write(dir.join(OWNER), format!("{pid} {started}\n"))?;
    Ok(dir)
}

/// Marks `dir` to be kept for reading.
pub fn keep(dir: &Path) -> Result<()> {
    fs::write(dir.join(KEEP), "")?;
    Ok(())
}

/// Removes `dir`, and the base when it was the last, unless it is to be kept.
/// Returns whether it was removed.
pub fn remove(dir: &Path) -> Result<bool> {
    if dir.join(KEEP).exists() {
        return Ok(false);
    }
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    // Fails while other directories are there, as it should.
    let _ = fs::remove_dir(BASE);
    Ok(true)
}

/// Removes what dead owners left, and returns what was removed.
pub fn sweep() -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(BASE) else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    for entry in entries {
        let dir = entry?.path();
        if !is_owned(&dir) && remove(&dir)? {
            removed.push(dir);
        }
    }
    Ok(removed)
}

/// Whether the owner of `dir` lives: a process with its id and its start time.
pub fn is_owned(dir: &Path) -> bool {
    let Ok(owner) = fs::read_to_string(dir.join(OWNER)) else {
        return false;
    };
    let Some((pid, started)) = owner.trim().split_once(' ') else {
        return false;
    };
    pid.parse()
        .ok()
        .and_then(start_time)
        .is_some_and(|now| now == started)
}

/// Start time of a process in clock ticks since boot (proc(5), `stat` field 22).
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name, field 2, is in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_start_time_is_known_and_a_free_pid_has_none() {
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(0), None);
    }

    #[test]
    fn a_directory_without_a_living_owner_is_not_owned() {
        let dir = std::env::temp_dir().join(format!("sluice-rundir-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert!(!is_owned(&dir));
        let pid = std::process::id();
        fs::write(dir.join(OWNER), format!("{pid} 1\n")).unwrap();
        assert!(!is_owned(&dir), "another start time is another process");
        let started = start_time(pid).unwrap();
        fs::write(dir.join(OWNER), format!("{pid} {started}\n")).unwrap();
        assert!(is_owned(&dir));
        fs::remove_dir_all(&dir).unwrap();
    }
}
