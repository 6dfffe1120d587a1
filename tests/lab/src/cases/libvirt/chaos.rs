//! Port groups come and go while the manager and libvirtd are killed at any moment. In the
//! end each host has those that the manager lists, and somebody else's as it was.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use uuid::Uuid;

use super::port_groups::{PATH, foreign_is_intact, network};
use super::stage::Stage;
use crate::site::list;
use crate::wait;

/// Requests, each with something that happens meanwhile.
const ROUNDS: u32 = 24;
/// Port groups that they are for.
const GROUPS: u32 = 5;
/// After a request is sent, at most, in milliseconds.
const LATEST: u32 = 40;
/// How long the hosts may take to have what is wanted.
const SETTLED: Duration = Duration::from_secs(90);

/// Numbers without a pattern, always the same (Marsaglia, "Xorshift RNGs", 2003).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % end
    }
}

/// See [`super::SCENES`].
pub(super) fn port_groups(stage: &mut Stage) -> Result<()> {
    let mut chance = Chance(0x5eed_5eed_5eed_5eed);
    let mut kills = [0; 2];
    for _ in 0..ROUNDS {
        let client = stage.notice().clone();
        let (group, makes) = (chance.below(GROUPS), chance.below(3) > 0);
        let request = thread::spawn(move || match makes {
            true => {
                let body = json!({"port_id": port(group), "segmentation_id": tag(group)});
                client.send("POST", PATH, Some(body.to_string().as_bytes()))
            }
            false => client.send("DELETE", &format!("{PATH}/{}", name(group)), None),
        });
        thread::sleep(Duration::from_millis(chance.below(LATEST).into()));
        let host = chance.below(4) as usize;
        match host {
            0 | 1 => {
                stage.host(host)?.kill()?;
                stage.host_mut(host)?.revive()?;
            }
            2 => stage.restart_manager(|_| Ok(()))?,
            _ => {}
        }
        kills[0] += u32::from(host < 2);
        kills[1] += u32::from(host == 2);
        // Whether it was answered, and how, is nobody's promise here.
        drop(request.join());
    }
    println!(
        "    {ROUNDS} requests; libvirtd was killed {} times, the manager {} times",
        kills[0], kills[1]
    );
    for host in [0, 1] {
        stage.await_followed(host)?;
    }
    settled(stage)?;
    for group in 0..GROUPS {
        stage.notice().delete(&format!("{PATH}/{}", name(group)))?;
    }
    settled(stage)?;
    for host in [0, 1] {
        let left = names(&network(stage, host, &[])?);
        let is_left = (0..GROUPS).any(|group| left.contains(&name(group)));
        ensure!(!is_left, "what was deleted is on host {host}: {left:?}");
    }
    stage.expect_silence()
}

fn port(group: u32) -> Uuid {
    Uuid::from_u128(0xc0_0000 + u128::from(group))
}

fn tag(group: u32) -> u32 {
    3000 + group
}

fn name(group: u32) -> String {
    format!("{}_{}", port(group), tag(group))
}

/// Each host has what is listed and somebody else's, live and for its next start.
fn settled(stage: &Stage) -> Result<()> {
    wait::until_true("the hosts to have the port groups", SETTLED, || {
        let listed = list(stage.notice().get(PATH)?, "port_groups")?;
        let listed = listed.iter().filter_map(|group| group["pg_name"].as_str());
        let mut wanted: BTreeSet<String> = listed.map(str::to_owned).collect();
        wanted.insert("foreign".to_owned());
        for host in [0, 1] {
            for flags in [&[][..], &["--inactive"]] {
                if names(&network(stage, host, flags)?) != wanted {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    })?;
    ensure!(stage.peek()?.is_none(), "an event of a port group");
    foreign_is_intact(stage)
}

/// The port groups of a network's description.
fn names(network: &str) -> BTreeSet<String> {
    let groups = network.split("<portgroup name='").skip(1);
    groups
        .filter_map(|group| Some(group.split_once('\'')?.0.to_owned()))
        .collect()
}
