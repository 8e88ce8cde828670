//! Ending and starting anew: `/api/restart`, `/api/shutdown`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::Accepted;
use crate::error::{AdminResult, forbidden};

#[derive(Serialize, ToSchema)]
pub(crate) struct LifecycleStatus {
    status: &'static str,
}

pub(crate) async fn restart(access: Management) -> AdminResult<Accepted<LifecycleStatus>> {
    check(&access)?;
    let supervised = access.admin.settings.supervised;
    access
        .audit(
            "system.restart",
            "system",
            "gateway",
            if supervised { "by the supervisor" } else { "by itself" },
        )
        .await;
    access.admin.lifecycle.restart();
    Ok(Accepted(LifecycleStatus { status: "restarting" }))
}

pub(crate) async fn shutdown(access: Management) -> AdminResult<Accepted<LifecycleStatus>> {
    check(&access)?;
    access.audit("system.shutdown", "system", "gateway", "").await;
    access.admin.lifecycle.shutdown();
    Ok(Accepted(LifecycleStatus { status: "shutting down" }))
}

fn check(access: &Management) -> AdminResult<()> {
    if access.client.is_local || access.admin.settings.allow_remote_lifecycle {
        return Ok(());
    }
    Err(forbidden("only from the gateway's own machine, unless ALLOW_REMOTE_LIFECYCLE=true"))
}
