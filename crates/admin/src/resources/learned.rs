//! What models were found not to take: `/api/models/learned`.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::Json;
use crate::error::AdminResult;

/// A fact that an upstream's refusal taught.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LessonView {
    /// Provider id.
    provider: String,
    /// The upstream's name of the model.
    model: String,
    /// In words: "does not take `temperature`".
    fact: String,
    /// Until when it is believed (RFC 3339).
    until: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Lessons {
    lessons: Vec<LessonView>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Forgotten {
    /// How many facts were forgotten.
    forgotten: usize,
}

/// What is believed now, oldest first.
pub(crate) async fn list(access: Management) -> AdminResult<Json<Lessons>> {
    let lessons = access.admin.live.learned.lessons(access.now_ms);
    let view = |lesson: omniroute_domain::learned::Lesson| LessonView {
        provider: lesson.provider.to_string(),
        model: lesson.model,
        fact: lesson.fact.describe(),
        until: Timestamp::from_millisecond(lesson.until_ms).unwrap_or(Timestamp::MAX).to_string(),
    };
    Ok(Json(Lessons { lessons: lessons.into_iter().map(view).collect() }))
}

/// Forgets all of it, so that everything is tried again.
pub(crate) async fn forget(access: Management) -> AdminResult<Json<Forgotten>> {
    let forgotten = access.admin.live.learned.forget();
    access.audit("model.learned.forget", "model", "*", &forgotten.to_string()).await;
    Ok(Json(Forgotten { forgotten }))
}
