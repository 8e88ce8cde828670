//! Vendors who paint and have formats of their own. They are asked in their own words for the same, and members that only
//! they know go on as the client wrote them.

mod answers;
mod ask;

use bytes::Bytes;

use super::answer::ImageAnswer;
use super::request::{ImageRequest, Quirks};
use crate::DecodeError;
use crate::ir::Loss;

/// Whose format it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Painter {
    /// Black Forest Labs: an order, and then the picture (<https://docs.bfl.ai/quick_start/generating_images>).
    BlackForest,
    /// fal.ai (<https://fal.ai/models/fal-ai/flux/schnell/api>).
    Fal,
    /// Hyperbolic (<https://docs.hyperbolic.xyz/docs/rest-api>).
    Hyperbolic,
    /// Replicate: an order that is waited for (<https://replicate.com/docs/reference/http#models.predictions.create>).
    Replicate,
    /// Stability AI (<https://platform.stability.ai/docs/api-reference>).
    Stability,
}

/// What is sent.
#[derive(Debug)]
pub struct Asked {
    /// The body.
    pub body: Bytes,
    /// What it is; `None` = JSON.
    pub content_type: Option<String>,
    /// What of the request it does not say.
    pub losses: Vec<Loss>,
}

/// How far the work is.
#[derive(Debug)]
pub enum Progress {
    /// The pictures are there.
    Done(ImageAnswer),
    /// They will be there later: at this address, or where it was asked.
    Later(Option<String>),
    /// There will be none, for this reason.
    Refused(String),
}

impl Painter {
    /// In what the form differs that no request says.
    pub fn quirks(self) -> Quirks {
        Quirks { one_at_a_time: self != Self::Fal, ..Quirks::default() }
    }

    /// What stands for a model in the address.
    pub fn place(self, model: &str) -> &str {
        match self {
            // Three services; the models of the third are named in the request.
            Self::Stability if !matches!(model, "core" | "ultra") => "sd3",
            Self::BlackForest | Self::Fal | Self::Hyperbolic | Self::Replicate | Self::Stability => model,
        }
    }

    /// The end of the address, and what stands there in its place for this model.
    pub fn elsewhere(self, model: &str) -> Option<(String, &'static str)> {
        // Versions of models that are not the maker's own are asked for by their number.
        let is_version = self == Self::Replicate && model.contains(':');
        is_version.then(|| (format!("/models/{model}/predictions"), "/predictions"))
    }

    /// A header that says how the answer is wanted.
    pub const fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Stability => Some(("accept", "application/json")),
            Self::Replicate => Some(("prefer", "wait")),
            Self::BlackForest | Self::Fal | Self::Hyperbolic => None,
        }
    }

    /// The request for one call. The boundary is for those who want a form.
    pub fn write(self, request: &ImageRequest, model: &str, boundary: &str) -> Result<Asked, DecodeError> {
        match self {
            Self::BlackForest => ask::black_forest(request),
            Self::Fal => ask::fal(request),
            Self::Hyperbolic => ask::hyperbolic(request, model),
            Self::Replicate => ask::replicate(request, model),
            Self::Stability => ask::stability(request, model, boundary),
        }
    }

    /// Reads an answer, to the order or to the question how far it is.
    pub fn read(self, body: &[u8]) -> Result<Progress, DecodeError> {
        match self {
            Self::BlackForest => answers::black_forest(body),
            Self::Fal => answers::fal(body),
            Self::Hyperbolic => answers::hyperbolic(body),
            Self::Replicate => answers::replicate(body),
            Self::Stability => answers::stability(body),
        }
    }
}
