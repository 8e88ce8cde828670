//! Every route of the management API, in one list: method, path, what it is for, and who does it. The handler's first
//! argument says who may call it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use utoipa::openapi::OpenApi;

use crate::endpoint::{Describe, Documentation, Handle, Ignored, Incoming};
use crate::error::{no_route, wrong_method};
use crate::resources::{
    aliases, api_keys, auth, availability, budgets, cache, call_logs, combo_mappings, combos,
    connection_probes, connections, console, custom_models, fallback_chains, health, learned, lifecycle,
    metrics, model_catalog, models, nodes, policies, pricing, quota, rate_limits, resilience, route_preview,
    running, sessions, settings, system, telemetry, transforms, usage, webhooks,
};
use crate::state::{Admin, AdminState, Peer};
use crate::text;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn routes() -> Routes {
    Routes::default()
        // System
        .get("/api/init", "Whether the gateway is set up", system::init)
        .get("/api/system/version", "The version that is running", system::version)
        .get("/api/openapi.json", "This document", system::openapi)
        .post("/api/restart", "Finish running requests and start anew", lifecycle::restart)
        .post("/api/shutdown", "Finish running requests and end", lifecycle::shutdown)
        // Signing in
        .post("/api/auth/login", "Sign in with the password or the first-run token", auth::login)
        .post("/api/auth/logout", "End the session", auth::logout)
        .get("/api/auth/status", "Whether the caller is signed in", auth::status)
        .get("/api/settings/require-login", "What signing in needs", auth::requirements)
        .put(
            "/api/settings/require-login",
            "Set the first password, or whether to sign in at all",
            auth::require,
        )
        .post(
            "/api/settings/require-login",
            "Set the first password, or whether to sign in at all",
            auth::require,
        )
        .patch(
            "/api/settings/require-login",
            "Set the first password, or whether to sign in at all",
            auth::require,
        )
        // Settings
        .get("/api/settings", "Settings", settings::show)
        .put("/api/settings", "Change settings or the password", settings::update)
        .patch("/api/settings", "Change settings or the password", settings::update)
        .get("/api/settings/thinking-budget", "How much requests reason", transforms::show_thinking)
        .put("/api/settings/thinking-budget", "Change how much requests reason", transforms::update_thinking)
        .patch(
            "/api/settings/thinking-budget",
            "Change how much requests reason",
            transforms::update_thinking,
        )
        .get(
            "/api/settings/system-prompt",
            "System text around that of clients",
            transforms::show_system_prompt,
        )
        .put("/api/settings/system-prompt", "Change that text", transforms::update_system_prompt)
        .patch("/api/settings/system-prompt", "Change that text", transforms::update_system_prompt)
        // Connections
        .get("/api/providers", "Connections", connections::list)
        .post("/api/providers", "Add a connection", connections::create)
        .get("/api/providers/catalog", "Providers that connections can be added to", connections::catalog)
        .post("/api/providers/validate", "Check a key before it is saved", connection_probes::validate)
        .post("/api/providers/test-batch", "Test several connections", connection_probes::test_batch)
        .get("/api/providers/{id}", "A connection", connections::show)
        .put("/api/providers/{id}", "Change a connection", connections::update)
        .patch("/api/providers/{id}", "Change a connection", connections::update)
        .delete("/api/providers/{id}", "Delete a connection", connections::delete)
        .post("/api/providers/{id}/test", "Test a connection", connection_probes::test)
        .get("/api/providers/{id}/models", "Models a connection offers", connection_probes::models)
        // Nodes and custom models
        .get("/api/provider-nodes", "User-defined endpoints", nodes::list)
        .post("/api/provider-nodes", "Add a user-defined endpoint", nodes::create)
        .post("/api/provider-nodes/validate", "Check an endpoint before it is saved", nodes::validate)
        .get("/api/provider-nodes/{id}", "A user-defined endpoint", nodes::show)
        .put("/api/provider-nodes/{id}", "Change a user-defined endpoint", nodes::update)
        .patch("/api/provider-nodes/{id}", "Change a user-defined endpoint", nodes::update)
        .delete(
            "/api/provider-nodes/{id}",
            "Delete a user-defined endpoint and its connections",
            nodes::delete,
        )
        .get("/api/provider-models", "Models the operator added", custom_models::list)
        .post("/api/provider-models", "Add or replace a model", custom_models::upsert)
        .put("/api/provider-models", "Change a model", custom_models::update)
        .patch("/api/provider-models", "Change a model", custom_models::update)
        .delete("/api/provider-models", "Delete a model", custom_models::delete)
        .get("/api/models/alias", "Other names for models and combos", aliases::list)
        .post("/api/models/alias", "Set an alias", aliases::put)
        .put("/api/models/alias", "Set an alias", aliases::put)
        .delete("/api/models/alias", "Delete an alias", aliases::delete)
        .get("/api/models/catalog", "Models by provider, with prices", model_catalog::show)
        .get("/api/models", "Models in one list", models::list)
        .put("/api/models", "Set an alias of a model", models::set_alias)
        .post("/api/models/test", "Ask a model something small", models::test)
        .get("/api/models/learned", "What models were found not to take", learned::list)
        .delete("/api/models/learned", "Forget what was found, and try it again", learned::forget)
        .get("/api/models/availability", "Which models can be asked now", availability::list)
        .post("/api/models/availability", "Whether a model or combo can be asked now", availability::ask)
        .get("/api/models/availability/stream", "Changes of that as they come", availability::follow)
        .delete("/api/models/availability", "End what keeps a model back", availability::forget)
        .post(
            "/api/route/explain",
            "What would become of a request, without sending it",
            route_preview::explain,
        )
        // Resilience
        .get("/api/resilience", "How failures are answered, and breakers", resilience::show)
        .put("/api/resilience", "Change how failures are answered", resilience::update)
        .patch("/api/resilience", "Change how failures are answered", resilience::update)
        .post("/api/resilience/reset", "End breakers, cooldowns or locks", resilience::reset)
        .get("/api/resilience/model-cooldowns", "Models that are locked", resilience::list_locks)
        .delete("/api/resilience/model-cooldowns", "End locks of models", resilience::forget_locks)
        .get("/api/resilience/timeline", "What changed of late", resilience::timeline)
        // Policies, chains, mappings
        .get("/api/policies", "What is forbidden, limited or preferred; locked sign-ins", policies::list)
        .post("/api/policies", "Make a policy, or let somebody sign in again", policies::create)
        .put("/api/policies", "Change a policy", policies::update)
        .patch("/api/policies", "Change a policy", policies::update)
        .delete("/api/policies", "Delete a policy", policies::delete)
        .post(
            "/api/policies/evaluate",
            "What the policies say of a model, without asking it",
            policies::evaluate,
        )
        .get("/api/fallback/chains", "Who else has a model", fallback_chains::list)
        .post("/api/fallback/chains", "Set who else has a model", fallback_chains::put)
        .delete("/api/fallback/chains", "Delete a chain", fallback_chains::delete)
        .get("/api/model-combo-mappings", "Names of models that mean a combo", combo_mappings::list)
        .post("/api/model-combo-mappings", "Make names of models mean a combo", combo_mappings::create)
        .get("/api/model-combo-mappings/{id}", "A mapping", combo_mappings::show)
        .put("/api/model-combo-mappings/{id}", "Change a mapping", combo_mappings::update)
        .patch("/api/model-combo-mappings/{id}", "Change a mapping", combo_mappings::update)
        .delete("/api/model-combo-mappings/{id}", "Delete a mapping", combo_mappings::delete)
        // Combos
        .get("/api/combos", "Names for several targets", combos::list)
        .post("/api/combos", "Make a combo", combos::create)
        .get("/api/combos/metrics", "What is counted of combos", combos::metrics)
        .delete("/api/combos/metrics", "Count from nothing again", combos::clear_metrics)
        .post("/api/combos/test", "Ask every entry of a combo something small", combos::test)
        .post(
            "/api/combos/simulate",
            "How the next requests of a combo would be spread, without sending any",
            combos::simulate,
        )
        .put("/api/combos/reorder", "Put the combos into an order", combos::reorder)
        .get("/api/combos/{id}", "A combo", combos::show)
        .put("/api/combos/{id}", "Change a combo", combos::update)
        .patch("/api/combos/{id}", "Change a combo", combos::update)
        .delete("/api/combos/{id}", "Delete a combo", combos::delete)
        .get("/api/settings/combo-defaults", "How combos are carried out", combos::show_defaults)
        .put("/api/settings/combo-defaults", "Change how combos are carried out", combos::update_defaults)
        .patch("/api/settings/combo-defaults", "Change how combos are carried out", combos::update_defaults)
        // Keys
        .get("/api/keys", "Client keys", api_keys::list)
        .post("/api/keys", "Make a client key", api_keys::create)
        .get("/api/keys/{id}", "A client key", api_keys::show)
        .put("/api/keys/{id}", "Change a client key", api_keys::update)
        .patch("/api/keys/{id}", "Change a client key", api_keys::update)
        .delete("/api/keys/{id}", "Revoke a client key", api_keys::delete)
        .post("/api/keys/{id}/rotate", "Replace a client key by a new one", api_keys::rotate)
        .get("/api/keys/{id}/reveal", "Never possible: keys are stored hashed", api_keys::reveal)
        // Prices, usage, logs
        .get("/api/pricing", "Prices in force", pricing::show)
        .patch("/api/pricing", "Set prices", pricing::change)
        .put("/api/pricing", "Set prices", pricing::change)
        .post("/api/pricing", "Set prices", pricing::change)
        .delete("/api/pricing", "Go back to built-in prices", pricing::reset)
        .post("/api/pricing/sync", "Take over a list of prices", pricing::sync)
        .post("/api/pricing/estimate", "What so many tokens would cost", pricing::estimate)
        .get("/api/pricing/defaults", "Built-in prices", pricing::defaults)
        .get("/api/pricing/models", "Models that have prices", pricing::models)
        .get("/api/usage/budget", "What keys may spend, and what they did", budgets::show)
        .post("/api/usage/budget", "Set a budget, or several", budgets::set)
        .put("/api/usage/budget", "Set a budget, or several", budgets::set)
        .patch("/api/usage/budget", "Set a budget, or several", budgets::set)
        .delete("/api/usage/budget", "Take a budget away", budgets::delete)
        .get("/api/usage/history", "What was used, added up", usage::history)
        .get("/api/usage/logs", "Requests as lines of text", call_logs::lines)
        .delete(
            "/api/usage/logs",
            "Delete requests before a time, and what was said in them",
            call_logs::delete,
        )
        .get("/api/usage/request-logs", "Requests as lines of text or as rows", call_logs::request_logs)
        .get("/api/usage/call-logs", "Requests", call_logs::list)
        .get("/api/usage/call-logs/{id}", "A request and its attempts", call_logs::show)
        .get("/api/usage/quota", "What vendors leave of their quotas", quota::list)
        .get("/api/usage/{id}", "What a connection used", usage::by_connection)
        .get("/api/logs/active", "Requests that are running", usage::active)
        .get("/api/logs/console", "The latest lines of the log", console::tail)
        .get("/api/logs/stream", "Lines of the log as they come", console::follow)
        .delete("/api/logs/active/{id}", "Cancel a running request", running::cancel)
        // Accounts
        .get("/api/rate-limits", "What requests are held to, by account", rate_limits::list)
        .get("/api/rate-limit", "What requests are held to, and what holds for all", rate_limits::show)
        .post("/api/rate-limit", "Hold an account's requests back, or not", rate_limits::switch)
        .put("/api/rate-limit", "Change what holds for all", rate_limits::update)
        .patch("/api/rate-limit", "Change what holds for all", rate_limits::update)
        .get("/api/cache", "Answers that are given again", cache::show)
        .delete("/api/cache", "Forget them", cache::clear)
        .get("/api/cache/stats", "Answers that are given again", cache::show)
        .delete("/api/cache/stats", "Forget them", cache::clear)
        .get("/api/sessions", "Conversations and the accounts they stay with", sessions::list)
        .delete("/api/sessions", "End a conversation", sessions::unpin)
        // Telling others
        .get("/api/webhooks", "Addresses that are told of what happens", webhooks::list)
        .post("/api/webhooks", "Tell another address of what happens", webhooks::create)
        .get("/api/webhooks/{id}", "A webhook", webhooks::show)
        .put("/api/webhooks/{id}", "Change a webhook", webhooks::update)
        .patch("/api/webhooks/{id}", "Change a webhook", webhooks::update)
        .delete("/api/webhooks/{id}", "Delete a webhook", webhooks::delete)
        .post("/api/webhooks/{id}/test", "Send it a message now", webhooks::test)
        .post("/api/webhooks/{id}/rotate", "Give it another secret", webhooks::rotate)
        // Watching
        .get("/api/monitoring/health", "How the gateway is", health::show)
        .delete("/api/monitoring/health", "Close every breaker", health::reset_breakers)
        .get("/api/telemetry/summary", "Latencies and error rates", telemetry::summary)
        .get("/metrics", "Metrics for Prometheus", metrics::show)
        .get("/healthz", "Whether the process lives", health::live)
        .get("/readyz", "Whether requests can be served", health::ready)
}

/// The management API as a router. The peer's address is expected in the request's extensions, as [`Peer`].
pub fn router(state: AdminState) -> Router {
    let admin = Arc::new(Admin::new(state));
    let mut router = Router::new();
    for (path, methods) in routes().by_path {
        let allow = Arc::new(methods.allow.join(", "));
        let refuse = move |State(admin): State<Arc<Admin>>, request: Request| {
            let allow = allow.clone();
            async move {
                let incoming = incoming(admin, request);
                wrong_method(&incoming.parts.method, &allow).response(&incoming.request_id)
            }
        };
        router = router.route(&path, methods.router.fallback(refuse));
    }
    router
        .fallback(|State(admin): State<Arc<Admin>>, request: Request| async move {
            let incoming = incoming(admin, request);
            no_route(incoming.parts.uri.path()).response(&incoming.request_id)
        })
        .layer(from_fn_with_state(admin.clone(), frame))
        .with_state(admin)
}

/// The OpenAPI document of the management API.
pub fn openapi(version: &str) -> OpenApi {
    routes().documentation.finish(version)
}

/// The same as JSON text, for this version.
pub fn openapi_json() -> serde_json::Result<String> {
    openapi(env!("CARGO_PKG_VERSION")).to_pretty_json()
}

/// Routes while they are listed.
#[derive(Default)]
struct Routes {
    by_path: BTreeMap<String, Methods>,
    documentation: Documentation,
}

#[derive(Default)]
struct Methods {
    router: MethodRouter<Arc<Admin>>,
    allow: Vec<&'static str>,
}

macro_rules! verb {
    ($verb:ident, $method:ident, $($allow:literal),+) => {
        fn $verb<A: 'static, H: Handle<A>>(self, path: &str, summary: &str, handler: H) -> Self {
            self.route(&Method::$method, MethodFilter::$method, &[$($allow),+], path, summary, handler)
        }
    };
}

impl Routes {
    verb!(get, GET, "GET", "HEAD");
    verb!(post, POST, "POST");
    verb!(put, PUT, "PUT");
    verb!(patch, PATCH, "PATCH");
    verb!(delete, DELETE, "DELETE");

    fn route<A: 'static, H: Handle<A>>(
        mut self,
        method: &Method,
        filter: MethodFilter,
        allow: &[&'static str],
        path: &str,
        summary: &str,
        handler: H,
    ) -> Self {
        let mut route = Describe::default();
        H::describe(&mut route);
        self.documentation.add(path, method, summary, route);
        let methods = self.by_path.entry(path.to_owned()).or_default();
        methods.allow.extend(allow);
        let router = std::mem::take(&mut methods.router);
        methods.router = router.on(filter, move |State(admin): State<Arc<Admin>>, request: Request| {
            handler.clone().call(incoming(admin, request))
        });
        self
    }
}

fn incoming(admin: Arc<Admin>, request: Request) -> Incoming {
    let (parts, body) = request.into_parts();
    // Without an address nobody is local.
    let unknown = Peer(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
    let peer = parts.extensions.get::<Peer>().copied().unwrap_or(unknown);
    let request_id =
        parts.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    Incoming { admin, parts, body, peer, request_id, ignored: Ignored::default(), set_cookie: None }
}

/// What every request and answer gets: an id, and the headers of origins that may read it.
async fn frame(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Response {
    let own = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| text::is_request_id(id));
    let request_id = own.map_or_else(text::request_id, str::to_owned);
    let id = HeaderValue::try_from(request_id).unwrap_or_else(|_| HeaderValue::from_static("req_unknown"));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let origin = request.headers().get(header::ORIGIN).filter(|origin| {
        admin
            .settings
            .cors_origins
            .iter()
            .any(|allowed| allowed.as_bytes() == origin.as_bytes() && allowed != "*")
    });
    let origin = origin.cloned();
    let mut response = if request.method() == Method::OPTIONS && origin.is_some() {
        preflight()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !admin.settings.cors_origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let exposed = HeaderValue::from_static("x-request-id, x-ignored-fields, x-total-count, retry-after");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

fn preflight() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-request-id"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
