//! Bytes of what goes from NVE to NVE with a VM, pinned, and their bounds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use nve_protocol::codec::{self, MAX_MESSAGE};
use nve_protocol::handover::*;
use nve_protocol::inspect::{Answer, Ask, ConnectionState, Part, Place, Question};
use nve_protocol::*;

const ID: &str = "9c1e3a52-0000-4000-8000-0000000000ab";
/// No address is longer as text.
const LONGEST: &str = "2001:db80:1111:2222:3333:4444:5555:6666";

fn place() -> Place {
    Place {
        vlan: Vlan::new(101).unwrap(),
        port: ID.parse().unwrap(),
    }
}

fn check<T>(message: T, golden: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut room = [0; MAX_MESSAGE];
    let length = codec::encode(&message, &mut room).unwrap();
    let text = str::from_utf8(&room[..length]).unwrap();
    assert_eq!(text, format!("{golden}\n"));
    let (back, rest) = codec::decode::<T>(&room[..length]).unwrap().unwrap();
    assert_eq!(back, message);
    assert!(rest.is_empty());
    assert_eq!(serde_json::to_string(&message).unwrap(), golden);
    assert_eq!(serde_json::from_str::<T>(golden).unwrap(), message);
}

fn connection() -> Connection {
    Connection {
        opener: Direction::Egress,
        protocol: 6,
        local: "10.0.0.1".parse().unwrap(),
        remote: "10.0.0.2".parse().unwrap(),
        local_port: 40_000,
        remote_port: 443,
        state: ConnectionState::Established,
        idle_ms: 134,
        rule: ID.parse().unwrap(),
    }
}

const LEVEL: Level = Level {
    direction: Direction::Ingress,
    bits: -1,
    packets: i64::MAX,
};

const CONNECTION: &str = r#"{"connection":{"opener":"egress","protocol":6,"local":"10.0.0.1","remote":"10.0.0.2","local_port":40000,"remote_port":443,"state":"established","idle_ms":134,"rule":"9c1e3a52-0000-4000-8000-0000000000ab"}}"#;
const LEVEL_TEXT: &str =
    r#"{"level":{"direction":"ingress","bits":-1,"packets":9223372036854775807}}"#;
const PLACE: &str = r#"{"vlan":101,"port":"9c1e3a52-0000-4000-8000-0000000000ab"}"#;

#[test]
fn a_vap_that_woke() {
    check(ToShim::Awake(place()), &format!(r#"{{"awake":{PLACE}}}"#));
}

#[test]
fn what_is_asked_and_answered() {
    let question = Question::Handover(Handover {
        place: place(),
        cursor: u64::MAX,
        within_ms: 1500,
    });
    check(
        ToNve::Ask(Ask {
            number: 7,
            question,
        }),
        &format!(
            r#"{{"ask":{{"number":7,"question":{{"handover":{{"place":{PLACE},"cursor":18446744073709551615,"within_ms":1500}}}}}}}}"#
        ),
    );
    for (known, golden) in [
        (Known::Connection(connection()), CONNECTION),
        (Known::Level(LEVEL), LEVEL_TEXT),
    ] {
        let part = Part::Known(known);
        check(
            ToShim::Answer(Answer { number: 7, part }),
            &format!(r#"{{"answer":{{"number":7,"part":{{"known":{golden}}}}}}}"#),
        );
    }
}

#[test]
fn what_is_told() {
    for (known, golden) in [
        (Known::Connection(connection()), CONNECTION),
        (Known::Level(LEVEL), LEVEL_TEXT),
    ] {
        let place = place();
        check(
            ToNve::TakeOver(TakeOver { place, known }),
            &format!(r#"{{"take_over":{{"place":{PLACE},"known":{golden}}}}}"#),
        );
    }
}

/// So that an appliance's window holds many of them.
#[test]
fn the_longest_is_short() {
    let longest = Connection {
        opener: Direction::Ingress,
        protocol: 255,
        local: LONGEST.parse().unwrap(),
        remote: LONGEST.parse().unwrap(),
        local_port: u16::MAX,
        remote_port: u16::MAX,
        state: ConnectionState::AnswererClosed,
        idle_ms: u32::MAX,
        ..connection()
    };
    let place = place();
    let known = Known::Connection(longest);
    let mut room = [0; MAX_MESSAGE];
    let length = codec::encode(&ToNve::TakeOver(TakeOver { place, known }), &mut room);
    assert!(length.unwrap() <= 512, "{length:?}");
}
