//! What it says when it boots, when it cannot, and when it breaks.

use crate::vm::{GOOD, Vm, image};

/// Two NICs that lead nowhere.
pub const NICS: &[&str] = &[
    "-netdev",
    "hubport,hubid=1,id=t",
    "-device",
    "virtio-net-pci,netdev=t,mac=52:54:00:00:01:01,disable-legacy=on,romfile=",
    "-netdev",
    "hubport,hubid=2,id=u",
    "-device",
    "virtio-net-pci,netdev=u,mac=52:54:00:00:01:02,host_mtu=1600,disable-legacy=on,romfile=",
];

/// Arguments for a machine with these NICs.
pub fn arguments<'a>(machine: &'a str, nics: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["-machine", machine, "-cpu", "max", "-m", "64M"];
    arguments.extend(nics);
    arguments
}

/// Boots with a configuration that has to be refused.
fn refused(config: &str, nics: &[&str], status: i32, line: &str) {
    let mut vm = Vm::boot(&image("nve.elf"), config, &arguments("q35", nics));
    assert_eq!(vm.finish(), status, "{:#?}", vm.seen);
    assert_eq!(vm.at_level("error"), [line], "{:#?}", vm.seen);
}

#[test]
#[ignore = "boots the image in QEMU"]
fn a_wrong_configuration_is_named_and_ends_the_boot() {
    let address = "config: uplink.address: missing";
    refused(
        &GOOD.replace("\"address\": \"192.0.2.11/24\",", ""),
        NICS,
        33,
        address,
    );
    let unknown = "config: uplink.adress: unknown field";
    refused(
        &GOOD.replace("\"address\"", "\"adress\""),
        NICS,
        33,
        unknown,
    );
    let key = "config: private_key: expected 64 hexadecimal digits";
    refused(&GOOD.replace("77076d0a", "77076d0"), NICS, 33, key);
    let none = "config: no boot module (QEMU: -initrd FILE)";
    refused("", NICS, 33, none);
    refused("[1]", NICS, 33, "config: expected a JSON object");
    let mtu = "config: uplink.mtu: expected at most 1600, the NIC's";
    refused(
        &GOOD.replace("\"mtu\": 1600", "\"mtu\": 9000"),
        NICS,
        33,
        mtu,
    );
}

#[test]
#[ignore = "boots the image in QEMU"]
fn a_nic_that_is_not_there_is_named_and_ends_the_boot() {
    let none = "nic: trunk (mac 52:54:00:00:01:01): no such virtio NIC";
    refused(GOOD, &[], 35, none);
    let other = GOOD.replace(
        "\"mac\": \"52:54:00:00:01:02\"",
        "\"pci\": \"0000:00:1e.0\"",
    );
    refused(
        &other,
        NICS,
        35,
        "nic: uplink (pci 0000:00:1e.0): no such virtio NIC",
    );
    let legacy: Vec<String> = NICS
        .iter()
        .map(|argument| {
            argument.replace("disable-legacy=on", "disable-modern=on,disable-legacy=off")
        })
        .collect();
    let legacy: Vec<&str> = legacy.iter().map(String::as_str).collect();
    refused(GOOD, &legacy, 35, none);
}

#[test]
#[ignore = "boots the image in QEMU"]
fn without_random_numbers_there_is_no_boot() {
    let cpu = "max,rdrand=off,rdseed=off";
    let arguments = [
        ["-machine", "q35", "-cpu", cpu, "-m", "64M"].as_slice(),
        NICS,
    ]
    .concat();
    let mut vm = Vm::boot(&image("nve.elf"), GOOD, &arguments);
    assert_eq!(vm.finish(), 37, "{:#?}", vm.seen);
    let line = "entropy: the processor has neither RDSEED nor RDRAND";
    assert_eq!(vm.at_level("error"), [line]);
}

#[test]
#[ignore = "boots the image in QEMU"]
fn a_good_configuration_reaches_the_poll_loop_on_each_machine() {
    for machine in ["q35", "pc"] {
        let mut vm = Vm::boot(&image("nve.elf"), GOOD, &arguments(machine, NICS));
        vm.wait_for("ready: ");
        assert!(vm.at_level("error").is_empty(), "{:#?}", vm.seen);
        let text = vm.seen.join("\n");
        for part in [
            "sluice ",
            "cpu: ",
            "tsc: ",
            "memory: ",
            "52:54:00:00:01:01",
            "52:54:00:00:01:02",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("77076d0a"), "{text}");
    }
}

#[test]
#[ignore = "boots the image in QEMU"]
fn nics_without_interrupts_are_polled() {
    let nics = NICS.iter().map(|argument| match argument {
        nic if nic.starts_with("virtio-net-pci,") => format!("{nic},vectors=0"),
        other => (*other).to_owned(),
    });
    let nics: Vec<String> = nics.collect();
    let nics: Vec<&str> = nics.iter().map(String::as_str).collect();
    let mut vm = Vm::boot(&image("nve.elf"), GOOD, &arguments("q35", &nics));
    // It dials, and gives up by its own clock: so its naps end.
    vm.wait_for("no TCP connection in time");
    let polled = vm.at_level("warn").into_iter();
    assert_eq!(
        polled
            .filter(|line| line.ends_with("even when idle"))
            .count(),
        2
    );
    assert!(vm.at_level("error").is_empty(), "{:#?}", vm.seen);
}

#[test]
#[ignore = "boots the image in QEMU"]
fn each_fault_leaves_a_report_and_resets() {
    for (fault, head) in [
        ("panic", "panic at "),
        ("null", "exception 14 (page fault), code 0x0"),
        ("text", "exception 14 (page fault), code 0x3"),
        ("heap", "exception 14 (page fault), code 0x11"),
        ("stack", "exception 14 (page fault), code 0x2"),
        ("opcode", "exception 6 (invalid opcode), code 0x0"),
    ] {
        let config = GOOD.replace("nve-a", &format!("fault:{fault}"));
        let mut vm = Vm::boot(&image("nve-fault.elf"), &config, &arguments("q35", NICS));
        assert_eq!(vm.finish(), 0, "{:#?}", vm.seen);
        let report = vm.at_level("error");
        assert!(
            report.first().is_some_and(|line| line.starts_with(head)),
            "{fault}: {report:#?}"
        );
        assert!(
            report
                .iter()
                .any(|line| line.starts_with("rsp ") || line.contains("rsp")),
            "{report:#?}"
        );
        assert!(
            report
                .iter()
                .filter(|line| line.starts_with("trace 0x"))
                .count()
                > 0,
            "{report:#?}"
        );
        assert_eq!(report.last(), Some(&"reset"));
    }
}
