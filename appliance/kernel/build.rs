//! Hands the linker script to the linker when the bare-metal binary is built.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_IMAGE").is_none() {
        return;
    }
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    let script = Path::new(&manifest).join("../../image/link.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    let script = format!("-Wl,-T,{}", script.display());
    for argument in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-z,noexecstack",
        "-Wl,--orphan-handling=error",
        script.as_str(),
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
