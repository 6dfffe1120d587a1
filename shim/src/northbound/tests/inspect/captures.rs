//! Captures, as a reader of the files sees them.

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};

use super::*;

fn piece(number: u64, direction: Direction, kept: u16, offset: u16, bytes: &[u8]) -> Captured {
    Captured {
        number,
        at_us: number * 1000,
        direction,
        length: 900,
        kept,
        offset,
        piece: Piece::front(bytes),
    }
}

/// The file of a capture with that query.
async fn file(world: &World, query: &str) -> (Answer, Vec<u8>) {
    let path = world.path(0, &format!("capture?port=web-1&{query}"));
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = world.rest.router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let answer = Answer {
        status: parts.status,
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    };
    (answer, bytes.to_vec())
}

pub(super) fn blocks(bytes: &[u8]) -> Vec<Block<'static>> {
    let mut reader = PcapNgReader::new(bytes).unwrap();
    let mut blocks = Vec::new();
    while let Some(block) = reader.next_block() {
        blocks.push(block.unwrap().into_owned());
    }
    blocks
}

fn statistics(block: Option<&Block<'_>>) -> (u64, u64) {
    let Some(Block::InterfaceStatistics(block)) = block else {
        panic!("{block:?}");
    };
    match block.options[..] {
        [
            InterfaceStatisticsOption::IsbIfRecv(all),
            InterfaceStatisticsOption::IsbIfDrop(lost),
        ] => (all, lost),
        _ => panic!("{block:?}"),
    }
}

#[tokio::test]
async fn frames_come_whole_with_direction_length_and_time() {
    let world = World::new().await;
    let mut turn = 0;
    let mut id = None;
    let _nve = world.script(0, move |question| {
        let Question::Capture(capture) = question else {
            panic!()
        };
        assert_eq!((capture.vlan, capture.snap), (vlan(101), 700));
        assert_eq!(*id.get_or_insert(capture.id), capture.id);
        turn += 1;
        let (parts, lost) = match turn {
            // The second frame's other piece comes with the next answer.
            1 => (
                vec![
                    piece(1, Direction::Egress, 3, 0, &[1, 2, 3]),
                    piece(2, Direction::Ingress, 700, 0, &[7; 640]),
                ],
                2,
            ),
            2 => (
                vec![
                    piece(2, Direction::Ingress, 700, 640, &[8; 60]),
                    piece(3, Direction::Egress, 1, 0, &[9]),
                ],
                0,
            ),
            _ => panic!("the limit is reached"),
        };
        let done = Done {
            next: 0,
            lost,
            more: turn == 1,
        };
        Some(Ok(Reply {
            parts: parts.into_iter().map(Part::Frame).collect(),
            done,
        }))
    });
    let (answer, bytes) = file(&world, "snap=700&frames=3").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/x-pcapng");
    let blocks = blocks(&bytes);
    let Block::InterfaceDescription(interface) = &blocks[0] else {
        panic!("{blocks:?}");
    };
    assert_eq!(interface.snaplen, 700);
    assert_eq!(
        interface.options[0],
        InterfaceDescriptionOption::IfName("web-1".into())
    );
    let mut times = Vec::new();
    for (block, (flags, data)) in blocks[1..4].iter().zip([
        (2, vec![1, 2, 3]),
        (1, [vec![7; 640], vec![8; 60]].concat()),
        (2, vec![9]),
    ]) {
        let Block::EnhancedPacket(packet) = block else {
            panic!("{block:?}");
        };
        assert_eq!(packet.options, [EnhancedPacketOption::Flags(flags)]);
        assert_eq!((packet.original_len, &packet.data[..]), (900, &data[..]));
        times.push(packet.timestamp);
    }
    let millisecond = std::time::Duration::from_millis(1);
    assert_eq!(
        (times[1] - times[0], times[2] - times[1]),
        (millisecond, millisecond)
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(
        now.abs_diff(times[0]) < std::time::Duration::from_secs(10),
        "{times:?}"
    );
    assert_eq!(statistics(blocks.get(4)), (5, 2));
    assert_eq!(blocks.len(), 5);
}

#[tokio::test]
async fn pieces_that_do_not_fit_are_lost_and_harm_nothing() {
    let world = World::new().await;
    let mut turn = 0;
    let _nve = world.script(0, move |_| {
        turn += 1;
        let parts = match turn {
            1 => vec![
                piece(1, Direction::Egress, 3, 1, &[1]), // without a beginning
                piece(2, Direction::Egress, 9, 0, &[1]), // without an end
                piece(3, Direction::Egress, 2, 0, &[1, 2, 3]), // more than it says
                piece(4, Direction::Egress, 901, 0, &[1]), // more than it has
                piece(5, Direction::Egress, 2, 0, &[1]),
                piece(6, Direction::Egress, 2, 1, &[1]), // of another frame
                piece(7, Direction::Egress, 0, 0, &[]),
                Captured {
                    at_us: u64::MAX,
                    ..piece(8, Direction::Egress, 1, 0, &[1])
                },
            ],
            _ => return Some(Err(Failure::NoVap)),
        };
        answer(parts.into_iter().map(Part::Frame).collect())
    });
    let (_, bytes) = file(&world, "").await;
    let blocks = blocks(&bytes);
    assert_eq!(blocks.len(), 1 + 2 + 1, "{blocks:?}");
    assert_eq!(statistics(blocks.last()), (2 + 4, 4));
}

#[tokio::test]
async fn a_capture_ends_by_its_time_or_with_its_nve() {
    let world = World::new().await;
    let nve = world.script(0, |_| answer(vec![]));
    let (_, bytes) = file(&world, "seconds=1").await;
    assert_eq!(statistics(blocks(&bytes).last()), (0, 0));
    let (_, bytes) = tokio::join!(
        async {
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            drop(nve);
        },
        async { file(&world, "").await.1 }
    );
    assert_eq!(statistics(blocks(&bytes).last()), (0, 0));
    let (answer, _) = file(&world, "").await;
    answer.failed(503, "unavailable", None);
    let _busy = world.script(0, |_| Some(Err(Failure::Busy)));
    let (answer, _) = file(&world, "").await;
    answer.failed(409, "conflict", None);
}
