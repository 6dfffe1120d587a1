//! What the NVE tells VMs of itself: asked, and unasked.

use etherparse::PacketBuilder;
use nve_datapath::*;
use nve_protocol::*;

use crate::rig::*;

const ROUTER: Mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 1]);
const INTERVAL: u64 = 100_000_000_000;

fn subnet(network: u32, prefix: &str) -> Record {
    let prefix: Prefix = prefix.parse().unwrap();
    Record::Subnet(Subnet {
        vni: vni(network),
        prefix,
        dhcp: true,
        gateway: None,
        ra_mode: prefix.address().is_ipv6().then_some(Ipv6Mode::Slaac),
        address_mode: None,
    })
}

fn gateway(network: u32, ip: &str) -> Record {
    let ip = ip.parse().unwrap();
    Record::Gateway(Gateway {
        vni: vni(network),
        ip,
        prefix: Prefix::around(ip, 64).unwrap(),
        mac: ROUTER,
        router: RouterId([1; 16]),
    })
}

#[test]
fn each_vap_of_an_advertised_network_hears_its_router_in_turn() {
    let mut rig = Rig::new();
    rig.put(&[subnet(RED, "2001:db8::/64"), gateway(RED, "2001:db8::1")]);
    let mut heard = Vec::new();
    let mut now = 1;
    // The rig has had the first VAP's turn.
    while now <= INTERVAL + 1 {
        let next = rig.datapath.tick(Nanos(now), &mut rig.sink);
        for sent in std::mem::take(&mut rig.sink.sent) {
            if sent.side == Side::Trunk {
                // To all nodes from the router, tagged, an advertisement.
                assert_eq!(sent.bytes[..6], [0x33, 0x33, 0, 0, 0, 1]);
                assert_eq!(sent.bytes[6..12], ROUTER.0);
                assert_eq!(sent.bytes[16..18], [0x86, 0xdd]);
                assert_eq!(sent.bytes[58], 134);
                heard.push(u16::from_be_bytes([sent.bytes[14], sent.bytes[15]]));
            }
        }
        assert!(next > Nanos(now));
        now = next.0;
    }
    assert_eq!(heard, [102, 101]);
}

#[test]
fn a_client_gets_its_lease_and_nobody_else_hears_of_it() {
    let mut rig = Rig::new();
    let fixed = Address {
        vlan: Vlan::new(101).unwrap(),
        mac: mac(1),
        prefix: Prefix::host(ip(1).into()),
        fixed: true,
    };
    rig.put(&[subnet(RED, "10.0.0.0/24"), Record::Address(fixed)]);
    let frame = discover(mac(1), mac(1), Mac::BROADCAST);
    let outcome = rig.trunk_uncounted(&with_tag(&frame, 101));
    let [offer] = &outcome.sent[..] else {
        panic!("{outcome:?}");
    };
    assert_eq!(offer.side, Side::Trunk);
    assert_eq!(offer.bytes[12..16], [0x81, 0, 0, 101]);
    assert_eq!(offer.bytes[..6], mac(1).0);
    // The address that is given, behind Ethernet, tag, IPv4 and UDP headers.
    assert_eq!(offer.bytes[46 + 16..46 + 20], ip(1).octets());
    assert_eq!(rig.datapath.counters().answers, 1);
}

/// The station with the address `from` looks for servers on behalf of `client`.
fn discover(from: Mac, client: Mac, to: Mac) -> Vec<u8> {
    let mut discover = vec![1, 1, 6, 0, 1, 2, 3, 4];
    discover.resize(28, 0);
    discover.extend(client.0);
    discover.resize(236, 0);
    discover.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.0, to.0)
        .ipv4([0; 4], [255; 4], 64)
        .udp(68, 67)
        .write(&mut frame, &discover)
        .unwrap();
    frame
}

#[test]
fn each_message_of_a_client_is_read() {
    let mut rig = Rig::new();
    let trusted = match vap(101, RED, 1) {
        Record::Vap(vap) => Record::Vap(Vap {
            port_security: false,
            ..vap
        }),
        _ => unreachable!("a VAP"),
    };
    rig.put(&[trusted, subnet(RED, "10.0.0.0/24")]);
    // Of a station behind the VM that is no client of ours, to one that is known.
    let other = with_tag(&discover(mac(1), mac(77), mac(3)), 101);
    let own = with_tag(&discover(mac(1), mac(1), mac(3)), 101);
    for _ in 0..2 {
        assert_eq!(rig.trunk(&other).verdict, Verdict::Send(Side::Uplink));
        assert_eq!(rig.trunk(&own).verdict, Verdict::Done);
    }
}
