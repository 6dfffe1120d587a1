//! The operator's CLI.

fn main() {}
