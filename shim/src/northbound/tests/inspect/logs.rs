//! Lists of drops and flows, page by page.

use super::*;

fn tuple() -> Tuple {
    Tuple {
        source: [10, 0, 0, 11].into(),
        destination: [10, 0, 1, 5].into(),
        protocol: 6,
        source_port: 40_000,
        destination_port: 443,
    }
}

fn dropped(number: u64, from: Option<Via>, blame: Option<Blame>) -> Dropped {
    Dropped {
        number,
        at_ms: 1500,
        reason: DropReason::SecurityGroup,
        from,
        blame,
        packet: Some(Packet {
            source_mac: Mac([2; 6]),
            destination_mac: Mac([4; 6]),
            ethertype: 0x0800,
            ip: Some(tuple()),
        }),
    }
}

#[tokio::test]
async fn drops_are_paged_named_and_filtered() {
    let world = World::new().await;
    let (web, blame) = (
        world.web(),
        Blame {
            vlan: vlan(101),
            port: port_id(&world.web),
            direction: Direction::Egress,
            rule: None,
        },
    );
    let _nve = world.script(0, move |question| {
        let Question::Drops { after } = question else {
            panic!()
        };
        let drop = match after {
            0 | 3 => dropped(4, Some(Via::Vap(web)), Some(blame)),
            4 => dropped(5, None, Some(blame)),
            _ => dropped(6, None, None),
        };
        let done = Done {
            next: drop.number,
            lost: u64::from(*after == 0) * 3,
            more: drop.number < 6,
        };
        Some(Ok(Reply {
            parts: vec![Part::Drop(drop)],
            done,
        }))
    });
    let body = world.rest.get(&world.path(0, "drops")).await.body;
    assert_eq!(
        (&body["next"], &body["lost"], &body["more"]),
        (&json!(6), &json!(3), &json!(false))
    );
    let shown = &body["drops"][0];
    assert_eq!(shown["number"], 4);
    assert_eq!(shown["from_text"], "port web-1 (vm a1), VLAN 101");
    assert_eq!(shown["packet_text"], "tcp 10.0.0.11:40000 > 10.0.1.5:443");
    assert_eq!(
        shown["text"],
        "security_group: No security group rule allows it (egress of port web-1 (vm a1), group default)"
    );
    assert_eq!(shown["port"]["name"], "web-1");
    assert_eq!(shown["at"], Value::Null, "no counters have come");
    let numbers = |body: &Value| -> Vec<u64> {
        let drops = body["drops"].as_array().unwrap().iter();
        drops.map(|drop| drop["number"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(&body), [4, 5, 6]);
    let body = world
        .rest
        .get(&world.path(0, "drops?after=3&port=web-1"))
        .await
        .body;
    assert_eq!(numbers(&body), [4, 5]);
    let elsewhere = world.rest.get(&world.path(0, "drops?port=db-1")).await;
    elsewhere.failed(409, "conflict", None);
}

#[tokio::test]
async fn lists_end_however_much_the_nve_has() {
    let world = World::new().await;
    let flow = Flow {
        from: Via::Vap(world.web()),
        tuple: Tuple {
            protocol: 1,
            source_port: 8,
            destination_port: 0,
            ..tuple()
        },
        echo: Some(7),
        to: Via::Tunnel(Tunnel {
            vni: Vni::new(9).unwrap(),
            vtep: [192, 0, 2, 2].into(),
        }),
        rewrite: None,
        dscp: None,
        egress_meter: false,
        ingress_meter: false,
        sender: Some(Tracked {
            state: ConnectionState::Query,
            rule: RuleId([1; 16]),
        }),
        receiver: None,
        idle_ms: 20,
    };
    let _nve = world.script(0, move |question| {
        let (parts, next) = match question {
            Question::Drops { after } => {
                (vec![Part::Drop(dropped(after + 1, None, None))], after + 1)
            }
            Question::Flows { cursor, vlan } => {
                assert!(vlan.is_none_or(|vlan| vlan.get() == 101));
                match vlan {
                    Some(_) if *cursor == 2 => (vec![Part::Flow(flow)], 0),
                    _ => (vec![Part::Flow(flow); 255], u64::from(cursor + 1)),
                }
            }
            _ => panic!(),
        };
        Some(Ok(Reply {
            parts,
            done: Done {
                next,
                lost: 0,
                more: true,
            },
        }))
    });
    let drops = world.rest.get(&world.path(0, "drops")).await.body;
    assert_eq!((&drops["next"], &drops["more"]), (&json!(32), &json!(true)));
    let flows = world.rest.get(&world.path(0, "flows")).await.body;
    assert_eq!(flows["flows"].as_array().unwrap().len(), 8192);
    assert_eq!(flows["truncated"], true);
    let flows = world
        .rest
        .get(&world.path(0, "flows?port=web-1"))
        .await
        .body;
    assert_eq!(flows["flows"].as_array().unwrap().len(), 2 * 255 + 1);
    assert_eq!(flows["truncated"], false);
    let shown = &flows["flows"][0];
    assert_eq!(
        shown["tuple_text"],
        "icmp 10.0.0.11 > 10.0.1.5, type 8 code 0, id 7"
    );
    assert_eq!(
        shown["to_text"],
        "VTEP 192.0.2.2 (NVE nve-2), VNI 9, which no network has any more"
    );
    assert_eq!(
        shown["sender_text"],
        format!(
            "query and answers, rule {} (a rule that is no more)",
            RuleId([1; 16])
        )
    );
}
