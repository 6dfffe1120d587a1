//! HTTP requests by curl(1), a client that the product has no part in, from
//! inside a namespace.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::netns::Netns;

/// A server as one client sees it.
#[derive(Debug, Clone)]
pub struct Client {
    netns: Netns,
    base: String,
    /// User and password of HTTP digest authentication (curl's `--netrc-file`).
    netrc: Option<PathBuf>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The body: JSON, or a string of it if it is none, or null if it is empty.
    pub body: Value,
}

impl Client {
    /// A client in `netns` of the server at `base`, such as `http://192.0.2.1:9696`.
    pub fn new(netns: &Netns, base: &str) -> Client {
        Client {
            netns: netns.clone(),
            base: base.to_owned(),
            netrc: None,
        }
    }

    /// The same client, authenticated by the user and password in `netrc`.
    pub fn with_netrc(self, netrc: &Path) -> Client {
        Client {
            netrc: Some(netrc.to_owned()),
            ..self
        }
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request, with `body` as it is, and returns the answer whatever it is.
    /// Fails when there is none.
    pub fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Response> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", "-X", method])
            .args(["-w", "\n%{http_code}"])
            .arg(format!("{}{path}", self.base));
        if body.is_some() {
            curl.args([
                "-H",
                "Content-Type: application/json",
                "--data-binary",
                "@-",
            ]);
        }
        if let Some(netrc) = &self.netrc {
            curl.arg("--digest").arg("--netrc-file").arg(netrc);
        }
        let printed = self
            .netns
            .run(|| exchange(&mut curl, body.unwrap_or_default()))?;
        parse(&printed).with_context(|| format!("{method} {path}: {printed:?}"))
    }

    /// Sends a request that has to succeed and returns the body of the answer.
    fn expect(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let text = body.map(serde_json::to_vec).transpose()?;
        let Response { status, body } = self.send(method, path, text.as_deref())?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: status {status}: {body}");
        }
        Ok(body)
    }

    /// `GET`; fails unless it succeeds.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.expect("GET", path, None)
    }

    /// `POST`; fails unless it succeeds.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.expect("POST", path, Some(body))
    }

    /// `PUT`; fails unless it succeeds.
    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.expect("PUT", path, Some(body))
    }

    /// `DELETE`; fails unless it succeeds.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.expect("DELETE", path, None).map(drop)
    }
}

fn exchange(curl: &mut Command, body: &[u8]) -> Result<String> {
    let mut child = curl
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run curl")?;
    if let Some(mut input) = child.stdin.take() {
        // curl may have failed to connect and ended before it read everything.
        let _ = input.write_all(body);
    }
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("{}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Body, a line feed and the status, as curl was told to print them.
fn parse(printed: &str) -> Result<Response> {
    let (body, status) = printed.rsplit_once('\n').context("no status")?;
    let body = match body {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    };
    Ok(Response {
        status: status.parse()?,
        body,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_json_text_or_nothing() {
        let parsed = |printed| parse(printed).unwrap();
        let response = |status, body| Response { status, body };
        assert_eq!(parsed("{\"a\":1}\n201"), response(201, json!({"a": 1})));
        assert_eq!(parsed("\n204"), response(204, Value::Null));
        assert_eq!(parsed("a\nb\n404"), response(404, json!("a\nb")));
        assert!(parse("").is_err());
    }
}
