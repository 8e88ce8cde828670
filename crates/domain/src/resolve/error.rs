//! Names that lead nowhere, and names that were perhaps meant.

use omniroute_provider::ProviderId;

use super::MAX_HOPS;
use crate::routing::auto::variant_names;
use crate::snapshot::{IdleAccount, Snapshot};

/// Why a model string leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Not a model name at all.
    #[error("{0}")]
    Invalid(String),
    /// The prefix belongs to no provider.
    #[error("{}", unknown_provider(prefix))]
    UnknownProvider {
        /// The prefix.
        prefix: String,
    },
    /// The provider exists but has no usable account.
    #[error("provider `{name}` has no active connection; add one under /api/providers")]
    NoCredentials {
        /// The provider.
        provider: ProviderId,
        /// What people call it.
        name: String,
        /// The model that was asked for there.
        model: String,
    },
    /// The account that an entry of a combo names is none that can be asked, and nobody else may stand in for it.
    #[error("the account that the entry names {}; see /api/providers", no_account(account.as_deref()))]
    NoAccount {
        /// The account; `None` where the provider has none of that id.
        account: Option<Box<IdleAccount>>,
    },
    /// The route names one provider, the model another.
    #[error(
        "this route is for `{provider}`, but the model begins with `{prefix}/`; use `{provider}/…` or no prefix"
    )]
    Mismatch {
        /// The route's provider.
        provider: String,
        /// The model's prefix.
        prefix: String,
    },
    /// The route names a provider, and the model is an alias of something else.
    #[error(
        "this route is for `{provider}`, but `{alias}` stands for `{meant}`, which is not one of its models; name the model \
         itself, or ask at a route without a provider"
    )]
    AliasElsewhere {
        /// The route's provider.
        provider: String,
        /// The name that was asked for.
        alias: String,
        /// What it stands for.
        meant: String,
    },
    /// Aliases of aliases of aliases.
    #[error(
        "the alias `{alias}` leads to the alias `{next}`, which leads to another; set it to the model itself"
    )]
    AliasChain {
        /// The first.
        alias: String,
        /// The one it leads to.
        next: String,
    },
    /// Aliases that lead back to themselves.
    #[error("the alias `{alias}` leads back to itself ({}); set one of them to the model itself", path.join(" → "))]
    AliasLoop {
        /// The first.
        alias: String,
        /// From name to name, until one comes again.
        path: Vec<String>,
    },
    /// An alias of what is not there, as of a combo that was deleted.
    #[error(
        "`{alias}` stands for `{name}`, which is neither a combo that is on nor a model of a provider here; set it to another \
         under /api/models/alias"
    )]
    AliasOfNothing {
        /// The name that was asked for.
        alias: String,
        /// What it stands for.
        name: String,
    },
    /// More of them than anybody follows.
    #[error("`{alias}` leads over more than {MAX_HOPS} aliases; set one of them to the model itself")]
    AliasHops {
        /// The first.
        alias: String,
    },
    /// Several providers have the model.
    #[error("several providers have `{model}`; ask for one of: {}", forms.join(", "))]
    Ambiguous {
        /// The name.
        model: String,
        /// Names that are not ambiguous.
        forms: Vec<String>,
    },
    /// The operator keeps the model from being chosen.
    #[error("`{model}` is hidden; show it under /api/provider-models")]
    Hidden {
        /// The name.
        model: String,
    },
    /// No provider has the model, or there is no such combo (`combo/<name>`).
    #[error("{}", not_found(model, near, inactive))]
    NotFound {
        /// The name.
        model: String,
        /// Names that look like it.
        near: Vec<String>,
        /// Providers that have it but no active connection.
        inactive: Vec<ProviderId>,
    },
}

impl ResolveError {
    /// Code of the client-facing error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_model",
            Self::UnknownProvider { .. } => "unknown_provider",
            Self::NoCredentials { .. } | Self::NoAccount { .. } => "no_credentials",
            Self::Mismatch { .. } | Self::AliasElsewhere { .. } => "provider_mismatch",
            Self::AliasChain { .. } | Self::AliasLoop { .. } | Self::AliasHops { .. } => "invalid_model",
            Self::Ambiguous { .. } => "ambiguous_model",
            Self::Hidden { .. } | Self::AliasOfNothing { .. } | Self::NotFound { .. } => "model_not_found",
        }
    }

    /// Which model it is of which providers that nobody is asked for, because they have no usable account.
    pub fn unserved(&self) -> Option<(&[ProviderId], &str)> {
        match self {
            Self::NoCredentials { provider, model, .. } => Some((std::slice::from_ref(provider), model)),
            Self::NotFound { inactive, model, .. } => Some((inactive, model)),
            _ => None,
        }
    }

    /// The same where an alias stands for the name that leads nowhere, which the client may never have seen. A provider that is
    /// only without an account is still named.
    pub(super) fn of_alias(self, alias: &str, name: &str) -> Self {
        match self {
            Self::NotFound { inactive, .. } if inactive.is_empty() => {
                Self::AliasOfNothing { alias: alias.to_owned(), name: name.to_owned() }
            }
            Self::UnknownProvider { .. } => {
                Self::AliasOfNothing { alias: alias.to_owned(), name: name.to_owned() }
            }
            other => other,
        }
    }
}

/// Prefixes of drivers that ride on personal subscriptions, which there are none of here.
const SUBSCRIPTION_PREFIXES: [&str; 9] = ["ag", "if", "kr", "cu", "kmc", "kc", "cl", "oc", "nb"];

fn unknown_provider(prefix: &str) -> String {
    if SUBSCRIPTION_PREFIXES.contains(&prefix) {
        return format!(
            "`{prefix}` stands for a driver of a personal subscription, which this gateway does not have; use a provider \
             with a key, and see /v1/models for the models this gateway has"
        );
    }
    format!(
        "`{prefix}` is not a provider prefix; use `provider/model`, and see /v1/models for the models this gateway has"
    )
}

/// Clients hear of it too: without the account's name, or what is set up wrong.
fn no_account(account: Option<&IdleAccount>) -> &'static str {
    account.map_or("is none of its provider's", |account| account.why.brief())
}

fn not_found(model: &str, near: &[String], inactive: &[ProviderId]) -> String {
    let quoted = |names: &mut dyn Iterator<Item = &str>| {
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let mut text = match model.strip_prefix("combo/") {
        Some(combo) => format!("there is no combo `{combo}`, or it is switched off"),
        None => format!("model `{model}` not found"),
    };
    if !inactive.is_empty() {
        let names = quoted(&mut inactive.iter().map(ProviderId::as_str));
        text += &format!("; {names} has it but no active connection");
    }
    if !near.is_empty() {
        text += &format!("; did you mean {}?", quoted(&mut near.iter().map(String::as_str)));
    } else if inactive.is_empty() {
        text += "; see /v1/models for the models this gateway has";
    }
    text
}

/// Up to five names of models, combos and aliases within an edit distance of a third of the name.
pub(super) fn near(snapshot: &Snapshot, name: &str) -> Vec<String> {
    close_to(name, snapshot.model_names().chain(snapshot.combo_names()).chain(snapshot.aliases.names()))
}

pub(super) fn close_to<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Vec<String> {
    let most = (name.chars().count() / 3).max(1);
    let mut close: Vec<(usize, &str)> = all
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= most)
        .map(|candidate| (distance(candidate, name), candidate))
        .filter(|(distance, _)| *distance <= most)
        .collect();
    close.sort_unstable();
    close.dedup();
    close.into_iter().take(5).map(|(_, candidate)| candidate.to_owned()).collect()
}

/// The five variants of `auto` that look most like a name.
pub(super) fn near_variants(name: &str) -> Vec<String> {
    let mut names = variant_names();
    names.sort_by_key(|variant| distance(variant, name));
    names.truncate(5);
    names
}

/// Levenshtein distance, letters compared without case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let left = left.to_ascii_lowercase();
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
