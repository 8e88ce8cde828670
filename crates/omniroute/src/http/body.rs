//! Reading a client's body: bounded, decoded, not copied when it comes in one piece.

use std::io;
use std::time::Duration;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;
use omniroute_dialect::ir::ErrorKind;
use omniroute_engine::GatewayError;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use super::arriving::Arriving;

/// The byte-order mark in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How long a client may pause within its body.
const SILENCE: Duration = Duration::from_secs(60);

/// Reads the whole body. `limit` applies to the decoded bytes.
pub(super) async fn read(headers: &HeaderMap, body: Arriving, limit: usize) -> Result<Bytes, GatewayError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let encodings = encodings(headers)?;
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let raw = collect(body, limit, declared).await?;
    let mut decoded = raw;
    for encoding in encodings.into_iter().rev() {
        decoded = decode(encoding, &decoded, limit).await?;
    }
    // Some programs begin their texts so; no upstream takes it.
    while decoded.starts_with(BYTE_ORDER_MARK) {
        decoded = decoded.slice(BYTE_ORDER_MARK.len()..);
    }
    Ok(decoded)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Brotli,
    Zstd,
    Deflate,
}

/// The encodings in the order in which they were applied.
fn encodings(headers: &HeaderMap) -> Result<Vec<Encoding>, GatewayError> {
    let mut found = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.to_str().unwrap_or("?").split(',').map(str::trim) {
            match name.to_ascii_lowercase().as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" => found.push(Encoding::Gzip),
                "br" => found.push(Encoding::Brotli),
                "zstd" => found.push(Encoding::Zstd),
                "deflate" => found.push(Encoding::Deflate),
                _ => {
                    let message = "this Content-Encoding is unknown; use gzip, br, zstd, deflate or none";
                    return Err(GatewayError::new(ErrorKind::InvalidRequest, "bad_request", message));
                }
            }
        }
    }
    if found.len() > 2 {
        let message = "more than two Content-Encodings on top of each other are not taken";
        return Err(GatewayError::new(ErrorKind::InvalidRequest, "bad_request", message));
    }
    Ok(found)
}

async fn collect(mut body: Arriving, limit: usize, declared: Option<usize>) -> Result<Bytes, GatewayError> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = match timeout(SILENCE, body.frame()).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => break,
            Ok(Some(frame)) => frame,
        };
        let frame = frame.map_err(|_| {
            let message = "the connection broke before the whole body had come";
            GatewayError::new(ErrorKind::InvalidRequest, "bad_request", message)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(declared.unwrap_or(0).min(limit).max(first.len() + data.len()));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

async fn decode(encoding: Encoding, raw: &[u8], limit: usize) -> Result<Bytes, GatewayError> {
    let done = match encoding {
        Encoding::Gzip => drain(GzipDecoder::new(raw), limit).await,
        Encoding::Brotli => drain(BrotliDecoder::new(raw), limit).await,
        Encoding::Zstd => drain(ZstdDecoder::new(raw), limit).await,
        Encoding::Deflate => drain(ZlibDecoder::new(raw), limit).await,
    };
    match done {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(too_large(limit)),
        Err(_) => {
            let message = "the body is not what its Content-Encoding says";
            Err(GatewayError::new(ErrorKind::InvalidRequest, "bad_request", message))
        }
    }
}

/// All of the decoder's output; `None` when it is more than `limit`.
async fn drain(decoder: impl AsyncRead + Unpin, limit: usize) -> io::Result<Option<Bytes>> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(most).read_to_end(&mut out).await?;
    Ok((out.len() <= limit).then(|| out.into()))
}

fn too_slow() -> GatewayError {
    let message = format!("nothing of the body came for {} s", SILENCE.as_secs());
    GatewayError::new(ErrorKind::RequestTimeout, "request_timeout", message)
}

fn too_large(limit: usize) -> GatewayError {
    let message = format!("the body is larger than {limit} bytes; MAX_BODY_SIZE_BYTES sets the limit");
    GatewayError::new(ErrorKind::TooLarge, "request_too_large", message)
}
