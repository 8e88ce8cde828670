//! Combos within combos, named in whatever way: which one is meant, how deep they stand, and that there are no circles.

use omniroute_domain::entity::Goal;
use omniroute_store::Surroundings;
use serde_json::{Value, json};

use super::{make, with_provider};
use crate::app::START;

#[tokio::test]
async fn entries_that_name_a_combo_lead_to_it() {
    let app = with_provider().await;
    make(&app, json!({"name":"cheap","models":["openai/gpt-5.4-mini"]})).await;
    app.post("/api/models/alias", json!({"alias":"fast","model":"cheap"})).await.expect(200);
    app.post("/api/models/alias", json!({"alias":"deep","model":"cheap(high)"})).await.expect(200);
    let made = make(
        &app,
        json!({"name":"best","models":["combo/cheap",{"model":"cheap","weight":50},
            {"kind":"model","model":"combo/cheap","label":"x"},{"model":"fast"},"auto/fast"]}),
    )
    .await;
    let names: Vec<_> = made["models"].as_array().expect("list").iter().map(|it| &it["comboName"]).collect();
    let cheap = json!("cheap");
    assert_eq!(names, [&cheap, &cheap, &cheap, &Value::Null, &json!("auto/fast")], "{made}");
    assert_eq!((&made["models"][1]["weight"], &made["models"][1]["kind"]), (&json!(50), &json!("combo-ref")));
    let leads_to = || {
        let snapshot = app.live.load().clone();
        match &snapshot.combo("best").expect("in force").steps[3].goal {
            Goal::Model { model, .. } => model.clone(),
            Goal::ComboRef { combo_name } => format!("combo {combo_name}"),
        }
    };
    assert_eq!(leads_to(), "combo cheap");
    // What the alias stands for is found out anew.
    app.post("/api/models/alias", json!({"alias":"fast","model":"openai/gpt-5.6"})).await.expect(200);
    assert_eq!(leads_to(), "fast");
    app.post("/api/models/alias", json!({"alias":"fast","model":"cheap"})).await.expect(200);
    for (entry, field, told) in [
        (json!("combo/gone"), "models[0].model", "`gone` is no combo's name"),
        (json!("combo/"), "models[0].model", "no combo's name"),
        (json!("combo/gone(high)"), "models[0].model", "is no combo's name"),
        (json!({"model":"combo/cheap(high)","connectionId":"c"}), "models[0].connectionId", "a model"),
        (json!({"model":"cheap(high)","connectionId":"c"}), "models[0].connectionId", "the combo `cheap`"),
        (json!({"comboName":"cheap(high)"}), "models[0].comboName", "is no combo's name"),
        (json!({"model":"combo/cheap","connectionId":"c"}), "models[0].connectionId", "belongs to a model"),
        (json!({"model":"fast","connectionId":"c"}), "models[0].connectionId", "the combo `cheap`"),
    ] {
        let answer = app.post("/api/combos", json!({"name":"x","models":[entry]})).await.expect(400);
        assert_eq!(answer.fields(), [field], "{}", answer.body);
        assert!(answer.body.contains(told), "{}", answer.body);
    }
    // A combo that has a model's name means the model by it, and an alias closes circles as a name does.
    let own = make(&app, json!({"name":"gpt-5.6","models":[{"model":"gpt-5.6","weight":1}]})).await;
    assert_eq!(own["models"][0]["kind"], "model");
    app.post("/api/models/alias", json!({"alias":"round","model":"ring"})).await.expect(200);
    let ring = app.post("/api/combos", json!({"name":"ring","models":[{"model":"round"}]})).await.expect(422);
    assert!(ring.body.contains("ring → ring"), "{}", ring.body);
}

#[tokio::test]
async fn entries_that_name_a_combo_may_say_more_of_all_that_it_leads_to() {
    let app = with_provider().await;
    let cheap = make(&app, json!({"name":"cheap","models":["openai/gpt-5.4-mini"]})).await;
    app.post("/api/models/alias", json!({"alias":"deep","model":"cheap(high)"})).await.expect(200);
    let entries = json!(["cheap(high)", "combo/cheap[1m]", {"model":"deep"}, {"model":"cheap(low)[1m]"}]);
    let made = make(&app, json!({"name":"best","models":entries})).await;
    let leads_to = || {
        let snapshot = app.live.load().clone();
        let best = snapshot.combo("best").expect("in force").clone();
        let told = best.steps.iter().map(|step| match &step.goal {
            Goal::ComboRef { combo_name } => {
                (combo_name.clone(), step.suffixes.effort.is_some(), step.suffixes.extended_context)
            }
            Goal::Model { model, .. } => panic!("{model} is taken for a model"),
        });
        told.collect::<Vec<_>>()
    };
    let expected = |name: &str| {
        [(true, false), (false, true), (true, false), (true, true)].map(|(a, b)| (name.to_owned(), a, b))
    };
    assert_eq!(leads_to(), expected("cheap"));
    // What it is shown as may be sent again.
    let path = format!("/api/combos/{}", made["id"].as_str().expect("id"));
    app.patch(&path, json!({"models": made["models"]})).await.expect(200);
    assert_eq!(leads_to(), expected("cheap"));
    // Circles are closed by it too.
    let cheap = format!("/api/combos/{}", cheap["id"].as_str().expect("id"));
    let round = app.patch(&cheap, json!({"models":["best(low)"]})).await.expect(422);
    assert!(round.body.contains("best → cheap"), "{}", round.body);
    // It goes with another name.
    app.patch(&cheap, json!({"name":"frugal"})).await.expect(200);
    app.post("/api/models/alias", json!({"alias":"deep","model":"frugal(high)"})).await.expect(200);
    assert_eq!(leads_to(), expected("frugal"));
    // A combo of a model's name may say more of that model.
    let own = make(&app, json!({"name":"gpt-5.6","models":["gpt-5.6(high)"]})).await;
    assert_eq!(own["models"][0]["kind"], "model");
    assert!(matches!(app.live.load().combo("gpt-5.6").expect("it").steps[0].goal, Goal::Model { .. }));
}

#[tokio::test]
async fn a_combo_that_is_too_deep_keeps_no_other_from_being_saved() {
    let app = with_provider().await;
    let depth = |depth: Value| json!({"comboDefaults":{"maxComboDepth":depth}});
    let path = "/api/settings/combo-defaults";
    app.patch(path, depth(json!(4))).await.expect(200);
    for (name, inner) in [("a", "openai/gpt-5.6"), ("b", "a"), ("c", "b"), ("d", "c")] {
        make(&app, json!({"name":name,"models":[inner]})).await;
    }
    for less in [json!(3), Value::Null, json!(1)] {
        let refused = app.patch(path, depth(less)).await.expect(422);
        assert_eq!(refused.fields(), ["comboDefaults.maxComboDepth"]);
    }
    let refused = app.patch(path, depth(json!(3))).await.expect(422);
    assert!(refused.body.contains("Combo d would be too deep"), "{}", refused.body);
    app.patch(path, depth(json!(5))).await.expect(200);
    app.patch(path, depth(json!(4))).await.expect(200);

    // As a database of earlier days may have it.
    let stored = app.store.settings();
    let changed = stored.change(|settings| {
        settings.combo_defaults.max_combo_depth = Some(3);
        Ok::<(), std::convert::Infallible>(())
    });
    assert!(changed.await.expect("written").is_ok());
    let other = make(&app, json!({"name":"other","models":["openai/gpt-5.6"]})).await;
    let path = |combo: &Value| format!("/api/combos/{}", combo["id"].as_str().expect("id"));
    app.patch(&path(&other), json!({"models":["b"]})).await.expect(200);
    let list = app.get("/api/combos").await.json()["combos"].clone();
    let [a, d] = ["a", "d"].map(|name| {
        list.as_array().expect("list").iter().find(|combo| combo["name"] == name).expect("there").clone()
    });
    let refused = app.patch(&path(&a), json!({"isHidden":true})).await.expect(422);
    assert!(refused.body.contains("d → c → b → a"), "d leads to it: {}", refused.body);
    app.patch(&path(&d), json!({"models":["b"]})).await.expect(200);
    app.patch(&path(&a), json!({"isHidden":true})).await.expect(200);
}

#[tokio::test]
async fn circles_are_refused_where_they_would_close() {
    let app = with_provider().await;
    let inner = make(&app, json!({"name":"inner","models":["openai/gpt-5.6"]})).await;
    make(&app, json!({"name":"middle","models":["inner"]})).await;
    make(&app, json!({"name":"outer","models":["middle"]})).await;
    let path = format!("/api/combos/{}", inner["id"].as_str().expect("id"));
    let answer = app.patch(&path, json!({"models":["outer"]})).await.expect(422);
    assert!(
        answer.body.contains("Circular combo reference: inner → outer → middle → inner"),
        "{}",
        answer.body
    );
    let deep = |depth| json!({"name":"outermost","models":["outer"],"config":{"maxComboDepth":depth}});
    let answer = app.post("/api/combos", json!({"name":"outermost","models":["outer"]})).await.expect(422);
    assert!(answer.body.contains("3 deep"), "{}", answer.body);
    app.post("/api/combos", deep(3)).await.expect(422);
    make(&app, deep(4)).await;
    let snapshot = app.live.load().clone();
    assert_eq!(snapshot.combo("outermost").expect("in force").targets(&snapshot).len(), 1);
}

#[tokio::test]
async fn an_alias_closes_no_circle_of_combos() {
    let app = with_provider().await;
    make(&app, json!({"name":"inner","models":[{"model":"a"}]})).await;
    make(&app, json!({"name":"outer","models":["inner"]})).await;
    let alias = |model: &str| json!({"alias":"a","model":model});
    for model in ["outer", "combo/outer(high)"] {
        let refused = app.put("/api/models/alias", alias(model)).await.expect(422);
        assert!(refused.body.contains("Circular combo reference: inner → outer → inner"), "{}", refused.body);
    }
    let depth = json!({"comboDefaults":{"maxComboDepth":2}});
    app.patch("/api/settings/combo-defaults", depth).await.expect(200);
    make(&app, json!({"name":"lone","models":["openai/gpt-5.6"]})).await;
    let refused = app.put("/api/models/alias", alias("lone")).await.expect(422);
    assert!(refused.body.contains("2 deep, this is deeper: outer → inner → lone"), "{}", refused.body);
    app.put("/api/models/alias", alias("openai/gpt-5.6")).await.expect(200);
    // Another alias is none of their concern.
    app.put("/api/models/alias", json!({"alias":"b","model":"outer"})).await.expect(200);
    // By an alias that this process has not heard of yet a circle is one too.
    make(&app, json!({"name":"first","models":[{"model":"unheard"}]})).await;
    let agree = |_: &Surroundings| Ok::<_, ()>(());
    app.store.aliases().put(("unheard", "second"), START, agree).await.expect("written").expect("agreed");
    let refused = app.post("/api/combos", json!({"name":"second","models":["first"]})).await.expect(422);
    assert!(refused.body.contains("Circular combo reference: first → second → first"), "{}", refused.body);
}

#[tokio::test]
async fn an_alias_that_goes_closes_no_circle_either() {
    let app = with_provider().await;
    let set = async |alias: &str, model: &str| {
        app.put("/api/models/alias", json!({"alias":alias,"model":model})).await.expect(200);
    };
    let delete = async || app.delete("/api/models/alias?alias=ab").await;
    set("ab", "openai/gpt-5.6").await;
    make(&app, json!({"name":"inner","models":[{"model":"ab"}]})).await;
    make(&app, json!({"name":"outer","models":["inner"]})).await;
    make(&app, json!({"name":"lone","models":["openai/gpt-5.6"]})).await;
    // What the name means without the alias.
    set("a*", "outer").await;
    let refused = delete().await.expect(422);
    assert_eq!(refused.fields(), ["alias"]);
    assert!(refused.body.contains("Circular combo reference: inner → outer → inner"), "{}", refused.body);
    set("a*", "lone").await;
    let depth = |depth: u32| json!({"comboDefaults":{"maxComboDepth":depth}});
    app.patch("/api/settings/combo-defaults", depth(2)).await.expect(200);
    let refused = delete().await.expect(422);
    assert!(refused.body.contains("2 deep, this is deeper: outer → inner → lone"), "{}", refused.body);
    app.patch("/api/settings/combo-defaults", depth(3)).await.expect(200);
    delete().await.expect(200);
    delete().await.expect(404);
}

#[tokio::test]
async fn of_a_lower_depth_and_a_deeper_combo_one_is_taken() {
    let app = with_provider().await;
    make(&app, json!({"name":"inner","models":["openai/gpt-5.6"]})).await;
    make(&app, json!({"name":"middle","models":["inner"]})).await;
    for round in 0..8 {
        let name = format!("outer{round}");
        let lower = app.patch("/api/settings/combo-defaults", json!({"comboDefaults":{"maxComboDepth":2}}));
        let deeper = app.post("/api/combos", json!({"name":name,"models":["middle"]}));
        let (lower, deeper) = match round % 2 {
            0 => futures_util::join!(lower, deeper),
            _ => {
                let (deeper, lower) = futures_util::join!(deeper, lower);
                (lower, deeper)
            }
        };
        assert!(
            matches!((lower.status.as_u16(), deeper.status.as_u16()), (200, 422) | (422, 201)),
            "{} {}",
            lower.body,
            deeper.body
        );
        if deeper.status == 201 {
            let path = format!("/api/combos/{}", deeper.json()["id"].as_str().expect("id"));
            app.delete(&path).await.expect(200);
        }
        app.patch("/api/settings/combo-defaults", json!({"comboDefaults":{"maxComboDepth":null}}))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn of_two_that_are_a_circle_together_one_is_taken() {
    let app = with_provider().await;
    let plain = |name: &str| json!({"name":name,"models":["openai/gpt-5.6"]});
    let (x, y) = (make(&app, plain("x")).await, make(&app, plain("y")).await);
    let path = |combo: &Value| format!("/api/combos/{}", combo["id"].as_str().expect("id"));
    let lead = async |combo: &Value, to: &str| app.patch(&path(combo), json!({"models":[to]})).await.status;
    let (one, other) = futures_util::join!(lead(&x, "y"), lead(&y, "x"));
    let mut statuses = [one, other];
    statuses.sort();
    assert_eq!(statuses, [200, 422]);

    for combo in [&x, &y] {
        assert_eq!(lead(combo, "openai/gpt-5.6").await, 200);
    }
    let alias = async || app.put("/api/models/alias", json!({"alias":"a","model":"x"})).await.status;
    let entry = async || app.patch(&path(&x), json!({"models":[{"model":"a"}]})).await.status;
    let (one, other) = futures_util::join!(alias(), entry());
    let mut statuses = [one, other];
    statuses.sort();
    assert_eq!(statuses, [200, 422]);
}
