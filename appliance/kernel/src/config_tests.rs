use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"{
  "nve_id": "9c1e3a52-0000-4000-8000-0000000000ab",
  "name": "nve-a",
  "log_level": "debug",
  "trunk": {"mac": "52:54:00:00:01:01"},
  "uplink": {"pci": "0000:00:03.0", "address": "192.0.2.11/24",
             "gateway": "192.0.2.1", "mtu": 1600},
  "shims": ["192.0.2.1:6653", "198.51.100.1:6653"],
  "shim_public_key": "1111111111111111111111111111111111111111111111111111111111111111",
  "private_key": "abcdefABCDEF00000000000000000000000000000000000000000000000000ff"
}"#;

fn good() -> Config {
    Config::parse(GOOD.as_bytes()).unwrap()
}

fn error(from: &str, to: &str) -> std::string::String {
    assert!(GOOD.contains(from), "{from}");
    let text = GOOD.replacen(from, to, 1);
    Config::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_complete_configuration_is_read() {
    let config = good();
    assert_eq!(config.name.as_str(), "nve-a");
    assert_eq!(config.log_level, LevelFilter::Debug);
    assert_eq!(
        config.trunk,
        Trunk {
            nic: NicSelector::Mac("52:54:00:00:01:01".parse().unwrap()),
            offloads: true,
        }
    );
    let text = GOOD.replacen("01:01\"", "01:01\", \"offloads\": false", 1);
    assert!(!Config::parse(text.as_bytes()).unwrap().trunk.offloads);
    assert_eq!(
        config.uplink,
        Uplink {
            nic: NicSelector::Pci(PciAddress {
                bus: 0,
                device: 3,
                function: 0
            }),
            address: IpAddr::from([192, 0, 2, 11]),
            prefix: 24,
            gateway: Some(IpAddr::from([192, 0, 2, 1])),
            mtu: Some(1600),
        }
    );
    assert_eq!(config.shims.len(), 2);
    assert_eq!(config.shim_public_key, [0x11; 32]);
}

#[test]
fn optional_fields_have_defaults() {
    let text = GOOD
        .replace("\"name\": \"nve-a\",", "")
        .replace("\"log_level\": \"debug\",", "")
        .replace(
            ",\n             \"gateway\": \"192.0.2.1\", \"mtu\": 1600",
            "",
        );
    let config = Config::parse(text.as_bytes()).unwrap();
    assert_eq!(config.name.as_str(), "");
    assert_eq!(config.log_level, LevelFilter::Info);
    assert_eq!(config.uplink.gateway, None);
    assert_eq!(config.uplink.mtu, None);
}

#[test]
fn each_error_names_its_field() {
    let cases = [
        (
            "\"address\": \"192.0.2.11/24\",",
            "",
            "config: uplink.address: missing",
        ),
        (
            "{\"mac\": \"52:54:00:00:01:01\"}",
            "{}",
            "config: trunk.mac: missing",
        ),
        ("\"name\"", "\"nmae\"", "config: nmae: unknown field"),
        ("\"mtu\"", "\"mut\"", "config: uplink.mut: unknown field"),
        (
            "\"name\"",
            "\"log_level\"",
            "config: log_level: given twice",
        ),
        (
            "{\"mac\": \"52:54:00:00:01:01\"}",
            "7",
            "config: trunk: expected a JSON object",
        ),
        (
            "52:54:00:00:01:01",
            "01:00:5e:00:00:01",
            "config: trunk.mac: expected a unicast MAC address like \"02:00:00:00:00:01\"",
        ),
        (
            "01:01\"",
            "01:01\", \"offloads\": \"no\"",
            "config: trunk.offloads: expected true or false",
        ),
        (
            "0000:00:03.0",
            "0000:00:20.0",
            "config: uplink.pci: expected a PCI address like \"0000:00:03.0\"",
        ),
        (
            "\"pci\"",
            "\"mac\": \"52:54:00:00:01:02\", \"pci\"",
            "config: uplink.pci: expected either mac or pci, not both",
        ),
        ("9c1e3a52", "9c1e3a5", "config: nve_id: expected a UUID"),
        (
            "debug",
            "loud",
            "config: log_level: expected error, warn, info or debug",
        ),
        ("1600", "70000", "config: uplink.mtu: expected 1330 to 9216"),
        (
            "1600",
            "\"1600\"",
            "config: uplink.mtu: expected 1330 to 9216",
        ),
        (
            "\"192.0.2.1\"",
            "\"192.0.3.1\"",
            "config: uplink.gateway: expected another address of the uplink's subnet",
        ),
        (
            "[\"192.0.2.1:6653\", \"198.51.100.1:6653\"]",
            "[]",
            "config: shims: expected 1 to 8 addresses like \"192.0.2.1:6653\"",
        ),
        (
            "198.51.100.1:6653",
            "shim.example",
            "config: shims: expected 1 to 8 addresses like \"192.0.2.1:6653\"",
        ),
        (
            "00ff\"",
            "00f\"",
            "config: private_key: expected 64 hexadecimal digits",
        ),
        (
            "\"1111",
            "\"111g",
            "config: shim_public_key: expected 64 hexadecimal digits",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(error(from, to), expected);
    }
}

#[test]
fn each_required_field_is_missed() {
    for field in [
        "nve_id",
        "trunk",
        "uplink",
        "shims",
        "shim_public_key",
        "private_key",
    ] {
        let names = format!("\"{field}\":");
        let at = GOOD.find(&names).unwrap();
        let value_end = Members::new(GOOD.as_bytes())
            .unwrap()
            .find_map(|member| {
                let (key, value) = member.unwrap();
                (key == field)
                    .then(|| value.as_ptr() as usize - GOOD.as_ptr() as usize + value.len())
            })
            .unwrap();
        let before = GOOD[..at].trim_end().trim_end_matches(',');
        let after = GOOD[value_end..].trim_start().trim_start_matches(',');
        let comma = if before.ends_with('{') || after.starts_with('}') {
            ""
        } else {
            ","
        };
        let text = format!("{before}{comma}{after}");
        let problem = Config::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(problem, format!("config: {field}: missing"), "{text}");
    }
}

#[test]
fn addresses_that_no_host_can_have_are_refused() {
    for bad in [
        "192.0.2.11",
        "192.0.2.11/0",
        "192.0.2.11/31",
        "192.0.2.0/24",
        "192.0.2.255/24",
        "224.0.0.1/24",
        "127.0.0.1/8",
        "0.0.0.0/8",
        "255.255.255.255/8",
        "192.0.2.11/024x",
    ] {
        let message = error("192.0.2.11/24", bad);
        assert!(
            message.starts_with("config: uplink.address: expected"),
            "{bad}: {message}"
        );
    }
}

/// [`GOOD`] with an IPv6 uplink.
fn six() -> std::string::String {
    GOOD.replace("192.0.2.11/24", "2001:db8::11/64")
        .replace("\"192.0.2.1\"", "\"fe80::1\"")
        .replace("192.0.2.1:6653", "[2001:db8::1]:6653")
        .replace("198.51.100.1:6653", "[2001:db8:1::1]:6653")
}

#[test]
fn an_uplink_may_be_of_ipv6() {
    let config = Config::parse(six().as_bytes()).unwrap();
    assert_eq!(
        config.uplink.address,
        "2001:db8::11".parse::<IpAddr>().unwrap()
    );
    assert_eq!(config.uplink.prefix, 64);
    assert_eq!(config.uplink.gateway, Some("fe80::1".parse().unwrap()));
    assert_eq!(config.shims[0], "[2001:db8::1]:6653".parse().unwrap());
    for (from, to, expected) in [
        (
            "2001:db8::11/64",
            "2001:db8::/64",
            "uplink.address: expected a host's address",
        ),
        (
            "2001:db8::11/64",
            "fe80::11/64",
            "uplink.address: expected a host's address",
        ),
        (
            "2001:db8::11/64",
            "::ffff:192.0.2.1/64",
            "uplink.address: expected a host's",
        ),
        (
            "2001:db8::11/64",
            "2001:db8::11/128",
            "uplink.address: expected a host's",
        ),
        (
            "2001:db8::11/64",
            "ff02::1/64",
            "uplink.address: expected a host's",
        ),
        (
            "fe80::1",
            "2001:db8:1::1",
            "uplink.gateway: expected another address",
        ),
        (
            "fe80::1",
            "2001:db8::11",
            "uplink.gateway: expected another address",
        ),
        (
            "fe80::1",
            "192.0.2.1",
            "uplink.gateway: expected another address",
        ),
        ("1600", "1349", "uplink.mtu: expected 1350 to 9216"),
        (
            "[2001:db8::1]:6653",
            "192.0.2.1:6653",
            "shims: expected 1 to 8 addresses like",
        ),
    ] {
        assert!(six().contains(from), "{from}");
        let text = six().replacen(from, to, 1);
        let problem = Config::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(problem.contains(expected), "{to}: {problem}");
    }
    let point_to_point = six().replace("::11/64", "::10/127");
    assert!(Config::parse(point_to_point.as_bytes()).is_ok());
}

#[test]
fn text_that_is_no_object_has_one_line() {
    for bad in ["", "[]", "{", "{\"nve_id\": ", "null"] {
        let problem = Config::parse(bad.as_bytes()).unwrap_err().to_string();
        assert_eq!(problem, "config: expected a JSON object", "{bad}");
    }
    let long = "{\"\\n\n".to_owned() + &"x".repeat(500) + "\": 1}";
    let problem = Config::parse(long.as_bytes()).unwrap_err().to_string();
    assert!(!problem.contains('\n') && problem.len() < 80, "{problem}");
}

#[test]
fn the_private_key_is_never_printed() {
    assert!(!format!("{:?}", good()).contains("abcdef"));
}

proptest! {
    #[test]
    fn no_damage_panics(at in 0..GOOD.len(), byte in any::<u8>()) {
        let mut text = GOOD.as_bytes().to_vec();
        text[at] = byte;
        let _ = Config::parse(&text);
        let _ = Config::parse(&text[..at]);
    }
}
