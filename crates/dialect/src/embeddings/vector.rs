//! One vector, in the text it came in.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};

use super::broken;
use crate::DecodeError;

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As lists of numbers.
    #[default]
    Floats,
    /// As base64 of 32-bit floats, lowest byte first.
    Base64,
}

/// A vector, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vector {
    /// The JSON list.
    Floats(Bytes),
    /// The text within the quotes.
    Base64(Bytes),
}

impl Vector {
    /// A list within an upstream's answer.
    pub(super) fn list(body: &Bytes, raw: &str) -> Result<Self, DecodeError> {
        let inner = raw.strip_prefix('[').map(str::trim_start);
        match inner.and_then(|inner| inner.bytes().next()) {
            Some(b'[') => Err(broken(
                "the upstream answered with a vector for each token instead of one for the text; its server has to \
                 pool them (llama.cpp: `--pooling mean`), or the model is not made for embeddings"
                    .to_owned(),
            )),
            Some(first) if first != b']' => Ok(Self::Floats(body.slice_ref(raw.as_bytes()))),
            _ => Err(broken("an embedding of the upstream is no vector".to_owned())),
        }
    }

    /// How it is written.
    pub const fn encoding(&self) -> Encoding {
        match self {
            Self::Floats(_) => Encoding::Floats,
            Self::Base64(_) => Encoding::Base64,
        }
    }

    /// Its numbers.
    pub fn values(&self) -> Result<Vec<f32>, DecodeError> {
        match self {
            Self::Floats(list) => serde_json::from_slice(list)
                .map_err(|_| broken("a vector of the upstream holds something else than numbers".to_owned())),
            Self::Base64(text) => {
                let bytes = BASE64_STANDARD
                    .decode(text)
                    .map_err(|_| broken("a vector of the upstream is not valid base64".to_owned()))?;
                let (numbers, rest) = bytes.as_chunks::<4>();
                let values: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                if !rest.is_empty() || values.iter().any(|value| !value.is_finite()) {
                    return Err(broken("a vector of the upstream is not made of 32-bit numbers".to_owned()));
                }
                Ok(values)
            }
        }
    }

    /// Its JSON in an encoding.
    pub(crate) fn to(&self, encoding: Encoding) -> Result<Bytes, DecodeError> {
        match (self, encoding) {
            (Self::Floats(list), Encoding::Floats) => Ok(list.clone()),
            (Self::Base64(text), Encoding::Base64) => Ok(quoted(text)),
            (_, Encoding::Floats) => {
                let list = serde_json::to_vec(&self.values()?);
                list.map(Bytes::from).map_err(|error| broken(error.to_string()))
            }
            (_, Encoding::Base64) => {
                let values = self.values()?;
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Ok(quoted(BASE64_STANDARD.encode(bytes).as_bytes()))
            }
        }
    }
}

fn quoted(text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    out.put_u8(b'"');
    out.put_slice(text);
    out.put_u8(b'"');
    out.freeze()
}
