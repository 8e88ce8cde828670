//! How many tokens a request would have: asked of the upstream where it counts in the client's dialect, else estimated.
//!
//! The prompt goes to the upstream for it, so it is routed as a conversation is: keys, policies and labels keep it from whom
//! they would keep that from. It counts as a request of its key, and costs nothing.

mod ask;
mod turns;

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use omniroute_dialect::ir::ErrorKind;
use omniroute_dialect::{Envelope, estimate};
use omniroute_domain::resolve::Route;
use turns::Course;

use crate::admit;
use crate::answer::Answer;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::kept;
use crate::preview::Preview;
use crate::resolve;
use crate::serve::{Engine, clip};
use crate::transform;

impl Engine {
    /// Counts the tokens of a request whose caller is known.
    pub async fn count(self: &Arc<Self>, mut ctx: Box<RequestCtx>, body: Bytes) -> Response<Answer> {
        ctx.set_body(body);
        ctx.is_count = true;
        match count(&mut ctx).await {
            Ok(body) => self.reply(ctx, StatusCode::OK, body),
            Err(error) => self.refuse(ctx, &error),
        }
    }

    /// Says what would become of such a request; an error is for what is none. Where nobody would be asked and it is not
    /// refused either, the answer would be the estimate.
    pub async fn preview_count(
        &self,
        mut ctx: Box<RequestCtx>,
        body: Bytes,
    ) -> Result<Preview, GatewayError> {
        ctx.set_body(body);
        ctx.is_count = true;
        let ctx = &mut *ctx;
        let estimated = begin(ctx)?;
        let mut preview = Preview::of(ctx, ctx.envelope()?.model.to_string());
        preview.estimated_tokens = Some(estimated);
        let identified = admit::would_identify(ctx);
        let entered = match route(ctx).await {
            Ok(Some(route)) => {
                let reserved = admit::would_reserve_uncounted(ctx).await;
                match turns::lay_out(ctx, &route).await {
                    Ok(Course { turns, refusal, combo, .. }) => {
                        preview.of_turns(ctx, turns, combo);
                        preview.error = refusal;
                        reserved
                    }
                    Err(error) => {
                        let error = reserved.err().unwrap_or(error);
                        ctx.bar(route, "key", &error);
                        preview.of_barred(ctx);
                        Err(error)
                    }
                }
            }
            Ok(None) => {
                preview.of_barred(ctx);
                admit::would_reserve_uncounted(ctx).await
            }
            Err(error) => {
                preview.of_barred(ctx);
                Err(error)
            }
        };
        preview.finish(ctx, identified.and(entered));
        Ok(preview)
    }
}

async fn count(ctx: &mut RequestCtx) -> Result<Bytes, GatewayError> {
    let estimated = begin(ctx)?;
    let route = route(ctx).await?;
    let reserved = admit::reserve_uncounted(ctx).await;
    let asked = match route {
        Some(route) => turns::take(ctx, &route, reserved).await?,
        None => reserved.map(|()| None)?,
    };
    if let Some((target, connection)) = asked
        && let Some(counted) = ask::ask(ctx, &target, &connection).await
    {
        return Ok(counted);
    }
    Ok(ctx.dialect().encode_count(estimated))
}

/// Reads the request; gives the estimate.
fn begin(ctx: &mut RequestCtx) -> Result<u64, GatewayError> {
    let client = ctx.dialect();
    let request = client.decode_count(ctx.head(), &ctx.body)?;
    let estimated = estimate::tokens(&request);
    let mut envelope = Envelope::of_model(request.model.clone(), client.framing());
    clip(&mut envelope.model);
    // Whoever asks for the prompt alone is not refused for the price of an answer.
    envelope.max_output_tokens = request.max_output_tokens.or(Some(0));
    // What may be left out of a request to count may be missed; what is kept is named in the same place.
    envelope.kept = client.envelope(ctx.head(), &ctx.body).ok().and_then(|asked| asked.kept);
    ctx.envelope = Some(envelope);
    ctx.canonical = Some(Box::new(request));
    transform::check(ctx)?;
    Ok(estimated)
}

/// Where the request leads; `None` where nobody has the model: an estimate needs nobody.
async fn route(ctx: &mut RequestCtx) -> Result<Option<Route>, GatewayError> {
    let route = match resolve::route(ctx) {
        Ok(route) => route,
        Err(error) if error.kind == ErrorKind::Permission => return Err(error),
        Err(_) => return Ok(None),
    };
    match kept::pin(ctx, &route).await {
        Ok(()) => Ok(Some(route)),
        Err(error) => {
            ctx.bar(route, "key", &error);
            Err(error)
        }
    }
}
