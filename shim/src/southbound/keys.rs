//! Static X25519 keys: made, written as 64 hexadecimal digits, kept in a file.
//!
//! Invariants: private keys are wiped when dropped and never printed; a key file
//! is whole or absent, and nobody but its owner can read it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nve_protocol::NOISE_PATTERN;
use snow::Builder;
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

/// A public key's bytes.
pub type PublicKey = [u8; 32];

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random numbers.
    #[error("no random numbers for a key")]
    NoEntropy,
    /// The text is not a key.
    #[error("a key has 64 hexadecimal digits")]
    Malformed,
    /// The file is not one.
    #[error("{0}: holds no key of 64 hexadecimal digits")]
    NotAKeyFile(PathBuf),
    /// Others than the owner may read or write the file.
    #[error("{path}: mode is {mode:03o}; others may read the key: chmod 600 it, or make a new one")]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A private key with its public key.
#[derive(Clone)]
pub struct KeyPair {
    private: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", hex::encode(self.public))
    }
}

impl KeyPair {
    /// A new key from the system's random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let params = NOISE_PATTERN.parse().map_err(|_| KeyError::NoEntropy)?;
        let made = Builder::new(params).generate_keypair();
        let private = Zeroizing::new(made.map_err(|_| KeyError::NoEntropy)?.private);
        let private = private.as_slice().try_into();
        Self::from_private(Zeroizing::new(private.map_err(|_| KeyError::NoEntropy)?))
    }

    /// The pair of a private key.
    pub fn from_private(private: Zeroizing<[u8; 32]>) -> Result<Self, KeyError> {
        let mut dh = DefaultResolver
            .resolve_dh(&DHChoice::Curve25519)
            .ok_or(KeyError::Malformed)?;
        dh.set(private.as_slice());
        let public = dh.pubkey().try_into().map_err(|_| KeyError::Malformed)?;
        dh.set(&[0; 32]);
        Ok(KeyPair { private, public })
    }

    /// The pair of a private key in its text form.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let mut private = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, private.as_mut_slice()).map_err(|_| KeyError::Malformed)?;
        Self::from_private(private)
    }

    /// The private key, 64 hexadecimal digits.
    pub fn private_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.private.as_slice()))
    }

    /// The public key, 64 hexadecimal digits.
    pub fn public_hex(&self) -> String {
        hex::encode(self.public)
    }

    /// The public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn private(&self) -> &[u8; 32] {
        &self.private
    }

    /// The key in the file `path`; if there is no such file, a new key, written
    /// there first.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::generate()?.create(path)
            }
            other => other,
        }
    }

    /// The key in the file `path`.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let in_file = |source| io_error(path, source);
        let mut file = File::open(path).map_err(in_file)?;
        let mode = file.metadata().map_err(in_file)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(KeyError::Exposed { path, mode });
        }
        let mut text = Zeroizing::new(vec![0; 66]);
        let length = read_up_to(&mut file, &mut text).map_err(in_file)?;
        let text = text.get(..length).unwrap_or_default();
        str::from_utf8(text)
            .ok()
            .and_then(|text| Self::from_hex(text.trim_ascii_end()).ok())
            .ok_or_else(|| KeyError::NotAKeyFile(path.to_owned()))
    }

    /// Writes the key to the new file `path`. Should another process have made
    /// that file meanwhile, its key is the one that counts.
    fn create(self, path: &Path) -> Result<Self, KeyError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(name);
        let linked = self
            .write_new(&beside)
            .and_then(|()| fs::hard_link(&beside, path));
        let removed = fs::remove_file(&beside);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            other => other
                .and(removed)
                .and_then(|()| sync_folder(path))
                .map(|()| self)
                .map_err(|source| io_error(path, source)),
        }
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(self.private_hex().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn io_error(path: &Path, source: io::Error) -> KeyError {
    let path = path.to_owned();
    KeyError::Io { path, source }
}

/// Reads until `room` is full or the file ends, without a copy elsewhere.
fn read_up_to(file: &mut File, room: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match file.read(room.get_mut(length..).unwrap_or_default())? {
            0 => return Ok(length),
            count => length += count,
        }
    }
}

/// The public key in its text form, as an NVE is registered with it.
pub fn parse_public_key(text: &str) -> Result<PublicKey, KeyError> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).map_err(|_| KeyError::Malformed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_differ_and_come_back_from_their_text() {
        let (one, two) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        assert_ne!(one.public(), two.public());
        let back = KeyPair::from_hex(&one.private_hex()).unwrap();
        assert_eq!(back.public(), one.public());
        assert_eq!(parse_public_key(&one.public_hex()).unwrap(), *one.public());
        assert!(!format!("{one:?}").contains(one.private_hex().as_str()));
        for bad in ["", "12", &"g".repeat(64), &"0".repeat(65)] {
            assert!(KeyPair::from_hex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_file_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shim.key");
        let made = KeyPair::load_or_create(&path).unwrap();
        let again = KeyPair::load_or_create(&path).unwrap();
        assert_eq!(made.public(), again.public());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let files = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_others_can_read_or_that_holds_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shim.key");
        KeyPair::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyPair::load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { mode: 0o640, .. }));
        for bad in ["", "abc\n", &format!("{}\nmore", "0".repeat(64))] {
            fs::write(&path, bad).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = KeyPair::load_or_create(&path).unwrap_err();
            assert!(matches!(error, KeyError::NotAKeyFile(_)), "{bad:?}");
        }
    }

    #[test]
    fn a_file_that_appears_meanwhile_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shim.key");
        let first = KeyPair::load_or_create(&path).unwrap();
        let second = KeyPair::generate().unwrap().create(&path).unwrap();
        assert_eq!(second.public(), first.public());
    }
}
