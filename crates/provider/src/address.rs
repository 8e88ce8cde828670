//! Which network addresses may be called. Checked after DNS, on the address that is then connected to.
//!
//! Three answers: fine; private, which a switch allows; and never, which no switch allows (link-local and the
//! metadata services of clouds hand out credentials, the rest is no place of a server).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

/// Why an address may not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("address {ip} is {what}")]
pub struct Blocked {
    /// The address.
    pub ip: IpAddr,
    /// What it is: `a loopback address`, …
    pub what: &'static str,
    /// Whether `allowPrivate` (or `ALLOW_PRIVATE_PROVIDER_URLS` for all) would allow it.
    pub can_be_allowed: bool,
}

/// How a range is treated.
#[derive(Clone, Copy)]
enum Rule {
    Private(&'static str),
    Never(&'static str),
}

use Rule::{Never, Private};

const METADATA: &str = "a cloud's metadata service";

/// First match wins.
static V4: &[(Ipv4Addr, u32, Rule)] = &[
    (Ipv4Addr::new(169, 254, 0, 0), 16, Never("link-local, where clouds keep their metadata service")),
    (Ipv4Addr::new(100, 100, 100, 200), 32, Never(METADATA)),
    (Ipv4Addr::new(168, 63, 129, 16), 32, Never(METADATA)),
    (Ipv4Addr::new(192, 0, 0, 192), 32, Never(METADATA)),
    (Ipv4Addr::new(0, 0, 0, 0), 32, Private("the unspecified address, which reaches this machine")),
    (Ipv4Addr::new(0, 0, 0, 0), 8, Never("reserved")),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Private("a loopback address")),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Private("a private address")),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Private("a private address")),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Private("a private address")),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Private("a shared address of a carrier")),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Private("an address for network tests")),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Never("reserved")),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Never("reserved for documentation")),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Never("reserved for documentation")),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Never("reserved for documentation")),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Never("a 6to4 relay")),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Never("a multicast address")),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Never("reserved")),
];

/// First match wins. Ranges that hold an IPv4 address are in [`embedded`].
static V6: &[(Ipv6Addr, u32, Rule)] = &[
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Never("link-local")),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, Never(METADATA)),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, Never(METADATA)),
    (Ipv6Addr::LOCALHOST, 128, Private("a loopback address")),
    (Ipv6Addr::UNSPECIFIED, 128, Private("the unspecified address, which reaches this machine")),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Private("a unique local address")),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Private("a site-local address")),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Never("a multicast address")),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Never("reserved for documentation")),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Never("reserved for documentation")),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, Never("a Teredo address")),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64, Never("a discard address")),
];

/// Whether `ip` may be called; `allow_private` is the operator's switch for the target.
pub fn verdict(ip: IpAddr, allow_private: bool) -> Result<(), Blocked> {
    let rule = match ip {
        IpAddr::V4(ip) => rule_v4(ip),
        IpAddr::V6(ip) => rule_v6(ip),
    };
    match rule {
        None => Ok(()),
        Some(Private(_)) if allow_private => Ok(()),
        Some(Private(what)) => Err(Blocked { ip, what, can_be_allowed: true }),
        Some(Never(what)) => Err(Blocked { ip, what, can_be_allowed: false }),
    }
}

/// The address that a URL names instead of a host.
pub fn host_literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Whether a URL names this machine or a private address, as far as can be told without DNS.
pub fn is_local_host(uri: &Uri) -> bool {
    if let Some(ip) = host_literal(uri) {
        return verdict(ip, false).is_err_and(|blocked| blocked.can_be_allowed);
    }
    uri.host().is_some_and(|host| {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        host == "localhost" || host.ends_with(".localhost")
    })
}

fn rule_v4(ip: Ipv4Addr) -> Option<Rule> {
    let bits = ip.to_bits();
    V4.iter().find(|(net, len, _)| (bits ^ net.to_bits()) >> (32 - len) == 0).map(|(_, _, rule)| *rule)
}

fn rule_v6(ip: Ipv6Addr) -> Option<Rule> {
    let bits = ip.to_bits();
    let listed = V6.iter().find(|(net, len, _)| (bits ^ net.to_bits()) >> (128 - len) == 0);
    match listed {
        Some((_, _, rule)) => Some(*rule),
        None => embedded(ip).and_then(rule_v4),
    }
}

/// The IPv4 address that packets to `ip` end up at.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = || {
        let [.., a, b, c, d] = ip.octets();
        Ipv4Addr::new(a, b, c, d)
    };
    match ip.segments() {
        // mapped, translated, compatible
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => Some(last()),
        // NAT64, well-known and local
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(last()),
        // 6to4
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let fine = [
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ];
        let private = [
            "0.0.0.0",
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.254",
            "198.18.0.1",
            "::1",
            "::",
            "fc00::1",
            "fd12:3456::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:192.168.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",
            "::ffff:0:10.0.0.1",
        ];
        let never = [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "192.0.0.8",
            "0.1.2.3",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "192.88.99.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "2001:0:1::1",
            "100::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::",
        ];
        for (list, closed, open) in
            [(&fine[..], "ok", "ok"), (&private, "private", "ok"), (&never, "never", "never")]
        {
            for ip in list {
                let ip: IpAddr = ip.parse().unwrap();
                let word = |allow| match verdict(ip, allow) {
                    Ok(()) => "ok",
                    Err(blocked) if blocked.can_be_allowed => "private",
                    Err(_) => "never",
                };
                assert_eq!((word(false), word(true)), (closed, open), "{ip}");
            }
        }
    }

    #[test]
    fn hosts_of_urls() {
        let cases = [
            ("http://127.0.0.1:8080/v1", Some("127.0.0.1"), true),
            ("http://[::1]:8080/v1", Some("::1"), true),
            ("http://192.168.0.5/v1", Some("192.168.0.5"), true),
            ("http://169.254.169.254/", Some("169.254.169.254"), false),
            ("https://8.8.8.8/", Some("8.8.8.8"), false),
            ("http://localhost/v1", None, true),
            ("http://LocalHost./v1", None, true),
            ("http://llm.localhost/v1", None, true),
            ("https://localhost.example/v1", None, false),
            ("https://api.example.com/v1", None, false),
        ];
        for (url, literal, local) in cases {
            let uri: Uri = url.parse().unwrap();
            assert_eq!(host_literal(&uri), literal.map(|ip| ip.parse().unwrap()), "{url}");
            assert_eq!(is_local_host(&uri), local, "{url}");
        }
    }
}
