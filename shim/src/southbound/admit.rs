//! From a TCP connection to an NVE that has said hello.
//!
//! Nothing is answered to who does not know this shim's key, and no session is
//! touched before the hello: only its sender is certain to hold the static key,
//! since a first handshake message can be a replayed one (Noise specification,
//! section 7.7).

use nve_protocol::frame::TAG;
use nve_protocol::{API_VERSION, Hello, NveId, ToNve, ToShim, Welcome, codec, frame};
use snow::TransportState;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::noise::{FIRST_MESSAGE, Responder};
use super::wire::{FrameReader, FrameWriter, WireError};
use super::{KeyPair, NveDirectory, NveIdentity, Rejection};

/// An NVE that has authenticated and said hello.
pub(super) struct Admitted {
    pub(super) nve: NveIdentity,
    pub(super) hello: Hello,
    pub(super) noise: TransportState,
    pub(super) reader: FrameReader<OwnedReadHalf>,
    pub(super) writer: FrameWriter<OwnedWriteHalf>,
}

/// Why a connection was not admitted.
pub(super) struct Refusal {
    pub(super) reason: Rejection,
    /// Static public key that it came with, as far as it got.
    pub(super) key: Option<String>,
}

impl From<Rejection> for Refusal {
    fn from(reason: Rejection) -> Self {
        Refusal { reason, key: None }
    }
}

/// Authenticates whoever is at the other end and awaits its hello.
pub(super) async fn admit(
    keys: &KeyPair,
    directory: &dyn NveDirectory,
    stream: TcpStream,
) -> Result<Admitted, Refusal> {
    let (read, mut write) = stream.into_split();
    let mut reader = FrameReader::new(read);
    let first = next(&mut reader, FIRST_MESSAGE, Rejection::Garbage).await?;
    let responder = Responder::read(keys, first).map_err(|_| Rejection::Garbage)?;
    let key = hex::encode(responder.peer());
    let with_key = |reason| Refusal {
        reason,
        key: Some(key.clone()),
    };
    let nve = directory.by_public_key(responder.peer());
    let nve = nve.ok_or_else(|| with_key(Rejection::UnknownKey))?;
    let (answer, mut noise) = responder.accept().map_err(|_| Rejection::Garbage)?;
    let answered = async {
        let header = frame::header(answer.len()).unwrap_or_default();
        write.write_all(&header).await?;
        write.write_all(&answer).await
    };
    answered.await.map_err(|_| Rejection::Closed)?;
    let mut writer = FrameWriter::new(write);
    let hello = hello(&mut reader, &mut noise).await.map_err(with_key)?;
    if hello.api_version != API_VERSION {
        name_our_version(&mut writer, &mut noise).await;
        return Err(with_key(Rejection::Version));
    }
    if hello.nve != NveId(nve.id.into_bytes()) {
        return Err(with_key(Rejection::WrongNve));
    }
    Ok(Admitted {
        nve,
        hello,
        noise,
        reader,
        writer,
    })
}

async fn hello(
    reader: &mut FrameReader<OwnedReadHalf>,
    noise: &mut TransportState,
) -> Result<Hello, Rejection> {
    let longest = codec::MAX_MESSAGE + TAG;
    let sealed = next(reader, longest, Rejection::BadHello).await?;
    let mut plain = [0; codec::MAX_MESSAGE];
    let length = noise
        .read_message(sealed, &mut plain)
        .map_err(|_| Rejection::BadHello)?;
    let plain = plain.get(..length).unwrap_or_default();
    match codec::decode(plain) {
        Ok(Some((ToShim::Hello(hello), []))) => Ok(hello),
        _ => Err(Rejection::BadHello),
    }
}

async fn next(
    reader: &mut FrameReader<OwnedReadHalf>,
    longest: usize,
    too_long: Rejection,
) -> Result<&[u8], Rejection> {
    reader.next(longest).await.map_err(|error| match error {
        WireError::TooLong => too_long,
        WireError::Closed | WireError::Io(_) => Rejection::Closed,
    })
}

/// A welcome with our version tells the appliance's log what is wrong.
async fn name_our_version(writer: &mut FrameWriter<OwnedWriteHalf>, noise: &mut TransportState) {
    let welcome = ToNve::Welcome(Welcome {
        api_version: API_VERSION,
        stats_interval_ms: 0,
        dead_after_ms: 0,
    });
    if writer.fill(noise, &mut [welcome].into_iter()).is_ok() {
        // The connection ends in any case.
        let _ = writer.send_all().await;
    }
}
