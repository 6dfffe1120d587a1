//! A run: how many cases, from which seed, on which cores.

use std::env;
use std::sync::Mutex;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::agree::{self, Tally};
use crate::generate;

/// Runs `default` cases, or as many as the environment says, and panics with the
/// smallest one on which not all agree.
pub fn cases(default: u32) {
    let cases = number("SLUICE_MODEL_CASES").map_or(default, |cases| cases as u32);
    let seed = number("SLUICE_MODEL_SEED").unwrap_or_else(fresh_seed);
    let workers = thread::available_parallelism().map_or(1, usize::from) as u32;
    println!("model: seed {seed}, {cases} cases on {workers} threads");
    let begun = Instant::now();
    let total = Mutex::new(Tally::default());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                let share = cases / workers + u32::from(worker < cases % workers);
                let total = &total;
                scope.spawn(move || share_of(seed, worker, share, total))
            })
            .collect();
        for thread in threads {
            if let Err(failure) = thread.join() {
                println!("model: repeat by SLUICE_MODEL_SEED={seed} SLUICE_MODEL_CASES={cases}");
                std::panic::resume_unwind(failure);
            }
        }
    });
    let tally = total.into_inner().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "model: {cases} cases agree, {} frames of which {} pass, {} answers, {seconds:.1} s, {:.0} cases/s",
        tally.frames,
        tally.passed,
        tally.answers,
        f64::from(cases) / seconds,
    );
    let drops: Vec<String> = tally
        .drops
        .iter()
        .map(|(reason, count)| format!("{} {count}", reason.name()))
        .collect();
    println!("model: drops: {}", drops.join(", "));
}

fn share_of(seed: u64, worker: u32, cases: u32, total: &Mutex<Tally>) {
    // The C library's allocator then keeps the tables' memory from case to case.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(16 << 20)));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..12].copy_from_slice(&worker.to_be_bytes());
    let config = Config {
        cases,
        // The seed says it all.
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&generate::case(), |case| {
        let tally = agree::run(&case).map_err(TestCaseError::fail)?;
        total.lock().unwrap().add(&tally);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}
