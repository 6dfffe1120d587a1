//! Passwords from a configuration file or from files of their own.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text that is not to be shown.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text, for the code that computes with it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The password that a configuration entry gives, directly or by a file. Of the
    /// file, the first line counts.
    ///
    /// # Errors
    /// When both or none are given, and when the file cannot be read or is empty.
    pub fn resolve(
        whose: &str,
        password: Option<&Secret>,
        file: Option<&Path>,
    ) -> Result<Secret, SecretError> {
        match (password, file) {
            (Some(password), None) => Ok(password.clone()),
            (None, Some(file)) => Secret::read(whose, file),
            _ => Err(SecretError::NotOne(whose.to_owned())),
        }
    }

    fn read(whose: &str, file: &Path) -> Result<Secret, SecretError> {
        let unreadable = |reason: String| SecretError::File {
            whose: whose.to_owned(),
            file: file.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
        match text.lines().next() {
            None | Some("") => Err(unreadable("its first line is empty".to_owned())),
            Some(line) => Ok(Secret::new(line)),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a configuration entry gives no password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Both or none of `password` and `password_file`.
    #[error("{0}: give one of `password` and `password_file`")]
    NotOne(String),
    /// The file is of no use.
    #[error("{whose}: password_file {file:?}: {reason}")]
    File {
        /// Whose password.
        whose: String,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A user name that HTTP digest cannot carry.
    #[error("{0:?}: a user name is of visible ASCII characters other than \" \\ and :")]
    UserName(String),
}

/// A `[[users]]` entry of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// User name.
    pub username: String,
    /// Password; or give `password_file`.
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
}

impl UserConfig {
    /// Reads the password and checks the name.
    ///
    /// # Errors
    /// See [`Secret::resolve`]; and for a name that HTTP digest cannot carry.
    pub fn credentials(&self) -> Result<Credentials, SecretError> {
        let whose = format!("user {:?}", self.username);
        let password = Secret::resolve(
            &whose,
            self.password.as_ref(),
            self.password_file.as_deref(),
        )?;
        Credentials::new(&self.username, password)
    }
}

/// A user name and its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name: visible ASCII, none of `"`, `\` and `:`.
    pub username: String,
    /// Password.
    pub password: Secret,
}

impl Credentials {
    /// # Errors
    /// For a name that HTTP digest cannot carry.
    pub fn new(username: &str, password: Secret) -> Result<Self, SecretError> {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | ':');
        if username.is_empty() || !username.chars().all(plain) {
            return Err(SecretError::UserName(username.to_owned()));
        }
        Ok(Credentials {
            username: username.to_owned(),
            password,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_comes_from_one_place_and_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "hunter2\nsecond line\n").unwrap();
        let given = Secret::new("swordfish");

        let read = Secret::resolve("x", None, Some(&file)).unwrap();
        assert_eq!(read.expose(), "hunter2");
        assert!(!format!("{read:?}").contains("hunter2"));
        assert_eq!(
            Secret::resolve("x", Some(&given), None).unwrap().expose(),
            "swordfish"
        );
        assert_eq!(
            Secret::resolve("x", Some(&given), Some(&file)),
            Err(SecretError::NotOne("x".into()))
        );
        std::fs::write(&file, "\n").unwrap();
        assert!(Secret::resolve("x", None, Some(&file)).is_err());
    }

    #[test]
    fn user_names_that_would_break_the_header_are_refused() {
        for name in ["", "a:b", "a\"b", "a b", "jös", "a\\"] {
            assert!(
                Credentials::new(name, Secret::new("x")).is_err(),
                "{name:?}"
            );
        }
        assert!(Credentials::new("shim-1@dc", Secret::new("x")).is_ok());
    }
}
