//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Overrides the path of the image.
const IMAGE: &str = "SLUICE_IMAGE";

/// How many processors each appliance has, if not one.
const PROCESSORS: &str = "SLUICE_PROCESSORS";

/// Paths of what was built, all of them there.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// The appliance's image.
    pub image: PathBuf,
    /// How many processors it runs on.
    pub processors: u8,
    /// The daemon.
    pub shim: PathBuf,
    /// The operator's program.
    pub nvectl: PathBuf,
    /// Python with the packages of `tests/openstack/requirements.txt`.
    pub python: PathBuf,
    /// Python programs of the tests.
    pub openstack: PathBuf,
    /// What Linux guests are made of; there if tests/guest.sh was run.
    pub guest: PathBuf,
}

impl Artifacts {
    /// Finds the programs beside this one and the image in the same target
    /// directory.
    pub fn find() -> Result<Artifacts> {
        let own = std::env::current_exe()?;
        let profile = own.parent().context("this program has no directory")?;
        let target = profile.parent().context("no target directory")?;
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let image = std::env::var_os(IMAGE).map(PathBuf::from);
        Ok(Artifacts {
            processors: match std::env::var(PROCESSORS) {
                Ok(count) => count.parse().context(PROCESSORS)?,
                Err(_) => 1,
            },
            image: built(image.unwrap_or_else(|| target.join("image/nve.elf")))?,
            shim: built(profile.join("shim"))?,
            nvectl: built(profile.join("nvectl"))?,
            python: built(repo.join(".venv/bin/python"))?,
            openstack: built(repo.join("tests/openstack"))?,
            guest: target.join("guest"),
        })
    }
}

fn built(path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{} is missing: run `make build`",
        path.display()
    );
    Ok(path)
}
