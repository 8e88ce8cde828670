//! A task that is only looked at, to explain what would become of it.

use bytes::Bytes;
use omniroute_dialect::embeddings::Form;

use super::{EditForm, Recording, embeddings, images, serve, speech, transcription};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// What a request asks for that is not chat.
#[derive(Debug)]
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
    /// Pictures of others that a document names.
    Edit,
    /// The same in a form.
    EditForm(EditForm),
    /// Speech.
    Speech,
    /// What is said in a recording.
    Transcript(Recording),
}

/// Reads the request. An error is for what is none.
pub(crate) fn look_at(ctx: &mut RequestCtx, body: &Bytes, asked: Asked) -> Result<(), GatewayError> {
    let told = |(model, task)| (body.clone(), model, task);
    let (body, model, task) = match asked {
        Asked::Embeddings { form, model } => {
            let (named, task) = embeddings::read(form, body)?;
            told((model.unwrap_or(named), task))
        }
        Asked::Images => told(images::read(body)?),
        Asked::Edit => told(images::read_edit(body)?),
        Asked::Speech => told(speech::read(body)?),
        Asked::EditForm(form) => images::read_form(form)?,
        Asked::Transcript(recording) => transcription::read(recording)?,
    };
    serve::take_up(ctx, body, model, task);
    Ok(())
}
