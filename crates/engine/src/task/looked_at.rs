//! A task that is only looked at, to explain what would become of it.

use bytes::Bytes;
use omniroute_dialect::embeddings::Form;

use super::{embeddings, images, serve, speech};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// What a request asks for that is not chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Vectors of texts.
    Embeddings {
        /// How it is asked.
        form: Form,
        /// The model, where the path names it.
        model: Option<String>,
    },
    /// Pictures.
    Images,
    /// Speech.
    Speech,
}

/// Reads the request. An error is for what is none.
pub(crate) fn look_at(ctx: &mut RequestCtx, body: Bytes, asked: Asked) -> Result<(), GatewayError> {
    let (model, task) = match asked {
        Asked::Embeddings { form, model } => {
            let (named, task) = embeddings::read(form, &body)?;
            (model.unwrap_or(named), task)
        }
        Asked::Images => images::read(&body)?,
        Asked::Speech => speech::read(&body)?,
    };
    serve::take_up(ctx, body, model, task);
    Ok(())
}
