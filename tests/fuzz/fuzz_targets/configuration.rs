//! Boot configurations: any bytes are one, or an error that says where.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nve_kernel::config::Config;

fuzz_target!(|bytes: &[u8]| {
    match Config::parse(bytes) {
        Ok(config) => assert!((1..=30).contains(&config.uplink.prefix)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
