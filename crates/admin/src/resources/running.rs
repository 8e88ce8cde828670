//! Ending a running request.

use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::{Id, Json};
use crate::error::{AdminResult, not_running};

#[derive(Serialize, ToSchema)]
pub(crate) struct Cancelled {
    success: bool,
    id: String,
    /// How many requests had this id: clients may choose it, and choose it twice.
    cancelled: usize,
}

/// The client gets an error in its dialect, the upstream's call is dropped, and what was used so far is paid.
pub(crate) async fn cancel(access: Management, Id(id): Id) -> AdminResult<Json<Cancelled>> {
    let cancelled = access.admin.telemetry.cancel(&id);
    if cancelled == 0 {
        return Err(not_running(&id));
    }
    access.audit("request.cancel", "request", &id, "").await;
    Ok(Json(Cancelled { success: true, id, cancelled }))
}
