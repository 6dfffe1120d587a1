//! The log: one line per message on the first serial port.
//!
//! 16550 registers at 0x3f8 (Intel 8250/16550 data sheet). Every x86 hypervisor
//! emulates enough of it; where none does, the status reads as all ones and the
//! characters go nowhere. Lines of several processors do not mix.

use core::fmt::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};
use spin::{Mutex, MutexGuard};
use x86_64::instructions::port::Port;

use super::time;

const DATA: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = DATA + 1;
const FIFO_CONTROL: u16 = DATA + 2;
const LINE_CONTROL: u16 = DATA + 3;
const MODEM_CONTROL: u16 = DATA + 4;
const LINE_STATUS: u16 = DATA + 5;

/// Line status bit: the transmitter takes a byte.
const TRANSMIT_EMPTY: u8 = 1 << 5;

/// Polls of the line status before a byte is given up.
const PATIENCE: usize = 100_000;

/// Polls of the console's lock before its holder is given up: more than a line takes.
const LOCK_PATIENCE: usize = 1_000_000;

struct Serial;

static CONSOLE: Mutex<Serial> = Mutex::new(Serial);
static LOGGER: Logger = Logger;

struct Logger;

/// Sets the port to 115,200 baud, 8N1, and makes it the log.
pub fn init() {
    let setup = [
        (INTERRUPT_ENABLE, 0x00),
        (LINE_CONTROL, 0x80), // divisor latch
        (DATA, 0x01),
        (INTERRUPT_ENABLE, 0x00),
        (LINE_CONTROL, 0x03), // 8 bits, no parity, 1 stop bit
        (FIFO_CONTROL, 0x07), // on and empty
        (MODEM_CONTROL, 0x03),
    ];
    for (port, value) in setup {
        // SAFETY: the serial port's registers; nothing else lives there.
        unsafe { Port::<u8>::new(port).write(value) };
    }
    // It fails only if there is a logger already, which then is this one.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}

/// The console, once nobody else has it. A holder that keeps it for longer than any
/// line takes will never give it back: it is this processor, or one that has stopped.
fn take() -> MutexGuard<'static, Serial> {
    loop {
        for _ in 0..LOCK_PATIENCE {
            if let Some(console) = CONSOLE.try_lock() {
                return console;
            }
            core::hint::spin_loop();
        }
        // SAFETY: the lock guards no memory. If its holder goes on after all, the
        // characters of two lines mix.
        unsafe { CONSOLE.force_unlock() };
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let micros = time::since_boot().0 / 1000;
        let mut console = take();
        // The port's `write_str` never fails.
        let _ = writeln!(
            console,
            "[{:5}.{:06}] {:5} {}",
            micros / 1_000_000,
            micros % 1_000_000,
            LEVELS.get(record.level() as usize).unwrap_or(&""),
            record.args()
        );
    }

    fn flush(&self) {}
}

const LEVELS: [&str; 6] = ["", "error", "warn", "info", "debug", "trace"];

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

fn send(byte: u8) {
    for _ in 0..PATIENCE {
        // SAFETY: reading the line status has no effect on the port.
        let status = unsafe { Port::<u8>::new(LINE_STATUS).read() };
        if status & TRANSMIT_EMPTY != 0 {
            break;
        }
    }
    // SAFETY: the serial port's data register.
    unsafe { Port::<u8>::new(DATA).write(byte) };
}
