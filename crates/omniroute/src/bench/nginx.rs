//! nginx as a plain reverse proxy: the yardstick.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};

use super::{
    machine::Pins,
    process::{self, Child, Workspace},
};

const PLACES: [&str; 4] =
    ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx", "/usr/local/bin/nginx"];

/// A running nginx.
#[derive(Debug)]
pub(super) struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    /// Starts one in front of the simulator; `None` when it is not installed.
    pub(super) async fn start(
        pins: &Pins,
        workspace: &Workspace,
        simulator: SocketAddr,
    ) -> Result<Option<Self>> {
        let Some(program) = PLACES.iter().map(Path::new).find(|path| path.exists()) else { return Ok(None) };
        let address = SocketAddr::from(([127, 0, 0, 1], process::free_port()?));
        let config = workspace.file("nginx.conf");
        fs::write(&config, configuration(workspace, simulator, address))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = pins.measured(program);
        command.arg("-c").arg(&config).arg("-e").arg(workspace.file("nginx-error.log"));
        let mut child = Child::spawn(&mut command, &workspace.file("nginx.log"))?;
        let listening = process::listening(address).await;
        child.alive().context("nginx")?;
        listening.context("nginx does not start")?;
        Ok(Some(Self { child, address }))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        self.child.cpu_seconds()
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.child.stop().await.context("nginx")
    }
}

/// One process, so that nothing is left behind when it is killed; kept connections on both sides; nothing buffered,
/// nothing logged.
fn configuration(workspace: &Workspace, simulator: SocketAddr, address: SocketAddr) -> String {
    let file = |name: &str| workspace.file(name).display().to_string();
    format!(
        "daemon off;
master_process off;
pid {pid};
error_log {error_log} warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {body};
    proxy_temp_path {proxy};
    fastcgi_temp_path {other}-fastcgi;
    uwsgi_temp_path {other}-uwsgi;
    scgi_temp_path {other}-scgi;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    tcp_nodelay on;
    upstream simulator {{
        server {simulator};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address} backlog=4096;
        location / {{
            proxy_pass http://simulator;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
",
        pid = file("nginx.pid"),
        error_log = file("nginx-error.log"),
        body = file("nginx-body"),
        proxy = file("nginx-proxy"),
        other = file("nginx"),
    )
}
