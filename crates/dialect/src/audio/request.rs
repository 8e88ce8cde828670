//! What a client asks for: the fields of its form, without the file.

use crate::DecodeError;
use crate::json_in::{missing, wrong_value};

/// Most fields of one form.
const MAX_FIELDS: usize = 64;
/// Most bytes of all fields together.
const MAX_BYTES: usize = 256 * 1024;

/// How a client wants the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// An object with the text.
    #[default]
    Json,
    /// The text alone.
    Text,
    /// An object with times.
    VerboseJson,
    /// An object with speakers.
    DiarizedJson,
    /// Subtitles, SubRip.
    Srt,
    /// Subtitles, WebVTT.
    Vtt,
}

impl Format {
    const ALL: [Self; 6] =
        [Self::Json, Self::Text, Self::VerboseJson, Self::DiarizedJson, Self::Srt, Self::Vtt];

    /// The word in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::VerboseJson => "verbose_json",
            Self::DiarizedJson => "diarized_json",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
        }
    }

    /// What an answer in it is sent as.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::VerboseJson | Self::DiarizedJson => "application/json",
            Self::Text | Self::Srt => "text/plain; charset=utf-8",
            Self::Vtt => "text/vtt; charset=utf-8",
        }
    }

    /// Whether it is a JSON document.
    pub const fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::VerboseJson | Self::DiarizedJson)
    }
}

/// A request for a transcript, or for a translation into English.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TranscriptionRequest {
    /// The model, as the client wrote it.
    pub model: String,
    /// The language that is spoken.
    pub language: Option<String>,
    /// How the text is wanted.
    pub format: Format,
    /// Whether what is said is wanted in English.
    pub translates: bool,
    /// Which times are wanted; `None` where nothing was said of that.
    granularities: Option<(bool, bool)>,
    /// Every field that is of use to others of the same format, in order.
    fields: Vec<(String, String)>,
}

impl TranscriptionRequest {
    /// The word for what is done.
    pub(super) const fn task(&self) -> &'static str {
        if self.translates { "translate" } else { "transcribe" }
    }

    /// Whether times of words are wanted.
    pub fn wants_words(&self) -> bool {
        self.granularities.is_none_or(|(words, _)| words)
    }

    /// Whether times of segments are wanted.
    pub fn wants_segments(&self) -> bool {
        self.granularities.is_none_or(|(_, segments)| segments)
    }

    /// Whether speakers are to be told apart.
    pub fn wants_speakers(&self) -> bool {
        self.format == Format::DiarizedJson
    }

    /// The fields, but for the model.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The fields of a form, as they come.
#[derive(Debug, Default)]
pub struct Fields {
    request: TranscriptionRequest,
    has_model: bool,
    count: usize,
    bytes: usize,
}

impl Fields {
    /// How many bytes the next field may have at most.
    pub fn room(&self) -> usize {
        MAX_BYTES - self.bytes
    }

    /// Takes a field.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), DecodeError> {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(name.len() + value.len());
        if self.count > MAX_FIELDS || self.bytes > MAX_BYTES {
            return Err(DecodeError {
                code: "invalid_value",
                message: format!("a form has at most {MAX_FIELDS} fields of {MAX_BYTES} bytes together"),
                param: None,
            });
        }
        let request = &mut self.request;
        match name {
            "model" if std::mem::replace(&mut self.has_model, true) => {
                return Err(DecodeError {
                    code: "invalid_value",
                    message: "`model` is given more than once".to_owned(),
                    param: Some("model".to_owned()),
                });
            }
            "model" => value.trim().clone_into(&mut request.model),
            // The answer is never a stream.
            "stream" => {}
            "response_format" => request.format = format(value)?,
            "timestamp_granularities[]" | "timestamp_granularities" => {
                let (words, segments) = request.granularities.get_or_insert_default();
                match value.trim() {
                    "word" => *words = true,
                    "segment" => *segments = true,
                    _ => return Err(wrong_value("timestamp_granularities", "`word` or `segment`")),
                }
                request.fields.push(("timestamp_granularities[]".to_owned(), value.trim().to_owned()));
            }
            "temperature" => {
                let number = value.trim().parse::<f64>().ok();
                if !number.is_some_and(|number| (0.0..=2.0).contains(&number)) {
                    return Err(wrong_value("temperature", "a number from 0 to 2"));
                }
                request.fields.push((name.to_owned(), value.trim().to_owned()));
            }
            "language" => {
                let language = value.trim();
                if !is_language(language) && !language.is_empty() {
                    return Err(wrong_value("language", "a language's code such as `en` or `pt-BR`"));
                }
                if !language.is_empty() {
                    request.language = Some(language.to_owned());
                    request.fields.push((name.to_owned(), language.to_owned()));
                }
            }
            _ => request.fields.push((name.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    /// The request, after the whole form was read.
    pub fn finish(self, has_file: bool) -> Result<TranscriptionRequest, DecodeError> {
        if self.request.model.is_empty() {
            return Err(missing("model"));
        }
        if !has_file {
            return Err(missing("file"));
        }
        Ok(self.request)
    }
}

fn format(value: &str) -> Result<Format, DecodeError> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(Format::Json);
    }
    Format::ALL.into_iter().find(|format| format.as_str() == value).ok_or_else(|| {
        wrong_value("response_format", "`json`, `text`, `verbose_json`, `diarized_json`, `srt` or `vtt`")
    })
}

/// Letters and digits with hyphens between: what can stand in a query as it is.
fn is_language(text: &str) -> bool {
    (2..=35).contains(&text.len())
        && text
            .split(['-', '_'])
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// A request with these fields, for tests; `model` is `m` unless they say otherwise.
#[cfg(test)]
pub(super) fn asked(fields: &[(&str, &str)]) -> TranscriptionRequest {
    let mut read = Fields::default();
    if !fields.iter().any(|(name, _)| *name == "model") {
        read.add("model", "m").expect("a field");
    }
    for (name, value) in fields {
        read.add(name, value).expect("a field");
    }
    read.finish(true).expect("a request")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<TranscriptionRequest, DecodeError> {
        let mut read = Fields::default();
        for (name, value) in fields {
            read.add(name, value)?;
        }
        read.finish(true)
    }

    #[test]
    fn fields_are_read() {
        let request = read(&[
            ("model", " deepgram/nova-3 "),
            ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "word"),
            ("stream", "true"),
            ("language", "pt-BR"),
            ("prompt", "names"),
            ("temperature", "0.2"),
        ])
        .unwrap();
        assert_eq!(
            (request.model.as_str(), request.format, request.language.as_deref()),
            ("deepgram/nova-3", Format::VerboseJson, Some("pt-BR"))
        );
        assert!(request.wants_words() && !request.wants_segments());
        let names: Vec<_> = request.fields().map(|(name, _)| name).collect();
        assert_eq!(names, ["timestamp_granularities[]", "language", "prompt", "temperature"]);
    }

    #[test]
    fn wrong_fields_are_named() {
        for (fields, code, param) in [
            (&[][..], "missing_required_parameter", Some("model")),
            (&[("model", " ")], "missing_required_parameter", Some("model")),
            (&[("model", "a"), ("model", "b")], "invalid_value", Some("model")),
            (&[("model", "a"), ("response_format", "xml")], "invalid_value", Some("response_format")),
            (&[("model", "a"), ("temperature", "warm")], "invalid_value", Some("temperature")),
            (&[("model", "a"), ("temperature", "NaN")], "invalid_value", Some("temperature")),
            (&[("model", "a"), ("language", "a b&c")], "invalid_value", Some("language")),
            (&[("timestamp_granularities[]", "letter")], "invalid_value", Some("timestamp_granularities")),
        ] {
            let error = read(fields).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (code, param), "{fields:?}");
        }
        let mut form = Fields::default();
        form.add("model", "a").unwrap();
        assert_eq!(form.finish(false).unwrap_err().param.as_deref(), Some("file"));
    }

    #[test]
    fn a_form_has_an_end() {
        let mut form = Fields::default();
        let results: Vec<_> = (0..=MAX_FIELDS).map(|at| form.add(&format!("f{at}"), "x").is_ok()).collect();
        assert_eq!(results.iter().filter(|ok| **ok).count(), MAX_FIELDS);
        assert!(Fields::default().add("prompt", &"x".repeat(MAX_BYTES)).is_err());
    }
}
