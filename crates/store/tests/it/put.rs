//! What is stored becomes what a story wants, whatever it was.

use omniroute_domain::entity::{Budget, Combo, Connection, CustomModel, Node, Policy};
use omniroute_store::{Store, StoreError, Surroundings, Webhook};

macro_rules! put {
    ($($name:ident: $entity:ty, $table:ident;)+) => {$(
        pub(crate) async fn $name(store: &Store, row: &$entity) -> Result<$entity, StoreError> {
            let set = |stored: &mut $entity| {
                stored.clone_from(row);
                Ok::<_, StoreError>(())
            };
            store.$table().change(&row.id, set).await?
        }
    )+};
}

put! {
    connection: Connection, connections;
    node: Node, nodes;
    policy: Policy, policies;
    webhook: Webhook, webhooks;
}

/// A combo that is not there yet; gives it with its place.
pub(crate) async fn new_combo(store: &Store, combo: Combo) -> Result<Combo, StoreError> {
    store.combos().insert(combo, |_, _| Ok::<_, StoreError>(())).await?
}

pub(crate) async fn combo(store: &Store, combo: &Combo) -> Result<Combo, StoreError> {
    let set = |stored: &mut Combo, _: &Surroundings| {
        stored.clone_from(combo);
        Ok::<_, StoreError>(())
    };
    store.combos().change(&combo.id, set).await?
}

pub(crate) async fn model(store: &Store, model: &CustomModel) {
    let set = |_| Ok::<_, StoreError>(model.clone());
    store.custom_models().change(&model.provider, &model.id, set).await.unwrap().unwrap();
}

pub(crate) async fn budgets(store: &Store, budgets: &[Budget]) {
    store.budgets().change(|_| Ok::<_, StoreError>(budgets.to_vec())).await.unwrap().unwrap();
}

pub(crate) async fn alias(store: &Store, alias: &str, model: &str, now_ms: i64) {
    let agree = |_: &Surroundings| Ok::<_, StoreError>(());
    store.aliases().put((alias, model), now_ms, agree).await.unwrap().unwrap();
}
