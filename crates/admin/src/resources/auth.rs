//! Signing in and out: `/api/auth/*`, `/api/settings/require-login`.

use std::sync::atomic::Ordering;

use omniroute_domain::entity::RuntimeSettings;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Done;
use crate::auth::{
    Caller, HasPassword, Management, Public, check_password, cleared_cookie, has_password, is_same,
    judge_password, new_session, revoke, set_password,
};
use crate::endpoint::{Body, Json, WithCookie};
use crate::error::{AdminResult, auth_invalid, bad_request, invalid_field, locked_out, setup_required};
use crate::validation::Problems;

#[derive(Deserialize, ToSchema)]
pub(crate) struct Login {
    /// The administrator's password.
    password: Option<String>,
    /// Or the token that was printed at the first start.
    token: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LoginStatus {
    authenticated: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoginRequirements {
    require_login: bool,
    has_password: bool,
    setup_complete: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoginRequirementsPatch {
    /// Whether callers from this machine must sign in too; others always must.
    require_login: Option<bool>,
    /// The first password, 8 to 128 characters.
    password: Option<String>,
}

pub(crate) async fn login(access: Public, Body(body): Body<Login>) -> AdminResult<WithCookie<Done>> {
    let admin = &access.admin;
    let is_good = match (&body.password, &body.token) {
        (Some(password), None) => {
            if has_password(admin).await? == HasPassword::No {
                return Err(setup_required());
            }
            attempt(&access, password, Secret::Password).await?
        }
        (None, Some(token)) => attempt(&access, token, Secret::FirstRunToken).await?,
        _ => return Err(bad_request("send either `password` or `token`")),
    };
    if !is_good {
        access.audit_failure("auth.login.failed", "auth_session", "dashboard-auth").await;
        let message = if body.password.is_some() { "Invalid password" } else { "Invalid token" };
        return Err(auth_invalid(message));
    }
    let cookie = new_session(admin, access.client).await?;
    access.audit("auth.login.success", "auth_session", "dashboard-auth", "").await;
    Ok(WithCookie(Some(cookie), Done::new()))
}

pub(crate) async fn logout(access: Public) -> AdminResult<WithCookie<Done>> {
    if let Some(claims) = access.session().await? {
        revoke(&access.admin, &claims).await?;
        access.audit("auth.logout", "auth_session", "dashboard-auth", "").await;
    }
    Ok(WithCookie(Some(cleared_cookie(&access.admin, access.client)?), Done::new()))
}

pub(crate) async fn status(access: Public) -> AdminResult<Json<LoginStatus>> {
    Ok(Json(LoginStatus { authenticated: access.is_manager().await }))
}

pub(crate) async fn requirements(access: Public) -> AdminResult<Json<LoginRequirements>> {
    let has_password = has_password(&access.admin).await? != HasPassword::No;
    let require_login = access.admin.live.load().settings.require_login;
    Ok(Json(LoginRequirements { require_login, has_password, setup_complete: has_password }))
}

pub(crate) async fn require(
    access: Management,
    Body(body): Body<LoginRequirementsPatch>,
) -> AdminResult<WithCookie<Done>> {
    let admin = &access.admin;
    let mut cookie = None;
    if let Some(password) = &body.password {
        let mut problems = Problems::default();
        judge_password(&mut problems, "password", password);
        problems.done()?;
        set_password(admin, password).await?;
        access.audit("auth.password.set", "settings", "password", "").await;
        // The session that set the password goes on; every other one has ended.
        cookie = Some(new_session(admin, access.client).await?);
    }
    if let Some(require_login) = body.require_login {
        if !require_login && has_password(admin).await? == HasPassword::No {
            return Err(invalid_field("requireLogin", "cannot be false before a password is set"));
        }
        let set = |settings: &mut RuntimeSettings| {
            settings.require_login = require_login;
            Ok(())
        };
        access.change_settings(set).await?;
        access
            .audit("settings.update", "settings", "requireLogin", &format!("requireLogin: {require_login}"))
            .await;
    }
    Ok(WithCookie(cookie, Done::new()))
}

/// What a caller claims to know.
#[derive(Clone, Copy)]
pub(super) enum Secret {
    Password,
    FirstRunToken,
}

/// Checks a secret, with the number of wrong attempts bounded.
pub(super) async fn attempt(caller: &Caller, given: &str, secret: Secret) -> AdminResult<bool> {
    let (admin, ip) = (&caller.admin, caller.client.ip);
    if let Err(wait_ms) = admin.lockouts.attempt(&admin.store, ip, caller.now_ms).await? {
        caller.audit_failure("auth.login.locked", "auth_session", "dashboard-auth").await;
        return Err(locked_out(wait_ms));
    }
    // Nobody has a password of kilobytes, and hashing one takes time.
    let is_good = given.len() <= 1_024
        && match secret {
            Secret::Password => check_password(admin, given).await?,
            Secret::FirstRunToken => use_first_run_token(caller, given).await?,
        };
    if is_good {
        admin.lockouts.succeeded(&admin.store, ip).await?;
    } else {
        admin.lockouts.failed(&admin.store, ip, caller.now_ms).await?;
    }
    Ok(is_good)
}

/// Works once, and only until a password is set.
async fn use_first_run_token(caller: &Caller, given: &str) -> AdminResult<bool> {
    let admin = &caller.admin;
    let Some(token) = admin.first_run_token() else { return Ok(false) };
    if has_password(admin).await? != HasPassword::No || !is_same(given, token.expose_secret()) {
        return Ok(false);
    }
    Ok(!admin.first_run_used.swap(true, Ordering::AcqRel))
}
