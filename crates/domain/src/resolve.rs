//! From the string in `model` to where a request goes. First hit wins: a combo, an alias, a pattern that means a combo, a
//! pattern of aliases, a prefix, then a bare name that one usable provider lists, then the vendor of the name, then the
//! operator's order.

mod error;
mod suffixes;
mod trail;

use std::sync::{Arc, OnceLock};

use omniroute_provider::{Capability, ProviderId, vendor};

use crate::alias::Aliases;
use crate::combo::ComboState;
use crate::price::Quote;
use crate::routing::auto::is_virtual;
use crate::snapshot::{Caller, ProviderState, Snapshot};
pub use error::ResolveError;
use error::{close_to, near, near_variants};
use suffixes::without_suffixes;
pub use suffixes::{Suffixes, bare_name, suffixes};
pub use trail::{Trail, TrailStep};

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
    resolve_along(snapshot, requested, preference, &mut ())
}

/// The same; each step on the way is noted, also of a name that leads nowhere.
pub fn resolve_along(
    snapshot: &Snapshot,
    requested: &str,
    preference: Preference<'_>,
    trail: &mut impl Trail,
) -> Result<(Route, Suffixes), ResolveError> {
    let (name, mut suffixes) = checked(requested)?;
    trail.split_off(requested.trim(), name, &suffixes);
    if let Some(combo) = combo(snapshot, name) {
        trail.note(|| TrailStep::new("combo", name, &combo.name));
        return Ok((Route::Combo(combo.clone()), suffixes));
    }
    if snapshot.aliases.exact(name).is_none()
        && let Some(combo) = snapshot.mapped(name)
    {
        trail.note(|| TrailStep::new("mapping", name, &combo.name));
        return Ok((Route::Combo(combo.clone()), suffixes));
    }
    let target = match meant_along(snapshot, name, trail)? {
        None => plain(snapshot, name, preference, trail)?,
        Some(meant) => {
            suffixes.complete(meant.suffixes);
            if let Some(combo) = meant.combo {
                trail.note(|| TrailStep::new("combo", &meant.name, &combo.name));
                return Ok((Route::Combo(combo.clone()), suffixes));
            }
            let target = plain(snapshot, &meant.name, preference, trail);
            Target { via: Via::Alias, ..target.map_err(|error| error.of_alias(name, &meant.name))? }
        }
    };
    let target = Target { suffixes: suffixes.clone(), ..target };
    Ok((Route::Target(Arc::new(target)), suffixes))
}

/// Whether an entry of a combo has that combo's own name, which can only be meant as a model's there.
pub fn is_own_name(requested: &str, combo: &str) -> bool {
    requested == combo || bare_name(requested) == combo
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
            let target = plain(snapshot, &meant.name, Preference::default(), &mut ());
            let target = target.map_err(|error| match meant.combo {
                Some(combo) => ResolveError::Invalid(format!(
                    "`{requested}` stands for the combo `{}`; a model is needed here",
                    combo.name
                )),
                None => error.of_alias(name, &meant.name),
            })?;
            Target { via: Via::Alias, ..target }
        }
        None => plain(snapshot, name, Preference::default(), &mut ())?,
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
            let meant = follow(aliases, name, find, &mut ()).ok()??;
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
    meant_along(snapshot, asked, &mut ())
}

fn meant_along<'a>(
    snapshot: &'a Snapshot,
    asked: &str,
    trail: &mut impl Trail,
) -> Result<Option<Meant<&'a Arc<ComboState>>>, ResolveError> {
    follow(&snapshot.aliases, asked, |name| combo(snapshot, name), trail)
}

/// Follows the aliases from a name on. Of those that are no patterns two in a row; what a pattern makes of a name is a name like
/// any other, but no pattern is asked of it that fitted a name before: it was applied, or another was more specific. So none is
/// applied to its own result, and one for all names is for those that nothing else fits.
fn follow<C>(
    aliases: &Aliases,
    asked: &str,
    combo: impl Fn(&str) -> Option<C>,
    trail: &mut impl Trail,
) -> Result<Option<Meant<C>>, ResolveError> {
    let Some(first) = aliases.meaning(asked) else { return Ok(None) };
    let is_exact = aliases.exact(asked).is_some();
    trail.note(|| TrailStep::of_alias(is_exact, asked, &first));
    let mut row = usize::from(is_exact);
    let mut passed = vec![asked.to_owned()];
    let mut suffixes = Suffixes::default();
    let mut next = first.into_owned();
    loop {
        let whole = combo(&next);
        let (name, more) = checked(&next)?;
        if whole.is_none() {
            trail.split_off(next.trim(), name, &more);
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
        trail.note(|| TrailStep::of_alias(exact.is_some(), &name, &further));
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
fn plain(
    snapshot: &Snapshot,
    name: &str,
    preference: Preference<'_>,
    trail: &mut impl Trail,
) -> Result<Target, ResolveError> {
    if let Some((prefix, model)) = name.split_once('/') {
        if let Some(id) = snapshot.by_prefix(prefix) {
            trail.note(|| {
                let step = TrailStep::new("prefix", name, &format!("{id}/{model}"));
                step.because(format!("`{prefix}` is the provider `{}`", snapshot.called(id)))
            });
            return direct(snapshot, id, model, trail);
        }
        if prefix == "combo" {
            let near = close_to(model, snapshot.combo_names());
            return Err(ResolveError::NotFound { model: name.to_owned(), near, inactive: Vec::new() });
        }
        if is_virtual(name) {
            let near = near_variants(name);
            return Err(ResolveError::NotFound { model: name.to_owned(), near, inactive: Vec::new() });
        }
        return match bare(snapshot, name, preference, trail) {
            Err(ResolveError::NotFound { inactive, .. }) if inactive.is_empty() => {
                Err(ResolveError::UnknownProvider { prefix: prefix.to_owned() })
            }
            other => other,
        };
    }
    bare(snapshot, name, preference, trail)
}

/// Finds the target of a model string on a route that names the provider. The prefix may be left out; another
/// provider's is an error; a first piece that is no provider's belongs to the model's name. An alias of one of its models is
/// followed. One that leads elsewhere is an error, unless the provider has a model of that name; a pattern that does is left
/// aside, as it says nothing of this provider.
pub fn resolve_at(snapshot: &Snapshot, provider: &str, requested: &str) -> Result<Target, ResolveError> {
    let id = snapshot
        .by_prefix(provider)
        .ok_or_else(|| ResolveError::UnknownProvider { prefix: provider.to_owned() })?;
    let (mut name, mut suffixes) = checked(requested)?;
    if let Some((prefix, model)) = name.split_once('/')
        && let Some(other) = snapshot.by_prefix(prefix)
    {
        if other != id {
            return Err(ResolveError::Mismatch { provider: provider.to_owned(), prefix: prefix.to_owned() });
        }
        name = model;
    } else if let Some(target) = alias_at(snapshot, provider, id, name)? {
        suffixes.complete(target.suffixes);
        return Ok(Target { suffixes, ..target });
    }
    Ok(Target { suffixes, ..direct(snapshot, id, name, &mut ())? })
}

/// The target of the provider that a name is an alias of.
fn alias_at(
    snapshot: &Snapshot,
    provider: &str,
    id: &ProviderId,
    name: &str,
) -> Result<Option<Target>, ResolveError> {
    let leads_here = |target: &Target| target.provider.id == *id;
    let found = snapshot.aliases.meaning(name).is_some().then(|| model(snapshot, name));
    match found {
        Some(Ok(target)) if leads_here(&target) => Ok(Some(target)),
        // One of its models all the same; it is the account that is not there.
        Some(Err(error)) if matches!(&error, ResolveError::NoCredentials { provider, .. } if provider == id) => {
            Err(error)
        }
        Some(_)
            if snapshot.aliases.exact(name).is_some() && !snapshot.providers_of_model(name).contains(id) =>
        {
            let meant = meaning(snapshot, name);
            Err(ResolveError::AliasElsewhere { provider: provider.to_owned(), alias: name.to_owned(), meant })
        }
        _ => Ok(None),
    }
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

fn direct(
    snapshot: &Snapshot,
    id: &ProviderId,
    model: &str,
    trail: &mut impl Trail,
) -> Result<Target, ResolveError> {
    let nobody = || ResolveError::NoCredentials {
        provider: id.clone(),
        name: snapshot.called(id).to_owned(),
        model: model.to_owned(),
    };
    let provider = snapshot.provider(id).ok_or_else(nobody)?.clone();
    if model.is_empty() {
        let name = snapshot.called(id);
        return Err(ResolveError::Invalid(format!("`{name}/` names a provider but no model")));
    }
    let (model, connection_name) = pinned(&provider, model);
    let model = current(&provider, model, connection_name.as_deref(), trail);
    let (via, suffixes, price) = (Via::Direct, Suffixes::default(), KnownPrice::default());
    Ok(Target { model, connection_name, provider, via, suffixes, price })
}

/// The model as the provider knows it now.
fn current(
    provider: &ProviderState,
    model: &str,
    connection_name: Option<&str>,
    trail: &mut impl Trail,
) -> Arc<str> {
    let name = provider.provider.spec().current_name(model);
    if let Some(account) = connection_name {
        trail.note(|| {
            let step = TrailStep::new("account", &format!("{model}@{account}"), model);
            step.because(format!("`{account}` is an account of the provider"))
        });
    }
    if name != model {
        trail.note(|| TrailStep::new("renamed", model, name));
    }
    name.into()
}

/// `model@account`, if what follows the last `@` names an account of the provider: of one that is switched off, too, so that
/// nobody else is asked in its place.
fn pinned<'a>(provider: &ProviderState, model: &'a str) -> (&'a str, Option<String>) {
    let is_account = |name: &str| {
        provider.connections.iter().any(|connection| *connection.name == *name)
            || provider.idle.iter().any(|account| *account.name == *name)
    };
    // Names of accounts may be addresses of mail.
    let named = split_at_signs(model).find(|(_, tail)| is_account(tail));
    named.map_or((model, None), |(head, tail)| (head, Some(tail.to_owned())))
}

/// The two sides of each `@` that something stands before.
fn split_at_signs(name: &str) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    name.match_indices('@').filter(|(at, _)| *at > 0).map(|(at, _)| (&name[..at], &name[at + 1..]))
}

fn bare(
    snapshot: &Snapshot,
    name: &str,
    preference: Preference<'_>,
    trail: &mut impl Trail,
) -> Result<Target, ResolveError> {
    let is_listed = |name: &str| !snapshot.providers_of_model(name).is_empty();
    let heads = || split_at_signs(name).rev().map(|(head, _)| head);
    let (plain, pin) = match heads().next().filter(|_| !is_listed(name)) {
        Some(last) => (heads().find(|head| is_listed(head)).unwrap_or(last), true),
        None => (name, false),
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
        [only] => Some((only, "the only provider here that lists it")),
        [] => vendor.map(|provider| (&provider.id, "no provider here lists it; the name is this vendor's")),
        several => {
            let first_of = |wanted: &[String]| {
                let known = |name: &String| snapshot.by_prefix(name);
                wanted.iter().filter_map(known).find_map(|id| several.iter().find(|other| *other == id))
            };
            let preferred = first_of(preference.prefer);
            let vendor = || vendor.map(|provider| &provider.id).filter(|id| several.contains(id));
            let ordered = || first_of(&snapshot.settings.provider_order);
            let any = || several.first().filter(|_| preference.settle);
            let preferred = preferred.map(|id| (id, "of several that list it the one that is preferred"));
            let vendor = || vendor().map(|id| (id, "of several that list it the vendor of the name"));
            let ordered = || ordered().map(|id| (id, "of several that list it the first of `providerOrder`"));
            let any = || any().map(|id| (id, "of several that list it any, as the key wants it"));
            Some(preferred.or_else(vendor).or_else(ordered).or_else(any).ok_or_else(|| {
                trail.note(|| {
                    TrailStep::vain("bare", name, "several providers here list it, and none comes first")
                });
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
    let Some((provider, why)) = owner.and_then(|(id, why)| Some((snapshot.provider(id)?, why))) else {
        trail.note(|| TrailStep::vain("bare", name, "no provider here lists it, and it is no vendor's name"));
        return Err(ResolveError::NotFound {
            model: plain.to_owned(),
            near: near(snapshot, plain),
            inactive: snapshot.catalog_providers_of(plain),
        });
    };
    let (model, connection_name) = if pin { pinned(provider, name) } else { (plain, None) };
    trail.note(|| {
        let step = TrailStep::new("bare", name, &format!("{}/{model}", provider.id));
        step.because(why.to_owned())
    });
    let model = current(provider, model, connection_name.as_deref(), trail);
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
