//! Tables from a file: the control protocol's records, a JSON object per line.

use std::io::BufRead;

use anyhow::{Context, Result};
use nve_protocol::Record;

/// Reads all records. Empty lines are passed over.
pub fn read(input: impl BufRead) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for (number, line) in (1..).zip(input.lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let record = serde_json::from_str(&line).with_context(|| format!("line {number}"))?;
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_per_line() {
        let text = concat!(
            r#"{"vap":{"vlan":101,"port":"07070707-0707-0707-0707-070707070707","vni":5001,"#,
            r#""mac":"02:00:00:00:00:01","port_security":false,"presence":"active"}}"#,
            "\n\n",
            r#"{"fdb":{"vni":5001,"mac":"02:00:00:00:00:02","vtep":"192.0.2.12"}}"#,
            "\n",
        );
        let records = read(text.as_bytes()).unwrap();
        assert!(matches!(records[..], [Record::Vap(_), Record::Fdb(_)]));
        let error = read(&b"\n{\"vap\":{}}\n"[..]).unwrap_err();
        assert_eq!(error.to_string(), "line 2");
    }
}
