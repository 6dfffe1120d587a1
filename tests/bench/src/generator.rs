//! The generator: sends the frames of a scenario on both sides of the device under
//! test, and checks every frame that comes back.
//!
//! One thread polls both NICs. Under [`Load::Full`] it fills whatever buffers the
//! device offers, so the device always has work and nothing is lost between the
//! two. Under [`Load::Rate`] frames are due by the clock, and what finds no buffer
//! when it is due counts as lost.

use std::collections::VecDeque;
use std::fmt;
use std::iter::Sum;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use nve_datapath::Side;

use crate::backend::Nic;
use crate::clock::{self, Clock};
use crate::door::Door;
use crate::queue::{BURST, Incoming, Put};
use crate::traffic::{Arrival, Control, Rotation, Traffic, Wrong, control};

/// Length of a window in which frames are counted.
const WINDOW: Duration = Duration::from_millis(100);
/// How long nothing has come when what is missing is taken to be lost. A device may
/// have no processor for some tenths of a second.
const QUIET: Duration = Duration::from_millis(250);
/// Longest wait for the last frames.
const DRAIN: Duration = Duration::from_secs(2);
/// Frames that may be due at once; more are due only because this thread did not
/// run, which is not the device's fault.
const MOST_DUE: u64 = 512;
/// How long a message from the driver gets the NIC to itself.
const PAUSE: Duration = Duration::from_micros(200);
/// Between two looks at the door.
const DOOR: Duration = Duration::from_micros(20);
/// Most frames from the door that wait for buffers.
const MOST_ANSWERS: usize = 64;
/// Frames per second while the first one is waited for.
const KNOCKS: f64 = 2_000.0;
/// Between two knocks, in which the device may need this processor.
const KNOCK_PAUSE: Duration = Duration::from_micros(50);
/// Highest latency that is told apart, in cycles.
const MAX_LATENCY: u64 = 1 << 33;

/// How much is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// As much as the device takes.
    Full,
    /// Frames per second, both directions together.
    Rate(f64),
}

/// For how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Span {
    /// A time.
    Time(Duration),
    /// Each flow once.
    EachFlow,
}

/// What was counted.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Frames that were put into buffers of the device.
    pub sent: u64,
    /// Frames that were due and found no buffer.
    pub refused: u64,
    /// Frames that came back as they must be.
    pub received: u64,
    /// Frames that came back wrong.
    pub wrong: u64,
    /// Frames of the device's own that have their place.
    pub control: u64,
}

impl Counts {
    /// Frames that were offered and did not come back right, as a part of all.
    pub fn loss(&self) -> f64 {
        let offered = self.sent + self.refused;
        let lost = offered.saturating_sub(self.received);
        if offered == 0 {
            0.0
        } else {
            lost as f64 / offered as f64
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(all: I) -> Counts {
        all.fold(Counts::default(), |sum, counts| Counts {
            sent: sum.sent + counts.sent,
            refused: sum.refused + counts.refused,
            received: sum.received + counts.received,
            wrong: sum.wrong + counts.wrong,
            control: sum.control + counts.control,
        })
    }
}

/// The first frame that was wrong.
#[derive(Debug, Clone)]
pub struct Exhibit {
    side: Side,
    wrong: Wrong,
    head: Vec<u8>,
    length: usize,
}

impl fmt::Display for Exhibit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exhibit { side, wrong, .. } = self;
        write!(f, "{side:?}, {} bytes: {wrong}:", self.length)?;
        for byte in &self.head {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

/// What a run of the generator found.
#[derive(Debug, Clone)]
pub struct Run {
    /// All of it, with what came in after the last window.
    pub counts: Counts,
    /// Frames per second that came back right, window by window.
    pub windows: Vec<f64>,
    /// Seconds in which frames were sent.
    pub seconds: f64,
    /// From sending to receiving, in cycles; of runs by rate.
    pub latency: Histogram<u64>,
}

/// One side of the device under test.
#[derive(Debug)]
struct Port<'a> {
    side: Side,
    nic: &'a Nic,
    rotation: Option<Rotation>,
    /// Length of most frames.
    typical: usize,
    /// Part of all frames that is sent here.
    share: f64,
    /// Frames of this run that were sent, refused, or given up by the rig.
    settled: u64,
    answers: VecDeque<Vec<u8>>,
    door: Option<&'a Door>,
    /// When to look at the door again.
    look: u64,
}

/// The generator for one scenario.
#[derive(Debug)]
pub struct Generator<'a> {
    traffic: &'a Traffic,
    clock: Clock,
    ports: [Port<'a>; 2],
    counts: Counts,
    exhibit: Option<Exhibit>,
}

/// How a run goes on.
struct Plan {
    /// Frames per cycle of all ports; `None` for as many as possible.
    rate: Option<f64>,
    start: u64,
    /// When to stop sending.
    end: u64,
    /// Most frames that a port sends.
    limit: u64,
    /// Whether a frame that finds no buffer is sent later, not counted as lost.
    waits: bool,
}

impl<'a> Generator<'a> {
    /// Sends `traffic` by these NICs.
    pub fn new(traffic: &'a Traffic, clock: Clock, trunk: &'a Nic, uplink: &'a Nic) -> Self {
        let port = |side, nic| {
            let rotation = traffic.rotation(side);
            let flows = rotation.as_ref().map_or(0, Rotation::flows);
            Port {
                side,
                nic,
                typical: traffic.shape(side).head(),
                share: f64::from(flows) / f64::from(traffic.flows()),
                rotation,
                settled: 0,
                answers: VecDeque::new(),
                door: None,
                look: 0,
            }
        };
        Generator {
            traffic,
            clock,
            ports: [port(Side::Trunk, trunk), port(Side::Uplink, uplink)],
            counts: Counts::default(),
            exhibit: None,
        }
    }

    /// Lets frames for a host behind `door` out of the uplink, and its frames in.
    pub fn with_door(mut self, door: &'a Door) -> Self {
        let [_, uplink] = &mut self.ports;
        uplink.door = Some(door);
        self
    }

    /// Sends a few frames from now on, until the first one comes back right. The
    /// device may have not even been started yet. Fails after `timeout`, and when
    /// `check` does.
    pub fn wait_first(
        &mut self,
        timeout: Duration,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        self.counts = Counts::default();
        let plan = self.plan(Load::Rate(KNOCKS), Span::Time(timeout));
        while self.counts.received == 0 {
            if clock::now() > plan.end {
                bail!("nothing was forwarded in {} s", timeout.as_secs());
            }
            check()?;
            self.poll(Some(&plan), &mut |_| {})?;
            self.check()?;
            thread::sleep(KNOCK_PAUSE);
        }
        Ok(())
    }

    /// Sends and checks; then waits for the last frames. Fails on the first wrong
    /// frame, and when the device breaks its queues.
    pub fn run(&mut self, load: Load, span: Span) -> Result<Run> {
        self.counts = Counts::default();
        let plan = self.plan(load, span);
        let mut latency = Histogram::new_with_bounds(1, MAX_LATENCY, 3)?;
        let timed = matches!(load, Load::Rate(_));
        let mut heard = |stamp: u64| {
            if timed {
                latency.saturating_record(clock::now().saturating_sub(stamp));
            }
        };
        let mut windows = Vec::new();
        let window = self.clock.cycles(WINDOW);
        let (mut window_start, mut before) = (plan.start, 0);
        let mut now = plan.start;
        while now < plan.end && !self.has_sent(plan.limit) {
            self.poll(Some(&plan), &mut heard)?;
            now = clock::now();
            if now - window_start >= window {
                let seconds = self.clock.seconds(now - window_start);
                windows.push((self.counts.received - before) as f64 / seconds);
                (window_start, before) = (now, self.counts.received);
                self.check()?;
            }
        }
        self.drain(&mut heard)?;
        Ok(Run {
            counts: self.counts.clone(),
            windows,
            seconds: self.clock.seconds(now - plan.start),
            latency,
        })
    }

    /// Sends a few frames until some come back in each direction: then the device
    /// works, and knows its next hop.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let end = clock::now() + self.clock.cycles(timeout);
        loop {
            self.counts = Counts::default();
            let ready = self.ports.iter().all(|port| port.nic.lock().is_ready());
            if ready {
                let plan = Plan {
                    rate: Some(1e4 / self.clock.hertz()),
                    waits: true,
                    ..self.plan(Load::Full, Span::Time(WINDOW))
                };
                while clock::now() < plan.end {
                    self.poll(Some(&plan), &mut |_| {})?;
                }
                self.drain(&mut |_| {})?;
                if self.counts.loss() < 0.01 && self.counts.received > 0 {
                    return Ok(());
                }
            }
            if clock::now() > end {
                bail!(
                    "{}: the device {}",
                    self.traffic.scenario(),
                    match ready {
                        true => format!("forwards nothing or little: {:?}", self.counts),
                        false => "has not started its queues".to_owned(),
                    }
                );
            }
            thread::sleep(WINDOW / 10);
        }
    }

    fn plan(&mut self, load: Load, span: Span) -> Plan {
        for port in &mut self.ports {
            port.settled = 0;
        }
        let start = clock::now();
        let (end, limit) = match span {
            Span::Time(time) => (start + self.clock.cycles(time), u64::MAX),
            Span::EachFlow => (u64::MAX, self.most_flows()),
        };
        let rate = match load {
            Load::Full => None,
            Load::Rate(rate) => Some(rate / self.clock.hertz()),
        };
        Plan {
            rate,
            start,
            end,
            limit,
            waits: load == Load::Full || span == Span::EachFlow,
        }
    }

    fn most_flows(&self) -> u64 {
        let rotations = self.ports.iter().filter_map(|port| port.rotation.as_ref());
        rotations.map(Rotation::flows).max().unwrap_or(0).into()
    }

    fn has_sent(&self, limit: u64) -> bool {
        let mut senders = self.ports.iter().filter(|port| port.rotation.is_some());
        senders.all(|port| port.settled >= limit)
    }

    /// Receives a burst and sends one on each port.
    #[inline]
    fn poll(&mut self, plan: Option<&Plan>, heard: &mut impl FnMut(u64)) -> Result<u64> {
        let before = self.counts.received;
        let Generator {
            traffic,
            clock,
            ports,
            counts,
            exhibit,
        } = self;
        for port in ports {
            port.look_at_door(clock)?;
            port.receive(traffic, counts, exhibit, heard)
                .with_context(|| format!("transmit queue, {:?}", port.side))?;
            if let Some(plan) = plan {
                port.send(traffic, counts, plan)
                    .with_context(|| format!("receive queue, {:?}", port.side))?;
            }
            if port.nic.is_wanted() {
                thread::sleep(PAUSE);
            }
        }
        Ok(self.counts.received - before)
    }

    /// Receives until all is back, or nothing has come for a while.
    fn drain(&mut self, heard: &mut impl FnMut(u64)) -> Result<()> {
        let quiet = self.clock.cycles(QUIET);
        let mut last = clock::now();
        let end = last + self.clock.cycles(DRAIN);
        while self.counts.received < self.counts.sent && clock::now() < (last + quiet).min(end) {
            if self.poll(None, heard)? > 0 {
                last = clock::now();
            }
        }
        self.check()
    }

    fn check(&self) -> Result<()> {
        match &self.exhibit {
            Some(exhibit) => bail!("{} wrong frames; the first: {exhibit}", self.counts.wrong),
            None => Ok(()),
        }
    }
}

impl Port<'_> {
    /// Takes in what the host behind the door has sent, now and then.
    #[inline]
    fn look_at_door(&mut self, clock: &Clock) -> Result<()> {
        let Some(door) = self.door else {
            return Ok(());
        };
        let now = clock::now();
        if now < self.look {
            return Ok(());
        }
        self.look = now + clock.cycles(DOOR);
        while self.answers.len() < MOST_ANSWERS
            && let Some(frame) = door.receive()?
        {
            self.answers.push_back(frame);
        }
        Ok(())
    }

    #[inline]
    fn receive(
        &mut self,
        traffic: &Traffic,
        counts: &mut Counts,
        exhibit: &mut Option<Exhibit>,
        heard: &mut impl FnMut(u64),
    ) -> Result<(), crate::ring::Fault> {
        let (side, door, answers) = (self.side, self.door, &mut self.answers);
        self.nic.lock().receive(|head| {
            match traffic.check_head(side, head.bytes(), head.length()) {
                Ok(Arrival { stamp, .. }) => {
                    counts.received += 1;
                    heard(stamp);
                }
                Err(wrong) => match door.filter(|door| door.is_for(head.bytes())) {
                    Some(door) => {
                        door.send(&head.whole());
                        counts.control += 1;
                    }
                    None => judge(side, wrong, head, counts, exhibit, answers),
                },
            }
        })?;
        Ok(())
    }

    #[inline]
    fn send(
        &mut self,
        traffic: &Traffic,
        counts: &mut Counts,
        plan: &Plan,
    ) -> Result<(), crate::ring::Fault> {
        while let Some(answer) = self.answers.pop_front() {
            let sent = self.nic.lock().send(1, answer.len(), |room| {
                room.put(0, &answer);
                answer.len()
            })?;
            if sent == 0 {
                self.answers.push_front(answer);
                break;
            }
        }
        let Some(rotation) = &mut self.rotation else {
            return Ok(());
        };
        let now = clock::now();
        let most = match plan.rate {
            None => BURST as u64,
            Some(rate) => {
                let due = ((now - plan.start) as f64 * rate * self.share) as u64;
                let late = due.saturating_sub(self.settled);
                if !plan.waits {
                    self.settled += late.saturating_sub(MOST_DUE);
                }
                late.min(MOST_DUE)
            }
        };
        let most = most.min(plan.limit.saturating_sub(self.settled));
        let mut left = most;
        while left > 0 {
            let sent = self.nic.lock().send(left as usize, self.typical, |room| {
                traffic.emit(rotation.advance(), now, room)
            })?;
            left -= sent as u64;
            if sent < BURST {
                break;
            }
        }
        counts.sent += most - left;
        let refused = if plan.waits { 0 } else { left };
        counts.refused += refused;
        self.settled += most - left + refused;
        Ok(())
    }
}

/// Sorts a frame that is not as it must be.
#[cold]
fn judge(
    side: Side,
    wrong: Wrong,
    head: &Incoming<'_>,
    counts: &mut Counts,
    exhibit: &mut Option<Exhibit>,
    answers: &mut VecDeque<Vec<u8>>,
) {
    let kind = match wrong {
        Wrong::Stranger => control(side, head.bytes()),
        _ => Control::Stranger,
    };
    match kind {
        Control::Answer(answer) => {
            counts.control += 1;
            answers.push_back(answer);
        }
        Control::Ignore => counts.control += 1,
        Control::Stranger => {
            counts.wrong += 1;
            exhibit.get_or_insert_with(|| Exhibit {
                side,
                wrong,
                head: head.bytes().to_vec(),
                length: head.length(),
            });
        }
    }
}
