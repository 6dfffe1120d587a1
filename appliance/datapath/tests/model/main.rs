//! The datapath against a reference model: the same rules written once more, as
//! simply as possible, and slow.
//!
//! Each generated case is a topology with parts missing and a sequence of frames
//! on both sides and changes of the tables. The datapath with its flow cache, one
//! without, one that takes frames in bursts, and the model must agree on every
//! verdict, byte and counter, and a trace must foretell what leaves and what is dropped.
//! `SLUICE_MODEL_CASES` and `SLUICE_MODEL_SEED` set the size and repeat a run; `make
//! model` runs a million.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agree;
mod client;
mod converse;
mod foretell;
mod generate;
mod packet;
mod rules;
mod run;
mod world;

/// Small enough to go with every `cargo test`.
#[test]
fn fast_path_slow_path_and_model_agree() {
    run::cases(2_000);
}

#[test]
#[ignore = "minutes; make model"]
fn a_million_cases_agree() {
    run::cases(1_000_000);
}
