//! What an operator adds beside the database: provider files in `DATA_DIR/providers.d`, and keys of providers in the
//! environment.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use omniroute_domain::entity::{Connection, ConnectionId};
use omniroute_domain::snapshot::endpoints_of;
use omniroute_provider::ProviderSpec;
use omniroute_provider::catalog::{Catalog, catalog, parse_spec};
use omniroute_provider::registry::provider_for;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::settings::secret;

/// Folder of provider files within the data folder.
const FOLDER: &str = "providers.d";
/// Largest provider file.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Place of the environment's connections within their provider: behind all that were added by hand.
const LAST: i64 = 1_000_000;

/// A file with several providers.
#[derive(Deserialize)]
struct Several<'a> {
    #[serde(borrow)]
    providers: Vec<&'a RawValue>,
}

/// The built-in catalogue with the operator's files laid over it, which lives as long as the process. A file holds one
/// provider, a list of them, or a list as the member `providers`.
pub(crate) fn catalog_with(data_dir: &Path) -> anyhow::Result<&'static Catalog> {
    let mut specs: Vec<ProviderSpec> = Vec::new();
    for path in files(&data_dir.join(FOLDER))? {
        let size =
            std::fs::metadata(&path).with_context(|| format!("cannot read `{}`", path.display()))?.len();
        if size > MAX_FILE {
            bail!("`{}` is larger than {MAX_FILE} bytes", path.display());
        }
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let read = parse(&text).map_err(|problem| anyhow!("`{}`: {problem}", path.display()))?;
        for spec in read {
            if let Some(twin) = specs.iter().find(|other| other.id == spec.id) {
                bail!("`{}`: provider `{}` is in another file too", path.display(), twin.id);
            }
            specs.push(spec);
        }
    }
    if specs.is_empty() {
        return Ok(catalog());
    }
    let names: Vec<&str> = specs.iter().map(|spec| spec.id.as_str()).collect();
    tracing::info!(providers = names.join(", "), "taken from {FOLDER}");
    let merged = catalog().with(specs).map_err(|problems| anyhow!("`{FOLDER}`: {}", problems.join("; ")))?;
    Ok(Box::leak(Box::new(merged)))
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A data directory that is no directory is reported by whoever needs it.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory && !folder.exists() => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", folder.display())),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read `{}`", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(text: &str) -> Result<Vec<ProviderSpec>, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let several: Vec<&RawValue> = if text.starts_with('[') {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else if let Ok(several) = serde_json::from_str::<Several<'_>>(text) {
        several.providers
    } else {
        return Ok(vec![parse_spec(text)?]);
    };
    several.into_iter().map(|one| parse_spec(one.get())).collect()
}

/// A connection for every provider whose key is in the environment. Providers that need more than a key are left out.
pub(crate) fn environment_connections(
    catalog: &Catalog,
    env: &dyn Fn(&str) -> Option<String>,
    now_ms: i64,
) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for spec in catalog.providers() {
        let Some(variable) = spec.auth.env.as_deref() else { continue };
        let Some(key) = secret(env(variable), variable, env)? else { continue };
        let connection = Connection {
            priority: LAST,
            api_key: Some(key),
            ..Connection::new(
                ConnectionId::from(format!("env:{}", spec.id)),
                spec.id.clone(),
                variable,
                now_ms,
            )
        };
        match endpoints_of(&*provider_for(spec.clone()), &connection) {
            Ok(_) => {
                tracing::info!(provider = %spec.id, variable, "connection from the environment");
                connections.push(connection);
            }
            Err(error) => {
                tracing::warn!(provider = %spec.id, variable, %error, "this key needs a connection of its own");
            }
        }
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{"id":"mine","name":"Mine","alias":"my","aliases":[],"category":"inference",
        "base_url":"https://llm.example/v1","dialect":"openai-chat","alt_dialects":[],
        "auth":{"kind":"api_key","header":"Authorization","prefix":"Bearer ","env":"MINE_KEY","oauth":null},
        "headers":{},"vars":{},"paths":{},"capabilities":["chat"],"rate_limit_headers":"none",
        "resilience_profile":"apikey","models":["one"],"notes":null,"confidence":"high"}"#;

    fn overlaid(files: &[(&str, &str)]) -> anyhow::Result<&'static Catalog> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(FOLDER).join(name), text).unwrap();
        }
        catalog_with(folder.path())
    }

    #[test]
    fn provider_files_add_and_replace() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(catalog_with(folder.path()).unwrap().count(), catalog().count(), "no folder is fine");
        let other = SPEC.replace("mine", "groq").replace("\"my\"", "\"groq\"");
        let several = format!("{{\"providers\":[{SPEC},{other}]}}");
        let catalog = overlaid(&[("a.json", &several), ("notes.txt", "nothing")]).unwrap();
        assert_eq!(catalog.provider("my").map(|spec| spec.id.as_str()), Some("mine"));
        assert_eq!(
            catalog.provider("groq").map(|spec| spec.base_url.as_str()),
            Some("https://llm.example/v1")
        );
        assert_eq!(catalog.count(), super::catalog().count() + 1);
        assert!(overlaid(&[("list.json", &format!("[{SPEC}]"))]).is_ok());
    }

    #[test]
    fn mistakes_in_provider_files_are_named() {
        for (files, part) in [
            (vec![("bad.json", "{")], "bad.json"),
            (vec![("bad.json", &*SPEC.replace("openai-chat", "smoke"))], "smoke"),
            (vec![("bad.json", &*SPEC.replace("\"my\"", "\"openai\""))], "openai"),
            (vec![("a.json", SPEC), ("b.json", SPEC)], "b.json"),
        ] {
            let told = format!("{:#}", overlaid(&files).unwrap_err());
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn keys_in_the_environment_become_connections() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "from-a-file\n").unwrap();
        let env = |name: &str| match name {
            "OPENAI_API_KEY" => Some("sk-from-the-environment".to_owned()),
            "GROQ_API_KEY_FILE" => Some(path.display().to_string()),
            "MISTRAL_API_KEY" => Some(String::new()),
            _ => None,
        };
        let made = environment_connections(catalog(), &env, 7).unwrap();
        let mut told: Vec<_> = made.iter().map(|row| (row.id.as_str(), row.name.as_str())).collect();
        told.sort_unstable();
        assert_eq!(told, [("env:groq", "GROQ_API_KEY"), ("env:openai", "OPENAI_API_KEY")]);
        assert!(!format!("{made:?}").contains("sk-from"), "keys are not printed");
    }
}
