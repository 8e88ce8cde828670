//! Access values. A handler that takes [`Management`] can only run for somebody who may manage the gateway.

use std::sync::Arc;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, header};
use omniroute_domain::entity::{ApiKeyId, KeyHash, RuntimeSettings, Scope};
use omniroute_store::{AuditEvent, SettingsChange, Surroundings};
use secrecy::ExposeSecret as _;

use super::password::is_same;
use super::session::{self, Claims};
use super::{Client, origin};
use crate::endpoint::{Access, Argument, Describe, Incoming, Tier};
use crate::error::{AdminError, AdminResult, auth_invalid, auth_required, forbidden, internal};
use crate::state::{Admin, Peer};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Somebody who signed in.
    Session(Claims),
    /// Who knows `MANAGEMENT_TOKEN`.
    Token,
    /// A key with the scope `manage`, or `metrics` where that is enough.
    Key(ApiKeyId),
    /// A program on this machine, where no sign-in is required.
    Local,
    /// Anybody.
    Anonymous,
}

/// A caller who passed, and the application.
pub(crate) struct Caller {
    pub(crate) admin: Arc<Admin>,
    pub(crate) actor: Actor,
    pub(crate) client: Client,
    pub(crate) request_id: String,
    pub(crate) now_ms: i64,
    headers: HeaderMap,
    peer: Peer,
}

/// Anybody may call this.
pub(crate) struct Public(Caller);

/// Who manages the gateway.
pub(crate) struct Management(Caller);

/// Who manages it, has a key for metrics, or is on the same machine.
pub(crate) struct MetricsReader(Caller);

impl Caller {
    /// Writes an audit event. A failure is logged: what was done is done.
    pub(crate) async fn audit(&self, action: &str, resource_type: &str, target: &str, details: &str) {
        self.audit_as("success", action, resource_type, target, details).await;
    }

    /// Writes an audit event about something that was refused.
    pub(crate) async fn audit_failure(&self, action: &str, resource_type: &str, target: &str) {
        self.audit_as("failed", action, resource_type, target, "").await;
    }

    async fn audit_as(&self, status: &str, action: &str, resource_type: &str, target: &str, details: &str) {
        let note = || serde_json::json!({ "note": details }).to_string();
        let event = AuditEvent {
            timestamp: self.now_ms,
            action: action.to_owned(),
            actor: self.actor_name(),
            target: Some(target.to_owned()),
            resource_type: Some(resource_type.to_owned()),
            status: status.to_owned(),
            details: (!details.is_empty()).then(note),
            ip_address: Some(self.client.ip.to_string()),
            request_id: Some(self.request_id.clone()),
        };
        if let Err(error) = self.admin.store.audit().append(&event).await {
            tracing::error!(%error, action, "cannot write audit event");
        }
    }

    /// Puts what was written in force, before the answer says that it is.
    pub(crate) async fn reload(&self) -> AdminResult<()> {
        (self.admin.reload)().await.map_err(internal)
    }

    /// Changes settings and puts them in force; what others change meanwhile stays changed.
    pub(crate) async fn change_settings(
        &self,
        change: impl FnOnce(&mut RuntimeSettings) -> AdminResult<()>,
    ) -> AdminResult<SettingsChange> {
        self.change_settings_among(|settings, _| change(settings)).await
    }

    /// The same among the combos and aliases that they are for.
    pub(crate) async fn change_settings_among(
        &self,
        change: impl FnOnce(&mut RuntimeSettings, &Surroundings) -> AdminResult<()>,
    ) -> AdminResult<SettingsChange> {
        let done = self.admin.store.settings().change_among(change).await??;
        if done.is_any() {
            self.reload().await?;
        }
        Ok(done)
    }

    /// Whether the caller manages the gateway, for routes that tell managers more.
    pub(crate) async fn is_manager(&self) -> bool {
        match authenticate(&self.admin, &self.headers, self.client, Scope::Manage).await {
            Ok((Actor::Session(_) | Actor::Local, _)) => {
                check_browser(&self.admin, &Method::GET, &self.headers, None, self.peer, self.client).is_ok()
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// The session's claims, if its token is good.
    pub(crate) async fn session(&self) -> AdminResult<Option<Claims>> {
        let Some(token) = session::read_cookie(&self.headers) else { return Ok(None) };
        let session = session::session_of(&self.admin, token, self.client).await?;
        Ok(session.map(|session| session.claims))
    }

    fn actor_name(&self) -> String {
        match &self.actor {
            Actor::Session(_) => "admin".to_owned(),
            Actor::Token => "management-token".to_owned(),
            Actor::Key(id) => format!("key:{id}"),
            Actor::Local => "local".to_owned(),
            Actor::Anonymous => "anonymous".to_owned(),
        }
    }
}

macro_rules! access {
    ($name:ident, $access:expr, $take:ident) => {
        impl std::ops::Deref for $name {
            type Target = Caller;

            fn deref(&self) -> &Caller {
                &self.0
            }
        }

        impl Tier for $name {
            const ACCESS: Access = $access;
        }

        impl Argument for $name {
            fn describe(_: &mut Describe) {}

            async fn take(incoming: &mut Incoming) -> AdminResult<Self> {
                $take(incoming).await.map(Self)
            }
        }
    };
}

access!(Public, Access::Public, public);
access!(Management, Access::Management, management);
access!(MetricsReader, Access::Metrics, metrics);

async fn public(incoming: &mut Incoming) -> AdminResult<Caller> {
    let client = client_of(incoming);
    if !matches!(incoming.parts.method, Method::GET | Method::HEAD) && bearer(incoming).is_none() {
        check_incoming(incoming, client)?;
    }
    Ok(caller(incoming, Actor::Anonymous, client))
}

async fn management(incoming: &mut Incoming) -> AdminResult<Caller> {
    with_scope(incoming, Scope::Manage).await
}

async fn metrics(incoming: &mut Incoming) -> AdminResult<Caller> {
    let client = client_of(incoming);
    if client.is_local && !incoming.parts.headers.contains_key(header::AUTHORIZATION) {
        check_incoming(incoming, client)?;
        return Ok(caller(incoming, Actor::Local, client));
    }
    with_scope(incoming, Scope::Metrics).await
}

async fn with_scope(incoming: &mut Incoming, scope: Scope) -> AdminResult<Caller> {
    let client = client_of(incoming);
    let admin = incoming.admin.clone();
    let (actor, renewed) = authenticate(&admin, &incoming.parts.headers, client, scope).await?;
    if matches!(actor, Actor::Session(_) | Actor::Local) {
        check_incoming(incoming, client)?;
    }
    incoming.set_cookie = renewed;
    Ok(caller(incoming, actor, client))
}

async fn authenticate(
    admin: &Admin,
    headers: &HeaderMap,
    client: Client,
    scope: Scope,
) -> AdminResult<(Actor, Option<HeaderValue>)> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(bearer_of);
        let token = token.ok_or_else(|| auth_invalid("`Authorization` must be `Bearer <key>`"))?;
        return by_bearer(admin, token, client, scope).map(|actor| (actor, None));
    }
    let mut refused: AdminError = auth_required();
    if let Some(token) = session::read_cookie(headers) {
        if let Some(session) = session::session_of(admin, token, client).await? {
            return Ok((Actor::Session(session.claims), session.renewed));
        }
        refused = auth_invalid("the session has ended; sign in again");
    }
    if !admin.live.load().settings.require_login && client.is_local {
        return Ok((Actor::Local, None));
    }
    Err(refused)
}

fn by_bearer(admin: &Admin, token: &str, client: Client, scope: Scope) -> AdminResult<Actor> {
    if let Some(management) = &admin.settings.management_token
        && is_same(token, management.expose_secret())
    {
        return Ok(Actor::Token);
    }
    let snapshot = admin.live.load();
    let caller = snapshot.caller(KeyHash::of(token)).ok_or_else(|| auth_invalid("unknown key or token"))?;
    if !caller.is_active || caller.expires_at.is_some_and(|end| end <= admin.now_ms()) {
        return Err(auth_invalid("the key is switched off or has expired"));
    }
    if !caller.allows_address(client.ip) {
        return Err(forbidden("the key may not be used from this address"));
    }
    if caller.has_scope(Scope::Manage) || caller.has_scope(scope) {
        return Ok(Actor::Key(caller.id.clone()));
    }
    Err(forbidden(match scope {
        Scope::Metrics => "the key needs the scope `metrics` or `manage`",
        Scope::Manage | Scope::Sync => "the key needs the scope `manage`",
    }))
}

/// Where no secret is sent along with the request, a browser may have been made to send it.
fn check_incoming(incoming: &Incoming, client: Client) -> AdminResult<()> {
    let Parts { method, headers, uri, .. } = &incoming.parts;
    let uri_host = uri.authority().map(Authority::as_str);
    check_browser(&incoming.admin, method, headers, uri_host, incoming.peer, client)
}

fn check_browser(
    admin: &Admin,
    method: &Method,
    headers: &HeaderMap,
    uri_host: Option<&str>,
    peer: Peer,
    client: Client,
) -> AdminResult<()> {
    let snapshot = admin.live.load();
    let public_url = snapshot.settings.public_url.as_deref();
    origin::check_origin(method, headers, uri_host, public_url)?;
    if peer.0.ip().to_canonical().is_loopback() && client.ip.is_loopback() {
        origin::check_host(headers, uri_host, public_url)?;
    }
    Ok(())
}

fn client_of(incoming: &Incoming) -> Client {
    Client::of(incoming.peer, &incoming.parts.headers, &incoming.admin.settings.trusted_proxies)
}

fn bearer(incoming: &Incoming) -> Option<&str> {
    incoming.parts.headers.get(header::AUTHORIZATION)?.to_str().ok().and_then(bearer_of)
}

fn bearer_of(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn caller(incoming: &Incoming, actor: Actor, client: Client) -> Caller {
    Caller {
        admin: incoming.admin.clone(),
        actor,
        client,
        request_id: incoming.request_id.clone(),
        now_ms: incoming.admin.now_ms(),
        headers: incoming.parts.headers.clone(),
        peer: incoming.peer,
    }
}
