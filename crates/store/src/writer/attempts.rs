//! The attempts of a row, as JSON that [`StoredAttempt`](crate::call_logs::StoredAttempt) reads.

use bytes::BytesMut;
use omniroute_engine::ports::{AttemptRow, RequestRow};
use omniroute_wire::json_out::{Array, Object};

use super::sql::{MAX_NAME, MAX_TEXT};

/// More attempts than a request can make.
const MAX_ATTEMPTS: usize = 50;
/// Bytes of the commonest ones.
const USUAL: usize = 256;

/// `None` where nobody was asked.
pub(super) fn json(row: &RequestRow) -> Option<String> {
    if row.attempts.is_empty() {
        return None;
    }
    let mut out = BytesMut::with_capacity(USUAL);
    let mut attempts = Array::begin(&mut out);
    for (place, attempt) in row.attempts.iter().take(MAX_ATTEMPTS).enumerate() {
        let mut object = attempts.object();
        // Of one attempt it is the exception; of several nothing else tells.
        if place == 0 && row.combo.is_some() && (row.attempts.len() > 1 || row.is_fallback) {
            object.bool("fallback", row.is_fallback);
        }
        write(row, attempt, object);
    }
    attempts.end();
    String::from_utf8(out.into()).ok()
}

fn write(row: &RequestRow, attempt: &AttemptRow, mut object: Object<'_>) {
    let mut own = |name: &str, own: &str, of_row: Option<&str>| {
        if Some(own) != of_row {
            object.str(name, within(own, MAX_NAME));
        }
    };
    own("provider", attempt.provider.as_str(), row.provider.as_ref().map(|id| id.as_str()));
    own("model", &attempt.model, Some(&row.model));
    own("connectionId", attempt.connection.as_str(), row.connection.as_ref().map(|id| id.as_str()));
    own("connectionName", &attempt.connection_name, row.connection_name.as_deref());
    object.opt_u64("status", attempt.status.map(u64::from));
    object.opt_str("failure", attempt.failure);
    object.opt_str("message", attempt.message.as_deref().map(|message| within(message, MAX_TEXT)));
    let of_row = |step: &str| row.combo_step.as_deref() == Some(step) && step.len() <= MAX_NAME;
    if let [only] = &*attempt.path
        && of_row(&only.step().id)
    {
        object.str("combo", only.combo.id.as_str());
    } else if !attempt.path.is_empty() {
        let mut steps = object.array("steps");
        for place in &attempt.path {
            let mut step = Array::begin(steps.element());
            step.str(place.combo.id.as_str()).str(&place.step().id);
            step.end();
        }
        steps.end();
    }
    object.i64("durationMs", attempt.duration_ms);
    object.end();
}

/// As much of a text as there is room for.
fn within(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}
