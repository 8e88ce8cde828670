//! Forms with files, as they are sent (`multipart/form-data`). Files are not held here: what is written is what comes
//! before, between and behind them.

use bytes::{Bytes, BytesMut};

/// A form around files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Before the first file.
    pub head: Bytes,
    /// Behind each of the files.
    pub behind: Vec<Bytes>,
    /// What the whole is sent as.
    pub content_type: String,
}

/// Writes a form. The boundary must not occur in the files; something long and random does not.
pub(crate) struct FormWriter<'a> {
    boundary: &'a str,
    head: Option<Bytes>,
    behind: Vec<Bytes>,
    /// What has not been put beside a file yet.
    out: BytesMut,
}

impl<'a> FormWriter<'a> {
    pub(crate) fn new(boundary: &'a str) -> Self {
        Self { boundary, head: None, behind: Vec::new(), out: BytesMut::with_capacity(1024) }
    }

    pub(crate) fn field(&mut self, name: &str, value: &str) {
        self.part(name);
        self.text("\r\n\r\n");
        self.text(value);
        self.text("\r\n");
    }

    /// A file stands here.
    pub(crate) fn file(&mut self, name: &str, filename: &str, media_type: &str) {
        self.part(name);
        self.text("; filename=\"");
        quoted(&mut self.out, filename);
        self.text("\"\r\nContent-Type: ");
        self.text(media_type);
        self.text("\r\n\r\n");
        let before = self.out.split().freeze();
        match self.head {
            None => self.head = Some(before),
            Some(_) => self.behind.push(before),
        }
        self.text("\r\n");
    }

    pub(crate) fn end(mut self) -> Form {
        let boundary = self.boundary;
        self.text(&format!("--{boundary}--\r\n"));
        let last = self.out.split().freeze();
        let head = match self.head {
            None => last,
            Some(head) => {
                self.behind.push(last);
                head
            }
        };
        Form { head, behind: self.behind, content_type: format!("multipart/form-data; boundary={boundary}") }
    }

    fn part(&mut self, name: &str) {
        self.text(&format!("--{}\r\nContent-Disposition: form-data; name=\"", self.boundary));
        quoted(&mut self.out, name);
        self.text("\"");
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

/// A name within quotes, as browsers write it.
fn quoted(out: &mut BytesMut, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"%22"),
            b'\r' => out.extend_from_slice(b"%0D"),
            b'\n' => out.extend_from_slice(b"%0A"),
            byte => out.extend_from_slice(&[byte]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_between_what_is_written() {
        let mut writer = FormWriter::new("B");
        writer.field("model", "m\r\n");
        writer.file("image[]", "a\".png", "image/png");
        writer.file("image[]", "b\r\n.png", "image/webp");
        writer.field("n", "1");
        let form = writer.end();
        assert_eq!(form.content_type, "multipart/form-data; boundary=B");
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let whole = format!("{}<1>{}<2>{}", text(&form.head), text(&form.behind[0]), text(&form.behind[1]));
        assert_eq!(
            whole,
            "--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n\r\n\
             --B\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"a%22.png\"\r\nContent-Type: image/png\r\n\r\n<1>\r\n\
             --B\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"b%0D%0A.png\"\r\nContent-Type: image/webp\r\n\r\n<2>\r\n\
             --B\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1\r\n--B--\r\n"
        );
        let mut alone = FormWriter::new("B");
        alone.field("a", "b");
        assert!(alone.end().behind.is_empty());
    }
}
