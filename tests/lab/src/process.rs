//! Commands that run to their end, and daemons that run until dropped.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// Runs a program to its end; see [`output`].
pub fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    output(Command::new(program).args(arguments))
}

/// Runs `command` to its end and returns what it printed. The error of one that
/// fails says what it was and what it complained about.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", text(command)))?;
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let complaint = String::from_utf8_lossy(&done.stderr);
        bail!(
            "{} failed ({}): {printed}{complaint}",
            text(command),
            done.status
        );
    }
    Ok(printed)
}

fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// A program that runs until it is killed, at the latest when dropped. What it
/// prints is appended to a log.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` in `netns`, with `log` for what it prints.
    pub fn spawn(name: &str, netns: &Netns, command: &mut Command, log: &Path) -> Result<Daemon> {
        Daemon::spawn_reading(name, netns, command, Stdio::null(), log)
    }

    /// [`Daemon::spawn`] of one that reads `input`.
    pub fn spawn_reading(
        name: &str,
        netns: &Netns,
        command: &mut Command,
        input: Stdio,
        log: &Path,
    ) -> Result<Daemon> {
        let file = append(log)?;
        command.stdin(input).stdout(file.try_clone()?).stderr(file);
        let child = netns.run(|| {
            command
                .spawn()
                .with_context(|| format!("cannot start {}", text(command)))
        })?;
        Ok(Daemon {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// What the lab calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id inside the sandbox.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails with the end of its log when it has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended ({status}):\n{}", self.name, tail(&self.log, 20));
        }
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.kill();
    }
}

/// Opens `path` to write at its end.
pub fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The last `lines` lines of a log, indented.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    let last = all.get(from..).unwrap_or_default();
    last.iter().map(|line| format!("    {line}\n")).collect()
}
