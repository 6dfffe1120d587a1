//! The scenarios against our datapath in this process: tables, what is sent and
//! what must come out fit together.

use nve_datapath::{
    Config, Datapath, Frame, HEADROOM, Nanos, NoBuffer, PartialChecksum, Side, Sink, Tables,
    Uplink, Verdict, connections,
};
use nve_protocol::TableSizes;
use sluice_bench::traffic::{
    Control, FlowId, Flows, Scenario, Sizes, Traffic, UPLINK_MAC, VTEP, Wrong, control, records,
};

/// Frames that the datapath sends of its own.
#[derive(Default)]
struct Sent(Vec<(Side, Vec<u8>)>);

impl Sink for Sent {
    fn emit(
        &mut self,
        side: Side,
        parts: &[&[u8]],
        _: Option<PartialChecksum>,
    ) -> Result<(), NoBuffer> {
        self.0.push((side, parts.concat()));
        Ok(())
    }
}

struct Nve {
    datapath: Datapath,
    now: Nanos,
}

impl Nve {
    fn new(scenario: Scenario) -> Nve {
        let config = Config {
            uplink: Uplink {
                mac: UPLINK_MAC,
                address: VTEP.into(),
                prefix: 24,
                gateway: None,
                mtu: 1600,
            },
            trunk_mtu: 1500,
            trunk_checksum: false,
            flows: 8192,
            seed: 7,
            connections: connections::Config {
                connections: 8192,
                connections_per_vap: 8192,
                fragments: 16,
                seed: 8,
                timeouts: connections::Timeouts::default(),
            },
        };
        let mut tables = Tables::new(TableSizes::uniform(4094));
        for record in records(scenario) {
            tables.put(&record).expect("records fit");
        }
        let mut nve = Nve {
            datapath: Datapath::new(config, tables),
            now: Nanos(1_000_000_000),
        };
        nve.resolve();
        nve
    }

    /// Answers what the datapath asks on the uplink.
    fn resolve(&mut self) {
        let mut sent = Sent::default();
        self.datapath.tick(self.now, &mut sent);
        for (side, frame) in sent.0 {
            if let Control::Answer(answer) = control(side, &frame) {
                assert_eq!(self.process(side, &answer).0, Verdict::Host);
            }
        }
    }

    fn process(&mut self, side: Side, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let mut buffer = vec![0; HEADROOM + bytes.len()];
        buffer[HEADROOM..].copy_from_slice(bytes);
        let frame = Frame::new(&mut buffer, HEADROOM, bytes.len()).expect("it has room");
        let (mut burst, mut verdicts) = ([frame], [Verdict::Host]);
        let mut sent = Sent::default();
        self.datapath.process(
            self.now,
            side,
            &mut (&mut burst[..], &mut verdicts[..]),
            &mut sent,
        );
        assert!(sent.0.is_empty());
        let ([frame], [verdict]) = (burst, verdicts);
        (verdict, frame.bytes().to_vec())
    }
}

fn each_frame(traffic: &Traffic, mut each: impl FnMut(Side, FlowId, u64, &[u8])) {
    for side in [Side::Trunk, Side::Uplink] {
        let Some(mut rotation) = traffic.rotation(side) else {
            continue;
        };
        for stamp in 0..2 * u64::from(rotation.flows()) {
            let next = rotation.advance();
            let mut buffer = [0; 1600];
            let length = traffic.emit(next, stamp, &mut buffer[..]);
            assert_ne!(length, 0);
            each(side, next.flow, stamp, &buffer[..length]);
        }
    }
}

#[test]
fn every_frame_comes_out_as_it_must() {
    for scenario in Scenario::ALL {
        for sizes in Sizes::ALL {
            for flows in [1, 20, 4_000] {
                let traffic = Traffic::new(scenario, Flows::new(flows).unwrap(), sizes);
                let mut nve = Nve::new(scenario);
                let mut frames = 0;
                each_frame(&traffic, |side, flow, stamp, frame| {
                    let (verdict, frame) = nve.process(side, frame);
                    let Verdict::Send(side) = verdict else {
                        panic!("{scenario} {sizes} {flow:?}: {verdict:?}");
                    };
                    let arrival = traffic.check(side, &frame);
                    let arrival = arrival.unwrap_or_else(|wrong| {
                        panic!("{scenario} {sizes} {flow:?}: {wrong}");
                    });
                    assert_eq!((arrival.flow, arrival.stamp), (flow, stamp));
                    frames += 1;
                });
                assert_eq!(frames, 2 * traffic.flows(), "{scenario} {flows}");
            }
        }
    }
}

#[test]
fn without_work_frames_come_out_as_they_went_in() {
    let traffic = Traffic::new(Scenario::Io, Flows::new(100).unwrap(), Sizes::Imix);
    each_frame(&traffic, |side, flow, stamp, frame| {
        let other = match side {
            Side::Trunk => Side::Uplink,
            Side::Uplink => Side::Trunk,
        };
        let arrival = traffic.check(other, frame).unwrap();
        assert_eq!((arrival.flow, arrival.stamp), (flow, stamp));
        assert_eq!(traffic.check(side, frame), Err(Wrong::Side));
    });
}

/// Flips each bit of a frame that came out right.
#[test]
fn no_damage_to_headers_goes_unseen() {
    for scenario in Scenario::ALL {
        let traffic = Traffic::new(scenario, Flows::new(20).unwrap(), Sizes::Small);
        let mut nve = Nve::new(scenario);
        each_frame(&traffic, |side, _, _, frame| {
            let (verdict, mut frame) = nve.process(side, frame);
            let Verdict::Send(side) = verdict else {
                panic!("{verdict:?}");
            };
            let right = traffic.check(side, &frame).unwrap();
            for at in 0..frame.len() {
                for bit in 0..8 {
                    frame[at] ^= 1 << bit;
                    if let Ok(other) = traffic.check(side, &frame) {
                        assert_overlooked(side, at, bit);
                        assert_eq!(other.flow, right.flow);
                    }
                    frame[at] ^= 1 << bit;
                }
            }
            assert!(traffic.check(side, &frame[..frame.len() - 1]).is_err());
            frame.push(0);
            assert!(traffic.check(side, &frame).is_err());
        });
    }
}

/// What may differ: the time stamp, and the outer UDP source port while it is one.
fn assert_overlooked(side: Side, at: usize, bit: u32) {
    let (stamp, port) = match side {
        Side::Trunk => (54..62, 0..0),
        Side::Uplink => (100..108, 34..36),
    };
    assert!(stamp.contains(&at) || port.contains(&at), "{at} {bit}");
}
