//! Other processors: started, asleep, and their faults told.

use std::thread;
use std::time::Duration;

use crate::boot::{NICS, arguments};
use crate::vm::{GOOD, Vm, image};

/// Boots on `count` processors.
fn boot(name: &str, config: &str, machine: &str, count: u8) -> Vm {
    let topology = format!("cpus={count},maxcpus={}", count.max(2));
    let mut arguments = arguments(machine, NICS);
    arguments.extend(["-smp", &topology]);
    Vm::boot(&image(name), config, &arguments)
}

#[test]
#[ignore = "boots the image in QEMU"]
fn other_processors_are_started_on_each_machine() {
    for machine in ["q35", "pc"] {
        let config = GOOD.replace("\"info\"", "\"debug\"");
        let mut vm = boot("nve.elf", &config, machine, 4);
        vm.wait_for("ready: ");
        assert!(vm.at_level("error").is_empty(), "{:#?}", vm.seen);
        let text = vm.seen.join("\n");
        assert!(text.contains("processors: 4, 3 started"), "{text}");
        for processor in 1..4 {
            let line = format!("processor {processor}: APIC {processor}");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
}

#[test]
#[ignore = "boots the image in QEMU"]
fn a_single_processor_has_no_line_of_its_own() {
    let mut vm = boot("nve.elf", GOOD, "q35", 1);
    vm.wait_for("ready: ");
    assert!(!vm.seen.join("\n").contains("processors"), "{:#?}", vm.seen);
}

#[test]
#[ignore = "boots the image in QEMU"]
fn more_processors_than_can_be_used_are_left_alone() {
    let mut vm = boot("nve.elf", GOOD, "q35", 20);
    vm.wait_for("ready: ");
    let text = vm.seen.join("\n");
    assert!(text.contains("processors: 16, 15 started"), "{text}");
}

#[test]
#[ignore = "boots the image in QEMU"]
fn processors_that_halt_take_no_time() {
    const TIME: Duration = Duration::from_secs(2);

    let mut vm = boot("nve.elf", GOOD, "q35", 4);
    vm.wait_for("ready: ");
    thread::sleep(TIME / 4);
    let before = vm.processor_time();
    thread::sleep(TIME);
    let taken = vm.processor_time() - before;
    assert!(taken < TIME / 2, "{taken:?}");
}

#[test]
#[ignore = "boots the image in QEMU"]
fn a_fault_on_another_processor_leaves_a_report_and_resets() {
    for (fault, head) in [
        ("panic", "panic at "),
        ("null", "exception 14 (page fault), code 0x0"),
        ("stack", "exception 14 (page fault), code 0x2"),
        ("opcode", "exception 6 (invalid opcode), code 0x0"),
    ] {
        let config = GOOD.replace("nve-a", &format!("elsewhere:fault:{fault}"));
        let mut vm = boot("nve-fault.elf", &config, "q35", 2);
        assert_eq!(vm.finish(), 0, "{:#?}", vm.seen);
        let report = vm.at_level("error");
        assert!(
            report.first().is_some_and(|line| line.starts_with(head)),
            "{fault}: {report:#?}"
        );
        assert!(report.contains(&"on the processor with APIC 1"));
        let trace = report.iter().filter(|line| line.starts_with("trace 0x"));
        assert!(trace.count() > 1, "{report:#?}");
        assert_eq!(report.last(), Some(&"reset"));
    }
}
