//! A subscriber that the product has no part in: curl(1) registers event types (TABLE I)
//! and writes down what comes (TABLE II).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::http::Client;
use crate::netns::Netns;
use crate::process::Daemon;
use crate::wait;

/// Event types as TABLE I spells them.
pub const TABLE_I: [&str; 11] = [
    "vmpoweron",
    "livemigratetestart",
    "livemigratefinish",
    "coldmigrateteststart",
    "coldmigratetestfinish",
    "hafinish",
    "vmcreated",
    "vmdeleted",
    "vmpoweroff",
    "vifattach",
    "vifdetach",
];

/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A recorder, which listens until it is dropped.
#[derive(Debug)]
pub struct Recorder {
    curl: Option<Daemon>,
    base: String,
    netns: Netns,
    netrc: PathBuf,
    record: PathBuf,
    /// Id of the last event that was taken.
    last: Option<String>,
    taken: usize,
}

impl Recorder {
    /// Registers all types with `manager`, and listens, as the user in `netrc`.
    pub fn start(manager: &Client, netns: &Netns, netrc: &Path, dir: &Path) -> Result<Recorder> {
        let manager = manager.clone().with_netrc(netrc);
        for kind in TABLE_I {
            manager.post("/v1/registrations", &json!({"eventType": kind}))?;
        }
        let mut recorder = Recorder {
            curl: None,
            base: manager.base().to_owned(),
            netns: netns.clone(),
            netrc: netrc.to_owned(),
            record: dir.join("events.txt"),
            last: None,
            taken: 0,
        };
        recorder.listen()?;
        Ok(recorder)
    }

    /// Connects again, after the manager was away, from the last event that was taken on.
    pub fn listen_again(&mut self) -> Result<()> {
        self.curl = None;
        fs::remove_file(&self.record)?;
        self.taken = 0;
        self.listen()
    }

    fn listen(&mut self) -> Result<()> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-N", "--digest", "--netrc-file"])
            .arg(&self.netrc)
            .arg(format!("{}/v1/events", self.base));
        if let Some(last) = &self.last {
            curl.args(["-H", &format!("Last-Event-ID: {last}")]);
        }
        let daemon = Daemon::spawn("the recorder", &self.netns, &mut curl, &self.record)?;
        self.curl = Some(daemon);
        wait::until_true("the recorder to be served", PATIENCE, || {
            Ok(self.text()?.contains(':'))
        })
    }

    /// The next event.
    pub fn next(&mut self, what: &str) -> Result<Value> {
        let event = wait::until(&format!("event {what}"), PATIENCE, || self.peek())?;
        self.taken += 1;
        self.last = event["event_id"].as_str().map(str::to_owned);
        Ok(event)
    }

    /// The next event, if it has come.
    pub fn peek(&self) -> Result<Option<Value>> {
        let text = self.text()?;
        let mut events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        match events.nth(self.taken) {
            // What is not there to its end yet is read later.
            None => Ok(None),
            Some(event) => Ok(serde_json::from_str(event).ok()),
        }
    }

    fn text(&self) -> Result<String> {
        fs::read_to_string(&self.record).context("no record of events")
    }
}
