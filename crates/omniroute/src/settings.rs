//! Settings of the process start: command line, then environment, then file, then default. Read once, immutable.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use ipnet::IpNet;
use omniroute_domain::snapshot::parse_network;
use omniroute_engine::{EngineOptions, KeyPolicy};
use secrecy::SecretString;
use serde::Deserialize;

/// What the command line and the environment say. Names of the environment carry no prefix.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct BootArgs {
    /// Port of the gateway.
    #[arg(long, env = "PORT")]
    port: Option<u16>,
    /// A further port, for client routes only.
    #[arg(long, env = "API_PORT")]
    api_port: Option<u16>,
    /// A further port, for everything but client routes.
    #[arg(long, env = "DASHBOARD_PORT")]
    dashboard_port: Option<u16>,
    /// Address to listen on.
    #[arg(long, env = "HOST")]
    host: Option<IpAddr>,
    /// Folder of the database and the key file.
    #[arg(long, env = "DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// A Postgres URL, instead of the embedded database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// A TOML file with the same names in lower case; default `omniroute.toml` in the data folder.
    #[arg(long, env = "OMNIROUTE_CONFIG")]
    config: Option<PathBuf>,
    /// The administrator's first password.
    #[arg(long, env = "INITIAL_PASSWORD", hide_env_values = true)]
    initial_password: Option<String>,
    /// A bearer token for the management API.
    #[arg(long, env = "MANAGEMENT_TOKEN", hide_env_values = true)]
    management_token: Option<String>,
    /// Signs session cookies; generated and kept in the database when unset.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    jwt_secret: Option<String>,
    /// Encrypts secrets at rest; generated and kept in the data folder when unset.
    #[arg(long, env = "STORAGE_ENCRYPTION_KEY", hide_env_values = true)]
    storage_encryption_key: Option<String>,
    /// The key before, while secrets are still encrypted with it.
    #[arg(long, env = "STORAGE_ENCRYPTION_KEY_PREVIOUS", hide_env_values = true)]
    storage_encryption_key_previous: Option<String>,
    /// Whether clients need a key; unset: everybody but programs on this machine.
    #[arg(long, env = "REQUIRE_API_KEY")]
    require_api_key: Option<bool>,
    /// Mark session cookies as for https only.
    #[arg(long, env = "AUTH_COOKIE_SECURE")]
    auth_cookie_secure: Option<bool>,
    /// Networks of proxies whose X-Forwarded-For is believed, separated by commas.
    #[arg(long, env = "TRUSTED_PROXIES")]
    trusted_proxies: Option<String>,
    /// Origins of web pages that may call the gateway, separated by commas (CORS_ORIGIN is the older name).
    #[arg(long, env = "CORS_ORIGINS")]
    cors_origins: Option<String>,
    /// Let every connection call private and loopback addresses.
    #[arg(long, env = "ALLOW_PRIVATE_PROVIDER_URLS")]
    allow_private_provider_urls: Option<bool>,
    /// Let /api/restart and /api/shutdown be called from other machines.
    #[arg(long, env = "ALLOW_REMOTE_LIFECYCLE")]
    allow_remote_lifecycle: Option<bool>,
    /// Limit of client request bodies in bytes.
    #[arg(long, env = "MAX_BODY_SIZE_BYTES")]
    max_body_size_bytes: Option<usize>,
    /// Limit for the first byte of an upstream's answer, in milliseconds.
    #[arg(long, env = "FETCH_TIMEOUT_MS")]
    fetch_timeout_ms: Option<u64>,
    /// Limit for connecting to an upstream, in milliseconds.
    #[arg(long, env = "FETCH_CONNECT_TIMEOUT_MS")]
    fetch_connect_timeout_ms: Option<u64>,
    /// Limit for silence within an upstream's answer, in milliseconds.
    #[arg(long, env = "STREAM_IDLE_TIMEOUT_MS")]
    stream_idle_timeout_ms: Option<u64>,
    /// Whether images and documents that clients name by a public address are fetched for upstreams that do not.
    #[arg(long, env = "FETCH_MEDIA")]
    fetch_media: Option<bool>,
    /// How long running requests may take to finish when the gateway stops, in milliseconds.
    #[arg(long, env = "SHUTDOWN_TIMEOUT_MS")]
    shutdown_timeout_ms: Option<u64>,
    /// Days until log rows are deleted; comes before the setting logRetentionDays.
    #[arg(long, env = "LOG_RETENTION_DAYS", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    log_retention_days: Option<u32>,
    /// Most rows in the request log; comes before the setting callLogMaxEntries.
    #[arg(long, env = "CALL_LOG_MAX_ENTRIES", value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    call_log_max_entries: Option<u32>,
    /// Ids of client keys of which no bodies are kept, separated by commas; the same as noLog of each.
    #[arg(long, env = "NO_LOG_API_KEY_IDS")]
    no_log_api_key_ids: Option<String>,
    /// How long an answer is kept for who asks for the same, in milliseconds; comes before the setting semanticCacheTtlMs.
    #[arg(long, env = "SEMANTIC_CACHE_TTL_MS", value_parser = clap::value_parser!(u32).range(1_000..=2_592_000_000))]
    semantic_cache_ttl_ms: Option<u32>,
    /// Most of these answers in memory; comes before the setting semanticCacheMaxSize.
    #[arg(long, env = "SEMANTIC_CACHE_MAX_SIZE", value_parser = clap::value_parser!(u32).range(..=100_000))]
    semantic_cache_max_size: Option<u32>,
    /// What is logged: `error`, `warn`, `info`, `debug`, or a filter such as `omniroute_engine=debug`.
    #[arg(long, env = "LOG_LEVEL")]
    log_level: Option<String>,
    /// How it is logged: `text` or `json`.
    #[arg(long, env = "LOG_FORMAT")]
    log_format: Option<String>,
    /// A supervisor starts the process again when it ends with 75.
    #[arg(long, env = "OMNIROUTE_SUPERVISED", hide = true)]
    supervised: Option<bool>,
}

/// The same in a file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSettings {
    port: Option<u16>,
    api_port: Option<u16>,
    dashboard_port: Option<u16>,
    host: Option<IpAddr>,
    database_url: Option<String>,
    require_api_key: Option<bool>,
    auth_cookie_secure: Option<bool>,
    trusted_proxies: Option<String>,
    cors_origins: Option<String>,
    allow_private_provider_urls: Option<bool>,
    allow_remote_lifecycle: Option<bool>,
    max_body_size_bytes: Option<usize>,
    fetch_timeout_ms: Option<u64>,
    fetch_connect_timeout_ms: Option<u64>,
    stream_idle_timeout_ms: Option<u64>,
    fetch_media: Option<bool>,
    shutdown_timeout_ms: Option<u64>,
    no_log_api_key_ids: Option<String>,
    log_level: Option<String>,
    log_format: Option<LogFormat>,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// The settings in force.
#[derive(Debug, Clone)]
pub(crate) struct BootSettings {
    pub(crate) listen: SocketAddr,
    pub(crate) api_port: Option<u16>,
    pub(crate) dashboard_port: Option<u16>,
    pub(crate) data_dir: PathBuf,
    pub(crate) database_url: Option<SecretString>,
    pub(crate) initial_password: Option<SecretString>,
    pub(crate) management_token: Option<SecretString>,
    pub(crate) jwt_secret: Option<SecretString>,
    pub(crate) encryption_key: Option<SecretString>,
    pub(crate) previous_encryption_key: Option<SecretString>,
    pub(crate) require_api_key: Option<bool>,
    pub(crate) cookie_secure: bool,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) allow_private: bool,
    pub(crate) allow_remote_lifecycle: bool,
    pub(crate) max_body_bytes: usize,
    pub(crate) fetch_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) stream_idle_timeout: Duration,
    pub(crate) fetch_media: bool,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) log_retention_days: Option<u32>,
    pub(crate) call_log_max_entries: Option<u32>,
    pub(crate) no_log_keys: Vec<String>,
    pub(crate) semantic_cache_ttl_ms: Option<u32>,
    pub(crate) semantic_cache_max_size: Option<u32>,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    pub(crate) supervised: bool,
}

const DEFAULT_PORT: u16 = 20128;
/// Limit of client request bodies unless one is set.
pub(crate) const DEFAULT_MAX_BODY: usize = 50 * 1024 * 1024;

impl BootSettings {
    /// Puts the sources together. Names the setting that is wrong.
    pub(crate) fn resolve(args: BootArgs, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let data_dir = match &args.data_dir {
            Some(folder) => folder.clone(),
            None => default_data_dir(env)?,
        };
        let file = read_file(args.config.as_deref(), &data_dir)?;
        let secret = |given: Option<String>, name: &str| secret(given, name, env);
        let millis = |value: Option<u64>, default: u64| Duration::from_millis(value.unwrap_or(default));
        let log_format = match args.log_format.as_deref() {
            None => file.log_format.unwrap_or_default(),
            Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => bail!("LOG_FORMAT is `{other}`; it must be `text` or `json`"),
        };
        let settings = Self {
            listen: SocketAddr::new(
                args.host.or(file.host).unwrap_or(IpAddr::from([127, 0, 0, 1])),
                args.port.or(file.port).unwrap_or(DEFAULT_PORT),
            ),
            api_port: args.api_port.or(file.api_port),
            dashboard_port: args.dashboard_port.or(file.dashboard_port),
            data_dir,
            database_url: secret(args.database_url.or(file.database_url), "DATABASE_URL")?,
            initial_password: secret(args.initial_password, "INITIAL_PASSWORD")?,
            management_token: secret(args.management_token, "MANAGEMENT_TOKEN")?,
            jwt_secret: secret(args.jwt_secret, "JWT_SECRET")?,
            encryption_key: secret(args.storage_encryption_key, "STORAGE_ENCRYPTION_KEY")?,
            previous_encryption_key: secret(
                args.storage_encryption_key_previous,
                "STORAGE_ENCRYPTION_KEY_PREVIOUS",
            )?,
            require_api_key: args.require_api_key.or(file.require_api_key),
            cookie_secure: args.auth_cookie_secure.or(file.auth_cookie_secure).unwrap_or(false),
            trusted_proxies: networks(args.trusted_proxies.or(file.trusted_proxies))?,
            cors_origins: list(args.cors_origins.or_else(|| env("CORS_ORIGIN")).or(file.cors_origins)),
            allow_private: args
                .allow_private_provider_urls
                .or(file.allow_private_provider_urls)
                .unwrap_or(false),
            allow_remote_lifecycle: args
                .allow_remote_lifecycle
                .or(file.allow_remote_lifecycle)
                .unwrap_or(false),
            max_body_bytes: args.max_body_size_bytes.or(file.max_body_size_bytes).unwrap_or(DEFAULT_MAX_BODY),
            fetch_timeout: millis(args.fetch_timeout_ms.or(file.fetch_timeout_ms), 600_000),
            connect_timeout: millis(args.fetch_connect_timeout_ms.or(file.fetch_connect_timeout_ms), 30_000),
            stream_idle_timeout: millis(args.stream_idle_timeout_ms.or(file.stream_idle_timeout_ms), 600_000),
            fetch_media: args.fetch_media.or(file.fetch_media).unwrap_or(true),
            shutdown_timeout: millis(args.shutdown_timeout_ms.or(file.shutdown_timeout_ms), 30_000),
            log_retention_days: args.log_retention_days,
            call_log_max_entries: args.call_log_max_entries,
            no_log_keys: list(args.no_log_api_key_ids.or(file.no_log_api_key_ids)),
            semantic_cache_ttl_ms: args.semantic_cache_ttl_ms,
            semantic_cache_max_size: args.semantic_cache_max_size,
            log_level: args.log_level.or(file.log_level).unwrap_or_else(|| "info".to_owned()),
            log_format,
            supervised: args.supervised.unwrap_or(false),
        };
        if settings.management_token.as_ref().is_some_and(token_is_weak) {
            bail!(
                "MANAGEMENT_TOKEN is shorter than 16 characters; use at least that many, best of all random ones"
            );
        }
        Ok(settings)
    }

    /// What the engine needs of them.
    pub(crate) fn engine(&self) -> EngineOptions {
        EngineOptions {
            key_policy: match self.require_api_key {
                Some(true) => KeyPolicy::Required,
                Some(false) => KeyPolicy::Optional,
                None => KeyPolicy::OptionalOnLoopback,
            },
            cors_origins: self.cors_origins.clone(),
            first_byte_timeout: self.fetch_timeout,
            stream_idle_timeout: self.stream_idle_timeout,
            fetch_media: self.fetch_media,
            ..EngineOptions::default()
        }
    }

    /// One line per setting, secrets left out.
    pub(crate) fn describe(&self) -> String {
        let is_set = |secret: &Option<SecretString>| if secret.is_some() { "(set)" } else { "(not set)" };
        let number = |number: Option<u32>| number.map_or("(not set)".into(), |number| number.to_string());
        let port = |port: Option<u16>| number(port.map(u32::from));
        let networks: Vec<String> = self.trusted_proxies.iter().map(ToString::to_string).collect();
        let rows = [
            ("HOST", self.listen.ip().to_string()),
            ("PORT", self.listen.port().to_string()),
            ("API_PORT", port(self.api_port)),
            ("DASHBOARD_PORT", port(self.dashboard_port)),
            ("DATA_DIR", self.data_dir.display().to_string()),
            ("DATABASE_URL", is_set(&self.database_url).to_owned()),
            ("INITIAL_PASSWORD", is_set(&self.initial_password).to_owned()),
            ("MANAGEMENT_TOKEN", is_set(&self.management_token).to_owned()),
            ("JWT_SECRET", is_set(&self.jwt_secret).to_owned()),
            ("STORAGE_ENCRYPTION_KEY", is_set(&self.encryption_key).to_owned()),
            ("STORAGE_ENCRYPTION_KEY_PREVIOUS", is_set(&self.previous_encryption_key).to_owned()),
            (
                "REQUIRE_API_KEY",
                self.require_api_key.map_or("(unset: all but loopback)".into(), |on| on.to_string()),
            ),
            ("AUTH_COOKIE_SECURE", self.cookie_secure.to_string()),
            ("TRUSTED_PROXIES", networks.join(",")),
            ("CORS_ORIGINS", self.cors_origins.join(",")),
            ("ALLOW_PRIVATE_PROVIDER_URLS", self.allow_private.to_string()),
            ("ALLOW_REMOTE_LIFECYCLE", self.allow_remote_lifecycle.to_string()),
            ("MAX_BODY_SIZE_BYTES", self.max_body_bytes.to_string()),
            ("FETCH_TIMEOUT_MS", self.fetch_timeout.as_millis().to_string()),
            ("FETCH_CONNECT_TIMEOUT_MS", self.connect_timeout.as_millis().to_string()),
            ("STREAM_IDLE_TIMEOUT_MS", self.stream_idle_timeout.as_millis().to_string()),
            ("FETCH_MEDIA", self.fetch_media.to_string()),
            ("SHUTDOWN_TIMEOUT_MS", self.shutdown_timeout.as_millis().to_string()),
            ("LOG_RETENTION_DAYS", number(self.log_retention_days)),
            ("CALL_LOG_MAX_ENTRIES", number(self.call_log_max_entries)),
            ("NO_LOG_API_KEY_IDS", self.no_log_keys.join(",")),
            ("SEMANTIC_CACHE_TTL_MS", number(self.semantic_cache_ttl_ms)),
            ("SEMANTIC_CACHE_MAX_SIZE", number(self.semantic_cache_max_size)),
            ("LOG_LEVEL", self.log_level.clone()),
            ("LOG_FORMAT", format!("{:?}", self.log_format).to_lowercase()),
        ];
        rows.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n")
    }
}

/// The process's environment. The only place that reads it besides the command line's parser.
#[allow(clippy::disallowed_methods, reason = "this is the settings module")]
pub(crate) fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn token_is_weak(token: &SecretString) -> bool {
    use secrecy::ExposeSecret as _;
    token.expose_secret().len() < 16
}

/// A secret given directly, or in the file that `<NAME>_FILE` names.
pub(crate) fn secret(
    given: Option<String>,
    name: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<SecretString>> {
    if let Some(text) = given.filter(|text| !text.is_empty()) {
        return Ok(Some(text.into()));
    }
    let Some(path) = env(&format!("{name}_FILE")) else { return Ok(None) };
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{name}_FILE names `{path}`, which cannot be read"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        bail!("{name}_FILE names `{path}`, which is empty");
    }
    Ok(Some(text.to_owned().into()))
}

fn read_file(given: Option<&Path>, data_dir: &Path) -> anyhow::Result<FileSettings> {
    let usual = data_dir.join("omniroute.toml");
    let path = given.unwrap_or(&usual);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        // A data directory that is no directory is reported by whoever needs it.
        Err(error)
            if given.is_none()
                && matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
        {
            return Ok(FileSettings::default());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    };
    toml::from_str(&text).with_context(|| format!("`{}` is not valid", path.display()))
}

/// `$XDG_DATA_HOME/omniroute`, else `~/.omniroute`.
fn default_data_dir(env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = env("XDG_DATA_HOME").filter(|folder| !folder.is_empty()) {
        return Ok(Path::new(&folder).join("omniroute"));
    }
    match env("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(Path::new(&home).join(".omniroute")),
        None => bail!("there is no HOME; say with DATA_DIR where the database belongs"),
    }
}

fn list(text: Option<String>) -> Vec<String> {
    text.unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

fn networks(text: Option<String>) -> anyhow::Result<Vec<IpNet>> {
    list(text)
        .iter()
        .map(|entry| {
            parse_network(entry)
                .with_context(|| format!("`{entry}` in TRUSTED_PROXIES is neither an address nor a network"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn command_line_beats_file_beats_default() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("omniroute.toml"), "port = 1234\nlog_level = \"debug\"\n").unwrap();
        let args = |port| BootArgs { port, data_dir: Some(folder.path().to_owned()), ..BootArgs::default() };
        let settings = BootSettings::resolve(args(None), &none).unwrap();
        assert_eq!((settings.listen.port(), settings.log_level.as_str()), (1234, "debug"));
        assert_eq!(BootSettings::resolve(args(Some(9)), &none).unwrap().listen.port(), 9);
    }

    #[test]
    fn mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |change: fn(&mut BootArgs)| {
            let mut args = BootArgs { data_dir: Some(folder.path().to_owned()), ..BootArgs::default() };
            change(&mut args);
            format!("{:#}", BootSettings::resolve(args, &none).unwrap_err())
        };
        assert!(at(|args| args.trusted_proxies = Some("10.0.0.0/8, nonsense".into())).contains("nonsense"));
        assert!(at(|args| args.management_token = Some("short".into())).contains("MANAGEMENT_TOKEN"));
        assert!(at(|args| args.log_format = Some("xml".into())).contains("LOG_FORMAT"));
        std::fs::write(folder.path().join("omniroute.toml"), "prot = 1\n").unwrap();
        assert!(at(|_| {}).contains("prot"));
    }

    #[test]
    fn secrets_may_come_from_files_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "a-long-enough-management-token\n").unwrap();
        let env = |name: &str| (name == "MANAGEMENT_TOKEN_FILE").then(|| path.display().to_string());
        let args = BootArgs { data_dir: Some(folder.path().to_owned()), ..BootArgs::default() };
        let settings = BootSettings::resolve(args, &env).unwrap();
        assert!(settings.management_token.is_some());
        assert!(settings.describe().contains("MANAGEMENT_TOKEN=(set)"));
        assert!(!format!("{settings:?}{}", settings.describe()).contains("long-enough"));
    }
}
