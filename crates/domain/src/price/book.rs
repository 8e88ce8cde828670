//! The price of a model: what the operator set, else what was taken over from a list, else the catalogue's.

use std::collections::BTreeMap;

use omniroute_provider::{
    ProviderId,
    catalog::{Catalog, ModelMatch},
    model::ModelSpec,
};

use super::{PriceRow, PriceSource, Quote};

/// Prices that were set, by provider and model.
pub type Overrides = BTreeMap<ProviderId, BTreeMap<String, PriceRow>>;

/// The model name under which an operator sets the prices of all other models of a provider.
pub const EVERY_MODEL: &str = "*";

/// Most rows of one kind.
pub const MAX_ROWS: usize = 20_000;

/// Every price that is not of the catalogue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PriceBook {
    /// Those that the operator set.
    pub user: Overrides,
    /// Those that were taken over from a list.
    pub synced: Overrides,
}

impl PriceBook {
    /// The price of a model: the operator's, else the list's, else the catalogue's (all also under its dated or undated
    /// name), else for a gateway that of the model's maker. `None`: nobody knows, and costs are unknown.
    pub fn quote(&self, catalog: &Catalog, provider: &ProviderId, model: &str) -> Option<Quote> {
        let found = catalog.find_model(provider, model);
        // An operator who priced `x` means `x-2026-01-02` too, as the catalogue does.
        let dated = found.filter(|(_, how)| *how == ModelMatch::Dated).map(|(row, _)| row.model.as_str());
        let names = [Some(model), dated];
        if let Some(quote) = self.layered(provider, names, found.map(|(row, _)| row)) {
            return Some(quote);
        }
        let home = catalog.home_row(provider, model)?;
        let quote = self.layered(&home.provider, [Some(&home.model), None], Some(home))?;
        Some(Quote { source: PriceSource::Inferred, ..quote })
    }

    /// The row of each kind laid over the one below; what the upper leaves out the lower says.
    fn layered(
        &self,
        provider: &ProviderId,
        names: [Option<&str>; 2],
        built_in: Option<&ModelSpec>,
    ) -> Option<Quote> {
        let mut found = built_in.map(|row| (PriceRow::from(row), PriceSource::Catalog));
        let every = Some(EVERY_MODEL);
        for (rows, source, names) in [
            (&self.synced, PriceSource::Synced, [names[0], names[1], None]),
            (&self.user, PriceSource::User, [names[0], names[1], every]),
        ] {
            let models = rows.get(provider);
            let row = models.and_then(|models| names.iter().flatten().find_map(|name| models.get(*name)));
            if let Some(row) = row {
                let below = found.map(|(row, _)| row).unwrap_or_default();
                found = Some((row.over(&below), source));
            }
        }
        found.map(|(row, source)| Quote::new(row, source))
    }
}
