//! References to a connection, counted by libvirt.

use std::ops::Deref;

use virt::connect::Connect;
use virt::error::Error;

/// A reference to a connection. The last one that is dropped closes the connection,
/// which [`Connect`] itself leaves to its users.
#[derive(Debug)]
pub(crate) struct Reference(Connect);

impl Reference {
    /// Connects to the host at `uri`. Blocks.
    pub(crate) fn open(uri: &str) -> Result<Self, Error> {
        Connect::open(Some(uri)).map(Reference)
    }
}

impl Clone for Reference {
    fn clone(&self) -> Self {
        Reference(self.0.clone())
    }
}

impl Deref for Reference {
    type Target = Connect;

    fn deref(&self) -> &Connect {
        &self.0
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // It fails only for what is no connection, which this is.
        let _ = self.0.close();
    }
}
