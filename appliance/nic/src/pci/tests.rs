use super::fake::{FakeBus, FakeRegisters, at};
use super::*;

const MESSAGE: Message = Message {
    address: 0xfee0_1000,
    data: 0x51,
};

fn function(bus: &FakeBus, place: DeviceFunction, header: u32) {
    bus.set(place, &[(0, 0x1041_1af4), (0x0c, header << 16)]);
}

#[test]
fn functions_are_found_behind_bridges_and_once() {
    let bus = FakeBus::default();
    function(&bus, at(0, 1, 0), 0x80);
    function(&bus, at(0, 1, 3), 0);
    function(&bus, at(0, 2, 0), 0);
    // Not looked at: its device says that it has one function.
    function(&bus, at(0, 2, 1), 0);
    function(&bus, at(0, 3, 0), 1);
    bus.set(at(0, 3, 0), &[(0x18, 0x0005_0500)]);
    function(&bus, at(5, 0, 0), 0);
    // A bridge that leads back.
    function(&bus, at(5, 1, 0), 1);
    bus.set(at(5, 1, 0), &[(0x18, 0)]);
    let found = functions(&bus);
    assert_eq!(
        found.as_slice(),
        [at(0, 1, 0), at(0, 1, 3), at(0, 2, 0), at(5, 0, 0)]
    );
}

#[test]
fn more_functions_than_places_are_left_out() {
    let bus = FakeBus::default();
    for device in 0..32 {
        for number in 0..8 {
            function(&bus, at(0, device, number), 0x80);
        }
    }
    assert_eq!(functions(&bus).len(), MAX_FUNCTIONS);
}

#[test]
fn a_capability_list_that_does_not_end_is_refused() {
    let bus = FakeBus::default();
    let place = at(0, 1, 0);
    function(&bus, place, 0);
    bus.set(
        place,
        &[
            (0x04, 1 << 20),
            (0x34, 0x40),
            (0x40, 0x5009),
            (0x50, 0x0011),
        ],
    );
    let list = capabilities(&bus, place).unwrap();
    assert_eq!(list.as_slice(), [(0x40, 0x09), (0x50, 0x11)]);
    bus.set(place, &[(0x50, 0x4011)]);
    assert_eq!(capabilities(&bus, place), None);
    bus.set(place, &[(0x04, 0)]);
    assert_eq!(capabilities(&bus, place).unwrap().as_slice(), []);
}

fn msix_function(table: u32) -> (FakeBus, FakeRegisters, DeviceFunction) {
    let bus = FakeBus::with_bars(0x1000);
    let place = at(0, 1, 0);
    function(&bus, place, 0);
    bus.set(
        place,
        &[
            (0x04, 1 << 20),
            (0x34, 0x40),
            (0x40, 0x4002_0011),
            (0x44, table),
            (0x14, 0xfeb0_0000),
        ],
    );
    let registers = FakeRegisters {
        base: 0xfeb0_0000,
        memory: vec![u64::MAX; 512],
    };
    (bus, registers, place)
}

#[test]
fn the_first_table_entry_gets_the_message() {
    let (mut bus, mut registers, place) = msix_function(0x0801);
    assert_eq!(
        enable_msix(&mut bus, place, &mut registers, &[MESSAGE]),
        Ok(1)
    );
    assert_eq!(registers.memory[0x100..0x102], [0xfee0_1000, 0x51]);
    assert_eq!(registers.memory[0xff], u64::MAX);
    assert_eq!(registers.memory[0x102], u64::MAX);
    assert_eq!(bus.read_word(place, 0x40), 0x8002_0011);
}

#[test]
fn as_many_messages_are_sent_as_the_table_has_entries() {
    let message = |data| Message {
        address: 0x1_fee0_2000,
        data,
    };
    let messages = [1, 2, 3, 4, 5].map(message);
    // The table has three entries.
    for (given, taken) in [(2, 2), (3, 3), (5, 3)] {
        let (mut bus, mut registers, place) = msix_function(0x0801);
        let result = enable_msix(&mut bus, place, &mut registers, &messages[..given]);
        assert_eq!(result, Ok(taken as u16));
        for entry in 0..taken {
            let words = [0x1_fee0_2000, entry as u64 + 1];
            let at = 0x100 + 2 * entry;
            assert_eq!(registers.memory[at..at + 2], words);
        }
        assert_eq!(registers.memory[0x100 + 2 * taken], u64::MAX);
    }
    let (mut bus, mut registers, place) = msix_function(0x0801);
    let result = enable_msix(&mut bus, place, &mut registers, &[]);
    assert_eq!(result, Err(MsixError::Table));
    // All of the entries have to be in the BAR.
    for (given, result) in [(2, Ok(2)), (3, Err(MsixError::Table))] {
        let (mut bus, mut registers, place) = msix_function(0x0fe1);
        let messages = &messages[..given];
        assert_eq!(
            enable_msix(&mut bus, place, &mut registers, messages),
            result
        );
    }
}

#[test]
fn a_table_outside_of_its_bar_is_refused() {
    for table in [0x1001, 0x0ff9, 0xffff_fff9, 0x0802, 0x0806, 0x0807] {
        let (mut bus, mut registers, place) = msix_function(table);
        let result = enable_msix(&mut bus, place, &mut registers, &[MESSAGE]);
        assert_eq!(result, Err(MsixError::Table), "{table:#x}");
    }
    let (mut bus, mut registers, place) = msix_function(1);
    bus.set(place, &[(0x40, 0x0009)]);
    let result = enable_msix(&mut bus, place, &mut registers, &[MESSAGE]);
    assert_eq!(result, Err(MsixError::Missing));
}
