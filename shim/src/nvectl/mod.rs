//! `nvectl`: what operators ask of a shim, on the command line.
//!
//! Everything comes over the REST API. Answers are handled as JSON documents, so
//! that `-o json` shows all that the shim says, also what a table leaves out.

use std::io::{self, Write};
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Parser, Subcommand, ValueEnum};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::http::client::{Client, ClientError};

mod inspect;
mod inspect_views;
mod table;
mod views;

const EXAMPLES: &str = "\
Examples:
  nvectl nve list                    which NVEs there are, and whether they are in sync
  nvectl nve show nve-a              tables, counters and drops by reason
  nvectl -o json port list           everything about ports, for scripts
  nvectl router list                 routers, their networks' gateways and routes
  nvectl group show default          what a security group allows, and for whom
  nvectl placement list              where each port is, and what keeps it from forwarding
  nvectl manager list                whether hypervisor managers are followed
  nvectl cluster list                VLAN tags that are left
  nvectl alarm list                  VLAN tags that two have
  nvectl event watch                 lifecycle events as they come; Ctrl-C ends it
  nvectl trace nve-a --port web-1 --tcp 10.0.1.5:443
                                     what would become of that packet, stage by stage
  nvectl drops nve-a --follow        drops as they happen, with reason and rule
  nvectl flows nve-a --port web-1    flows from and to a port
  nvectl capture nve-a --port web-1 -w web-1.pcapng
                                     frames from and to a port, for Wireshark";

/// Asks a shim about its NVEs, ports and events.
#[derive(Debug, Parser)]
#[command(name = "nvectl", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// The shim's API.
    #[arg(
        long,
        env = "SLUICE_URL",
        default_value = "http://127.0.0.1:9696",
        global = true
    )]
    url: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// NVEs and their state.
    Nve {
        #[command(subcommand)]
        command: NveCommand,
    },
    /// Neutron ports.
    Port {
        #[command(subcommand)]
        command: ListCommand,
    },
    /// Routers.
    Router {
        #[command(subcommand)]
        command: ListCommand,
    },
    /// Security groups.
    Group {
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// QoS policies.
    Qos {
        #[command(subcommand)]
        command: ListCommand,
    },
    /// VTEPs that are not NVEs.
    Vtep {
        #[command(subcommand)]
        command: ListCommand,
    },
    /// Where each port is.
    Placement {
        #[command(subcommand)]
        command: ListCommand,
    },
    /// Hypervisor managers, and how their events are followed.
    Manager {
        #[command(subcommand)]
        command: ListCommand,
    },
    /// Clusters of hosts, and how many of their VLAN tags are left.
    Cluster {
        #[command(subcommand)]
        command: ListCommand,
    },
    /// What contradicts the leases of VLAN tags.
    Alarm {
        #[command(subcommand)]
        command: ListCommand,
    },
    /// VM lifecycle events.
    Event {
        #[command(subcommand)]
        command: EventCommand,
    },
    /// Tells what would become of a packet now, stage by stage and NVE by NVE.
    Trace(Box<inspect::TraceArguments>),
    /// Shows what an NVE dropped lately, and why.
    Drops(inspect::DropsArguments),
    /// Shows which flows an NVE forwards by its flow cache.
    Flows(inspect::FlowsArguments),
    /// Captures the frames from and to a port.
    Capture(inspect::CaptureArguments),
}

#[derive(Debug, Subcommand)]
enum ListCommand {
    /// Lists all.
    List,
}

#[derive(Debug, Subcommand)]
enum NveCommand {
    /// Lists all.
    List,
    /// Shows one: session, tables, counters, drops by reason.
    Show {
        /// Its name or its UUID.
        nve: String,
    },
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Lists all.
    List,
    /// Shows one: its rules and its ports.
    Show {
        /// Its name or its UUID.
        group: String,
    },
}

#[derive(Debug, Subcommand)]
enum EventCommand {
    /// Shows the newest events.
    List,
    /// Shows the newest events, and then each as it comes.
    Watch,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NvectlError {
    /// The shim cannot be reached, or refuses.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// Nothing has that name.
    #[error("there is no NVE {0:?}; `nvectl nve list` lists all")]
    NoNve(String),
    /// Nothing has that name.
    #[error("there is no security group {0:?}; `nvectl group list` lists all")]
    NoGroup(String),
    /// Several have that name.
    #[error("there are {count} security groups {name:?}; give the UUID of one")]
    ManyGroups {
        /// The name asked for.
        name: String,
        /// How many have it.
        count: usize,
    },
    /// The terminal or pipe is gone.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// The shim went away.
    #[error("the shim ended the stream: {0}")]
    Stream(String),
    /// The file cannot be written.
    #[error("cannot write {path:?}: {error}")]
    File {
        /// Its path.
        path: String,
        /// Why not.
        error: io::Error,
    },
}

/// Does what the command line says, and prints to standard output. A trace of a packet
/// that nobody gets is a failure.
///
/// # Errors
/// See [`NvectlError`].
pub async fn run(arguments: Arguments) -> Result<ExitCode, NvectlError> {
    let client = Client::new(&arguments.url, None)?;
    let output = arguments.output;
    let done = match arguments.command {
        Command::Trace(trace) => return inspect::trace(&client, &trace, output).await,
        Command::Drops(drops) => inspect::drops(&client, &drops, output).await,
        Command::Flows(flows) => inspect::flows(&client, &flows, output).await,
        Command::Capture(capture) => inspect::capture(&client, &capture).await,
        Command::Nve {
            command: NveCommand::List,
        } => list(&client, "/v1/nves", output, views::nves).await,
        Command::Nve {
            command: NveCommand::Show { nve },
        } => show_nve(&client, &nve, output).await,
        Command::Port { .. } => list(&client, "/v2.0/ports", output, views::ports).await,
        Command::Router { .. } => list_routers(&client, output).await,
        Command::Group {
            command: GroupCommand::List,
        } => list(&client, "/v2.0/security-groups", output, views::groups).await,
        Command::Group {
            command: GroupCommand::Show { group },
        } => show_group(&client, &group, output).await,
        Command::Qos { .. } => list(&client, "/v2.0/qos/policies", output, views::policies).await,
        Command::Vtep { .. } => list(&client, "/v1/vteps", output, views::vteps).await,
        Command::Placement { .. } => list(&client, "/v1/placement", output, views::placement).await,
        Command::Manager { .. } => {
            list(&client, "/v1/hypervisor-managers", output, views::managers).await
        }
        Command::Cluster { .. } => list(&client, "/v1/clusters", output, views::clusters).await,
        Command::Alarm { .. } => list(&client, "/v1/alarms", output, views::alarms).await,
        Command::Event {
            command: EventCommand::List,
        } => list(&client, "/v1/events", output, views::events).await,
        Command::Event {
            command: EventCommand::Watch,
        } => watch(&client, output).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

async fn list(
    client: &Client,
    target: &str,
    output: Output,
    view: fn(&Value) -> String,
) -> Result<(), NvectlError> {
    let answer: Value = client.get(target).await?;
    print(&answer, output, view)
}

fn print(answer: &Value, output: Output, view: fn(&Value) -> String) -> Result<(), NvectlError> {
    let text = match output {
        Output::Json => format!("{answer:#}\n"),
        Output::Table => view(answer),
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

async fn show_nve(client: &Client, key: &str, output: Output) -> Result<(), NvectlError> {
    print(&find_nve(client, key).await?, output, views::nve)
}

/// The NVE of that name or UUID.
async fn find_nve(client: &Client, key: &str) -> Result<Value, NvectlError> {
    let mut answer: Value = client.get("/v1/nves").await?;
    let named = |nve: &&mut Value| [&nve["name"], &nve["id"]].iter().any(|v| *v == key);
    let nves = answer["nves"].as_array_mut();
    let found = nves.and_then(|nves| nves.iter_mut().find(named));
    let nve = found.ok_or_else(|| NvectlError::NoNve(key.to_owned()))?;
    Ok(nve.take())
}

/// Routers, each with its interfaces, which are ports.
async fn list_routers(client: &Client, output: Output) -> Result<(), NvectlError> {
    let mut answer: Value = client.get("/v2.0/routers").await?;
    let ports: Value = client
        .get("/v2.0/ports?device_owner=network:router_interface")
        .await?;
    for router in answer["routers"].as_array_mut().into_iter().flatten() {
        let own = |port: &&Value| port["device_id"] == router["id"];
        let all = ports["ports"].as_array().into_iter().flatten();
        let interfaces: Vec<Value> = all.filter(own).cloned().collect();
        router["interfaces"] = Value::Array(interfaces);
    }
    print(&answer, output, views::routers)
}

/// A security group with its ports.
async fn show_group(client: &Client, key: &str, output: Output) -> Result<(), NvectlError> {
    let answer: Value = client.get("/v2.0/security-groups").await?;
    let groups = answer["security_groups"].as_array().into_iter().flatten();
    let named = |group: &&Value| [&group["name"], &group["id"]].iter().any(|v| *v == key);
    let found: Vec<&Value> = groups.filter(named).collect();
    let mut group = match found.as_slice() {
        [] => return Err(NvectlError::NoGroup(key.to_owned())),
        [group] => Value::clone(group),
        several => {
            return Err(NvectlError::ManyGroups {
                name: key.to_owned(),
                count: several.len(),
            });
        }
    };
    let id = group["id"].as_str().unwrap_or_default();
    let target = format!("/v2.0/ports?security_groups={id}");
    let mut ports: Value = client.get(&target).await?;
    group["ports"] = ports["ports"].take();
    print(&group, output, views::group)
}

async fn watch(client: &Client, output: Output) -> Result<(), NvectlError> {
    let mut body = client.stream("/v1/events?follow=true", None).await?;
    let mut lines = Lines::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NvectlError::Stream(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        for event in lines.feed(&data) {
            match output {
                Output::Json => writeln!(io::stdout(), "{event}")?,
                Output::Table => writeln!(io::stdout(), "{}", views::event_line(&event))?,
            }
        }
    }
    Err(NvectlError::Stream("no more data".to_owned()))
}

/// Takes the `data` lines out of a stream of events. The shim sends each event's
/// JSON in one line.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn feed(&mut self, data: &Bytes) -> Vec<Value> {
        self.0.extend_from_slice(data);
        let mut events = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            if let Some(json) = line.strip_prefix(b"data:") {
                events.extend(serde_json::from_slice::<Value>(json));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn events_arrive_whole_however_the_stream_is_cut() {
        let stream = b"id: 1\nevent: vmpoweron\ndata: {\"a\":1}\n\n: beat\n\ndata: {\"a\":2}\n\n";
        for size in 1..stream.len() {
            let mut lines = Lines::default();
            let events: Vec<Value> = stream
                .chunks(size)
                .flat_map(|chunk| lines.feed(&Bytes::copy_from_slice(chunk)))
                .collect();
            assert_eq!(
                events,
                [serde_json::json!({"a": 1}), serde_json::json!({"a": 2})]
            );
        }
    }
}
