//! Bytes of questions and answers, pinned, and their bounds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;

use nve_protocol::codec::{self, MAX_MESSAGE};
use nve_protocol::inspect::*;
use nve_protocol::*;

const ID: &str = "9c1e3a52-0000-4000-8000-0000000000ab";
/// No address is longer as text.
const LONGEST: &str = "2001:db80:1111:2222:3333:4444:5555:6666";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn vni() -> Vni {
    Vni::new(5001).unwrap()
}

fn vlan() -> Vlan {
    Vlan::new(101).unwrap()
}

fn mac() -> Mac {
    "02:00:00:00:00:0a".parse().unwrap()
}

fn tunnel() -> Tunnel {
    Tunnel {
        vni: vni(),
        vtep: ip("192.0.2.12"),
    }
}

fn place() -> Place {
    Place {
        vlan: vlan(),
        port: ID.parse().unwrap(),
    }
}

fn check<T>(message: T, golden: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut room = [0; MAX_MESSAGE];
    let length = codec::encode(&message, &mut room).unwrap();
    assert_eq!(
        str::from_utf8(&room[..length]).unwrap(),
        format!("{golden}\n")
    );
    let (back, rest) = codec::decode::<T>(&room[..length]).unwrap().unwrap();
    assert_eq!(back, message);
    assert!(rest.is_empty());
    assert_eq!(serde_json::to_string(&message).unwrap(), golden);
    assert_eq!(serde_json::from_str::<T>(golden).unwrap(), message);
}

fn check_question(question: Question, golden: &str) {
    let ask = Ask {
        number: 7,
        question,
    };
    let golden = format!(r#"{{"ask":{{"number":7,"question":{golden}}}}}"#);
    check(ToNve::Ask(ask), &golden);
}

fn check_part(part: Part, golden: &str) {
    let answer = Answer { number: 7, part };
    let golden = format!(r#"{{"answer":{{"number":7,"part":{golden}}}}}"#);
    check(ToShim::Answer(answer), &golden);
}

fn check_step(step: Step, golden: &str) {
    check_part(Part::Step(step), &format!(r#"{{"step":{golden}}}"#));
}

#[test]
fn questions() {
    let head = ProbeHead::new(&[2, 0xff]).unwrap();
    let probe = |origin| {
        Question::Trace(Probe {
            origin,
            length: 60,
            head,
        })
    };
    check_question(
        probe(Origin::Vap { vlan: vlan() }),
        r#"{"trace":{"origin":{"vap":{"vlan":101}},"length":60,"head":"02ff"}}"#,
    );
    check_question(
        probe(Origin::Tunnel(tunnel())),
        r#"{"trace":{"origin":{"tunnel":{"vni":5001,"vtep":"192.0.2.12"}},"length":60,"head":"02ff"}}"#,
    );
    check_question(Question::Drops { after: 9 }, r#"{"drops":{"after":9}}"#);
    check_question(
        Question::Flows {
            cursor: 3,
            vlan: Some(vlan()),
        },
        r#"{"flows":{"cursor":3,"vlan":101}}"#,
    );
    check_question(
        Question::Flows {
            cursor: 0,
            vlan: None,
        },
        r#"{"flows":{"cursor":0,"vlan":null}}"#,
    );
    let capture = Capture {
        id: 4,
        vlan: vlan(),
        port: ID.parse().unwrap(),
        snap: 128,
    };
    check_question(
        Question::Capture(capture),
        r#"{"capture":{"id":4,"vlan":101,"port":"9c1e3a52-0000-4000-8000-0000000000ab","snap":128}}"#,
    );
}

#[test]
fn ends_of_answers() {
    let done = Done {
        next: 12,
        lost: 1,
        more: true,
    };
    check_part(
        Part::Done(done),
        r#"{"done":{"next":12,"lost":1,"more":true}}"#,
    );
    for (failure, golden) in [
        (Failure::BadProbe, "bad_probe"),
        (Failure::NoVap, "no_vap"),
        (Failure::Busy, "busy"),
        (Failure::OutOfMemory, "out_of_memory"),
    ] {
        check_part(
            Part::Failed(failure),
            &format!(r#"{{"failed":"{golden}"}}"#),
        );
    }
}

#[test]
fn steps_of_senders() {
    check_step(
        Step::From(Via::Vap(place())),
        r#"{"from":{"vap":{"vlan":101,"port":"9c1e3a52-0000-4000-8000-0000000000ab"}}}"#,
    );
    check_step(
        Step::From(Via::Tunnel(tunnel())),
        r#"{"from":{"tunnel":{"vni":5001,"vtep":"192.0.2.12"}}}"#,
    );
    let address = Source::Address {
        mac: mac(),
        prefix: "10.0.0.11/32".parse().unwrap(),
        fixed: true,
    };
    for (source, golden) in [
        (Source::Unchecked, r#""unchecked""#),
        (
            address,
            r#"{"address":{"mac":"02:00:00:00:00:0a","prefix":"10.0.0.11/32","fixed":true}}"#,
        ),
        (Source::LinkLocal, r#""link_local""#),
        (Source::Mac, r#""mac""#),
        (Source::Unspecified, r#""unspecified""#),
    ] {
        check_step(Step::Source(source), &format!(r#"{{"source":{golden}}}"#));
    }
    for (responder, golden) in [
        (Responder::Arp, "arp"),
        (Responder::NeighborDiscovery, "neighbor_discovery"),
        (Responder::Dhcpv4, "dhcpv4"),
        (Responder::Dhcpv6, "dhcpv6"),
        (Responder::Echo, "echo"),
        (Responder::Icmp, "icmp"),
    ] {
        check_step(
            Step::Responder(responder),
            &format!(r#"{{"responder":"{golden}"}}"#),
        );
    }
}

#[test]
fn steps_of_security_groups() {
    let admitted = Admitted {
        vlan: vlan(),
        direction: Direction::Egress,
        checked: true,
        rule: Some(ID.parse().unwrap()),
        connection: None,
        opens: true,
    };
    check_step(
        Step::Admitted(admitted),
        r#"{"admitted":{"vlan":101,"direction":"egress","checked":true,"rule":"9c1e3a52-0000-4000-8000-0000000000ab","connection":null,"opens":true}}"#,
    );
    for (state, golden) in [
        (ConnectionState::SynSent, "syn_sent"),
        (ConnectionState::SynReceived, "syn_received"),
        (ConnectionState::Established, "established"),
        (ConnectionState::PickedUp, "picked_up"),
        (ConnectionState::OpenerClosed, "opener_closed"),
        (ConnectionState::AnswererClosed, "answerer_closed"),
        (ConnectionState::Closed, "closed"),
        (ConnectionState::Reset, "reset"),
        (ConnectionState::Unanswered, "unanswered"),
        (ConnectionState::Answered, "answered"),
        (ConnectionState::Query, "query"),
        (ConnectionState::Other, "other"),
        (ConnectionState::Cut, "cut"),
    ] {
        check_step(
            Step::Admitted(Admitted {
                rule: None,
                connection: Some(state),
                opens: false,
                ..admitted
            }),
            &format!(
                r#"{{"admitted":{{"vlan":101,"direction":"egress","checked":true,"rule":null,"connection":"{golden}","opens":false}}}}"#
            ),
        );
    }
}

#[test]
fn steps_of_the_way() {
    let steps = [
        (
            Step::Router {
                router: ID.parse().unwrap(),
                gateway: ip("10.0.0.1"),
            },
            r#"{"router":{"router":"9c1e3a52-0000-4000-8000-0000000000ab","gateway":"10.0.0.1"}}"#,
        ),
        (
            Step::Route {
                prefix: "10.0.1.0/24".parse().unwrap(),
                vni: vni(),
                next_hop: ip("10.0.1.5"),
                mac: mac(),
                mtu: 1450,
            },
            r#"{"route":{"prefix":"10.0.1.0/24","vni":5001,"next_hop":"10.0.1.5","mac":"02:00:00:00:00:0a","mtu":1450}}"#,
        ),
        (
            Step::Receiver(Receiver::Vap(place())),
            r#"{"receiver":{"vap":{"vlan":101,"port":"9c1e3a52-0000-4000-8000-0000000000ab"}}}"#,
        ),
        (
            Step::Receiver(Receiver::Fdb {
                vni: vni(),
                mac: mac(),
                vtep: ip("192.0.2.12"),
            }),
            r#"{"receiver":{"fdb":{"vni":5001,"mac":"02:00:00:00:00:0a","vtep":"192.0.2.12"}}}"#,
        ),
        (
            Step::Receiver(Receiver::All { vni: vni() }),
            r#"{"receiver":{"all":{"vni":5001}}}"#,
        ),
        (
            Step::Receiver(Receiver::Unknown {
                vni: vni(),
                mac: mac(),
            }),
            r#"{"receiver":{"unknown":{"vni":5001,"mac":"02:00:00:00:00:0a"}}}"#,
        ),
    ];
    for (step, golden) in steps {
        check_step(step, golden);
    }
}

#[test]
fn steps_of_leaving() {
    let limit = Limit {
        kbps: 1000,
        ..Limit::default()
    };
    let steps = [
        (
            Step::Meter {
                vlan: vlan(),
                direction: Direction::Ingress,
                limit,
            },
            r#"{"meter":{"vlan":101,"direction":"ingress","limit":{"kbps":1000,"burst_kbit":0,"pps":0,"burst_packets":0}}}"#,
        ),
        (Step::Mark { dscp: 46 }, r#"{"mark":{"dscp":46}}"#),
        (
            Step::Rewrite {
                source: mac(),
                destination: mac(),
            },
            r#"{"rewrite":{"source":"02:00:00:00:00:0a","destination":"02:00:00:00:00:0a"}}"#,
        ),
        (Step::Fragment { mtu: 1450 }, r#"{"fragment":{"mtu":1450}}"#),
        (
            Step::Send(Leaving {
                to: Via::Tunnel(tunnel()),
                length: 124,
                head: Head::new(&[1, 2]).unwrap(),
            }),
            r#"{"send":{"to":{"tunnel":{"vni":5001,"vtep":"192.0.2.12"}},"length":124,"head":"0102"}}"#,
        ),
        (
            Step::Drop {
                reason: DropReason::NoRoute,
                blame: None,
            },
            r#"{"drop":{"reason":"no_route","blame":null}}"#,
        ),
        (
            Step::Drop {
                reason: DropReason::SecurityGroup,
                blame: Some(Blame {
                    vlan: vlan(),
                    port: ID.parse().unwrap(),
                    direction: Direction::Ingress,
                    rule: None,
                }),
            },
            r#"{"drop":{"reason":"security_group","blame":{"vlan":101,"port":"9c1e3a52-0000-4000-8000-0000000000ab","direction":"ingress","rule":null}}}"#,
        ),
    ];
    for (step, golden) in steps {
        check_step(step, golden);
    }
}

fn tuple() -> Tuple {
    Tuple {
        source: ip("10.0.0.11"),
        destination: ip("10.0.1.5"),
        protocol: 6,
        source_port: 40_000,
        destination_port: 443,
    }
}

const TUPLE: &str = r#"{"source":"10.0.0.11","destination":"10.0.1.5","protocol":6,"source_port":40000,"destination_port":443}"#;

#[test]
fn drops() {
    let bare = Dropped {
        number: 3,
        at_ms: 1500,
        reason: DropReason::Untagged,
        from: None,
        blame: None,
        packet: None,
    };
    check_part(
        Part::Drop(bare),
        r#"{"drop":{"number":3,"at_ms":1500,"reason":"untagged","from":null,"blame":null,"packet":null}}"#,
    );
    let full = Dropped {
        from: Some(Via::Vap(place())),
        packet: Some(Packet {
            source_mac: mac(),
            destination_mac: Mac::BROADCAST,
            ethertype: 0x0800,
            ip: Some(tuple()),
        }),
        ..bare
    };
    check_part(
        Part::Drop(full),
        &format!(
            r#"{{"drop":{{"number":3,"at_ms":1500,"reason":"untagged","from":{{"vap":{{"vlan":101,"port":"{ID}"}}}},"blame":null,"packet":{{"source_mac":"02:00:00:00:00:0a","destination_mac":"ff:ff:ff:ff:ff:ff","ethertype":2048,"ip":{TUPLE}}}}}}}"#
        ),
    );
}

#[test]
fn flows() {
    let flow = Flow {
        from: Via::Vap(place()),
        tuple: tuple(),
        echo: None,
        to: Via::Tunnel(tunnel()),
        rewrite: Some((mac(), mac())),
        dscp: Some(46),
        egress_meter: true,
        ingress_meter: false,
        sender: Some(Tracked {
            state: ConnectionState::Established,
            rule: ID.parse().unwrap(),
        }),
        receiver: None,
        idle_ms: 20,
    };
    check_part(
        Part::Flow(flow),
        &format!(
            r#"{{"flow":{{"from":{{"vap":{{"vlan":101,"port":"{ID}"}}}},"tuple":{TUPLE},"echo":null,"to":{{"tunnel":{{"vni":5001,"vtep":"192.0.2.12"}}}},"rewrite":["02:00:00:00:00:0a","02:00:00:00:00:0a"],"dscp":46,"egress_meter":true,"ingress_meter":false,"sender":{{"state":"established","rule":"{ID}"}},"receiver":null,"idle_ms":20}}}}"#
        ),
    );
}

#[test]
fn frames() {
    let frame = Captured {
        number: 2,
        at_us: 123,
        direction: Direction::Egress,
        length: 60,
        kept: 3,
        offset: 0,
        piece: Piece::new(&[1, 2, 3]).unwrap(),
    };
    check_part(
        Part::Frame(frame),
        r#"{"frame":{"number":2,"at_us":123,"direction":"egress","length":60,"kept":3,"offset":0,"piece":"010203"}}"#,
    );
}

/// Encodes, decodes and compares; what does not fit fails.
fn fits<T>(message: T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut room = [0; MAX_MESSAGE];
    let length = codec::encode(&message, &mut room).expect("too long");
    let (back, _) = codec::decode::<T>(&room[..length]).unwrap().unwrap();
    assert_eq!(back, message);
}

#[test]
fn the_longest_question_and_answer_fit() {
    let tunnel = Tunnel {
        vni: Vni::new(Vni::MAX).unwrap(),
        vtep: ip(LONGEST),
    };
    let probe = Probe {
        origin: Origin::Tunnel(tunnel),
        length: u16::MAX,
        head: ProbeHead::front(&[0xff; 512]),
    };
    fits(ToNve::Ask(Ask {
        number: u32::MAX,
        question: Question::Trace(probe),
    }));
    let blame = Blame {
        vlan: Vlan::new(Vlan::MAX).unwrap(),
        port: ID.parse().unwrap(),
        direction: Direction::Ingress,
        rule: Some(ID.parse().unwrap()),
    };
    let tuple = Tuple {
        source: ip(LONGEST),
        destination: ip(LONGEST),
        protocol: u8::MAX,
        source_port: u16::MAX,
        destination_port: u16::MAX,
    };
    let tracked = Tracked {
        state: ConnectionState::AnswererClosed,
        rule: ID.parse().unwrap(),
    };
    let longest = DropReason::ALL.iter().max_by_key(|r| r.name().len());
    let parts = [
        Part::Step(Step::Send(Leaving {
            to: Via::Tunnel(tunnel),
            length: u16::MAX,
            head: Head::front(&[0xff; 192]),
        })),
        Part::Drop(Dropped {
            number: u64::MAX,
            at_ms: u64::MAX,
            reason: *longest.unwrap(),
            from: Some(Via::Tunnel(tunnel)),
            blame: Some(blame),
            packet: Some(Packet {
                source_mac: mac(),
                destination_mac: mac(),
                ethertype: u16::MAX,
                ip: Some(tuple),
            }),
        }),
        Part::Flow(Flow {
            from: Via::Tunnel(tunnel),
            tuple,
            echo: Some(u16::MAX),
            to: Via::Tunnel(tunnel),
            rewrite: Some((mac(), mac())),
            dscp: Some(u8::MAX),
            egress_meter: false,
            ingress_meter: false,
            sender: Some(tracked),
            receiver: Some(tracked),
            idle_ms: u32::MAX,
        }),
        Part::Frame(Captured {
            number: u64::MAX,
            at_us: u64::MAX,
            direction: Direction::Ingress,
            length: u16::MAX,
            kept: u16::MAX,
            offset: u16::MAX,
            piece: Piece::front(&[0xff; 640]),
        }),
        Part::Done(Done {
            next: u64::MAX,
            lost: u64::MAX,
            more: false,
        }),
    ];
    for part in parts {
        let number = u32::MAX;
        fits(ToShim::Answer(Answer { number, part }));
    }
}

proptest::proptest! {
    #[test]
    fn lies_about_lengths_do_not_panic(text in "\\{\"answer\":\\{\"number\":[0-9]{1,12},\"part\":\\{\"frame\":\\{\"number\":1,\"at_us\":1,\"direction\":\"egress\",\"length\":[0-9]{1,6},\"kept\":1,\"offset\":0,\"piece\":\"[0-9a-g]{0,1400}\"\\}\\}\\}\\}\n") {
        let _ = codec::decode::<ToShim>(text.as_bytes());
    }
}
