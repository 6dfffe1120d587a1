//! The end-to-end tests, one for each promise of the product.

mod fabric;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

/// A test: what it shows, and how. It gets a directory for its logs.
struct Case {
    name: &'static str,
    shows: &'static str,
    run: fn(&Path) -> Result<()>,
}

const CASES: &[Case] = &[Case {
    name: "fabric",
    shows: "the lab's own switches forward and isolate as a data centre's do",
    run: fabric::run,
}];

/// Runs the tests whose names contain `filter`, with logs under `dir`; whether
/// all passed. The last line counts them.
pub fn run(filter: &str, dir: &Path) -> bool {
    let (mut passed, mut failed) = (0, 0);
    for case in CASES.iter().filter(|case| case.name.contains(filter)) {
        println!("test {}: {}", case.name, case.shows);
        let start = Instant::now();
        let outcome = (case.run)(&dir.join(case.name));
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("test {}: ok ({seconds:.1} s)", case.name);
            }
            Err(error) => {
                failed += 1;
                println!("test {}: FAILED ({seconds:.1} s): {error:#}", case.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    failed == 0
}
