//! How much combos may come to, and whose names they may not take.

use serde_json::json;

use crate::app::TestApp;

#[tokio::test]
async fn combos_within_combos_have_so_many_entries_at_most() {
    let app = TestApp::new().await;
    let many = json!({"name":"many","models":vec!["openai/gpt-5.6"; 128]});
    app.post("/api/combos", many).await.expect(201);
    let outer = |times: usize| json!({"name":"outer","models":vec!["many"; times]});
    let refused = app.post("/api/combos", outer(8)).await.expect(422);
    assert!(refused.body.contains("Combo outer would have 1032 entries"), "{}", refused.body);
    let outer = app.post("/api/combos", outer(7)).await.expect(201).json();
    // By a change of one within, or by an alias.
    let one = app.post("/api/combos", json!({"name":"one","models":["named"]})).await.expect(201).json();
    let id = outer["id"].as_str().expect("id");
    let both = json!({"models":vec!["many", "many", "many", "many", "many", "many", "many", "one"]});
    app.patch(&format!("/api/combos/{id}"), both).await.expect(200);
    let path = format!("/api/combos/{}", one["id"].as_str().expect("id"));
    let refused = app.patch(&path, json!({"models":["many"]})).await.expect(422);
    assert!(refused.body.contains("Combo outer would have"), "{}", refused.body);
    let refused = app.put("/api/models/alias", json!({"alias":"named","model":"many"})).await.expect(422);
    assert!(refused.body.contains("1024 are the most"), "{}", refused.body);
}

#[tokio::test]
async fn a_combo_takes_no_name_of_an_alias() {
    let app = TestApp::new().await;
    app.put("/api/models/alias", json!({"alias":"fast","model":"openai/gpt-5.6"})).await.expect(200);
    let combo = |name: &str| json!({"name":name,"models":["openai/gpt-5.6"]});
    let refused = app.post("/api/combos", combo("Fast")).await.expect(409);
    assert!(refused.body.contains("`fast` is an alias"), "{}", refused.body);
    let made = app.post("/api/combos", combo("slow")).await.expect(201).json();
    let path = format!("/api/combos/{}", made["id"].as_str().expect("id"));
    app.patch(&path, json!({"name":"fast"})).await.expect(409);
    app.put("/api/models/alias", json!({"alias":"fast","model":"slow"})).await.expect(200);
    app.delete("/api/models/alias?alias=fast").await.expect(200);
    app.patch(&path, json!({"name":"fast"})).await.expect(200);
}
