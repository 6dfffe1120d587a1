//! Walks one JSON object (RFC 8259), member by member, without reading values.
//!
//! serde-json-core decodes a text into a struct and stops at the first thing it
//! dislikes without saying where. The configuration's errors have to name the
//! field, so its objects are taken apart here and each value is decoded alone.

/// Deepest nesting of a value that is skipped.
const MAX_DEPTH: u32 = 8;

/// Why a text is not an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The members of a JSON object, in the order of the text. Ends after an error.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    rest: &'a [u8],
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    First,
    Next,
    Done,
}

impl<'a> Members<'a> {
    /// The members of the object that `text` is.
    pub fn new(text: &'a [u8]) -> Result<Members<'a>, Malformed> {
        let mut rest = text.trim_ascii();
        expect(&mut rest, b'{')?;
        Ok(Members {
            rest,
            state: State::First,
        })
    }

    fn member(&mut self) -> Result<Option<(&'a str, &'a [u8])>, Malformed> {
        let rest = &mut self.rest;
        skip_space(rest);
        if rest.first() == Some(&b'}') && self.state != State::Done {
            *rest = rest.get(1..).unwrap_or_default();
            skip_space(rest);
            return if rest.is_empty() {
                Ok(None)
            } else {
                Err(Malformed)
            };
        }
        if self.state == State::Next {
            expect(rest, b',')?;
            skip_space(rest);
        }
        let key = string(rest)?;
        skip_space(rest);
        expect(rest, b':')?;
        skip_space(rest);
        let value = value(rest)?;
        Ok(Some((key, value)))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<(&'a str, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        let member = self.member();
        self.state = match member {
            Ok(Some(_)) => State::Next,
            _ => State::Done,
        };
        member.transpose()
    }
}

fn expect(rest: &mut &[u8], byte: u8) -> Result<(), Malformed> {
    match rest.split_first() {
        Some((first, after)) if *first == byte => {
            *rest = after;
            Ok(())
        }
        _ => Err(Malformed),
    }
}

fn skip_space(rest: &mut &[u8]) {
    *rest = rest.trim_ascii_start();
}

/// Takes a string off the front; escapes are left as they are, which no key of a
/// configuration has.
fn string<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    let whole = *rest;
    let length = string_length(whole)?;
    *rest = whole.get(length..).unwrap_or_default();
    let inner = whole.get(1..length - 1).ok_or(Malformed)?;
    core::str::from_utf8(inner).map_err(|_| Malformed)
}

/// Bytes of the string at the front of `text`, with both quotes.
fn string_length(text: &[u8]) -> Result<usize, Malformed> {
    if text.first() != Some(&b'"') {
        return Err(Malformed);
    }
    let mut escaped = false;
    for (i, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok(i + 1),
            _ => {}
        }
    }
    Err(Malformed)
}

/// Takes a value off the front: all up to the comma or brace that ends the member.
/// Whether that is one value is for its decoder to say.
fn value<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let whole = *rest;
    let mut depth = 0;
    let mut at = 0;
    while let Some(byte) = whole.get(at) {
        match byte {
            b'"' => at += string_length(whole.get(at..).unwrap_or_default())? - 1,
            b'{' | b'[' if depth == MAX_DEPTH => return Err(Malformed),
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => break,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    let (value, after) = whole.split_at_checked(at).ok_or(Malformed)?;
    *rest = after;
    match value.trim_ascii_end() {
        [] => Err(Malformed),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(text: &str) -> Result<Vec<(&str, &str)>, Malformed> {
        Members::new(text.as_bytes())?
            .map(|member| member.map(|(key, value)| (key, std::str::from_utf8(value).unwrap())))
            .collect()
    }

    #[test]
    fn members_come_in_order_with_their_raw_values() {
        let text = r#" { "a" : "x,}" , "b":[1,{"c":"]"}], "d":{}, "e": 12 } "#;
        assert_eq!(
            members(text),
            Ok(vec![
                ("a", r#""x,}""#),
                ("b", r#"[1,{"c":"]"}]"#),
                ("d", "{}"),
                ("e", "12")
            ])
        );
        assert_eq!(members("{}"), Ok(vec![]));
    }

    #[test]
    fn what_is_not_an_object_is_an_error() {
        for bad in [
            "",
            "[]",
            "{",
            "{\"a\"",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1}}",
            "{,}",
            "{a:1}",
            "{\"a\":[[[[[[[[[[1]]]]]]]]]]}",
            "{\"a\":\"\\\"}",
            "{} x",
            "12",
        ] {
            assert_eq!(members(bad), Err(Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(walk) = Members::new(&bytes) {
                prop_assert!(walk.count() <= bytes.len());
            }
        }

        #[test]
        fn no_almost_json_panics(text in r#"[{}\[\]",:\\a1 ]{0,40}"#) {
            if let Ok(walk) = Members::new(text.as_bytes()) {
                prop_assert!(walk.count() <= text.len());
            }
        }
    }
}
