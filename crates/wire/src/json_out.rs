//! Appending JSON to a buffer.

use bytes::BytesMut;

/// Bytes that cannot stand in a JSON string as they are.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// Bytes of the longest string that is made up before it is appended.
const SHORT: usize = 40;
/// The same of names of members.
const SHORT_NAME: usize = 28;
/// How many bytes are looked at at once.
const WORD: usize = 8;

/// Whether a text can stand in a string as it is.
fn is_verbatim(text: &[u8]) -> bool {
    match text.last_chunk() {
        // The last ones together with those before them.
        Some(last) => is_plain(*last) && text.as_chunks().0.iter().all(|word| is_plain(*word)),
        None => !text.iter().any(|byte| ESCAPED[usize::from(*byte)]),
    }
}

/// Appends a string with its quotes.
pub fn string(out: &mut BytesMut, text: &str) {
    // As most are: appended once, and not bit by bit.
    if text.len() <= SHORT && is_verbatim(text.as_bytes()) {
        let mut quoted = [b'"'; SHORT + 2];
        quoted[1..=text.len()].copy_from_slice(text.as_bytes());
        return out.extend_from_slice(&quoted[..text.len() + 2]);
    }
    out.reserve(text.len() + 2);
    out.extend_from_slice(b"\"");
    escaped(out, text);
    out.extend_from_slice(b"\"");
}

/// Appends the inside of a string.
pub fn escaped(out: &mut BytesMut, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len());
    let (mut written, mut at) = (0, 0);
    while at < bytes.len() {
        let next = bytes[at..].first_chunk::<WORD>();
        if next.is_some_and(|word| is_plain(*word)) {
            at += WORD;
            continue;
        }
        // The last ones together with those before them, which are known.
        if next.is_none() && bytes.last_chunk::<WORD>().is_some_and(|word| is_plain(*word)) {
            break;
        }
        let end = bytes.len().min(at + WORD);
        for (place, byte) in (at..end).zip(&bytes[at..end]) {
            if ESCAPED[usize::from(*byte)] {
                out.extend_from_slice(&bytes[written..place]);
                written = place + 1;
                escape(out, *byte);
            }
        }
        at = end;
    }
    out.extend_from_slice(&bytes[written..]);
}

/// Whether none of these has to be escaped: no quote, no backslash, nothing below a space. A byte is zero, or less than another,
/// where taking that from it borrows from its upper bit.
fn is_plain(word: [u8; WORD]) -> bool {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; WORD])
    }
    let word = u64::from_ne_bytes(word);
    let (quotes, backslashes) = (word ^ each(b'"'), word ^ each(b'\\'));
    let below = |word: u64, byte: u8| word.wrapping_sub(each(byte)) & !word;
    (below(word, b' ') | below(quotes, 1) | below(backslashes, 1)) & each(0x80) == 0
}

fn escape(out: &mut BytesMut, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        control => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let digits = [DIGITS[usize::from(control >> 4)], DIGITS[usize::from(control & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
    }
}

/// Appends a number.
pub fn u64(out: &mut BytesMut, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a number with its sign.
pub fn i64(out: &mut BytesMut, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes the members of an object; commas come by themselves. Call [`Object::end`] to close it.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut BytesMut,
    first: bool,
}

impl<'a> Object<'a> {
    /// Opens an object.
    pub fn begin(out: &'a mut BytesMut) -> Self {
        out.extend_from_slice(b"{");
        Self { out, first: true }
    }

    /// Writes a member's name; the caller appends its value.
    pub fn key(&mut self, name: &str) -> &mut BytesMut {
        let is_first = std::mem::replace(&mut self.first, false);
        // As nearly all are: appended once, and not bit by bit.
        if name.len() <= SHORT_NAME && is_verbatim(name.as_bytes()) {
            let mut member = [0; SHORT_NAME + 4];
            let end = name.len() + 2;
            (member[0], member[1]) = (b',', b'"');
            member[2..end].copy_from_slice(name.as_bytes());
            (member[end], member[end + 1]) = (b'"', b':');
            self.out.extend_from_slice(&member[usize::from(is_first)..end + 2]);
            return self.out;
        }
        self.out.reserve(name.len() + 4);
        self.out.extend_from_slice(if is_first { b"\"" } else { b",\"" });
        escaped(self.out, name);
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A member that is a string.
    pub fn str(&mut self, name: &str, text: &str) -> &mut Self {
        string(self.key(name), text);
        self
    }

    /// A member that is a string, when there is one.
    pub fn opt_str(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.str(name, text);
        }
        self
    }

    /// A member that is a string or null.
    pub fn str_or_null(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.str(name, text),
            None => self.raw(name, "null"),
        }
    }

    /// A member that is a number.
    pub fn u64(&mut self, name: &str, number: u64) -> &mut Self {
        u64(self.key(name), number);
        self
    }

    /// A member that is a number, when there is one.
    pub fn opt_u64(&mut self, name: &str, number: Option<u64>) -> &mut Self {
        if let Some(number) = number {
            self.u64(name, number);
        }
        self
    }

    /// A member that is a number with a sign.
    pub fn i64(&mut self, name: &str, number: i64) -> &mut Self {
        i64(self.key(name), number);
        self
    }

    /// A member that is a boolean.
    pub fn bool(&mut self, name: &str, value: bool) -> &mut Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    /// A member that is JSON already.
    pub fn raw(&mut self, name: &str, json: &str) -> &mut Self {
        self.key(name).extend_from_slice(json.as_bytes());
        self
    }

    /// Opens an object in this one.
    pub fn object(&mut self, name: &str) -> Object<'_> {
        Object::begin(self.key(name))
    }

    /// Opens an array in this object.
    pub fn array(&mut self, name: &str) -> Array<'_> {
        Array::begin(self.key(name))
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.extend_from_slice(b"}");
    }
}

/// Writes the elements of an array; commas come by themselves. Call [`Array::end`] to close it.
#[derive(Debug)]
pub struct Array<'a> {
    out: &'a mut BytesMut,
    first: bool,
}

impl<'a> Array<'a> {
    /// Opens an array.
    pub fn begin(out: &'a mut BytesMut) -> Self {
        out.extend_from_slice(b"[");
        Self { out, first: true }
    }

    /// Makes place for an element; the caller appends it.
    pub fn element(&mut self) -> &mut BytesMut {
        if !self.first {
            self.out.extend_from_slice(b",");
        }
        self.first = false;
        self.out
    }

    /// An element that is a string.
    pub fn str(&mut self, text: &str) -> &mut Self {
        string(self.element(), text);
        self
    }

    /// An element that is JSON already.
    pub fn raw(&mut self, json: &str) -> &mut Self {
        self.element().extend_from_slice(json.as_bytes());
        self
    }

    /// Opens an object in the array.
    pub fn object(&mut self) -> Object<'_> {
        Object::begin(self.element())
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.first
    }

    /// Closes the array.
    pub fn end(self) {
        self.out.extend_from_slice(b"]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_arrays_nest() {
        let mut out = BytesMut::new();
        let mut object = Object::begin(&mut out);
        object.str("a", "x\"\n\u{1}é").u64("n", 0).i64("m", i64::MIN).bool("b", true);
        object.opt_str("none", None).str_or_null("null", None).opt_u64("max", Some(u64::MAX));
        let (long, longer) = ("l".repeat(SHORT_NAME), "m".repeat(SHORT_NAME + 1));
        object.bool(&long, true).bool(&longer, true).bool("\"", true);
        let mut array = object.array("list");
        array.str("1").raw("[]");
        array.object().end();
        array.end();
        object.object("o").end();
        object.end();
        let told = format!("\"{long}\":true,\"{longer}\":true,\"\\\"\":true");
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            format!(
                "{{\"a\":\"x\\\"\\n\\u0001é\",\"n\":0,\"m\":-9223372036854775808,\"b\":true,\"null\":null,\
                 \"max\":18446744073709551615,{told},\"list\":[\"1\",[],{{}}],\"o\":{{}}}}"
            )
        );
    }

    proptest::proptest! {
        #[test]
        fn strings_are_what_the_parser_reads(text in ".*", control in "[\u{0}-\u{1f}\"\\\\]{0,9}") {
            let text = text + &control;
            let mut out = BytesMut::new();
            string(&mut out, &text);
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn words_are_plain_when_each_byte_is(word: [u8; WORD]) {
            proptest::prop_assert_eq!(is_plain(word), !word.iter().any(|byte| ESCAPED[usize::from(*byte)]));
        }

        #[test]
        fn words_of_nearly_plain_bytes_are(at in 0..WORD, byte: u8, other in 0x1f_u8..0x23) {
            let mut word = [other; WORD];
            word[at] = byte;
            proptest::prop_assert_eq!(is_plain(word), !word.iter().any(|byte| ESCAPED[usize::from(*byte)]));
        }

        #[test]
        fn numbers_are_what_the_parser_reads(number: i64) {
            let mut out = BytesMut::new();
            i64(&mut out, number);
            proptest::prop_assert_eq!(serde_json::from_slice::<i64>(&out).unwrap(), number);
        }
    }
}
