//! `GET /` until the dashboard exists: what runs here, and how to go on. Holds nothing that is not public.

use bytes::Bytes;
use omniroute_engine::Engine;
use omniroute_provider::registry::SIM;

/// The page.
pub(super) fn render(engine: &Engine) -> Bytes {
    let snapshot = engine.live.load();
    let providers = snapshot.providers().iter().filter(|provider| provider.id.as_str() != SIM).count();
    let next = if providers == 0 {
        "No provider is configured yet; the built-in simulator answers as <code>sim/echo</code>."
    } else {
        "Ask <code>/v1/models</code> which models there are."
    };
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>OmniRoute</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}}\
         code,pre{{background:#8882;padding:.1em .3em}}pre{{padding:1em;overflow:auto}}</style>\
         <h1>OmniRoute {version}</h1><p>The gateway is running. {next}</p>\
         <pre>curl {{this address}}/v1/chat/completions \\\n  -H 'content-type: application/json' \\\n  \
         -d '{{\"model\":\"sim/echo\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'</pre>\
         <p>Clients: OpenAI at <code>/v1/chat/completions</code>, Anthropic at <code>/v1/messages</code>. \
         Management: <code>/api</code>, described by <code>/api/openapi.json</code>. There is no dashboard yet.</p></html>"
    )
    .into()
}
