//! Who is at the other end: the socket's peer, or whom a trusted proxy names.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use crate::state::Peer;

/// The other end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub ip: IpAddr,
    /// Whether it is a program on this machine. A proxy on this machine that is not trusted is none: what it forwards
    /// may come from anywhere.
    pub is_local: bool,
    /// Whether it speaks TLS to us or to a trusted proxy.
    pub is_https: bool,
}

impl Client {
    /// Reads the headers of proxies only where the peer is one of `trusted`.
    pub fn of(peer: Peer, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = peer.0.ip().to_canonical();
        let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
        let is_forwarded = headers.contains_key("x-forwarded-for") || headers.contains_key("forwarded");
        if !is_trusted(&peer) {
            return Self { ip: peer, is_local: peer.is_loopback() && !is_forwarded, is_https: false };
        }
        // The right-most hop that is not one of ours; whatever stands left of it is the client's own claim.
        let hops = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = hops.flat_map(|value| value.split(',')).map(str::trim).collect();
        let mut ip = peer;
        for hop in hops.iter().rev() {
            let Some(hop) = parse_hop(hop) else { break };
            ip = hop;
            if !is_trusted(&hop) {
                break;
            }
        }
        let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_https =
            proto.split(',').next_back().is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"));
        Self { ip, is_local: ip.is_loopback(), is_https }
    }
}

fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[');
    let ip = text
        .parse()
        .ok()
        .or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| bare.split(']').next()?.parse().ok());
    ip.map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_count_only_behind_trusted_proxies() {
        let trusted: Vec<IpNet> =
            vec!["10.0.0.0/8".parse().expect("net"), "127.0.0.1/32".parse().expect("net")];
        for (peer, forwarded, proxies, ip, is_local) in [
            ("203.0.113.9:1", Some("127.0.0.1"), &trusted[..], "203.0.113.9", false),
            ("127.0.0.1:1", None, &[][..], "127.0.0.1", true),
            ("127.0.0.1:1", Some("203.0.113.7"), &[][..], "127.0.0.1", false),
            ("10.0.0.2:1", Some("127.0.0.1, 203.0.113.7, 10.0.0.1"), &trusted[..], "203.0.113.7", false),
            ("127.0.0.1:1", Some("203.0.113.7"), &trusted[..], "203.0.113.7", false),
            ("127.0.0.1:1", Some("nonsense"), &trusted[..], "127.0.0.1", true),
            ("10.0.0.2:1", Some("[2001:db8::1]:443"), &trusted[..], "2001:db8::1", false),
            ("[::ffff:127.0.0.1]:1", None, &[][..], "127.0.0.1", true),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(forwarded) = forwarded {
                headers.insert("x-forwarded-for", forwarded.parse().expect("value"));
            }
            let client = Client::of(Peer(peer.parse().expect("address")), &headers, proxies);
            assert_eq!(
                (client.ip.to_string().as_str(), client.is_local),
                (ip, is_local),
                "{peer} {forwarded:?}"
            );
        }
    }
}
