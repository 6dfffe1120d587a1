//! Both sides of the southbound without an image and without a controller: for
//! tests, the lab and benches.

mod directory;
mod native;
mod scripted;

pub use directory::{MemoryDirectory, snapshot};
pub use native::{NativeConfig, NativeNve, NativeState, Stopped};
pub use scripted::ScriptedNve;
