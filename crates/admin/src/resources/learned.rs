//! What models were found not to take: `/api/models/learned`.

use omniroute_domain::learned::Lesson;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::AdminResult;
use crate::provider_lookup::Vendor;
use crate::text::iso;

/// A fact that an upstream's refusal taught.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LessonView {
    /// Provider id.
    provider: String,
    /// The upstream's name of the model.
    model: String,
    /// Null: facts are about a model, whoever asks for it.
    connection_id: Option<String>,
    /// `without`, `renamed`, `adaptive_thinking`, `no_prefill`, `reasoning_in_history`, `short_descriptions` or
    /// `one_system_message`.
    fact: &'static str,
    /// The refused member, where it is one.
    parameter: Option<String>,
    /// In words: "does not take `temperature`".
    message: String,
    /// Until when it is believed (RFC 3339).
    until: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Lessons {
    learned: Vec<LessonView>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Cleared {
    /// How many facts were forgotten.
    cleared: usize,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct LessonQuery {
    /// Only those of this provider: id, alias or prefix.
    provider: Option<String>,
    /// Only those of this model, as the provider knows it.
    model: Option<String>,
}

/// What is believed now, oldest first.
pub(crate) async fn list(
    access: Management,
    Filter(query): Filter<LessonQuery>,
) -> AdminResult<Json<Lessons>> {
    let is_wanted = wanted(&access, query).await?;
    let lessons = access.admin.live.learned.lessons(access.now_ms).into_iter().filter(is_wanted);
    Ok(Json(Lessons { learned: lessons.map(view).collect() }))
}

/// Forgets it, so that everything is tried again.
pub(crate) async fn forget(
    access: Management,
    Filter(query): Filter<LessonQuery>,
) -> AdminResult<Json<Cleared>> {
    let is_wanted = wanted(&access, query).await?;
    let cleared = access.admin.live.learned.forget(is_wanted);
    access.audit("model.learned.forget", "model", "*", &cleared.to_string()).await;
    Ok(Json(Cleared { cleared }))
}

/// Whether a lesson is among those asked for.
async fn wanted(access: &Management, query: LessonQuery) -> AdminResult<impl Fn(&Lesson) -> bool + use<>> {
    let LessonQuery { provider, model } = query;
    let provider = match provider {
        // What nobody has there is nothing to be found, and no error.
        Some(name) => {
            Some(Vendor::find(&access.admin, &name).await?.map_or_else(|| name.as_str().into(), |it| it.id))
        }
        None => None,
    };
    Ok(move |lesson: &Lesson| {
        provider.as_ref().is_none_or(|provider| lesson.provider == *provider)
            && model.as_ref().is_none_or(|model| lesson.model == *model)
    })
}

fn view(lesson: Lesson) -> LessonView {
    LessonView {
        provider: lesson.provider.to_string(),
        model: lesson.model,
        connection_id: None,
        fact: lesson.fact.kind(),
        parameter: lesson.fact.parameter().map(str::to_owned),
        message: lesson.fact.describe(),
        until: iso(lesson.until_ms),
    }
}
