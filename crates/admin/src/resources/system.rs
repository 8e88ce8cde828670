//! What the gateway is: `/api/init`, `/api/system/version`, `/api/openapi.json`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{HasPassword, Public, has_password};
use crate::endpoint::{Json, Text};
use crate::error::AdminResult;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Init {
    initialized: bool,
    setup_complete: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Version {
    version: String,
    commit: Option<String>,
}

pub(crate) async fn init(access: Public) -> AdminResult<Json<Init>> {
    let setup_complete = has_password(&access.admin).await? != HasPassword::No;
    Ok(Json(Init { initialized: true, setup_complete }))
}

pub(crate) async fn version(access: Public) -> AdminResult<Json<Version>> {
    let settings = &access.admin.settings;
    Ok(Json(Version { version: settings.version.clone(), commit: settings.commit.clone() }))
}

pub(crate) async fn openapi(access: Public) -> AdminResult<Text> {
    Ok(Text { content_type: "application/json", text: access.admin.settings.document.to_string() })
}
