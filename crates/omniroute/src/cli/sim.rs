//! `omniroute sim`: the simulator over HTTP.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 20129)]
    port: u16,
}

impl Sim {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        super::on_runtime(async move {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
            let listener =
                TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
            super::print(&format!("simulator on http://{}", listener.local_addr()?))?;
            let stop = CancellationToken::new();
            let ended = stop.clone();
            let serving = omniroute_sim::serve(listener, ended);
            tokio::select! {
                done = serving => done.map_err(Into::into),
                () = super::interrupted() => { stop.cancel(); Ok(()) }
            }
        })
    }
}
