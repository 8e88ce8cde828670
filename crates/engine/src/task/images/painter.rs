//! Vendors of pictures with formats of their own. Some take an order, which is asked for until it is carried out.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use omniroute_dialect::images::painters::Progress;
use omniroute_dialect::images::{ImageAnswer, ImageRequest, Painter};
use omniroute_dialect::ir::Loss;
use omniroute_provider::Failure;
use tokio::time::{Instant, sleep, timeout};

use super::{Call, Fault, Message, PATIENCE, broken, sent};
use crate::error::GatewayError;
use crate::ports::UpstreamBody;
use crate::task::{Payload, own_failure};
use crate::time::seconds;

/// How often an order is asked for.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a vendor is asked for the target's model.
pub(super) fn uri(call: &Call<'_>, painter: Painter) -> Result<Uri, GatewayError> {
    let model = &call.target.model;
    match painter.elsewhere(model) {
        Some((from, to)) => call.uri_ending(&from, to),
        None => call.uri_for(painter.place(model)),
    }
}

/// What is sent, and what of the request it does not say.
pub(super) fn message(
    call: &Call<'_>,
    painter: Painter,
    request: &ImageRequest,
    model: &str,
) -> Result<(Message, Vec<Loss>), Fault> {
    let engine = &call.ctx().engine;
    let boundary = format!("omniroute-{:016x}{:016x}", engine.random(), engine.random());
    let asked = painter.write(request, model, &boundary).map_err(GatewayError::from)?;
    let mut headers = call.headers();
    if let Some(content_type) = &asked.content_type {
        let value = HeaderValue::from_str(content_type)
            .map_err(|_| Failure::protocol("the form's boundary cannot be sent in a header"))?;
        headers.insert(CONTENT_TYPE, value);
    }
    if let Some((name, value)) = painter.header() {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok((Message { headers, payload: asked.body.into() }, asked.losses))
}

/// The pictures of one call. What takes too long, or is not to be, is the request's own failure.
pub(super) async fn painted(
    call: &mut Call<'_>,
    painter: Painter,
    uri: &Uri,
    message: &Message,
) -> Result<ImageAnswer, Fault> {
    let limit = call.ctx().within(PATIENCE);
    let end = Instant::now() + limit;
    let left = || end.saturating_duration_since(Instant::now());
    let late = || Failure::timeout(&format!("no pictures within {}", seconds(limit)));
    let response = sent(call, uri.clone(), message).await?;
    let mut progress = timeout(left(), progress(call, painter, response))
        .await
        .map_err(|_| Fault::Upstream(Box::new(late()), Some(StatusCode::GATEWAY_TIMEOUT)))??;
    let mut place = None;
    loop {
        match progress {
            Progress::Done(answer) if answer.pictures.is_empty() => {
                return Err(Failure::protocol("there is no picture in its answer").into());
            }
            Progress::Done(answer) => return Ok(*answer),
            Progress::Refused(reason) => {
                return Err(own_failure(Failure::protocol(&format!("it made no picture: {reason}"))));
            }
            Progress::Later(told) => {
                if let Some(told) = told {
                    place = Some(home(uri, &told)?);
                }
            }
        }
        let Some(place) = &place else {
            return Err(Failure::protocol("it does not tell where its picture will be").into());
        };
        let step = async {
            sleep(PAUSE).await;
            let mut headers = call.headers();
            headers.remove(CONTENT_TYPE);
            let response = call.send(Method::GET, place.clone(), headers, Payload::default()).await?;
            self::progress(call, painter, response).await
        };
        progress = timeout(left(), step).await.map_err(|_| own_failure(late()))??;
    }
}

/// How far an answer says the work is. An order that failed has an error in a good answer, and is the request's own: only an
/// answer that says nothing of the work is the vendor's failure.
async fn progress(
    call: &mut Call<'_>,
    painter: Painter,
    response: Response<UpstreamBody>,
) -> Result<Progress, Fault> {
    let (head, body) = response.into_parts();
    let bytes = call.read(body).await?;
    match painter.read(&bytes) {
        Ok(Progress::Done(answer)) if answer.pictures.is_empty() => {
            call.check_json(&bytes, &head.headers)?;
            Ok(Progress::Done(answer))
        }
        Ok(progress) => Ok(progress),
        Err(error) => {
            call.check_json(&bytes, &head.headers)?;
            Err(broken(&error))
        }
    }
}

/// An address that a vendor tells, to which its key is sent: it has to be the vendor's own.
fn home(uri: &Uri, told: &str) -> Result<Uri, Fault> {
    let strange =
        || own_failure(Failure::protocol("it tells to ask for its picture at a host that is not its own"));
    let told: Uri = told.parse().map_err(|_| strange())?;
    if told.authority() == uri.authority() && told.scheme() == uri.scheme() {
        return Ok(told);
    }
    let is_name = |host: &str| host.contains(|c: char| c.is_ascii_alphabetic()) && !host.starts_with('[');
    let site = |uri: &Uri| {
        let host = uri.host().filter(|host| is_name(host))?.to_ascii_lowercase();
        let labels: Vec<&str> = host.rsplit('.').take(2).collect();
        (labels.len() == 2).then(|| labels.join("."))
    };
    let is_own = told.scheme_str() == Some("https")
        && told.port().is_none()
        && site(&told).is_some_and(|theirs| Some(theirs) == site(uri));
    if is_own { Ok(told) } else { Err(strange()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_no_stranger() {
        for (asked, told, is_home) in [
            ("https://api.bfl.ai/v1/flux-2-pro", "https://api.bfl.ai/v1/get_result?id=1", true),
            ("https://api.bfl.ai/v1/flux-2-pro", "https://api.us1.bfl.ai/v1/get_result?id=1", true),
            ("https://api.bfl.ai/v1/flux-2-pro", "http://api.us1.bfl.ai/v1/get_result?id=1", false),
            ("https://api.bfl.ai/v1/flux-2-pro", "https://bfl.ai.example/v1/get_result?id=1", false),
            ("https://api.bfl.ai/v1/flux-2-pro", "https://api.bfl.ai:8443/v1/get_result?id=1", false),
            ("http://127.0.0.1:1/v1/m", "http://127.0.0.1:1/p", true),
            ("http://127.0.0.1:1/v1/m", "http://127.0.0.1:2/p", false),
            ("https://10.0.0.1/v1/m", "https://192.168.0.1/p", false),
            ("https://a.example/v1/m", "not an address", false),
        ] {
            assert_eq!(home(&Uri::from_static(asked), told).is_ok(), is_home, "{told}");
        }
    }
}
