//! The image in QEMU (TCG), without network and without root.
//!
//! Ignored unless asked for, since it needs QEMU and both images:
//! `image/build.sh`, `image/build.sh --features fault-injection`, and
//! `cargo test -p nve-kernel --test image -- --ignored`. `SLUICE_IMAGE` names
//! another image than `target/image/nve.elf`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod boot;
mod forward;
mod processors;
mod shim;
mod vm;
