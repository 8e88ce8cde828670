//! The log of the process: its latest lines, and new ones as they come.

use std::convert::Infallible;

use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Management;
use crate::console::{LineView, LogLevel, MAX_LINES, MAX_READERS};
use crate::endpoint::{Events, Filter, Json, LastEventId};
use crate::error::{AdminResult, invalid_field, unavailable};

/// Lines shown where nobody says how many.
const USUAL: usize = 200;

#[derive(Deserialize, IntoParams)]
pub(crate) struct TailQuery {
    /// `error`, `warn`, `info`, `debug` or `trace`: lines of this level or worse. All where it is missing.
    level: Option<String>,
    /// How many, 200 where it is missing; at most 2000, which is all there are.
    limit: Option<usize>,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct StreamQuery {
    /// `error`, `warn`, `info`, `debug` or `trace`: lines of this level or worse. All where it is missing.
    level: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ConsoleView {
    /// The latest, oldest first.
    lines: Vec<LineView>,
    count: usize,
}

pub(crate) async fn tail(
    access: Management,
    Filter(query): Filter<TailQuery>,
) -> AdminResult<Json<ConsoleView>> {
    let level = level(query.level.as_deref())?;
    let limit = query.limit.unwrap_or(USUAL);
    if !(1..=MAX_LINES).contains(&limit) {
        return Err(invalid_field("limit", format!("must be between 1 and {MAX_LINES}")));
    }
    let lines = access.admin.console.tail(level, limit);
    Ok(Json(ConsoleView { count: lines.len(), lines }))
}

pub(crate) async fn follow(
    access: Management,
    Filter(query): Filter<StreamQuery>,
    LastEventId(last): LastEventId,
) -> AdminResult<Events> {
    let level = level(query.level.as_deref())?;
    let follower = access.admin.console.follow(level, last.as_deref());
    let follower = follower.ok_or_else(|| {
        unavailable(format!(
            "{MAX_READERS} readers follow the log already; end one, or ask for /api/logs/console"
        ))
    })?;
    Ok(Events::new(stream::unfold(follower, |mut follower| async move {
        let piece = follower.read().await?;
        Some((Ok::<_, Infallible>(piece), follower))
    })))
}

fn level(word: Option<&str>) -> AdminResult<LogLevel> {
    let Some(word) = word.filter(|word| !word.is_empty()) else { return Ok(LogLevel::Trace) };
    LogLevel::of_word(word)
        .ok_or_else(|| invalid_field("level", "must be `error`, `warn`, `info`, `debug` or `trace`"))
}
