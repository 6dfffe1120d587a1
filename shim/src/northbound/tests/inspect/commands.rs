//! `nvectl` against this interface.

use std::process::ExitCode;

use clap::Parser;
use tokio::net::TcpListener;

use super::*;
use crate::http::server;
use crate::nvectl::{self, Arguments, NvectlError};

/// Serves the world's interface; returns its URL.
async fn serve(world: &World) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = world.rest.router.clone();
    tokio::spawn(server::serve(listener, app, std::future::pending()));
    url
}

async fn run(url: &str, command: &[&str]) -> Result<ExitCode, NvectlError> {
    let program = ["nvectl", "--url", url];
    let line = program.iter().chain(command);
    nvectl::run(Arguments::try_parse_from(line).unwrap()).await
}

const TRACE: [&str; 6] = ["trace", "nve-1", "--port", "web-1", "--tcp", "10.0.1.5:443"];

#[tokio::test]
async fn the_exit_status_tells_whether_somebody_gets_the_packet() {
    let world = World::new().await;
    let url = serve(&world).await;
    let (web, vni) = (world.web(), world.vni("green").await);
    let (db, db_mac) = (world.db(), mac(&world.db));
    let rule = world.rule(&world.web, "egress").await;
    let admitted = Admitted {
        vlan: vlan(101),
        direction: Direction::Egress,
        checked: true,
        rule: Some(rule),
        connection: None,
        opens: true,
    };
    let vtep = [192, 0, 2, 2].into();
    let receiver = Receiver::Fdb {
        vni,
        mac: db_mac,
        vtep,
    };
    let _first = world.script(0, move |_| {
        let steps = [
            Step::From(Via::Vap(web)),
            Step::Admitted(admitted),
            Step::Receiver(receiver),
            into_tunnel(vni, "192.0.2.2", &[0; 60], true),
        ];
        answer(steps.map(Part::Step).into())
    });
    let second = world.script(1, move |_| answer(vec![Part::Step(into_vap(db))]));
    assert_eq!(run(&url, &TRACE).await.unwrap(), ExitCode::SUCCESS);
    drop(second);
    let _second = world.script(1, move |_| {
        let blame = Blame {
            vlan: db.vlan,
            port: db.port,
            direction: Direction::Ingress,
            rule: None,
        };
        let steps = [
            Step::Receiver(Receiver::Vap(db)),
            Step::Drop {
                reason: DropReason::SecurityGroup,
                blame: Some(blame),
            },
        ];
        answer(steps.map(Part::Step).into())
    });
    assert_eq!(run(&url, &TRACE).await.unwrap(), ExitCode::FAILURE);
    let elsewhere = ["trace", "nve-2", "--port", "web-1", "--icmp", "10.0.0.1"];
    let refused = run(&url, &elsewhere).await.unwrap_err().to_string();
    assert!(refused.contains("is on NVE nve-1"), "{refused}");
    let nobody = run(&url, &["flows", "nve-9"]).await.unwrap_err();
    assert!(matches!(nobody, NvectlError::NoNve(_)));
    for wrong in [
        &["trace", "nve-1", "--port", "web-1"][..],
        &["trace", "nve-1", "--tcp", "10.0.0.1:1"],
        &[
            "trace",
            "nve-1",
            "--port",
            "p",
            "--tcp",
            "10.0.0.1:1",
            "--icmp",
            "10.0.0.1",
        ],
        &["trace", "nve-1", "--port", "p", "--protocol", "47"],
        &["capture", "nve-1", "--port", "p"],
    ] {
        let line = ["nvectl"].iter().chain(wrong);
        assert!(Arguments::try_parse_from(line).is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn lists_are_printed_and_a_capture_becomes_a_file() {
    let world = World::new().await;
    let url = serve(&world).await;
    let mut number = 0;
    let _nve = world.script(0, move |question| {
        number += 1;
        let frame = Captured {
            number,
            at_us: number,
            direction: Direction::Egress,
            length: 60,
            kept: 60,
            offset: 0,
            piece: Piece::front(&[7; 60]),
        };
        match question {
            Question::Capture(_) => answer(vec![Part::Frame(frame)]),
            _ => answer(vec![]),
        }
    });
    for what in ["drops", "flows"] {
        let command = [what, "nve-1", "--port", "web-1"];
        assert_eq!(run(&url, &command).await.unwrap(), ExitCode::SUCCESS);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web-1.pcapng");
    let file = path.to_str().unwrap();
    let command = [
        "capture", "nve-1", "--port", "web-1", "-w", file, "--count", "4",
    ];
    assert_eq!(run(&url, &command).await.unwrap(), ExitCode::SUCCESS);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(captures::blocks(&bytes).len(), 1 + 4 + 1);
    let nowhere = ["capture", "nve-1", "--port", "web-1", "-w", "/nowhere/x"];
    let refused = run(&url, &nowhere).await.unwrap_err();
    assert!(matches!(refused, NvectlError::File { .. }), "{refused}");
}
