//! `nvectl trace`, `drops`, `flows` and `capture`: a look into a running NVE.

use std::fs::File;
use std::io::{self, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{ArgGroup, Args};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{interval, sleep};

use super::{NvectlError, Output, find_nve, inspect_views, print};
use crate::http::client::Client;
use crate::inspect::pcapng::{MEDIA_TYPE, PACKET_BLOCK};

/// Between two questions for new drops.
const FOLLOW: Duration = Duration::from_secs(1);
/// Largest block of a capture; a frame has at most 64 KiB.
const LARGEST_BLOCK: usize = 128 * 1024;

const TRACE_EXAMPLES: &str = "\
Examples:
  nvectl trace nve-a --port web-1 --tcp 10.0.1.5:443
  nvectl trace nve-a --port web-1 --icmp 10.0.1.5 --size 1500     does it fit the MTU?
  nvectl trace nve-a --port web-1 --udp [fd00::1]:53 --from [fd00::11]:5353
  nvectl trace nve-a --port web-1 --tcp 10.0.1.5:443 --flags SA   as an answer
  nvectl trace nve-a --port web-1 --arp 10.0.0.1                  who answers for it?
  nvectl trace nve-a --port web-1 --protocol 47 --to 10.0.1.5     GRE
  nvectl trace nve-b --from-vtep 192.0.2.11 --vni 5001 --icmp 10.0.0.12 --from 10.0.0.11

The NVE's own datapath says what it would do, by the tables and connections of now;
nothing is sent and nothing changes. The exit status is 0 if somebody gets the packet,
answers it or takes it, 1 if not.";

/// What to trace.
#[derive(Debug, Args, Serialize)]
#[command(after_help = TRACE_EXAMPLES)]
#[command(group(ArgGroup::new("what").required(true)
    .args(["tcp", "udp", "icmp", "arp", "protocol", "frame"])))]
#[command(group(ArgGroup::new("origin").required(true).args(["port", "from_vtep"])))]
pub(super) struct TraceArguments {
    /// NVE where the packet comes in, by name or UUID.
    #[serde(skip)]
    nve: String,
    /// Port that sends it, by name or UUID.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<String>,
    /// Instead of a port: VTEP that sends it.
    #[arg(long, value_name = "IP", requires = "vni")]
    #[serde(skip_serializing_if = "Option::is_none")]
    from_vtep: Option<String>,
    /// VNI of a packet from a VTEP.
    #[arg(long, requires = "from_vtep")]
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
    /// A TCP segment to there.
    #[arg(long, value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    /// A UDP datagram to there.
    #[arg(long, value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<String>,
    /// An echo request to there.
    #[arg(long, value_name = "IP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<String>,
    /// An ARP request for that address; IPv6: a neighbor solicitation.
    #[arg(long, value_name = "IP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    arp: Option<String>,
    /// A packet of that IP protocol, by number.
    #[arg(long, value_name = "NUMBER", requires = "to")]
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<u8>,
    /// Where to, with --protocol.
    #[arg(long, value_name = "IP", requires = "protocol")]
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// A whole Ethernet frame in hexadecimal, without tag and FCS.
    #[arg(long, value_name = "HEX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<String>,
    /// Sender's address; the port's first fixed IP unless given.
    #[arg(long, value_name = "IP[:PORT]")]
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Sender's MAC address; the port's unless given.
    #[arg(long, value_name = "MAC")]
    #[serde(skip_serializing_if = "Option::is_none")]
    from_mac: Option<String>,
    /// Receiver's MAC address; as the VM would learn it unless given.
    #[arg(long, value_name = "MAC")]
    #[serde(skip_serializing_if = "Option::is_none")]
    to_mac: Option<String>,
    /// TCP flags, letters of FSRPAUEC; S unless given.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<String>,
    /// TTL or hop limit; 64 unless given.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u8>,
    /// Bytes of the IP packet.
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u16>,
    /// Lets routers fragment it (IPv4 without DF).
    #[arg(long)]
    may_fragment: bool,
}

/// Whose drops to show.
#[derive(Debug, Args)]
pub(super) struct DropsArguments {
    /// NVE, by name or UUID.
    nve: String,
    /// Only drops of what this port sent, or of what its policies refused.
    #[arg(long)]
    port: Option<String>,
    /// Goes on with drops as they happen; Ctrl-C ends it.
    #[arg(short, long)]
    follow: bool,
}

/// Whose flows to show.
#[derive(Debug, Args)]
pub(super) struct FlowsArguments {
    /// NVE, by name or UUID.
    nve: String,
    /// Only flows from and to this port.
    #[arg(long)]
    port: Option<String>,
}

const CAPTURE_EXAMPLES: &str = "\
Examples:
  nvectl capture nve-a --port web-1 -w web-1.pcapng --seconds 60
  nvectl capture nve-a --port web-1 -w - | tshark -r -

Ctrl-C ends it; the file is whole then. An NVE runs one capture at a time.";

/// What to capture.
#[derive(Debug, Args)]
#[command(after_help = CAPTURE_EXAMPLES)]
pub(super) struct CaptureArguments {
    /// NVE, by name or UUID.
    nve: String,
    /// Port, by name or UUID.
    #[arg(long)]
    port: String,
    /// File to write (pcapng); - for standard output.
    #[arg(short, long, value_name = "FILE")]
    write: String,
    /// Ends after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Ends after so many frames.
    #[arg(long)]
    count: Option<u64>,
    /// Bytes that are kept of a frame; all unless given.
    #[arg(long, value_name = "BYTES")]
    snap: Option<u16>,
}

/// `/v1/nves/{id}/{what}` with those parameters that are given.
async fn target(
    client: &Client,
    nve: &str,
    what: &str,
    parameters: &[(&str, Option<String>)],
) -> Result<String, NvectlError> {
    let nve = find_nve(client, nve).await?;
    let id = nve["id"].as_str().unwrap_or_default();
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    Ok(format!("/v1/nves/{id}/{what}?{}", query.finish()))
}

/// Prints a trace; whether somebody gets the packet is the exit status.
pub(super) async fn trace(
    client: &Client,
    arguments: &TraceArguments,
    output: Output,
) -> Result<ExitCode, NvectlError> {
    let target = target(client, &arguments.nve, "trace", &[]).await?;
    let target = target.trim_end_matches('?');
    let trace: Value = client.post_json(target, arguments).await?;
    print(&trace, output, inspect_views::trace)?;
    Ok(match trace["outcome"]["result"].as_str() {
        Some("dropped" | "unknown") | None => ExitCode::FAILURE,
        Some(_) => ExitCode::SUCCESS,
    })
}

/// Prints drops, once or as they happen.
pub(super) async fn drops(
    client: &Client,
    arguments: &DropsArguments,
    output: Output,
) -> Result<(), NvectlError> {
    let target = |after: u64| {
        let parameters = [
            ("after", Some(after.to_string())),
            ("port", arguments.port.clone()),
        ];
        async move { self::target(client, &arguments.nve, "drops", &parameters).await }
    };
    let first: Value = client.get(&target(0).await?).await?;
    if !arguments.follow {
        return print(&first, output, inspect_views::drops);
    }
    let mut list = first;
    loop {
        for drop in list["drops"].as_array().into_iter().flatten() {
            match output {
                Output::Json => writeln!(io::stdout(), "{drop}")?,
                Output::Table => writeln!(io::stdout(), "{}", inspect_views::drop_line(drop))?,
            }
        }
        if list["more"] != true {
            sleep(FOLLOW).await;
        }
        let after = list["next"].as_u64().unwrap_or(0);
        list = client.get(&target(after).await?).await?;
        if let Some(lost @ 1..) = list["lost"].as_u64() {
            writeln!(
                io::stderr(),
                "nvectl: {lost} drops came too fast and are not shown"
            )?;
        }
    }
}

/// Prints flows.
pub(super) async fn flows(
    client: &Client,
    arguments: &FlowsArguments,
    output: Output,
) -> Result<(), NvectlError> {
    let parameters = [("port", arguments.port.clone())];
    let target = target(client, &arguments.nve, "flows", &parameters).await?;
    let flows: Value = client.get(&target).await?;
    print(&flows, output, inspect_views::flows)
}

/// Writes a capture, and tells how it goes every second.
pub(super) async fn capture(
    client: &Client,
    arguments: &CaptureArguments,
) -> Result<(), NvectlError> {
    let parameters = [
        ("port", Some(arguments.port.clone())),
        ("snap", arguments.snap.map(|snap| snap.to_string())),
        (
            "seconds",
            arguments.seconds.map(|seconds| seconds.to_string()),
        ),
        ("frames", arguments.count.map(|count| count.to_string())),
    ];
    let target = target(client, &arguments.nve, "capture", &parameters).await?;
    let body = client.download(&target, MEDIA_TYPE).await?;
    let failed = |error| NvectlError::File {
        path: arguments.write.clone(),
        error,
    };
    let mut file: Box<dyn Write> = match arguments.write.as_str() {
        "-" => Box::new(io::stdout()),
        path => Box::new(File::create(path).map_err(failed)?),
    };
    let mut blocks = Blocks::default();
    let ended = copy(body, &mut blocks, &mut file, failed).await;
    writeln!(io::stderr(), "{} frames", blocks.frames)?;
    ended
}

/// Copies whole blocks until the stream ends, or Ctrl-C.
async fn copy(
    mut body: Incoming,
    blocks: &mut Blocks,
    file: &mut dyn Write,
    failed: impl Fn(io::Error) -> NvectlError,
) -> Result<(), NvectlError> {
    let mut ticks = interval(Duration::from_secs(1));
    // One for all turns, so that none is missed between them.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = &mut interrupted => return Ok(()),
            _ = ticks.tick() => {
                writeln!(io::stderr(), "{} frames", blocks.frames)?;
                continue;
            }
        };
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.map_err(|error| NvectlError::Stream(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let whole = blocks
            .feed(&data)
            .ok_or_else(|| NvectlError::Stream("what came is no pcapng".to_owned()))?;
        file.write_all(&whole)
            .and_then(|()| file.flush())
            .map_err(&failed)?;
    }
}

/// Takes whole blocks out of a pcapng stream, so that a file can end at any moment.
/// The shim writes in network byte order.
#[derive(Debug, Default)]
struct Blocks {
    bytes: Vec<u8>,
    /// Packet blocks that were taken out.
    frames: u64,
}

impl Blocks {
    /// The blocks that `data` makes whole; `None` if they are none.
    fn feed(&mut self, data: &Bytes) -> Option<Vec<u8>> {
        self.bytes.extend_from_slice(data);
        let mut end = 0;
        while let Some(([kind, length], _)) =
            self.bytes.get(end..)?.split_first_chunk::<8>().map(words)
        {
            let length = usize::try_from(length).ok()?;
            if !(12..=LARGEST_BLOCK).contains(&length) {
                return None;
            }
            if self.bytes.len() < end + length {
                break;
            }
            end += length;
            self.frames += u64::from(kind == PACKET_BLOCK);
        }
        Some(self.bytes.drain(..end).collect())
    }
}

/// The first two words, and what follows.
fn words<'a>((head, rest): (&[u8; 8], &'a [u8])) -> ([u32; 2], &'a [u8]) {
    let [a, b, c, d, e, f, g, h] = *head;
    let words = [[a, b, c, d], [e, f, g, h]];
    (words.map(u32::from_be_bytes), rest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nve_protocol::Direction;

    use super::*;
    use crate::inspect::pcapng::Pcapng;

    #[test]
    fn a_capture_is_cut_between_blocks_however_it_comes() {
        let mut file = Pcapng::new("web-1", "port", 64);
        for number in 0..3u8 {
            let at = Duration::from_secs(u64::from(number));
            file.frame(at, Direction::Egress, 70, &[number; 61]);
        }
        file.statistics(Duration::from_secs(4), 3, 0);
        let whole = file.take();
        for size in 1..whole.len() {
            let mut blocks = Blocks::default();
            let mut written = Vec::new();
            for chunk in whole.chunks(size) {
                written.extend(blocks.feed(&Bytes::copy_from_slice(chunk)).unwrap());
            }
            assert_eq!((written.as_slice(), blocks.frames), (&whole[..], 3));
        }
        let mut blocks = Blocks::default();
        let cut = blocks.feed(&whole.slice(..whole.len() - 1)).unwrap();
        assert!(whole.starts_with(&cut) && blocks.frames == 3);
        assert_eq!(Blocks::default().feed(&Bytes::from_static(&[0; 20])), None);
    }
}
