//! Operations that are not chat: embeddings, images, audio. They go the way of a chat request (keys, limits, budgets,
//! combos, accounts, cooldowns, the log, the ledger); only what is sent to one account and what comes back is their own.
//!
//! A [`Task`] is the request of one operation, and makes one attempt at a time. What an attempt may do is a
//! [`Call`](call::Call); the way there is in `serve.rs` of this folder.

mod call;
mod check;
mod embeddings;
mod images;
mod looked_at;
mod serve;
mod speech;
mod transcription;
mod upload;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue};
use omniroute_dialect::ir::Usage;
use omniroute_dialect::stream::StreamPipe;
use omniroute_domain::price::Units;
use omniroute_domain::resolve::Target;
use omniroute_provider::{Capability, Service};
use omniroute_wire::splice::Pieces;

pub(crate) use call::{Call, Payload, once, own_failure};
pub(crate) use check::{able, check_mix, keep_able_others};
pub use images::EditForm;
pub use looked_at::Asked;
pub(crate) use looked_at::look_at;
pub(crate) use serve::route;
pub use transcription::Recording;
pub use upload::Upload;

use crate::attempt::Fault;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::ports::UpstreamBody;

/// The request of an operation that is not chat.
pub(crate) trait Task: Send + Sync {
    /// What it is.
    fn capability(&self) -> Capability;

    /// What it will be billed, as far as can be told before: for budgets.
    fn estimate(&self) -> (Usage, Units);

    /// Whether this target can do what is asked, before anybody is asked. A direct request is refused with the error; in a
    /// combo the target is passed over.
    fn fits(&self, ctx: &RequestCtx, target: &Target, service: &Service) -> Result<(), GatewayError> {
        let _ = (ctx, target, service);
        Ok(())
    }

    /// Whether the targets of a combo may be different models.
    fn may_mix_models(&self) -> bool {
        true
    }

    /// Whether the id that a client gives its request makes a repetition of it, as `Idempotency-Key` does.
    fn repeats_by_request_id(&self) -> bool {
        true
    }

    /// An answer that no upstream has to be asked for.
    fn in_place(&self) -> Option<Bytes> {
        None
    }

    /// Whether the client wants events.
    fn streams(&self) -> bool {
        false
    }

    /// One attempt at one account. It may be called again for the next one.
    fn perform<'a>(&'a mut self, call: Call<'a>) -> BoxFuture<'a, Result<Performed, Fault>>;
}

/// What an attempt came to.
pub(crate) enum Performed {
    /// An answer.
    Whole(Box<Done>),
    /// One that has begun.
    Live(Box<Live>),
}

impl From<Done> for Performed {
    fn from(done: Done) -> Self {
        Self::Whole(Box::new(done))
    }
}

/// A stream of the upstream, and what is made of it.
pub(crate) struct Live {
    pub(crate) headers: HeaderMap,
    pub(crate) body: UpstreamBody,
    pub(crate) pipe: Box<dyn StreamPipe>,
}

/// An answer for the client, and what it used.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// The body.
    pub(crate) body: Pieces,
    /// Its type; `None` = JSON.
    pub(crate) content_type: Option<HeaderValue>,
    /// Headers beside that.
    pub(crate) headers: HeaderMap,
    /// Tokens, as far as they are known.
    pub(crate) usage: Usage,
    /// Whether they are an estimate.
    pub(crate) is_estimated: bool,
    /// What is billed by other units.
    pub(crate) units: Units,
}

impl Done {
    /// A JSON document.
    pub(crate) fn json(body: impl Into<Bytes>, usage: Usage) -> Self {
        let mut pieces = Pieces::new();
        pieces.push(body.into());
        Self { body: pieces, usage, ..Self::default() }
    }
}

/// A task on its way: in the request's context.
pub(crate) struct Job {
    pub(crate) task: Box<dyn Task>,
    /// The head of the answer, once there is one.
    head: Option<(Option<HeaderValue>, HeaderMap)>,
}

impl Job {
    fn new(task: Box<dyn Task>) -> Box<Self> {
        Box::new(Self { task, head: None })
    }
}

impl RequestCtx {
    /// What is asked for, where that is not chat.
    pub(crate) fn ability(&self) -> Option<Capability> {
        self.task.as_ref().map(|job| job.task.capability()).or(self.performing)
    }

    /// What it will be billed, where that is not chat.
    pub(crate) fn task_estimate(&self) -> Option<(Usage, Units)> {
        self.task.as_ref().map(|job| job.task.estimate())
    }
}
