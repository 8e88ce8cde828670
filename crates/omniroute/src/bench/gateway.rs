//! This program as the gateway under test: keys, limits and log on, its database in a temporary folder.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    client, installation,
    machine::Pins,
    process::{self, Child, Workspace},
    scenario::{self, Setting},
};

const TOKEN: &str = "omniroute-bench-management-token";
const PREFIX: &str = "bench";
/// A limit that is counted and never reached.
pub(super) const PLENTY: u64 = 1_000_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// What a gateway is set up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// One account and one key.
    Single,
    /// What [`installation`] describes, without combos and budgets.
    Accounts,
    /// What [`installation`] describes.
    Installation,
}

/// A running gateway that knows the simulator.
#[derive(Debug)]
pub(super) struct Gateway {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
    log: PathBuf,
    key: String,
    size: Size,
}

impl Gateway {
    /// Starts it on an empty folder and sets it up, over its own management API, with the simulator as its upstream.
    pub(super) async fn start(
        pins: &Pins,
        workspace: &Workspace,
        program: &Path,
        simulator: SocketAddr,
        size: Size,
    ) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
        let (data, log) = match size {
            Size::Single => (workspace.file("data"), workspace.file("gateway.log")),
            Size::Accounts => (workspace.file("accounts-data"), workspace.file("accounts.log")),
            Size::Installation => (workspace.file("many-data"), workspace.file("many.log")),
        };
        let mut child = spawn(pins, program, address, &data, &log)?;
        let listening = process::listening(address).await;
        child.alive().context("the gateway")?;
        listening.context("the gateway does not start")?;
        let mut gateway = Self { child, address, data, log, key: String::new(), size };
        let configured = match size {
            Size::Single => gateway.configure(simulator).await,
            Size::Accounts => installation::set_up(&gateway, simulator, false).await,
            Size::Installation => installation::set_up(&gateway, simulator, true).await,
        };
        gateway.key = configured.with_context(|| {
            format!("cannot configure the gateway; it said: {}", gateway.child.last_words())
        })?;
        Ok(gateway)
    }

    /// Starts it again on the database it has now; the median time to the first good answer in milliseconds.
    pub(super) async fn restarts(self, pins: &Pins, program: &Path, times: usize) -> Result<(Self, f64)> {
        let mut gateway = self;
        let mut found = Vec::with_capacity(times);
        for _ in 0..times {
            let took;
            (gateway, took) = gateway.restart(pins, program).await?;
            found.push(took.as_secs_f64() * 1000.0);
        }
        found.sort_by(f64::total_cmp);
        Ok((gateway, found[found.len() / 2]))
    }

    /// Starts it again on the database it has now; the time to the first good answer.
    pub(super) async fn restart(self, pins: &Pins, program: &Path) -> Result<(Self, Duration)> {
        let request = scenario::small_request(&self.setting());
        let Self { child, address, data, log, key, size } = self;
        child.stop().await.context("the gateway")?;
        let start = Instant::now();
        let mut child = spawn(pins, program, address, &data, &log)?;
        loop {
            if let Ok(answer) = client::once(address, &request).await
                && answer.status == 200
            {
                break;
            }
            child.alive().context("the gateway")?;
            ensure!(
                start.elapsed() < PATIENCE,
                "no good answer within {PATIENCE:?} of the start; the gateway said: {}",
                child.last_words()
            );
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        Ok((Self { child, address, data, log, key, size }, start.elapsed()))
    }

    /// How clients reach the simulator through it.
    pub(super) fn setting(&self) -> Setting {
        let prefixes = match self.size {
            Size::Single => vec![format!("{PREFIX}/")],
            // Where the combos' steps lead, so that the same accounts are called.
            Size::Accounts => installation::asked_endpoints().map(|prefix| format!("{prefix}/")).collect(),
            // Combos have the names of the simulator's models.
            Size::Installation => vec![String::new()],
        };
        Setting { address: self.address, prefixes, key: self.key.clone() }
    }

    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        self.child.cpu_seconds()
    }

    pub(super) fn resident_mb(&self) -> Result<f64> {
        self.child.resident_mb()
    }

    pub(super) fn peak_mb(&self) -> Result<f64> {
        self.child.peak_mb()
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.child.stop().await.context("the gateway")
    }

    async fn configure(&self, simulator: SocketAddr) -> Result<String> {
        let node = self.add_node(PREFIX, simulator).await?;
        self.add_account(&node, "bench").await?;
        Ok(self.add_key("bench").await?.1)
    }

    /// Makes the simulator an endpoint with this prefix; its id.
    pub(super) async fn add_node(&self, prefix: &str, simulator: SocketAddr) -> Result<String> {
        let node = json!({"name": prefix, "prefix": prefix, "baseUrl": format!("http://{simulator}/v1"),
            "type": "openai-compatible", "apiType": "chat", "allowPrivate": true});
        let node = self.manage("POST", "/api/provider-nodes", &node).await?;
        Ok(node["node"]["id"].as_str().context("the answer has no node id")?.to_owned())
    }

    /// Adds an account to an endpoint.
    pub(super) async fn add_account(&self, node: &str, name: &str) -> Result<()> {
        let connection = json!({"provider": node, "name": name, "apiKey": format!("sk-{name}")});
        self.manage("POST", "/api/providers", &connection).await?;
        Ok(())
    }

    /// Makes a key with every limit, none of which is ever reached; its id and the key.
    pub(super) async fn add_key(&self, name: &str) -> Result<(String, String)> {
        let key = json!({"name": name, "maxRequestsPerMinute": PLENTY, "maxRequestsPerDay": PLENTY,
            "maxTokensPerMinute": PLENTY, "maxConcurrent": 100_000});
        let key = self.manage("POST", "/api/keys", &key).await?;
        let text = |member: &str| key[member].as_str().context("the answer has no key").map(str::to_owned);
        Ok((text("id")?, text("key")?))
    }

    pub(super) async fn manage(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let answer = client::once(self.address, request.as_bytes()).await.with_context(|| path.to_owned())?;
        let text = String::from_utf8_lossy(&answer.body);
        if !matches!(answer.status, 200 | 201) {
            bail!("{path} answers {}: {text}", answer.status);
        }
        serde_json::from_str(&text).with_context(|| format!("{path} answers {text}"))
    }
}

fn spawn(pins: &Pins, program: &Path, address: SocketAddr, data: &Path, log: &Path) -> Result<Child> {
    let mut command = pins.measured(program);
    command
        .arg("serve")
        .arg("--port")
        .arg(address.port().to_string())
        .arg("--data-dir")
        .arg(data)
        .env("MANAGEMENT_TOKEN", TOKEN)
        .env("INITIAL_PASSWORD", "omniroute-bench-password")
        .env("REQUIRE_API_KEY", "true");
    Child::spawn(&mut command, log)
}
