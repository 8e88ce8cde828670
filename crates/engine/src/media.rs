//! Images and documents that a client names by their address, for upstreams that do not fetch them themselves.
//!
//! The client chooses the address, so it is held to more than an upstream's: public hosts only, checked after DNS and
//! again for each redirect; a few redirects, a few seconds, a limited size, and nothing but images and PDF.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, LOCATION, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt as _, Limited};
use omniroute_dialect::ir::{Block, BlockKind, ChatRequest, ErrorKind, MediaSource};
use omniroute_dialect::{Caps, Dialect};
use tokio::time::timeout;

use crate::error::GatewayError;
use crate::ports::{Departure, OutboundCall, TransportError};
use crate::serve::Engine;

/// Most addresses of one request.
const MAX_FETCHES: usize = 20;
/// Most redirects of one address.
const MAX_REDIRECTS: usize = 3;
/// Longest time for one address, redirects included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest file.
const MAX_BYTES: usize = 20 * 1024 * 1024;
/// How long a file is taken for unchanged.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// What was found at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fetched {
    media_type: String,
    data: String,
}

/// Puts what stands at the addresses in a request into it, as far as the upstream does not fetch it itself.
pub(crate) async fn inline(
    engine: &Engine,
    request: &mut ChatRequest,
    upstream: &dyn Dialect,
    caps: &Caps,
) -> Result<(), GatewayError> {
    let images = !(caps.media_urls && upstream.takes_image_urls());
    let documents = !(caps.media_urls && upstream.takes_document_urls());
    let wanted = |block: &Block| match &block.kind {
        BlockKind::Image(image) => images && matches!(image.source, MediaSource::Url(_)),
        BlockKind::File(file) => documents && matches!(file.source, MediaSource::Url(_)),
        _ => false,
    };
    let mut fetched = 0;
    for turn in &mut request.turns {
        for (at, block) in turn.blocks.iter_mut().enumerate() {
            let path = || format!("{}.content[{at}]", turn.path);
            let inner: &mut [Block] = match &mut block.kind {
                BlockKind::ToolResult(result) => &mut result.blocks,
                _ => std::slice::from_mut(block),
            };
            for block in inner.iter_mut().filter(|block| wanted(block)) {
                if fetched == MAX_FETCHES {
                    return Err(refused(
                        &path(),
                        &format!("more than {MAX_FETCHES} addresses in one request; send the data itself"),
                    ));
                }
                fetched += 1;
                let (BlockKind::Image(omniroute_dialect::ir::Image { source, .. })
                | BlockKind::File(omniroute_dialect::ir::File { source, .. })) = &mut block.kind
                else {
                    continue;
                };
                let MediaSource::Url(url) = source else { continue };
                let found = one(engine, url).await.map_err(|reason| refused(&path(), &reason))?;
                *source = MediaSource::Base64 { media_type: found.media_type, data: found.data };
            }
        }
    }
    Ok(())
}

/// The type of a picture at an address and itself in base64, or why it cannot be had. `home` is the one host whose address
/// may be private.
pub(crate) async fn picture(
    engine: &Engine,
    url: &str,
    home: Option<&Authority>,
) -> Result<(String, String), String> {
    let found = match home {
        Some(home) if url.parse::<Uri>().is_ok_and(|uri| uri.authority() == Some(home)) => {
            timeout(PATIENCE, fetch(engine, url, true)).await.map_err(|_| late())?
        }
        _ => one(engine, url).await,
    }?;
    if !found.media_type.starts_with("image/") {
        return Err("it is no picture".to_owned());
    }
    Ok((found.media_type, found.data))
}

/// What stands at an address, or why it cannot be had, in words for the client.
async fn one(engine: &Engine, url: &str) -> Result<Fetched, String> {
    if !engine.options.fetch_media {
        return Err("this gateway does not fetch addresses for clients; send the data itself".to_owned());
    }
    let key = format!("media:{url}");
    if let Some(kept) = engine.media.get(&key, engine.clock.now_ms()).await
        && let Some(found) = unpacked(&kept)
    {
        return Ok(found);
    }
    let found = timeout(PATIENCE, fetch(engine, url, false)).await.map_err(|_| late())??;
    engine.media.put(&key, packed(&found), engine.clock.now_ms(), KEPT_FOR);
    Ok(found)
}

fn late() -> String {
    format!("the address did not answer within {} s", PATIENCE.as_secs())
}

async fn fetch(engine: &Engine, url: &str, allow_private: bool) -> Result<Fetched, String> {
    let mut uri: Uri = url.parse().map_err(|_| "it is not a valid address".to_owned())?;
    for _ in 0..=MAX_REDIRECTS {
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err("only http and https addresses are fetched".to_owned());
        }
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(ACCEPT, HeaderValue::from_static("image/*, application/pdf"));
        headers.insert(USER_AGENT, HeaderValue::from_static("OmniRoute"));
        let call = OutboundCall {
            method: Method::GET,
            uri: uri.clone(),
            headers,
            body: smallvec::SmallVec::new(),
            attachment: None,
            allow_private,
            departure: Departure::default(),
        };
        let response = engine.transport.send(call).await.map_err(|error| match error {
            TransportError::AddressBlocked(_) => {
                "its host is not a public one, and such addresses are not fetched".to_owned()
            }
            TransportError::Connect { .. }
            | TransportError::ConnectTimeout { .. }
            | TransportError::Broken { .. } => "its host cannot be reached".to_owned(),
        })?;
        // Where it leads to is no home.
        if response.status().is_redirection() && !allow_private {
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            uri = location
                .and_then(|location| joined(&uri, location))
                .ok_or_else(|| "it redirects to nowhere".to_owned())?;
            continue;
        }
        if !response.status().is_success() {
            return Err(format!("it answered with status {}", response.status().as_u16()));
        }
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
            .unwrap_or_default();
        if !media_type.starts_with("image/") && media_type != "application/pdf" {
            return Err("it is neither an image nor a PDF file".to_owned());
        }
        let body = Limited::new(response.into_body(), MAX_BYTES);
        let bytes = body
            .collect()
            .await
            .map_err(|_| format!("it is larger than {} MiB, or broke off", MAX_BYTES >> 20))?
            .to_bytes();
        return Ok(Fetched { media_type, data: BASE64_STANDARD.encode(&bytes) });
    }
    Err(format!("it redirects more than {MAX_REDIRECTS} times"))
}

/// A redirect's goal: absolute, or a path on the same host.
fn joined(from: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(location.parse().ok()?);
        return Uri::from_parts(parts).ok();
    }
    location.parse().ok().filter(|uri: &Uri| uri.scheme().is_some())
}

fn packed(found: &Fetched) -> Bytes {
    Bytes::from(format!("{}\n{}", found.media_type, found.data))
}

fn unpacked(kept: &[u8]) -> Option<Fetched> {
    let (media_type, data) = std::str::from_utf8(kept).ok()?.split_once('\n')?;
    Some(Fetched { media_type: media_type.to_owned(), data: data.to_owned() })
}

fn refused(path: &str, reason: &str) -> GatewayError {
    let message = format!("what `{path}` points at cannot be used: {reason}");
    GatewayError::new(ErrorKind::InvalidRequest, "unsupported_content", message).param(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_http() {
        let from: Uri = "https://a.example/x?y=1".parse().unwrap();
        let to = |location: &str| joined(&from, location).map(|uri| uri.to_string());
        assert_eq!(to("/z").as_deref(), Some("https://a.example/z"));
        assert_eq!(to("http://b.example/q").as_deref(), Some("http://b.example/q"));
        assert_eq!(to("//b.example/q"), None);
        assert_eq!(to("relative"), None);
    }

    #[test]
    fn what_was_kept_is_what_was_found() {
        let found = Fetched { media_type: "image/png".into(), data: "iVBORw0=".into() };
        assert_eq!(unpacked(&packed(&found)), Some(found));
    }
}
