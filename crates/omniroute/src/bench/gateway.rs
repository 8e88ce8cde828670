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
    client,
    machine::Pins,
    process::{self, Child, Workspace},
    scenario::{self, Setting},
};

const TOKEN: &str = "omniroute-bench-management-token";
const PREFIX: &str = "bench";
/// A limit that is counted and never reached.
const PLENTY: u64 = 1_000_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway that knows the simulator.
#[derive(Debug)]
pub(super) struct Gateway {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
    log: PathBuf,
    key: String,
}

impl Gateway {
    /// Starts it on an empty folder and tells it, over its own management API, where the simulator is.
    pub(super) async fn start(
        pins: &Pins,
        workspace: &Workspace,
        program: &Path,
        simulator: SocketAddr,
    ) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
        let (data, log) = (workspace.file("data"), workspace.file("gateway.log"));
        let mut child = spawn(pins, program, address, &data, &log)?;
        let listening = process::listening(address).await;
        child.alive().context("the gateway")?;
        listening.context("the gateway does not start")?;
        let mut gateway = Self { child, address, data, log, key: String::new() };
        gateway.configure(simulator).await.with_context(|| {
            format!("cannot configure the gateway; it said: {}", gateway.child.last_words())
        })?;
        Ok(gateway)
    }

    /// Starts it again on the database it has now; the median time to the first good answer in milliseconds.
    pub(super) async fn restarts(self, pins: &Pins, program: &Path, times: usize) -> Result<(Self, f64)> {
        let mut gateway = self;
        let request = scenario::small_request(&gateway.setting());
        let mut found = Vec::with_capacity(times);
        for _ in 0..times {
            let Self { child, address, data, log, key } = gateway;
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
            found.push(start.elapsed().as_secs_f64() * 1000.0);
            gateway = Self { child, address, data, log, key };
        }
        found.sort_by(f64::total_cmp);
        Ok((gateway, found[found.len() / 2]))
    }

    /// How clients reach the simulator through it.
    pub(super) fn setting(&self) -> Setting {
        Setting { address: self.address, prefix: format!("{PREFIX}/"), key: self.key.clone() }
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

    async fn configure(&mut self, simulator: SocketAddr) -> Result<()> {
        let node = json!({"name": "bench", "prefix": PREFIX, "baseUrl": format!("http://{simulator}/v1"),
            "type": "openai-compatible", "apiType": "chat", "allowPrivate": true});
        let node = self.manage("/api/provider-nodes", &node).await?;
        let id = node["node"]["id"].as_str().context("the answer has no node id")?;
        let connection = json!({"provider": id, "name": "bench", "apiKey": "sk-bench"});
        self.manage("/api/providers", &connection).await?;
        let key = json!({"name": "bench", "maxRequestsPerMinute": PLENTY, "maxRequestsPerDay": PLENTY,
            "maxTokensPerMinute": PLENTY, "maxConcurrent": 100_000});
        let key = self.manage("/api/keys", &key).await?;
        key["key"].as_str().context("the answer has no key")?.clone_into(&mut self.key);
        Ok(())
    }

    async fn manage(&self, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n\
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
