//! Changes of the tables while frames are forwarded: what they cost the frames.
//!
//! Our NVE forwards at half of what it can. For some seconds its tables stay as they
//! are, for some seconds they change all the time, and so on in turns, the other way
//! round in every second round. What changes is what other VMs bring that come and go;
//! nothing of it concerns the frames.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::dut::{DEVICE_CPU, Device, Hosted};
use crate::generator::{Generator, Load, Run, Span};
use crate::measure::{self, READY, Rig};
use crate::proximity;
use crate::realtime::Exclusive;
use crate::stats;
use crate::traffic::{Flows, Scenario, Sizes, Traffic};

/// How long each phase waits for the processors to come near.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long full load is measured.
const FULL: Duration = Duration::from_secs(1);
/// Part of the frames at full load that is sent.
const PART: f64 = 0.5;
/// How long the shim in the device gets to make transactions for a phase, and the device
/// to begin or end with them.
const PAUSE: Duration = Duration::from_secs(1);

/// Parts of the frames whose latency is told.
pub const PARTS: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// How it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// What is forwarded.
    pub scenario: Scenario,
    /// Number of flows.
    pub flows: Flows,
    /// Sizes of frames.
    pub sizes: Sizes,
    /// Transactions per second, of one record each.
    pub rate: u32,
    /// How often each of both.
    pub rounds: usize,
    /// How long each time.
    pub span: Duration,
}

/// What was seen in one phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Phase {
    /// Whether the tables changed.
    pub changing: bool,
    /// Transactions that the device took, per second.
    pub changes: f64,
    /// Frames per second that came out right.
    pub pps: f64,
    /// Frames that were due.
    pub offered: u64,
    /// Frames that were due and did not come out right; most of them found no buffer,
    /// because one of the two processors was taken away for a moment.
    pub lost: u64,
    /// Frames that the device dropped, as it counts itself, but for those that found no
    /// room in the generator's queue.
    pub dropped: u64,
    /// Microseconds that each part in [`PARTS`] of the frames took at most, generator
    /// included.
    pub latency_us: [f64; 4],
    /// Busy cycles per packet, changes included: the median of the device's seconds.
    pub cycles: f64,
    /// Cycles from the generator's processor to the device's and back.
    pub round_trip: u64,
}

/// Measures all phases; `each` gets each of them as it is there.
pub fn measure(rig: &mut Rig, method: &Method, mut each: impl FnMut(&Phase)) -> Result<Vec<Phase>> {
    let mut device = rig.start_changing(method.scenario, method.rate)?;
    let traffic = Traffic::new(method.scenario, method.flows, method.sizes);
    let mut generator = rig.generator(&traffic);
    generator.wait_ready(READY)?;
    measure::warm_up(&mut generator)?;
    let rate = PART * full(&mut generator, &device)?;
    let mut phases = Vec::new();
    for round in 0..method.rounds {
        let first = round % 2 == 1;
        for changing in [first, !first] {
            let phase = phase(
                &mut generator,
                &mut device,
                rig,
                (changing, rate),
                method.span,
            );
            let phase = phase.with_context(|| format!("round {}", round + 1))?;
            each(&phase);
            phases.push(phase);
        }
    }
    Ok(phases)
}

/// Frames per second that the device can do.
fn full(generator: &mut Generator<'_>, device: &Hosted) -> Result<f64> {
    proximity::wait_near(DEVICE_CPU, PATIENCE)?;
    let _exclusive = Exclusive::take(device.pid(), DEVICE_CPU)?;
    let run = generator.run(Load::Full, Span::Time(FULL))?;
    stats::median(&run.windows).context("no window")
}

fn phase(
    generator: &mut Generator<'_>,
    device: &mut Hosted,
    rig: &Rig,
    (changing, rate): (bool, f64),
    span: Duration,
) -> Result<Phase> {
    thread::sleep(PAUSE);
    let round_trip = proximity::wait_near(DEVICE_CPU, PATIENCE)?;
    let dropped = device.drops()?;
    device.change(changing)?;
    device.mark()?;
    let exclusive = Exclusive::take(device.pid(), DEVICE_CPU)?;
    let run = generator.run(Load::Rate(rate), Span::Time(span));
    drop(exclusive);
    device.change(false)?;
    device.check()?;
    let run = run?;
    let counts = &run.counts;
    let offered = counts.sent + counts.refused;
    Ok(Phase {
        changing,
        changes: stats::median(&device.changes()?).context("measure for longer")?,
        pps: stats::median(&run.windows).context("no window")?,
        offered,
        lost: offered.saturating_sub(counts.received),
        dropped: device.drops()?.saturating_sub(dropped),
        latency_us: latency(&run, rig),
        cycles: stats::median(&device.cycles()?).context("measure for longer")?,
        round_trip: round_trip.max(proximity::round_trip(DEVICE_CPU)?),
    })
}

fn latency(run: &Run, rig: &Rig) -> [f64; 4] {
    PARTS.map(|part| {
        let cycles = run.latency.value_at_quantile(part);
        rig.clock().seconds(cycles) * 1e6
    })
}

/// The table, in Markdown: of the phases of each kind with the processors near, or of
/// all if there are none, medians and sums.
pub fn markdown(phases: &[Phase]) -> String {
    let mut text = "| tables | changes/s | Mpps | frames | lost, % | dropped | \
         p50 / p90 / p99 / p99.9, µs | cycles per packet |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (changing, name) in [(false, "stay"), (true, "change")] {
        let of_kind = phases.iter().filter(|phase| phase.changing == changing);
        let near = |phase: &&Phase| !proximity::is_far(phase.round_trip);
        let own: Vec<&Phase> = match of_kind.clone().any(|phase| near(&phase)) {
            true => of_kind.filter(near).collect(),
            false => of_kind.collect(),
        };
        let median = |value: &dyn Fn(&Phase) -> f64| {
            let values: Vec<f64> = own.iter().map(|phase| value(phase)).collect();
            stats::median(&values).unwrap_or(f64::NAN)
        };
        let [a, b, c, d] = [0, 1, 2, 3]
            .map(|at| median(&|phase| phase.latency_us.get(at).copied().unwrap_or(f64::NAN)));
        text += &format!(
            "| {name} | {:.0} | {:.2} | {} | {:.2} | {} | {a:.1} / {b:.1} / {c:.1} / {d:.1} | {:.0} |\n",
            median(&|phase| phase.changes),
            median(&|phase| phase.pps) / 1e6,
            own.iter().map(|phase| phase.offered).sum::<u64>(),
            median(&|phase| phase.lost as f64 / phase.offered.max(1) as f64) * 100.0,
            own.iter().map(|phase| phase.dropped).sum::<u64>(),
            median(&|phase| phase.cycles),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_of_a_kind_are_summed_up() {
        let phase = |changing, lost, p99| Phase {
            changing,
            changes: if changing { 1e4 } else { 0.0 },
            pps: 1e6,
            offered: 100,
            lost,
            dropped: 1,
            latency_us: [1.0, 1.5, p99, 9.0],
            cycles: 300.0,
            round_trip: 200,
        };
        let phases = [
            phase(false, 0, 2.0),
            phase(true, 1, 3.0),
            phase(true, 2, 5.0),
            phase(true, 0, 4.0),
            Phase {
                round_trip: 1200,
                ..phase(true, 50, 99.0)
            },
        ];
        let table = markdown(&phases);
        assert!(
            table.contains("| stay | 0 | 1.00 | 100 | 0.00 | 1 | 1.0 / 1.5 / 2.0 / 9.0 | 300 |")
        );
        assert!(
            table.contains(
                "| change | 10000 | 1.00 | 300 | 1.00 | 3 | 1.0 / 1.5 / 4.0 / 9.0 | 300 |"
            )
        );
    }
}
