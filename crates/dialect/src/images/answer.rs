//! Pictures, whoever made them.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;
use serde_json::value::RawValue;

use crate::ir::Usage;

/// What was done to get pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Painting {
    /// They were made from words.
    New,
    /// Others were changed.
    Edit,
}

impl Painting {
    /// The name of the event that a picture is finished.
    const fn completed(self) -> &'static str {
        match self {
            Self::New => "image_generation.completed",
            Self::Edit => "image_edit.completed",
        }
    }
}

/// The answer to one call, or to several that belong together.
#[derive(Debug, Clone, Default)]
pub struct ImageAnswer {
    /// When, in epoch seconds.
    pub created: Option<u64>,
    /// The pictures.
    pub pictures: Vec<Picture>,
    /// Tokens, where it is billed by them.
    pub tokens: Usage,
    /// Those of the tokens read that were pictures.
    pub image_tokens: Option<u64>,
    /// What else the vendor tells (`size`, `quality`, …), as it came.
    pub(super) extras: Vec<(String, Box<RawValue>)>,
}

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Where it is.
    pub source: Source,
    /// What was really painted.
    pub revised_prompt: Option<String>,
}

/// Where a picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// At an address.
    Url(String),
    /// Here.
    Base64 {
        /// Its type, where it was told.
        media_type: Option<String>,
        /// The picture.
        data: String,
    },
}

impl Source {
    /// The picture as an address: a data URL if it has no other.
    pub fn into_url(self) -> Self {
        match self {
            Self::Url(url) => Self::Url(url),
            Self::Base64 { media_type, data } => {
                let media_type = media_type.as_deref().unwrap_or_else(|| type_of(&data));
                Self::Url(format!("data:{media_type};base64,{data}"))
            }
        }
    }

    /// The picture itself, where it is in a data URL.
    pub fn unpacked(self) -> Self {
        match self {
            Self::Url(url) => match crate::media::data_url(&url) {
                Some((media_type, data)) => {
                    Self::Base64 { media_type: Some(media_type.to_owned()), data: data.to_owned() }
                }
                None => Self::Url(url),
            },
            here => here,
        }
    }
}

/// The type of a picture by its first bytes in base64.
fn type_of(data: &str) -> &'static str {
    let is = |mark: &str| data.starts_with(mark);
    match () {
        () if is("/9j/") => "image/jpeg",
        () if is("UklGR") => "image/webp",
        () if is("R0lG") => "image/gif",
        () if is("PHN2Zy") || is("PD94bW") => "image/svg+xml",
        () => "image/png",
    }
}

impl ImageAnswer {
    /// Adds what another call for the same request gave.
    pub fn add(&mut self, other: Self) {
        self.created = self.created.or(other.created);
        self.pictures.extend(other.pictures);
        self.tokens.add(&other.tokens);
        if let Some(more) = other.image_tokens {
            self.image_tokens = Some(self.image_tokens.unwrap_or(0) + more);
        }
        if self.extras.is_empty() {
            self.extras = other.extras;
        }
    }

    /// The answer for a client. `now` is the time in epoch seconds.
    pub fn write(&self, now: u64) -> Bytes {
        let size: usize = self
            .pictures
            .iter()
            .map(|picture| match &picture.source {
                Source::Url(data) | Source::Base64 { data, .. } => data.len() + 128,
            })
            .sum();
        let mut out = BytesMut::with_capacity(size + 512);
        let mut object = Object::begin(&mut out);
        object.u64("created", self.created.unwrap_or(now));
        for (name, raw) in &self.extras {
            object.raw(name, raw.get());
        }
        let mut data = object.array("data");
        for picture in &self.pictures {
            let mut entry = data.object();
            match &picture.source {
                Source::Url(url) => entry.str("url", url),
                Source::Base64 { data, .. } => entry.str("b64_json", data),
            };
            entry.opt_str("revised_prompt", picture.revised_prompt.as_deref());
            entry.end();
        }
        data.end();
        self.write_usage(&mut object);
        object.end();
        out.freeze()
    }

    /// The answer as a stream that is over: an event for each picture, the usage in the last one. `of` is what was done.
    pub fn write_events(&self, of: Painting, now: u64) -> Bytes {
        let kind = of.completed();
        let mut out = BytesMut::new();
        for (at, picture) in self.pictures.iter().enumerate() {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\ndata: ");
            let mut object = Object::begin(&mut out);
            object.str("type", kind).u64("created_at", self.created.unwrap_or(now));
            for (name, raw) in &self.extras {
                object.raw(name, raw.get());
            }
            match &picture.source {
                Source::Url(url) => object.str("url", url),
                Source::Base64 { data, .. } => object.str("b64_json", data),
            };
            object.opt_str("revised_prompt", picture.revised_prompt.as_deref());
            if at + 1 == self.pictures.len() {
                self.write_usage(&mut object);
            }
            object.end();
            out.extend_from_slice(b"\n\n");
        }
        out.freeze()
    }

    fn write_usage(&self, object: &mut Object<'_>) {
        if !self.tokens.is_known() {
            return;
        }
        let (input, output) = (self.tokens.input_total().unwrap_or(0), self.tokens.output_total.unwrap_or(0));
        let images = self.image_tokens.unwrap_or(0).min(input);
        let mut usage = object.object("usage");
        usage.u64("total_tokens", input.saturating_add(output)).u64("input_tokens", input);
        usage.u64("output_tokens", output);
        let mut details = usage.object("input_tokens_details");
        details.u64("text_tokens", input - images).u64("image_tokens", images);
        details.end();
        usage.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(data: &str) -> Source {
        Source::Base64 { media_type: None, data: data.into() }
    }

    #[test]
    fn pictures_become_addresses_and_back() {
        for (data, expected) in [
            ("iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgo="),
            ("/9j/4AAQ", "data:image/jpeg;base64,/9j/4AAQ"),
            ("UklGRg==", "data:image/webp;base64,UklGRg=="),
        ] {
            assert_eq!(here(data).into_url(), Source::Url(expected.into()));
            let Source::Base64 { data: back, media_type } = here(data).into_url().unpacked() else {
                panic!("it is here")
            };
            assert_eq!((back.as_str(), media_type.is_some()), (data, true));
        }
        let far = Source::Url("https://a.example/b.png".into());
        assert_eq!(far.clone().into_url().unpacked(), far);
    }

    #[test]
    fn several_answers_are_one() {
        let picture = |data: &str| Picture { source: here(data), revised_prompt: Some("a \"cat\"".into()) };
        let tokens =
            |input| Usage { input_uncached: Some(input), output_total: Some(100), ..Usage::default() };
        let mut answer = ImageAnswer {
            created: Some(5),
            pictures: vec![picture("A")],
            tokens: tokens(3),
            image_tokens: Some(1),
            ..ImageAnswer::default()
        };
        answer.add(ImageAnswer { pictures: vec![picture("B")], tokens: tokens(4), ..ImageAnswer::default() });
        assert_eq!(
            std::str::from_utf8(&answer.write(9)).unwrap(),
            r#"{"created":5,"data":[{"b64_json":"A","revised_prompt":"a \"cat\""},{"b64_json":"B","revised_prompt":"a \"cat\""}],"usage":{"total_tokens":207,"input_tokens":7,"output_tokens":200,"input_tokens_details":{"text_tokens":6,"image_tokens":1}}}"#
        );
        assert_eq!(
            std::str::from_utf8(&answer.write_events(Painting::New, 9)).unwrap(),
            "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"created_at\":5,\"b64_json\":\"A\",\"revised_prompt\":\"a \\\"cat\\\"\"}\n\n\
             event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"created_at\":5,\"b64_json\":\"B\",\"revised_prompt\":\"a \\\"cat\\\"\",\"usage\":{\"total_tokens\":207,\"input_tokens\":7,\"output_tokens\":200,\"input_tokens_details\":{\"text_tokens\":6,\"image_tokens\":1}}}\n\n"
        );
        assert!(answer.write_events(Painting::Edit, 9).starts_with(b"event: image_edit.completed\n"));
        assert_eq!(&ImageAnswer::default().write(9)[..], br#"{"created":9,"data":[]}"#);
    }
}
