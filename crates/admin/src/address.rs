//! Whether a URL of an upstream may be saved. The same is asked again when it is called, on the address that DNS
//! answers then; this check is for telling people early.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use omniroute_provider::address::{Blocked, host_literal, verdict};

use crate::error::{AdminResult, invalid_field, url_blocked};

/// How long DNS may take before the check is left to the first call.
const DNS_LIMIT: Duration = Duration::from_secs(5);

/// Refuses URLs that cannot be called, or may not be.
pub(crate) async fn check_url(field: &str, url: &str, allow_private: bool) -> AdminResult<()> {
    let uri: Uri = url.parse().map_err(|_| invalid_field(field, "must be a URL like https://host/v1"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(invalid_field(field, "must begin with http:// or https://"));
    }
    let host = uri.host().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| invalid_field(field, "must name a host"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(invalid_field(field, "must not hold a user name or password; use a key"));
    }
    if let Some(ip) = host_literal(&uri) {
        return judge(field, ip, allow_private);
    }
    let port = uri.port_u16().unwrap_or(443);
    // A name that does not resolve now may do so later.
    if let Ok(Ok(addresses)) = tokio::time::timeout(DNS_LIMIT, tokio::net::lookup_host((host, port))).await {
        for address in addresses {
            judge(field, address.ip(), allow_private)?;
        }
    }
    Ok(())
}

fn judge(field: &str, ip: IpAddr, allow_private: bool) -> AdminResult<()> {
    let Err(blocked) = verdict(ip, allow_private) else { return Ok(()) };
    let Blocked { can_be_allowed, .. } = blocked;
    let advice = if can_be_allowed {
        "set `allowPrivate: true` here, or ALLOW_PRIVATE_PROVIDER_URLS=true for all"
    } else {
        "no setting allows it"
    };
    Err(url_blocked(field, format!("{blocked}; {advice}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_are_checked_before_they_are_saved() {
        for (url, allow_private, code) in [
            ("https://93.184.216.34/v1", false, None),
            ("http://127.0.0.1:8080/v1", true, None),
            ("http://127.0.0.1:8080/v1", false, Some("URL_BLOCKED")),
            ("http://localhost:8080/v1", false, Some("URL_BLOCKED")),
            ("http://localhost:8080/v1", true, None),
            ("http://169.254.169.254/latest", true, Some("URL_BLOCKED")),
            ("ftp://example.com", true, Some("VALIDATION")),
            ("example.com/v1", true, Some("VALIDATION")),
            ("http://user:secret@127.0.0.1/", true, Some("VALIDATION")),
            ("", true, Some("VALIDATION")),
        ] {
            let result = check_url("baseUrl", url, allow_private).await;
            match code {
                None => assert!(result.is_ok(), "{url}: {result:?}"),
                Some(code) => assert!(format!("{result:?}").contains(code), "{url}: {result:?}"),
            }
        }
    }
}
