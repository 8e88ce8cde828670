//! What Google's models take, by their names. The vendor changes it with its models, not with its API:
//! <https://ai.google.dev/gemini-api/docs/thinking>, <https://ai.google.dev/gemini-api/docs/latest-model>.

use omniroute_dialect::{Caps, ir::Effort};

use crate::{ProviderSpec, dialects::GEMINI};

/// The newest version, for names that follow it.
const LATEST: (u32, u32) = (u32::MAX, 0);

const LOW_HIGH: &[Effort] = &[Effort::Low, Effort::High];
const FROM_LOW: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High];
const FROM_MINIMAL: &[Effort] = &[Effort::Minimal, Effort::Low, Effort::Medium, Effort::High];
/// They think or do not.
const ALL_OR_NOTHING: &[Effort] = &[Effort::Minimal, Effort::High];

/// Kind and version in the name of a model, in the spellings of all who sell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Google {
    Gemini { size: Size, version: (u32, u32) },
    Gemma { version: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Pro,
    Flash,
    FlashLite,
    Other,
}

/// Applies what the name tells.
pub(super) fn apply(caps: &mut Caps, spec: &ProviderSpec, model: &str) {
    match Google::parse(model) {
        Some(Google::Gemini { size, version }) => gemini(caps, size, version),
        // Served by others they take what their servers take.
        Some(Google::Gemma { version }) if spec.dialect == GEMINI => gemma(caps, version),
        Some(Google::Gemma { .. }) | None => {}
    }
}

fn gemini(caps: &mut Caps, size: Size, version: (u32, u32)) {
    let since = |first: (u32, u32)| version >= first;
    let caps = &mut caps.gemini;
    caps.json_schema = since((2, 5));
    caps.signed_calls = since((3, 0));
    caps.multimodal_results = since((3, 0));
    caps.schema_with_tools = since((3, 0));
    caps.penalties = !since(if size == Size::FlashLite { (3, 5) } else { (3, 6) });
    if since((3, 0)) {
        caps.thinking_off = false;
        caps.thinking_levels = match size {
            Size::FlashLite => FROM_MINIMAL,
            Size::Flash if !since((3, 7)) => FROM_MINIMAL,
            Size::Pro if !since((3, 1)) => LOW_HIGH,
            Size::Pro | Size::Flash | Size::Other => FROM_LOW,
        };
    } else {
        (caps.thinking_budget, caps.thinking_off) = match size {
            Size::Pro => ((128, 32_768), false),
            Size::FlashLite => ((512, 24_576), true),
            Size::Flash | Size::Other => ((0, 24_576), true),
        };
    }
}

fn gemma(caps: &mut Caps, version: u32) {
    caps.gemini.penalties = false;
    caps.gemini.multimodal_results = false;
    if version >= 4 {
        caps.gemini.thinking_levels = ALL_OR_NOTHING;
        caps.gemini.thinking_off = false;
    } else {
        caps.gemini.system = false;
        caps.tools = false;
        caps.json_schema = false;
        caps.reasoning = false;
    }
}

impl Google {
    /// `gemini-3.1-pro-preview`, `google/gemini-2.5-flash-lite-09-2025`, `models/gemini-flash-latest`, `gemma-3-27b-it`.
    fn parse(model: &str) -> Option<Self> {
        let name = model.rsplit('/').next().unwrap_or(model);
        if let Some(rest) = name.strip_prefix("gemma-") {
            let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
            return Some(Self::Gemma { version: number.parse().ok()? });
        }
        let rest = name.strip_prefix("gemini-")?;
        let mut parts = rest.split('-');
        let version = match parts.next().and_then(version) {
            Some(version) => version,
            None if rest.contains("latest") => LATEST,
            None => return None,
        };
        let size = if rest.contains("flash-lite") {
            Size::FlashLite
        } else if rest.contains("flash") {
            Size::Flash
        } else if rest.contains("pro") {
            Size::Pro
        } else {
            Size::Other
        };
        Some(Self::Gemini { size, version })
    }
}

/// `3.1` or `3`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use omniroute_dialect::GeminiCaps;

    use super::*;
    use crate::{caps::caps_of, catalog::catalog};

    fn caps(provider: &str, model: &str) -> Caps {
        let spec = catalog().provider(provider).expect("in the catalogue");
        caps_of(spec, model, catalog().model(&spec.id, model))
    }

    #[test]
    fn models_think_by_levels_or_budgets() {
        let none: &[Effort] = &[];
        for (model, levels, budget, off) in [
            ("gemini-2.5-pro", none, (128, 32_768), false),
            ("gemini-2.5-flash", none, (0, 24_576), true),
            ("gemini-2.5-flash-preview-09-2025", none, (0, 24_576), true),
            ("gemini-2.5-flash-lite", none, (512, 24_576), true),
            ("gemini-3-pro-preview", LOW_HIGH, (0, 32_768), false),
            ("gemini-3.1-pro-preview", FROM_LOW, (0, 32_768), false),
            ("gemini-3-flash-preview", FROM_MINIMAL, (0, 32_768), false),
            ("gemini-3.1-flash-lite", FROM_MINIMAL, (0, 32_768), false),
            ("gemini-3.8-flash", FROM_LOW, (0, 32_768), false),
            ("gemini-4-argon", FROM_LOW, (0, 32_768), false),
            ("gemini-flash-latest", FROM_LOW, (0, 32_768), false),
            ("gemini-flash-lite-latest", FROM_MINIMAL, (0, 32_768), false),
            ("gemma-4-31b-it", ALL_OR_NOTHING, (0, 32_768), false),
            ("gemini-omni-1.1-flash", none, (0, 32_768), true),
        ] {
            let found = caps("gemini", model).gemini;
            assert_eq!(
                (found.thinking_levels, found.thinking_budget, found.thinking_off),
                (levels, budget, off),
                "{model}"
            );
        }
    }

    #[test]
    fn models_differ_by_generation() {
        // JSON Schema, signed calls, multimodal results, schemas beside functions, penalties
        for (model, want) in [
            ("gemini-2.0-flash-001", [false, false, false, false, true]),
            ("gemini-2.5-pro", [true, false, false, false, true]),
            ("models/gemini-3-pro-preview", [true, true, true, true, true]),
            ("gemini-3.5-flash", [true, true, true, true, true]),
            ("gemini-3.5-flash-lite", [true, true, true, true, false]),
            ("gemini-3.8-flash", [true, true, true, true, false]),
            ("google/gemini-4-argon", [true, true, true, true, false]),
        ] {
            let found = caps("gemini", model).gemini;
            let found = [
                found.json_schema,
                found.signed_calls,
                found.multimodal_results,
                found.schema_with_tools,
                found.penalties,
            ];
            assert_eq!(found, want, "{model}");
        }
        assert_eq!(caps("gemini", "unheard-of").gemini, GeminiCaps::permissive());
    }

    #[test]
    fn open_models_take_less_at_the_vendors_own_endpoint() {
        let old = caps("gemini", "gemma-3-27b-it");
        assert_eq!([old.gemini.system, old.tools, old.json_schema, old.reasoning], [false; 4]);
        let new = caps("gemini", "gemma-4-26b-a4b-it");
        assert_eq!([new.gemini.system, new.tools, new.json_schema, new.reasoning], [true; 4]);
        assert!(caps("openrouter", "google/gemma-3-27b-it").gemini.system);
    }
}
