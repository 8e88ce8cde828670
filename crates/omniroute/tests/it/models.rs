//! The list of models: what is in it, for whom, and in whose shape.

use serde_json::{Value, json};

use crate::client::Call;
use crate::gateway::{Gateway, Start};
use crate::world::{World, add_key};

fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

async fn world_with_models() -> World {
    let world = World::start().await;
    for model in ["small", "family/large", "third"] {
        let body = json!({"provider": world.node, "modelId": model});
        world.gateway.set("POST", "/api/provider-models", &body).await;
    }
    world
}

#[tokio::test]
async fn a_fresh_gateway_lists_the_catalogue_and_a_configured_one_what_it_has() {
    let gateway = Gateway::start().await;
    let list = gateway.call(&Call::get("/v1/models")).await.json();
    let names = ids(&list);
    assert!(names.len() > 100 && names.iter().any(|id| id == "sim/echo"), "{}", names.len());
    let world = world_with_models().await;
    let list = world.gateway.call(&Call::get("/v1/models")).await.json();
    assert_eq!(ids(&list)[..3], ["up/small", "up/family/large", "up/third"]);
    assert_eq!(ids(&list)[3..5], ["auto", "auto/chat"], "{list}");
    assert!(ids(&list)[3..].iter().all(|id| id.starts_with("auto")));
    for entry in list["data"].as_array().unwrap() {
        for name in ["id", "object", "created", "owned_by", "root", "parent", "permission"] {
            assert!(entry.get(name).is_some(), "{name} in {entry}");
        }
    }
}

#[tokio::test]
async fn ollamas_list_is_the_list_of_this_gateway() {
    let world = world_with_models().await;
    let tags = || async {
        let list = world.gateway.call(&Call::get("/api/tags")).await.json();
        let models = list["models"].as_array().unwrap().clone();
        models.iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // `auto` is in every list; what is looked at here are the models.
    let own = |names: Vec<String>| -> Vec<_> {
        names.into_iter().filter(|name| !name.starts_with("auto")).collect()
    };
    let before = own(tags().await);
    assert_eq!(before.len(), 3, "{before:?}");
    let body = json!({"provider": world.node, "modelId": "fourth"});
    world.gateway.set("POST", "/api/provider-models", &body).await;
    let after = own(tags().await);
    assert!(after.len() == 4 && after.iter().any(|name| name.starts_with("up/fourth")), "{after:?}");
}

#[tokio::test]
async fn lists_have_a_validator() {
    let world = world_with_models().await;
    let first = world.gateway.call(&Call::get("/v1/models")).await;
    let tag = first.header("etag").unwrap();
    for sent in [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let again = world.gateway.call(&Call::get("/v1/models").header("if-none-match", &sent)).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{sent}");
        assert_eq!(again.header("etag"), Some(tag));
    }
    let path = format!("/api/provider-models?provider={}&model=third", world.node);
    world.gateway.set("DELETE", &path, &Value::Null).await;
    let changed = world.gateway.call(&Call::get("/v1/models").header("if-none-match", tag)).await;
    assert_eq!(
        (changed.status, ids(&changed.json()).iter().filter(|id| !id.starts_with("auto")).count()),
        (200, 2)
    );
}

#[tokio::test]
async fn keys_see_what_they_may_use() {
    let world = world_with_models().await;
    let key = add_key(&world.gateway, json!({"allowedModels": ["up/family/*"]})).await;
    let list = world.gateway.call(&Call::get("/v1/models").bearer(&key)).await.json();
    assert_eq!(ids(&list), ["up/family/large"]);
    assert_eq!(world.gateway.call(&Call::get("/v1/models/up/family/large").bearer(&key)).await.status, 200);
    assert_eq!(world.gateway.call(&Call::get("/v1/models/up/small").bearer(&key)).await.status, 404);
}

#[tokio::test]
async fn lists_of_all_dialects_leave_out_what_policies_and_keys_refuse() {
    let world = world_with_models().await;
    for (name, models) in
        [("giants", json!(["up/family/large"])), ("mixed", json!(["up/family/large", "up/small"]))]
    {
        world.gateway.set("POST", "/api/combos", &json!({"name": name, "models": models})).await;
    }
    let policy = json!({"name": "no giants", "type": "access", "actions": {"block_model": ["*large*"]}});
    world.gateway.set("POST", "/api/policies", &policy).await;
    // For one endpoint alone: the model can be asked for at others.
    let policy = json!({"name": "not there", "type": "access", "conditions": {"endpoint": "responses"},
        "actions": {"block_model": ["*small*"]}});
    world.gateway.set("POST", "/api/policies", &policy).await;
    let key = add_key(&world.gateway, json!({"deniedModels": ["up/third"]})).await;
    let names = |list: &Value, of: &str, member: &str| -> Vec<String> {
        let entries = list[of].as_array().unwrap().iter();
        let names = entries.map(|entry| entry[member].as_str().unwrap().to_owned());
        names.filter(|name| !name.contains("auto")).collect()
    };
    let anthropic = |call: Call| call.header("anthropic-version", "2023-06-01");
    for (call, of, member) in [
        (Call::get("/v1/models"), "data", "id"),
        (anthropic(Call::get("/v1/models?limit=100")), "data", "id"),
        (Call::get("/v1beta/models?pageSize=100"), "models", "name"),
        (Call::get("/api/tags"), "models", "name"),
    ] {
        let list = world.gateway.call(&call.bearer(&key)).await.json();
        let names = names(&list, of, member);
        let has = |part: &str| names.iter().any(|name| name.contains(part));
        assert!(has("mixed") && has("up/small"), "{names:?}");
        assert!(!has("large") && !has("third") && !has("giants"), "{names:?}");
    }
    let all = ids(&world.gateway.call(&Call::get("/v1/models")).await.json());
    assert!(all.contains(&"up/third".to_owned()), "without the key it is there: {all:?}");
    assert!(!all.contains(&"up/family/large".to_owned()), "the policy is for all: {all:?}");
}

#[tokio::test]
async fn one_model_can_be_asked_for_with_its_slash_raw_or_encoded() {
    let world = world_with_models().await;
    for path in
        ["/v1/models/up/family/large", "/v1/models/up%2Ffamily%2Flarge", "/v1/models/up%2ffamily/large"]
    {
        let response = world.gateway.call(&Call::get(path)).await;
        assert_eq!((response.status, response.at("/id")), (200, "up/family/large".to_owned()), "{path}");
    }
    let response = world.gateway.call(&Call::get("/v1/models/no/such")).await;
    assert_eq!((response.status, response.at("/error/code")), (404, "model_not_found".to_owned()));
    let response =
        world.gateway.call(&Call::get("/v1/models/no/such").header("anthropic-version", "2023-06-01")).await;
    assert_eq!(
        (response.status, response.at("/error/type")),
        (404, "not_found_error".to_owned()),
        "{}",
        response.text()
    );
}

#[tokio::test]
async fn anthropic_clients_get_pages_in_their_shape() {
    let world = world_with_models().await;
    let ask =
        |query: &str| Call::get(&format!("/v1/models{query}")).header("anthropic-version", "2023-06-01");
    let page = world.gateway.call(&ask("?limit=2")).await.json();
    assert_eq!(ids(&page), ["up/small", "up/family/large"]);
    assert_eq!(
        (&page["has_more"], &page["first_id"], &page["last_id"]),
        (&json!(true), &json!("up/small"), &json!("up/family/large"))
    );
    let entry = &page["data"][0];
    assert_eq!(entry["type"], "model");
    assert!(entry["display_name"].is_string() && entry["created_at"].as_str().unwrap().ends_with('Z'));
    let page = world.gateway.call(&ask("?limit=1&after_id=up%2Ffamily%2Flarge")).await.json();
    assert_eq!((ids(&page), &page["has_more"]), (vec!["up/third".to_owned()], &json!(true)));
    let page = world.gateway.call(&ask("?after_id=up/third")).await.json();
    assert_eq!((&page["data"][0]["id"], &page["has_more"]), (&json!("auto"), &json!(false)));
    let page = world.gateway.call(&ask("?before_id=up/third&limit=1")).await.json();
    assert_eq!((ids(&page), &page["has_more"]), (vec!["up/family/large".to_owned()], &json!(true)));
    let one =
        world.gateway.call(&Call::get("/v1/models/up/small").header("anthropic-version", "2023-06-01")).await;
    assert_eq!((one.at("/type"), one.at("/id")), ("model".into(), "up/small".into()));
    assert_eq!(one.header("request-id"), one.header("x-request-id"));
}

#[tokio::test]
async fn hidden_models_and_inactive_providers_are_not_listed() {
    let world = world_with_models().await;
    let body = json!({"provider": world.node, "modelId": "small", "isHidden": true});
    world.gateway.set("PATCH", "/api/provider-models", &body).await;
    let list = world.gateway.call(&Call::get("/v1/models")).await.json();
    assert_eq!(ids(&list)[..2], ["up/family/large", "up/third"]);
    let path = format!("/api/providers/{}", world.connection);
    world.gateway.set("PATCH", &path, &json!({"isActive": false})).await;
    let list = world.gateway.call(&Call::get("/v1/models")).await.json();
    let gone = |id: &String| id.starts_with("up/") || id.starts_with("auto");
    assert!(!ids(&list).iter().any(gone), "nor is auto, which has nothing to choose from");
}

#[tokio::test]
async fn lists_need_a_key_where_keys_are_required() {
    let gateway = Start::new().env("REQUIRE_API_KEY", "true").run().await;
    let key = add_key(&gateway, json!({})).await;
    assert_eq!(gateway.call(&Call::get("/v1/models")).await.status, 401);
    assert_eq!(gateway.call(&Call::get("/v1/models").bearer(&key)).await.status, 200);
}
