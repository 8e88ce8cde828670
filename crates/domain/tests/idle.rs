//! Accounts that nobody asks: who they are and why.

mod fixture;

use fixture::{connection, snapshot};
use omniroute_domain::entity::Connection;
use omniroute_domain::resolve::{self, ResolveError};
use omniroute_domain::snapshot::{IdleAccount, Snapshot};
use omniroute_provider::ProviderId;

fn idle(snapshot: &Snapshot, provider: &str) -> Vec<(String, String)> {
    let told = |account: &IdleAccount| (account.name.to_string(), account.why.as_str().to_owned());
    snapshot.idle_accounts(&ProviderId::from(provider)).iter().map(told).collect()
}

#[test]
fn what_cannot_be_asked_says_why_by_priority() {
    let snapshot = snapshot(|entities| {
        let mut broken = connection("n1", "broken");
        broken.options.base_url = Some("not a url".into());
        let off = |name: &str, priority| Connection { is_active: false, priority, ..connection("n1", name) };
        entities.connections.extend([off("second", 7), broken, off("first", 2), connection("gone", "lost")]);
        entities.settings.blocked_providers = vec!["two".into()];
    });
    let off = |name: &str| (name.to_owned(), "the account is switched off".to_owned());
    let told = idle(&snapshot, "n1");
    assert_eq!(told[..2], [off("first"), off("second")]);
    let (name, why) = &told[2];
    assert!(name == "broken" && why.contains("not a valid URL"), "{why}");
    let provider = snapshot.provider(&ProviderId::from("n1")).unwrap();
    assert_eq!((provider.connections.len(), provider.idle.len()), (1, 3), "one can be asked");
    let blocked = [("b".to_owned(), "its provider is one of `blockedProviders`".to_owned())];
    assert_eq!(idle(&snapshot, "n2"), blocked);
    assert_eq!(idle(&snapshot, "deepseek"), [off("off")]);
    let (name, why) = &idle(&snapshot, "gone")[0];
    assert!(name == "lost" && why.contains("neither the catalogue nor the nodes"), "{why}");
    assert_eq!(idle(&snapshot, "openai"), []);
    assert_eq!(idle(&snapshot, "sim"), []);
    assert_eq!(snapshot.problems.len(), 2, "who is switched off is no problem: {:?}", snapshot.problems);
}

#[test]
fn whom_a_name_leads_to_is_known_where_nobody_is_asked() {
    let snapshot = snapshot(|_| {});
    let unserved = |name: &str| {
        let error = resolve::resolve(&snapshot, name).err().expect("it leads nowhere");
        let found = error.unserved().map(|(providers, model)| (providers.to_vec(), model.to_owned()));
        (found, error)
    };
    let (found, _) = unserved("deepseek/deepseek-chat");
    assert_eq!(found, Some((vec!["deepseek".into()], "deepseek-chat".to_owned())));
    let (found, _) = unserved("deepseek-chat");
    let (providers, model) = found.unwrap();
    assert!(providers.contains(&"deepseek".into()) && model == "deepseek-chat", "{providers:?}");
    let (found, error) = unserved("nowhere/x");
    assert!(found.is_none() && matches!(error, ResolveError::UnknownProvider { .. }));
}

#[test]
fn an_account_that_is_switched_off_is_named_all_the_same() {
    let snapshot = snapshot(|entities| {
        entities.connections.push(Connection { is_active: false, ..connection("n1", "old") });
        entities.connections.push(connection("n1", "me@example.com"));
        entities.custom_models.push(fixture::model("n1", "only-here", "chat-completions"));
    });
    let target = resolve::model(&snapshot, "one/m@old").unwrap();
    assert_eq!((&*target.model, target.connection_name.as_deref()), ("m", Some("old")));
    // The whole of what follows, if there is such an account.
    for (name, model, account) in [
        ("one/m@me@example.com", "m", Some("me@example.com")),
        ("one/m@example.com", "m@example.com", None),
        ("one/m@1@me@example.com", "m@1", Some("me@example.com")),
        ("only-here@me@example.com", "only-here", Some("me@example.com")),
        ("only-here@old", "only-here", Some("old")),
    ] {
        let target = resolve::model(&snapshot, name).unwrap();
        assert_eq!((&*target.model, target.connection_name.as_deref()), (model, account), "{name}");
    }
    let target = resolve::model(&snapshot, "one/m@nobody").unwrap();
    assert_eq!((&*target.model, target.connection_name.as_deref()), ("m@nobody", None));
}
