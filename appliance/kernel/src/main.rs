//! Placeholder until the boot code is in.
fn main() {}
