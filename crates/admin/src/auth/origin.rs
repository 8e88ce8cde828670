//! Requests that a browser sends on behalf of another site, and names that point to this machine from outside.

use std::net::IpAddr;

use http::{HeaderMap, Method, header};

use crate::error::{AdminResult, csrf};

/// Refuses a changing request that another site made a browser send.
///
/// Programs send none of the headers that are looked at and pass.
pub(crate) fn check_origin(
    method: &Method,
    headers: &HeaderMap,
    uri_host: Option<&str>,
    public_url: Option<&str>,
) -> AdminResult<()> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    if let Some(site) = text(headers, "sec-fetch-site")
        && !matches!(site, "same-origin" | "none")
    {
        return Err(csrf("a page of another site sent this request"));
    }
    let from = text(headers, header::ORIGIN.as_str()).or_else(|| text(headers, header::REFERER.as_str()));
    let Some(from) = from else { return Ok(()) };
    let same = authority_of(from).is_some_and(|from| {
        host_of(headers, uri_host).is_some_and(|host| host.eq_ignore_ascii_case(from))
            || public_url.and_then(authority_of).is_some_and(|public| public.eq_ignore_ascii_case(from))
    });
    if same { Ok(()) } else { Err(csrf("`Origin` or `Referer` names another host than `Host`")) }
}

/// Refuses a local browser that was made to believe that a foreign name is this machine.
pub(crate) fn check_host(
    headers: &HeaderMap,
    uri_host: Option<&str>,
    public_url: Option<&str>,
) -> AdminResult<()> {
    let Some(host) = host_of(headers, uri_host) else { return Ok(()) };
    let name = name_of(host);
    let is_plain = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    let is_public =
        public_url.and_then(authority_of).is_some_and(|public| name_of(public).eq_ignore_ascii_case(name));
    if is_plain || is_public {
        return Ok(());
    }
    Err(csrf(format!(
        "`Host: {}` is not expected here; use localhost, or set `publicUrl` to the name you use",
        name.chars().take(100).collect::<String>()
    )))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"))
}

fn host_of<'a>(headers: &'a HeaderMap, uri_host: Option<&'a str>) -> Option<&'a str> {
    text(headers, header::HOST.as_str()).or(uri_host).map(without_default_port)
}

/// `host[:port]` of a URL; the port is left out where it is the scheme's own.
fn authority_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().filter(|authority| !authority.is_empty())?;
    let authority = authority.rsplit('@').next()?;
    let own = match scheme.to_ascii_lowercase().as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    Some(authority.strip_suffix(own).unwrap_or(authority))
}

fn without_default_port(host: &str) -> &str {
    host.strip_suffix(":443").or_else(|| host.strip_suffix(":80")).unwrap_or(host)
}

/// The host without a port, and without the brackets of IPv6.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().expect("value")))
            .collect()
    }

    #[test]
    fn writes_come_from_the_same_host() {
        let public = Some("https://gw.example");
        for (pairs, allowed) in [
            (&[][..], true),
            (&[("host", "localhost:20128"), ("origin", "http://localhost:20128")], true),
            (&[("host", "localhost:20128"), ("origin", "http://localhost:3000")], false),
            (&[("host", "localhost:20128"), ("origin", "null")], false),
            (&[("host", "gw.example"), ("origin", "https://gw.example")], true),
            (&[("host", "gw.example:443"), ("origin", "https://gw.example")], true),
            (&[("host", "inner:8080"), ("origin", "https://gw.example")], true),
            (&[("host", "gw.example"), ("referer", "https://gw.example/dashboard?x")], true),
            (&[("host", "gw.example"), ("referer", "https://gw.example.evil.test/")], false),
            (&[("host", "gw.example"), ("referer", "https://gw.example@evil.test/")], false),
            (&[("host", "gw.example"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "gw.example"), ("sec-fetch-site", "same-site")], false),
            (&[("host", "gw.example"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "gw.example"), ("sec-fetch-site", "none")], true),
        ] {
            let result = check_origin(&Method::POST, &headers(pairs), None, public);
            assert_eq!(result.is_ok(), allowed, "{pairs:?}");
            assert!(check_origin(&Method::GET, &headers(pairs), None, public).is_ok());
        }
    }

    #[test]
    fn local_names_are_local() {
        for (host, allowed) in [
            ("localhost:20128", true),
            ("127.0.0.1:20128", true),
            ("[::1]:20128", true),
            ("LOCALHOST", true),
            ("gw.example:20128", true),
            ("evil.test:20128", false),
            ("localhost.evil.test", false),
            ("127.0.0.1.evil.test", false),
        ] {
            let result = check_host(&headers(&[("host", host)]), None, Some("https://gw.example"));
            assert_eq!(result.is_ok(), allowed, "{host}");
        }
    }
}
