//! Packets from NVE to NVE, and the frames that are asked about.

use super::*;

fn stages(hop: &Value) -> Vec<String> {
    let line = |told: &Value| format!("{}: {}", text(told, "stage"), text(told, "text"));
    hop["steps"].as_array().unwrap().iter().map(line).collect()
}

/// The same with more behind it than is told.
fn longer(step: Step, length: u16) -> Step {
    match step {
        Step::Send(leaving) => Step::Send(Leaving { length, ..leaving }),
        other => other,
    }
}

#[tokio::test]
async fn a_packet_is_followed_to_the_port_that_gets_it() {
    let world = World::new().await;
    let (blue, green) = (world.vni("blue").await, world.vni("green").await);
    let out = world.rule(&world.web, "egress").await;
    let (web, db, db_mac) = (world.web(), world.db(), mac(&world.db));
    let (router, gateway) = (RouterId(world.router.into_bytes()), world.gateway);
    let limit = Limit {
        kbps: 1000,
        burst_kbit: 80,
        ..Limit::default()
    };
    let _first = world.script(0, move |question| {
        let Question::Trace(probe) = question else {
            panic!()
        };
        assert_eq!(probe.origin, Origin::Vap { vlan: vlan(101) });
        let inner = probe.head.bytes();
        assert_eq!(inner[..6], gateway.0);
        let admitted = Admitted {
            vlan: vlan(101),
            direction: Direction::Egress,
            checked: true,
            rule: Some(out),
            connection: None,
            opens: true,
        };
        let fixed = Source::Address {
            mac: Mac([2; 6]),
            prefix: "10.0.0.11/32".parse().unwrap(),
            fixed: true,
        };
        let steps = [
            Step::From(Via::Vap(web)),
            Step::Source(fixed),
            Step::Admitted(admitted),
            Step::Router {
                router,
                gateway: [10, 0, 0, 1].into(),
            },
            Step::Route {
                prefix: "10.0.1.0/24".parse().unwrap(),
                vni: green,
                next_hop: [10, 0, 1, 5].into(),
                mac: db_mac,
                mtu: 1450,
            },
            Step::Receiver(Receiver::Fdb {
                vni: green,
                mac: db_mac,
                vtep: [192, 0, 2, 2].into(),
            }),
            Step::Meter {
                vlan: vlan(101),
                direction: Direction::Egress,
                limit,
            },
            Step::Mark { dscp: 46 },
            Step::Rewrite {
                source: Mac([2; 6]),
                destination: db_mac,
            },
            longer(
                into_tunnel(green, "192.0.2.2", inner, true),
                probe.length + 50,
            ),
        ];
        answer(steps.map(Part::Step).into())
    });
    let in_rule = world.rule(&world.db, "ingress").await;
    let _second = world.script(1, move |question| {
        let Question::Trace(probe) = question else {
            panic!()
        };
        let tunnel = Tunnel {
            vni: green,
            vtep: [192, 0, 2, 1].into(),
        };
        assert_eq!(probe.origin, Origin::Tunnel(tunnel));
        assert_eq!((probe.length, probe.head.bytes().len()), (1414, 142));
        let admitted = Admitted {
            vlan: vlan(102),
            direction: Direction::Ingress,
            checked: true,
            rule: Some(in_rule),
            connection: Some(ConnectionState::Established),
            opens: true,
        };
        let steps = [
            Step::From(Via::Tunnel(tunnel)),
            Step::Receiver(Receiver::Vap(db)),
            Step::Admitted(admitted),
            into_vap(db),
        ];
        answer(steps.map(Part::Step).into())
    });
    let request = json!({"port": "web-1", "tcp": "10.0.1.5:443", "size": 1400});
    let body = world.trace(request).await.body;
    assert_eq!(
        body["packet"],
        "tcp 10.0.0.11:49152 > 10.0.1.5:443, SYN, 1400 bytes"
    );
    assert_eq!(
        body["next_hop"],
        format!("{gateway} of router r1, gateway 10.0.0.1")
    );
    let (out, in_rule) = (out.to_string(), in_rule.to_string());
    assert_eq!(
        stages(&body["hops"][0]),
        [
            format!("from: port web-1 (vm a1), VLAN 101, network blue (VNI {blue})"),
            "source: 10.0.0.11 with 02:02:02:02:02:02 is the port's fixed IP".into(),
            format!(
                "groups: egress of port web-1 (vm a1) allowed by rule {out} (egress IPv4 any to anyone, group default); opens a connection"
            ),
            "router: router r1, by its gateway 10.0.0.1".into(),
            format!(
                "route: 10.0.1.0/24 is a subnet of the router: next hop 10.0.1.5 (port db-1 (vm b1)) in network green (VNI {green}), MTU 1450"
            ),
            format!(
                "receiver: FDB: {db_mac} (port db-1 (vm b1)) is behind VTEP 192.0.2.2 (NVE nve-2)"
            ),
            "meter: egress limit of port web-1 (vm a1): 1000 kbit/s, burst 80 kbit".into(),
            "mark: DSCP 46".into(),
            format!(
                "rewrite: routed: hop limit one less, MAC addresses 02:02:02:02:02:02 > {db_mac}"
            ),
            format!("send: to VTEP 192.0.2.2 (NVE nve-2), network green (VNI {green}), 1464 bytes"),
        ]
    );
    assert_eq!(
        stages(&body["hops"][1]),
        [
            format!("from: VTEP 192.0.2.1 (NVE nve-1), network green (VNI {green})"),
            "receiver: port db-1 (vm b1), VLAN 102 of this NVE".into(),
            format!(
                "groups: ingress of port db-1 (vm b1) allowed: part of a connection (established) by rule {in_rule} (ingress IPv4 any from group default, group default)"
            ),
            format!("send: to port db-1 (vm b1), VLAN 102, network green (VNI {green}), 58 bytes"),
        ]
    );
    assert_eq!(body["hops"][0]["steps"][9]["hop"], 1);
    assert_eq!(body["hops"][1]["after"], 0);
    assert_eq!(body["hops"][0]["steps"][2]["rule"]["id"], out);
    assert_eq!(body["outcome"]["result"], "delivered");
    assert_eq!(
        body["outcome"]["text"],
        "delivered to port db-1 (vm b1) on nve-2"
    );
}

/// What becomes of an echo request by the steps of both NVEs.
async fn outcome(first: Vec<Step>, second: Option<Vec<Step>>) -> Value {
    let world = World::new().await;
    let script = |steps: Vec<Step>| {
        move |_: &Question| answer(steps.iter().copied().map(Part::Step).collect())
    };
    let _first = world.script(0, script(first));
    let _second = second.map(|steps| world.script(1, script(steps)));
    let answer = world
        .trace(json!({"port": "web-1", "icmp": "10.0.1.5"}))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let outcome = answer.body["outcome"].clone();
    assert_eq!(
        outcome["delivered"].as_array().unwrap().is_empty(),
        outcome["result"] != "delivered"
    );
    outcome
}

fn some_place() -> Place {
    Place {
        vlan: vlan(7),
        port: PortId([7; 16]),
    }
}

fn to_second() -> Step {
    into_tunnel(Vni::new(9).unwrap(), "192.0.2.2", &[0; 60], false)
}

fn a_drop(reason: DropReason) -> Step {
    let blame = Blame {
        vlan: vlan(7),
        port: PortId([7; 16]),
        direction: Direction::Ingress,
        rule: None,
    };
    Step::Drop {
        reason,
        blame: Some(blame),
    }
}

#[tokio::test]
async fn every_ending_is_told() {
    use nve_protocol::inspect::Responder;

    let port = "07070707-0707-0707-0707-070707070707";
    let dropped = outcome(
        vec![to_second()],
        Some(vec![a_drop(DropReason::SecurityGroup)]),
    )
    .await;
    assert_eq!(dropped["result"], "dropped");
    assert_eq!(dropped["dropped"][0]["reason"], "security_group");
    assert_eq!(dropped["dropped"][0]["nve"]["name"], "nve-2");
    let words = format!(
        "dropped on nve-2: security_group: No security group rule allows it (ingress of port {port})"
    );
    assert_eq!(dropped["text"], words);

    let explained = vec![
        Step::Responder(Responder::Icmp),
        into_vap(some_place()),
        Step::Drop {
            reason: DropReason::NoRoute,
            blame: None,
        },
    ];
    let explained = outcome(explained, None).await;
    assert_eq!(
        explained["text"],
        "dropped on nve-1: no_route: The router has no route"
    );

    let answered = vec![Step::Responder(Responder::Echo), into_vap(some_place())];
    assert_eq!(outcome(answered, None).await["text"], "answered by nve-1");
    let taken = vec![Step::Responder(Responder::Arp)];
    assert_eq!(outcome(taken, None).await["result"], "taken");

    let away = into_tunnel(Vni::new(9).unwrap(), "198.51.100.1", &[0; 60], true);
    let left = outcome(
        vec![away, to_second()],
        Some(vec![a_drop(DropReason::UnknownVni)]),
    )
    .await;
    assert_eq!(left["result"], "left");
    let text = left["text"].as_str().unwrap();
    assert!(text.starts_with("left the overlay at VTEP 198.51.100.1, which nobody has any more; a copy is dropped on nve-2: unknown_vni"), "{text}");

    let unknown = outcome(vec![to_second()], None).await;
    assert_eq!(
        unknown["text"],
        "nobody is known to get it; unknown: NVE nve-2 is not connected"
    );
    let silent = outcome(vec![], None).await;
    assert_eq!(silent["result"], "unknown");
    // Pieces: the first goes on.
    let pieces = vec![Step::Fragment { mtu: 1400 }, to_second(), to_second()];
    let pieces = outcome(pieces, Some(vec![into_vap(some_place())])).await;
    assert_eq!(pieces["delivered"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_hostile_answer_makes_no_endless_trace() {
    let back = into_tunnel(Vni::new(9).unwrap(), "192.0.2.1", &[0; 60], true);
    let endless = outcome(vec![to_second()], Some(vec![back])).await;
    assert_eq!(endless["result"], "unknown");
    let text = endless["text"].as_str().unwrap();
    assert!(text.ends_with("copies that were not followed: 1"), "{text}");
    for (length, head) in [(60, vec![0; 60]), (40, vec![8; 40]), (0, vec![])] {
        let step = Step::Send(Leaving {
            to: Via::Tunnel(Tunnel {
                vni: Vni::new(9).unwrap(),
                vtep: [192, 0, 2, 2].into(),
            }),
            length,
            head: Head::front(&head),
        });
        let none = outcome(vec![step], Some(vec![])).await;
        assert_eq!(none["result"], "unknown", "{none}");
    }
}

#[tokio::test]
async fn a_flood_is_followed_as_far_as_is_sensible() {
    let world = World::new().await;
    let mut nves = Vec::new();
    for n in 3..=22 {
        let nve = add_nve(&world.rest, n).await;
        nves.push(ScriptedNve::start(world.fabric.registry(), nve, |_| {
            answer(vec![Part::Step(into_vap(some_place()))])
        }));
    }
    let vni = world.vni("blue").await;
    let _first = world.script(0, move |_| {
        let copies = (3..=22).map(|n| into_tunnel(vni, &format!("192.0.2.{n}"), &[0; 60], true));
        answer(copies.map(Part::Step).collect())
    });
    let body = world
        .trace(json!({"port": "web-1", "icmp": "255.255.255.255"}))
        .await
        .body;
    assert_eq!(body["hops"].as_array().unwrap().len(), 17, "{body}");
    assert_eq!(body["not_followed"], 4);
    assert_eq!(body["outcome"]["delivered"].as_array().unwrap().len(), 16);
}

#[tokio::test]
async fn frames_are_addressed_as_the_vm_would() {
    let world = World::new().await;
    let blue = world.rest.get("/v2.0/networks?name=blue").await.body["networks"][0].clone();
    let neighbor = port(&world.rest, &blue, "web-2", "10.0.0.12", 103).await;
    let destination = |probe: &Probe| Mac(probe.head.bytes()[..6].try_into().unwrap());
    for (request, expected, words) in [
        (
            json!({"icmp": "10.0.0.12"}),
            mac(&neighbor),
            Some("of port web-2, on link"),
        ),
        (
            json!({"icmp": "10.0.0.1"}),
            world.gateway,
            Some("of router r1, on link"),
        ),
        (
            json!({"udp": "192.0.2.9:53"}),
            world.gateway,
            Some("gateway 10.0.0.1"),
        ),
        (
            json!({"icmp": "10.0.0.255"}),
            Mac::BROADCAST,
            Some("broadcast"),
        ),
        (
            json!({"udp": "224.0.0.251:5353"}),
            Mac([1, 0, 0x5e, 0, 0, 0xfb]),
            Some("group"),
        ),
        (
            json!({"arp": "10.0.0.99"}),
            Mac::BROADCAST,
            Some("all that listen"),
        ),
        (
            json!({"icmp": "10.0.0.99", "to_mac": "02:00:00:00:00:99"}),
            Mac([2, 0, 0, 0, 0, 0x99]),
            None,
        ),
        (
            json!({"icmp": "fe80::1", "to_mac": "02:00:00:00:00:99"}),
            Mac([2, 0, 0, 0, 0, 0x99]),
            None,
        ),
        (
            json!({"protocol": 47, "to": "10.0.0.12", "ttl": 3}),
            mac(&neighbor),
            Some("on link"),
        ),
    ] {
        let mut request = request;
        request["port"] = world.web["id"].clone();
        let (probe, body) = world.probe(request.clone()).await;
        assert_eq!(destination(&probe), expected, "{request}");
        let shown = body["next_hop"].as_str();
        assert_eq!(shown.is_some(), words.is_some(), "{request}");
        assert!(
            shown
                .unwrap_or_default()
                .contains(words.unwrap_or_default()),
            "{shown:?}"
        );
        assert_eq!(probe.head.bytes()[6..12], mac(&world.web).0);
    }
    let (probe, body) = world
        .probe(json!({"port": "web-1", "frame": "ff:ff:ff:ff:ff:ff 020000000001 88b5 00"}))
        .await;
    assert_eq!((probe.length, probe.head.bytes()[12]), (15, 0x88));
    assert_eq!(body["packet"], "a given frame of 15 bytes");
    let vni = world.vni("blue").await.get();
    let request =
        json!({"from_vtep": "192.0.2.2", "vni": vni, "from": "10.0.0.12:7", "udp": "10.0.0.11:53"});
    let (probe, body) = world.probe(request).await;
    assert!(matches!(probe.origin, Origin::Tunnel(tunnel) if tunnel.vni.get() == vni));
    assert_eq!(probe.head.bytes()[6..12], mac(&neighbor).0);
    assert_eq!(destination(&probe), mac(&world.web));
    assert_eq!(body["packet"], "udp 10.0.0.12:7 > 10.0.0.11:53, 28 bytes");
}
