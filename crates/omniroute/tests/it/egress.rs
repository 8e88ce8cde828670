//! Where the gateway may be made to call: not its own machine, not the cloud's metadata, unless the operator says so.

use omniroute_testkit::{Answer, ScriptedUpstream};
use serde_json::json;

use crate::gateway::{Gateway, Start};
use crate::world::{COMPLETION, add_connection, chat};

#[tokio::test]
async fn private_addresses_need_a_switch_and_some_have_none() {
    let gateway = Gateway::start().await;
    for (url, allow_private, status) in [
        ("http://127.0.0.1:9/v1", false, 400),
        ("http://10.1.2.3/v1", false, 400),
        ("http://192.168.0.1:11434/v1", false, 400),
        ("http://[::1]:9/v1", false, 400),
        ("http://[::ffff:127.0.0.1]:9/v1", false, 400),
        ("http://2130706433/v1", false, 400),
        ("http://0x7f.1/v1", false, 400),
        ("http://0.0.0.0:9/v1", false, 400),
        ("http://169.254.169.254/latest", true, 400),
        ("http://[fe80::1]/v1", true, 400),
        ("http://[::ffff:169.254.169.254]/v1", true, 400),
        ("http://127.0.0.1:9/v1", true, 201),
        ("http://10.1.2.3/v1", true, 201),
    ] {
        let prefix = format!("n{}{}", status, url.len() + usize::from(allow_private) * 100);
        let body = json!({"name": "n", "prefix": prefix, "baseUrl": url, "allowPrivate": allow_private});
        let response = gateway.manage("POST", "/api/provider-nodes", &body).await;
        assert_eq!(response.status, status, "{url}: {}", response.text());
        if status == 400 {
            assert_eq!(response.at("/error/code"), "URL_BLOCKED", "{url}");
            let names_switches = ["allowPrivate", "ALLOW_PRIVATE_PROVIDER_URLS"]
                .iter()
                .all(|switch| response.text().contains(switch));
            assert_eq!(names_switches, !allow_private, "{}", response.text());
        }
    }
    // A known provider's address can be replaced, by the same rules.
    let body = json!({"provider": "openai", "name": "n", "apiKey": "sk-0123456789abcdef",
        "providerSpecificData": {"baseUrl": "http://127.0.0.1:9/v1"}});
    let response = gateway.manage("POST", "/api/providers", &body).await;
    assert_eq!((response.status, response.at("/error/code")), (400, "URL_BLOCKED".to_owned()));
    // Nor is it called to find out whether it is there.
    for (path, body) in [
        ("/api/provider-nodes/validate", json!({"baseUrl": "http://127.0.0.1:9/v1"})),
        (
            "/api/providers/validate",
            json!({"provider": "openai", "apiKey": "sk-0123456789abcdef", "baseUrl": "http://169.254.169.254/v1"}),
        ),
    ] {
        let response = gateway.manage("POST", path, &body).await;
        assert_eq!(response.status, 400, "{path}: {}", response.text());
        assert_eq!(response.at("/error/code"), "URL_BLOCKED", "{path}");
    }
}

#[tokio::test]
async fn a_switch_for_all_is_obeyed_and_its_end_too() {
    let upstream = ScriptedUpstream::start().await;
    upstream.always(Answer::json(200, COMPLETION));
    let folder = tempfile::tempdir().unwrap();
    let port = upstream.address().port();
    let open = Start::new().data_dir(folder.path()).env("ALLOW_PRIVATE_PROVIDER_URLS", "true").run().await;
    for (prefix, host) in [("name", "localhost"), ("number", "127.0.0.1")] {
        let url = format!("http://{host}:{port}/v1");
        let body = json!({"name": prefix, "prefix": prefix, "baseUrl": url});
        let node = open.set("POST", "/api/provider-nodes", &body).await;
        add_connection(&open, node["node"]["id"].as_str().unwrap(), prefix, "sk-private-private").await;
        let response = open.call(&chat(&format!("{prefix}/m"))).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let body = json!({"name": "cloud", "prefix": "cloud", "baseUrl": "http://169.254.169.254/v1"});
    let response = open.manage("POST", "/api/provider-nodes", &body).await;
    assert_eq!((response.status, response.at("/error/code")), (400, "URL_BLOCKED".to_owned()));
    open.kill().await;
    // What was saved then is checked again when it is called, names after DNS.
    let closed = Start::new().data_dir(folder.path()).run().await;
    for prefix in ["name", "number"] {
        let response = closed.call(&chat(&format!("{prefix}/m"))).await;
        assert_eq!(response.status, 502, "{}", response.text());
        assert_eq!(response.at("/error/code"), "url_blocked");
    }
    assert_eq!(upstream.requests().len(), 2);
}
