//! The messages of one table transaction, one at a time.

use std::vec;

use nve_protocol::{Begin, Commit, Record, TableDigest, ToNve};

use crate::compile::{NveTables, Op};

/// A transaction on its way; yields its messages in order.
pub(super) struct Push {
    begin: Option<Begin>,
    body: Body,
    commit: Option<Commit>,
}

enum Body {
    Full(Box<dyn Iterator<Item = Record> + Send>),
    Changes(vec::IntoIter<Op>),
}

impl Push {
    /// All of `tables`, to start from nothing.
    pub(super) fn full(generation: u64, tables: &NveTables) -> Self {
        let body = Body::Full(Box::new(tables.clone().into_records()));
        Push::new(generation, true, body, tables.digest())
    }

    /// `changes`, after which the digest must be `digest`.
    pub(super) fn changes(generation: u64, changes: Vec<Op>, digest: TableDigest) -> Self {
        let body = Body::Changes(changes.into_iter());
        Push::new(generation, false, body, digest)
    }

    fn new(generation: u64, full: bool, body: Body, digest: TableDigest) -> Self {
        Push {
            begin: Some(Begin { generation, full }),
            body,
            commit: Some(Commit { generation, digest }),
        }
    }
}

impl Iterator for Push {
    type Item = ToNve;

    fn next(&mut self) -> Option<ToNve> {
        if let Some(begin) = self.begin.take() {
            return Some(ToNve::Begin(begin));
        }
        match self.body.next() {
            None => self.commit.take().map(ToNve::Commit),
            message => message,
        }
    }
}

impl Body {
    fn next(&mut self) -> Option<ToNve> {
        match self {
            Body::Changes(changes) => changes.next().map(|change| match change {
                Op::Put(record) => ToNve::Put(record),
                Op::Delete(key) => ToNve::Delete(key),
            }),
            Body::Full(records) => records.next().map(ToNve::Put),
        }
    }
}
