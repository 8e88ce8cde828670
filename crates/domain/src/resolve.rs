//! From the string in `model` to where a request goes. First hit wins: a combo, an alias, a pattern that means a combo, a
//! pattern of aliases, a prefix, then a bare name that one usable provider lists, then the vendor of the name, then the
//! operator's order.

use std::sync::{Arc, OnceLock};

use omniroute_dialect::ir::ReasoningAmount;
use omniroute_provider::{Capability, ProviderId, vendor};

use crate::alias::Aliases;
use crate::combo::ComboState;
use crate::price::Quote;
use crate::routing::auto::{is_virtual, variant_names};
use crate::snapshot::{Caller, ProviderState, Snapshot};

/// Most aliases from the name that is asked for to what it means.
pub const MAX_HOPS: usize = 8;
/// Longest accepted model name, in bytes.
pub const MAX_MODEL_LENGTH: usize = 256;

/// Where a request goes.
#[derive(Clone)]
pub enum Route {
    /// To one model.
    Target(Arc<Target>),
    /// To one of several.
    Combo(Arc<ComboState>),
}

/// A model at a provider.
#[derive(Clone)]
pub struct Target {
    /// The provider with its accounts.
    pub provider: Arc<ProviderState>,
    /// The model as the provider knows it.
    pub model: Arc<str>,
    /// Account named by the request (`model@account`).
    pub connection_name: Option<String>,
    /// How it was found.
    pub via: Via,
    /// What the names that lead to it say beside the model.
    pub suffixes: Suffixes,
    /// What it costs, once somebody has asked.
    pub price: KnownPrice,
}

/// A price that is looked up when it is first asked for. A copy looks again: it may become another model's.
#[derive(Default)]
pub struct KnownPrice(OnceLock<Option<Arc<Quote>>>);

impl Clone for KnownPrice {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Target {
    /// What the model costs by the snapshot that the target was found in.
    pub fn quote(&self, snapshot: &Snapshot) -> Option<&Arc<Quote>> {
        self.price.0.get_or_init(|| snapshot.quote(&self.provider.id, &self.model)).as_ref()
    }

    /// `provider/model`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.provider.alias, self.model)
    }
}

/// How a target was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// By its prefix.
    Direct,
    /// By another name that the operator gave it.
    Alias,
    /// By a bare model name.
    Bare,
    /// It stands in for another provider.
    Fallback,
}

impl Via {
    /// The name in explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Alias => "alias",
            Self::Bare => "bare",
            Self::Fallback => "fallback",
        }
    }
}

/// What a name says beside the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suffixes {
    /// How much to reason (`gpt-5(high)`).
    pub effort: Option<ReasoningAmount>,
    /// Whether the variant with a context of a million tokens is wanted (`claude-sonnet-4-5[1m]`).
    pub extended_context: bool,
}

impl Suffixes {
    /// Takes over what a name says that this one leads to; what was said before counts.
    pub fn complete(&mut self, inner: Self) {
        self.effort = self.effort.take().or(inner.effort);
        self.extended_context |= inner.extended_context;
    }
}

/// How a choice between several providers is settled, before the operator's order is asked.
#[derive(Clone, Copy, Default)]
pub struct Preference<'a> {
    /// Ids or prefixes of providers that come first.
    pub prefer: &'a [String],
    /// Whether any of them will do, rather than none.
    pub settle: bool,
    /// What the model is for, where that is not chat: those that have it for that come first.
    pub ability: Option<Capability>,
    /// Who asks: those that it may use come first.
    pub caller: Option<&'a Caller>,
}

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
    #[error("provider `{provider}` has no active connection; add one under /api/providers")]
    NoCredentials {
        /// The provider.
        provider: ProviderId,
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
            Self::NoCredentials { .. } => "no_credentials",
            Self::Mismatch { .. } => "provider_mismatch",
            Self::AliasChain { .. } | Self::AliasLoop { .. } | Self::AliasHops { .. } => "invalid_model",
            Self::Ambiguous { .. } => "ambiguous_model",
            Self::Hidden { .. } | Self::NotFound { .. } => "model_not_found",
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

/// Finds where a model string leads.
pub fn resolve(snapshot: &Snapshot, requested: &str) -> Result<Route, ResolveError> {
    resolve_with(snapshot, requested, Preference::default())
}

/// The same, with a preference among several providers of one name.
pub fn resolve_with(
    snapshot: &Snapshot,
    requested: &str,
    preference: Preference<'_>,
) -> Result<Route, ResolveError> {
    resolve_named(snapshot, requested, preference).map(|(route, _)| route)
}

/// The same, and what the name, and those that it stands for, say beside where they lead.
pub fn resolve_named(
    snapshot: &Snapshot,
    requested: &str,
    preference: Preference<'_>,
) -> Result<(Route, Suffixes), ResolveError> {
    let (name, mut suffixes) = checked(requested)?;
    if let Some(combo) = combo(snapshot, name) {
        return Ok((Route::Combo(combo.clone()), suffixes));
    }
    if snapshot.aliases.exact(name).is_none()
        && let Some(combo) = snapshot.mapped(name)
    {
        return Ok((Route::Combo(combo.clone()), suffixes));
    }
    let target = match meant(snapshot, name)? {
        None => plain(snapshot, name, preference)?,
        Some(meant) => {
            suffixes.complete(meant.suffixes);
            if let Some(combo) = meant.combo {
                return Ok((Route::Combo(combo.clone()), suffixes));
            }
            Target { via: Via::Alias, ..plain(snapshot, &meant.name, preference)? }
        }
    };
    let target = Target { suffixes: suffixes.clone(), ..target };
    Ok((Route::Target(Arc::new(target)), suffixes))
}

/// What a name says beside the model.
pub fn suffixes(requested: &str) -> Suffixes {
    without_suffixes(requested.trim()).1
}

/// A name without what it says beside the model.
pub fn bare_name(requested: &str) -> &str {
    without_suffixes(requested.trim()).0
}

/// The name of what a name stands for, over all aliases; the name itself where they lead nowhere.
pub fn meaning(snapshot: &Snapshot, requested: &str) -> String {
    let name = bare_name(requested);
    meant(snapshot, name).ok().flatten().map_or_else(|| name.to_owned(), |meant| meant.name)
}

/// Finds the target of a model string that may be an alias, but not a combo.
pub fn model(snapshot: &Snapshot, requested: &str) -> Result<Target, ResolveError> {
    let (name, mut suffixes) = checked(requested)?;
    let target = match meant(snapshot, name)? {
        Some(meant) => {
            suffixes.complete(meant.suffixes);
            let target = plain(snapshot, &meant.name, Preference::default());
            let target = target.map_err(|error| match meant.combo {
                Some(combo) => ResolveError::Invalid(format!(
                    "`{requested}` stands for the combo `{}`; a model is needed here",
                    combo.name
                )),
                None => error,
            })?;
            Target { via: Via::Alias, ..target }
        }
        None => plain(snapshot, name, Preference::default())?,
    };
    Ok(Target { suffixes, ..target })
}

/// `combo/<name>`, or the name alone.
fn combo<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<ComboState>> {
    snapshot.combo(name).or_else(|| snapshot.combo(name.strip_prefix("combo/")?))
}

/// The name of the combo that an entry of another one means, and what its names say beside: by the combo's name, by
/// `combo/<name>`, or by an alias of either. A combo may be called what is a name with something behind it.
pub fn combo_meant(
    aliases: &Aliases,
    requested: &str,
    is_combo: impl Fn(&str) -> bool,
) -> Option<(String, Suffixes)> {
    let find = |name: &str| {
        let rest = || name.strip_prefix("combo/").filter(|rest| is_combo(rest));
        Some(name).filter(|name| is_combo(name)).or_else(rest).map(str::to_owned)
    };
    let whole = find(requested.trim()).map(|combo| (combo, Suffixes::default()));
    whole.or_else(|| {
        let (name, mut suffixes) = checked(requested).ok()?;
        let combo = find(name).or_else(|| {
            let meant = follow(aliases, name, find).ok()??;
            suffixes.complete(meant.suffixes);
            meant.combo
        })?;
        Some((combo, suffixes))
    })
}

/// What an alias stands for.
struct Meant<C> {
    name: String,
    /// What the names say that it leads over.
    suffixes: Suffixes,
    combo: Option<C>,
}

fn meant<'a>(
    snapshot: &'a Snapshot,
    asked: &str,
) -> Result<Option<Meant<&'a Arc<ComboState>>>, ResolveError> {
    follow(&snapshot.aliases, asked, |name| combo(snapshot, name))
}

/// Follows the aliases from a name on. Of those that are no patterns two in a row; what a pattern makes of a name is a name like
/// any other, but no pattern is asked of it that fitted a name before: it was applied, or another was more specific. So none is
/// applied to its own result, and one for all names is for those that nothing else fits.
fn follow<C>(
    aliases: &Aliases,
    asked: &str,
    combo: impl Fn(&str) -> Option<C>,
) -> Result<Option<Meant<C>>, ResolveError> {
    let Some(first) = aliases.meaning(asked) else { return Ok(None) };
    let mut row = usize::from(aliases.exact(asked).is_some());
    let mut passed = vec![asked.to_owned()];
    let mut suffixes = Suffixes::default();
    let mut next = first.into_owned();
    loop {
        let whole = combo(&next);
        let (name, more) = checked(&next)?;
        if whole.is_none() {
            suffixes.complete(more);
        }
        // A combo may be called what is a name with something behind it.
        let combo = whole.or_else(|| combo(name));
        let name = name.to_owned();
        let is_own = passed.last() == Some(&name);
        if passed.contains(&name) && !is_own {
            passed.push(name);
            return Err(ResolveError::AliasLoop { alias: asked.to_owned(), path: passed });
        }
        let exact = aliases.exact(&name);
        let further = if combo.is_some() || is_own {
            None
        } else {
            exact.map(str::to_owned).or_else(|| aliases.pattern_after(&name, &passed))
        };
        let Some(further) = further else {
            return Ok(Some(Meant { name, suffixes, combo }));
        };
        row = if exact.is_some() { row + 1 } else { 0 };
        if row > 2 {
            let next = passed.pop().unwrap_or_default();
            return Err(ResolveError::AliasChain { alias: asked.to_owned(), next });
        }
        if passed.len() >= MAX_HOPS {
            return Err(ResolveError::AliasHops { alias: asked.to_owned() });
        }
        passed.push(name);
        next = further;
    }
}

/// A model string that is neither a combo nor an alias.
fn plain(snapshot: &Snapshot, name: &str, preference: Preference<'_>) -> Result<Target, ResolveError> {
    if let Some((prefix, model)) = name.split_once('/') {
        if let Some(id) = snapshot.by_prefix(prefix) {
            return direct(snapshot, id, model);
        }
        if prefix == "combo" {
            let near = close_to(model, snapshot.combo_names());
            return Err(ResolveError::NotFound { model: name.to_owned(), near, inactive: Vec::new() });
        }
        if is_virtual(name) {
            let near = near_variants(name);
            return Err(ResolveError::NotFound { model: name.to_owned(), near, inactive: Vec::new() });
        }
        return match bare(snapshot, name, preference) {
            Err(ResolveError::NotFound { inactive, .. }) if inactive.is_empty() => {
                Err(ResolveError::UnknownProvider { prefix: prefix.to_owned() })
            }
            other => other,
        };
    }
    bare(snapshot, name, preference)
}

/// Finds the target of a model string on a route that names the provider. The prefix may be left out; another
/// provider's is an error; a first piece that is no provider's belongs to the model's name.
pub fn resolve_at(snapshot: &Snapshot, provider: &str, requested: &str) -> Result<Target, ResolveError> {
    let id = snapshot
        .by_prefix(provider)
        .ok_or_else(|| ResolveError::UnknownProvider { prefix: provider.to_owned() })?;
    let (mut name, suffixes) = checked(requested)?;
    if let Some((prefix, model)) = name.split_once('/')
        && let Some(other) = snapshot.by_prefix(prefix)
    {
        if other != id {
            return Err(ResolveError::Mismatch { provider: provider.to_owned(), prefix: prefix.to_owned() });
        }
        name = model;
    }
    Ok(Target { suffixes, ..direct(snapshot, id, name)? })
}

fn checked(requested: &str) -> Result<(&str, Suffixes), ResolveError> {
    let name = requested.trim();
    let problem = if name.is_empty() {
        "the model name is empty"
    } else if name.len() > MAX_MODEL_LENGTH {
        "the model name is longer than 256 bytes"
    } else if name.chars().any(char::is_control) {
        "the model name holds a control character"
    } else if name.split('/').any(|piece| piece == "..") {
        "the model name holds `..` as a path piece"
    } else {
        return Ok(without_suffixes(name));
    };
    Err(ResolveError::Invalid(problem.to_owned()))
}

/// The name alone, and what stands behind it. Parentheses around anything but a level of effort belong to the name.
fn without_suffixes(name: &str) -> (&str, Suffixes) {
    let (mut name, mut suffixes) = (name, Suffixes::default());
    for _ in 0..2 {
        if let Some(rest) = name.strip_suffix("[1m]").filter(|_| !suffixes.extended_context) {
            (name, suffixes.extended_context) = (rest, true);
        } else if let Some((rest, word)) = name.strip_suffix(')').and_then(|name| name.rsplit_once('('))
            && suffixes.effort.is_none()
            && !rest.is_empty()
            && word.starts_with(|first: char| first.is_ascii_alphabetic())
            && let Some(effort @ (ReasoningAmount::Off | ReasoningAmount::Effort(_))) =
                ReasoningAmount::of_word(word)
        {
            (name, suffixes.effort) = (rest, Some(effort));
        }
    }
    (name, suffixes)
}

fn direct(snapshot: &Snapshot, id: &ProviderId, model: &str) -> Result<Target, ResolveError> {
    let provider =
        snapshot.provider(id).ok_or_else(|| ResolveError::NoCredentials { provider: id.clone() })?.clone();
    if model.is_empty() {
        return Err(ResolveError::Invalid(format!("`{id}/` names a provider but no model")));
    }
    let (model, connection_name) = pinned(&provider, model);
    let model = provider.provider.spec().current_name(model).into();
    let (via, suffixes, price) = (Via::Direct, Suffixes::default(), KnownPrice::default());
    Ok(Target { model, connection_name, provider, via, suffixes, price })
}

/// `model@account`, if what follows the last `@` names an account of the provider.
fn pinned<'a>(provider: &ProviderState, model: &'a str) -> (&'a str, Option<String>) {
    if let Some((head, tail)) = model.rsplit_once('@')
        && !head.is_empty()
        && provider.connections.iter().any(|connection| *connection.name == *tail)
    {
        return (head, Some(tail.to_owned()));
    }
    (model, None)
}

fn bare(snapshot: &Snapshot, name: &str, preference: Preference<'_>) -> Result<Target, ResolveError> {
    let (plain, pin) = match name.rsplit_once('@') {
        Some((head, _)) if snapshot.providers_of_model(name).is_empty() && !head.is_empty() => (head, true),
        _ => (name, false),
    };
    let able: Vec<ProviderId>;
    let mut owners = snapshot.providers_of_model(plain);
    if let Some(ability) = preference.ability.filter(|_| owners.len() > 1) {
        able = owners.iter().filter(|id| has_model_for(snapshot, id, plain, ability)).cloned().collect();
        owners = if able.is_empty() { owners } else { &able };
    }
    let allowed: Vec<ProviderId>;
    if let Some(caller) = preference.caller.filter(|_| owners.len() > 1) {
        allowed = owners.iter().filter(|id| may_use(snapshot, caller, id, plain)).cloned().collect();
        owners = if allowed.is_empty() { owners } else { &allowed };
    }
    let vendor = vendor::vendor_of(plain, preference.ability);
    let vendor = vendor.and_then(|id| snapshot.provider(&ProviderId::from(id)));
    let owner = match owners {
        [only] => Some(only),
        [] => vendor.map(|provider| &provider.id),
        several => {
            let first_of = |wanted: &[String]| {
                let known = |name: &String| snapshot.by_prefix(name);
                wanted.iter().filter_map(known).find_map(|id| several.iter().find(|other| *other == id))
            };
            let preferred = first_of(preference.prefer);
            let vendor = || vendor.map(|provider| &provider.id).filter(|id| several.contains(id));
            let ordered = || first_of(&snapshot.settings.provider_order);
            let any = || several.first().filter(|_| preference.settle);
            Some(preferred.or_else(vendor).or_else(ordered).or_else(any).ok_or_else(|| {
                ResolveError::Ambiguous {
                    model: plain.to_owned(),
                    forms: several
                        .iter()
                        .filter_map(|id| snapshot.provider(id))
                        .map(|provider| format!("{}/{plain}", provider.alias))
                        .collect(),
                }
            })?)
        }
    };
    let Some(provider) = owner.and_then(|id| snapshot.provider(id)) else {
        return Err(ResolveError::NotFound {
            model: plain.to_owned(),
            near: near(snapshot, plain),
            inactive: snapshot.catalog_providers_of(plain),
        });
    };
    let (model, connection_name) = if pin { pinned(provider, name) } else { (plain, None) };
    let model = provider.provider.spec().current_name(model).into();
    let provider = provider.clone();
    let (via, suffixes, price) = (Via::Bare, Suffixes::default(), KnownPrice::default());
    Ok(Target { provider, model, connection_name, via, suffixes, price })
}

/// Whether a key may use a provider's model of this name, on one of its accounts.
fn may_use(snapshot: &Snapshot, caller: &Caller, id: &ProviderId, model: &str) -> bool {
    let Some(provider) = snapshot.provider(id) else { return false };
    let (by_alias, by_id) = (format!("{}/{model}", provider.alias), format!("{id}/{model}"));
    (!caller.restricts_models() || caller.allows_model(&[model, &by_alias, &by_id]))
        && provider.connections.iter().any(|connection| caller.allows_connection(&connection.id))
}

/// Whether a provider has a model of this name for an operation.
fn has_model_for(snapshot: &Snapshot, id: &ProviderId, model: &str, ability: Capability) -> bool {
    let is_listed = |provider: &Arc<ProviderState>| {
        provider.models.iter().any(|listed| listed.id == model && listed.mode == ability.mode())
    };
    snapshot.provider(id).is_some_and(|provider| provider.offers(ability) && is_listed(provider))
}

/// Up to five names of models, combos and aliases within an edit distance of a third of the name.
fn near(snapshot: &Snapshot, name: &str) -> Vec<String> {
    close_to(name, snapshot.model_names().chain(snapshot.combo_names()).chain(snapshot.aliases.names()))
}

fn close_to<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Vec<String> {
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
fn near_variants(name: &str) -> Vec<String> {
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
