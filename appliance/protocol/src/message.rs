//! The messages of both directions.

use heapless::String;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::digest::TableDigest;
use crate::handover::TakeOver;
use crate::inspect::{Answer, Ask, Place};
use crate::record::{Key, Record, TableSizes};
use crate::stats::Stats;
use crate::types::NveId;

/// First message of the appliance after the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`API_VERSION`](crate::API_VERSION) of the appliance.
    pub api_version: u16,
    /// Must be the NVE that the appliance's static key belongs to.
    pub nve: NveId,
    /// Version of the image, for people: printable ASCII that JSON needs no escapes
    /// for.
    #[serde(deserialize_with = "printable")]
    pub version: String<32>,
    /// Last committed generation; 0 before the first.
    pub generation: u64,
    /// Digest of the tables at that generation.
    pub digest: TableDigest,
    /// Microseconds from the start of the image to the poll loop.
    pub boot_us: u64,
    /// How many records fit into each table, by the memory that there is.
    pub capacity: TableSizes,
}

fn printable<'de, D: Deserializer<'de>>(input: D) -> Result<String<32>, D::Error> {
    let text = String::deserialize(input)?;
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    match text.bytes().all(plain) {
        true => Ok(text),
        false => Err(de::Error::custom("printable ASCII without quotes")),
    }
}

/// The shim's answer to an accepted [`Hello`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`API_VERSION`](crate::API_VERSION) of the shim.
    pub api_version: u16,
    /// Milliseconds between two [`Stats`]; 0 asks for none.
    pub stats_interval_ms: u32,
    /// Milliseconds without any message after which either end gives up the
    /// connection; the shim pings in time.
    pub dead_after_ms: u32,
}

/// Opens a transaction; one that is open is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Generation that the commit will make; greater than the current one.
    pub generation: u64,
    /// Whether the transaction holds the whole state (it starts from empty
    /// tables) or a change of the current one.
    pub full: bool,
}

/// Ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// As in its [`Begin`].
    pub generation: u64,
    /// What the digest must be afterwards.
    pub digest: TableDigest,
}

/// A transaction is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Generation now in force.
    pub generation: u64,
    /// Its digest.
    pub digest: TableDigest,
    /// Microseconds that the commit itself took.
    pub apply_us: u64,
    /// Microseconds from `begin` to the end of the commit.
    pub total_us: u64,
}

/// Why a transaction was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The digest after all changes is another one: ask for a full state.
    DigestMismatch,
    /// The generation is not greater than the current one, or not that of `begin`.
    WrongGeneration,
    /// `put`, `delete` or `commit` outside a transaction.
    NoTransaction,
    /// A table is full.
    TableFull,
    /// The transaction's memory is used up.
    OutOfMemory,
    /// A field has a value that this table does not take.
    BadRecord,
}

/// A transaction was dropped whole; the tables are as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Generation that was asked for.
    pub generation: u64,
    /// Why.
    pub reason: Refusal,
}

/// Messages from the shim to an appliance.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack; boxing needs a heap"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToNve {
    /// Answer to `hello`.
    Welcome(Welcome),
    /// Opens a transaction.
    Begin(Begin),
    /// Stages a record.
    Put(Record),
    /// Stages the removal of a record; of one that is absent, nothing.
    Delete(Key),
    /// Applies the transaction.
    Commit(Commit),
    /// Asks for a `pong` with the same number.
    Ping(u64),
    /// Asks about the running NVE.
    Ask(Ask),
    /// Tells what another NVE knew of a VAP's traffic; not part of any transaction, and
    /// not acknowledged.
    TakeOver(TakeOver),
}

/// Messages from an appliance to the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToShim {
    /// Introduces the appliance.
    Hello(Hello),
    /// Acknowledges a commit.
    Applied(Applied),
    /// Refuses a transaction.
    Refused(Refused),
    /// Counters, at the interval that `welcome` asked for.
    Stats(Stats),
    /// Answers a `ping`.
    Pong(u64),
    /// Answers a question, in parts.
    Answer(Answer),
    /// The VM was heard on a VAP that is on [standby](crate::Presence::Standby): it is
    /// active from now on. Told again in each session until the record says so too.
    Awake(Place),
}
