//! Who can do what a task asks for.

use std::sync::Arc;

use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::combo::ComboState;
use omniroute_domain::resolve::{Route, Target};
use omniroute_provider::Capability;
use omniroute_provider::registry::SIM;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// Most providers that a message names.
const MAX_NAMED: usize = 8;

/// Whether a direct target can do what is asked; for a combo each of its targets is asked later.
pub(super) fn check(ctx: &RequestCtx, route: &Route) -> Result<(), GatewayError> {
    match route {
        Route::Target(target) => able(ctx, target),
        Route::Combo(_) => Ok(()),
    }
}

/// Whether a target can do what the request's task asks for.
pub(crate) fn able(ctx: &RequestCtx, target: &Target) -> Result<(), GatewayError> {
    let Some(job) = &ctx.task else { return Ok(()) };
    let capability = job.task.capability();
    let connections = &target.provider.connections;
    let Some(service) = connections.iter().find_map(|connection| connection.service(capability)) else {
        return Err(not_able(ctx, target, capability));
    };
    let mode = ctx.snapshot.mode_of(&target.provider, &target.model);
    if let Some(mode) = mode.filter(|mode| *mode != capability.mode())
        && !draws_in_chat(capability, mode)
    {
        let message = format!(
            "`{}` is not {} but one for {}; see /v1/models?type={} for those there are",
            target.full_name(),
            capability.model_words(),
            words_for(mode),
            capability.request_type()
        );
        return Err(GatewayError::new(ErrorKind::InvalidRequest, "invalid_model", message).param("model"));
    }
    job.task.fits(ctx, target, service)
}

/// Some models for conversations make images and speech too.
fn draws_in_chat(capability: Capability, mode: &str) -> bool {
    matches!(capability, Capability::Images | Capability::Speech | Capability::Transcriptions)
        && matches!(mode, "chat" | "responses")
}

fn words_for(mode: &str) -> &str {
    match mode {
        "chat" | "responses" => "chat",
        "embedding" => "embeddings",
        "image_generation" => "images",
        "audio_transcription" => "transcription",
        "audio_speech" => "speech",
        other => other,
    }
}

/// The error for a provider that cannot do what is asked; names some that can.
pub(crate) fn not_able(ctx: &RequestCtx, target: &Target, capability: Capability) -> GatewayError {
    let what = capability.as_str();
    let others: Vec<String> = ctx
        .snapshot
        .providers()
        .into_iter()
        .filter(|provider| provider.offers(capability) && provider.id.as_str() != SIM)
        .map(|provider| format!("`{}`", provider.alias))
        .take(MAX_NAMED)
        .collect();
    let instead = if others.is_empty() {
        let known = ctx.snapshot.catalog().providers().iter();
        let known = known.filter(|spec| spec.capabilities.iter().any(|name| name == what));
        let names: Vec<_> = known.map(|spec| format!("`{}`", spec.id)).take(MAX_NAMED).collect();
        format!("add a connection under /api/providers of one that has, such as {}", names.join(", "))
    } else {
        format!("use a model of {}", others.join(", "))
    };
    let message = format!("provider `{}` has no {what}; {instead}", target.provider.alias);
    GatewayError::new(ErrorKind::InvalidRequest, "unsupported_operation", message).param("model")
}

/// Whether what is asked may be made by any of the combo's models, if the request is a task.
pub(crate) fn check_mix(ctx: &RequestCtx, combo: &ComboState) -> Result<(), GatewayError> {
    match &ctx.task {
        Some(job) if !job.task.may_mix_models() => same_model(ctx, combo, job.task.capability()),
        _ => Ok(()),
    }
}

/// Leaves those who stand in that can do what is asked, if the request is a task.
pub(crate) fn keep_able_others(ctx: &RequestCtx, others: &mut Vec<Arc<Target>>) {
    if ctx.task.is_some() {
        others.retain(|target| able(ctx, target).is_ok());
    }
}

/// Whether all targets of a combo that could be asked are one model. Vectors of different models cannot be compared: one
/// answer from another model would spoil what a client keeps.
fn same_model(ctx: &RequestCtx, combo: &ComboState, capability: Capability) -> Result<(), GatewayError> {
    let targets = combo.targets(&ctx.snapshot);
    let mut able = targets.iter().filter(|target| target.provider.offers(capability));
    let Some(first) = able.next() else { return Ok(()) };
    let Some(other) = able.find(|other| bare(&other.model) != bare(&first.model)) else { return Ok(()) };
    let message = format!(
        "combo `{}` holds different models (`{}` and `{}`), whose vectors cannot be compared; for embeddings all of its \
         targets must be the same model, at different providers or accounts",
        combo.name,
        first.full_name(),
        other.full_name()
    );
    Err(GatewayError::new(ErrorKind::InvalidRequest, "invalid_model", message).param("model"))
}

/// A model's name without what hosts put around it.
fn bare(model: &str) -> String {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.strip_suffix(":latest").unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_write_names_in_their_own_way() {
        for (one, other, same) in [
            ("BAAI/bge-m3", "bge-m3", true),
            ("nomic-embed-text:latest", "nomic-embed-text", true),
            ("Qwen/Qwen3-Embedding-8B", "qwen3-embedding-8b", true),
            ("text-embedding-3-small", "text-embedding-3-large", false),
            ("nomic-embed-text:v1.5", "nomic-embed-text", false),
        ] {
            assert_eq!(bare(one) == bare(other), same, "{one} {other}");
        }
    }
}
