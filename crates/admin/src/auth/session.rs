//! The cookie of people who signed in: a signed token (JWT, HS256) with an id that can be revoked and the version of
//! the password it was got with, so that a new password ends every older session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue, header};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Client;
use crate::error::{AdminResult, internal};
use crate::state::Admin;

/// Name of the cookie.
pub(crate) const COOKIE: &str = "auth_token";
/// How long a session lasts.
const LIFETIME_SECS: i64 = 30 * 24 * 3_600;
/// A session with less than this left is renewed when it is used.
const RENEW_SECS: i64 = 7 * 24 * 3_600;
/// `{"alg":"HS256","typ":"JWT"}`. No other header is ever accepted, so the algorithm is not the client's to choose.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// Longest token that is looked at.
const MAX_TOKEN: usize = 4_096;

/// What a session's token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    authenticated: bool,
    /// When it was made, in seconds.
    iat: i64,
    /// When it ends, in seconds.
    exp: i64,
    /// Its id.
    pub(crate) jti: String,
    /// The version of the password it was got with.
    pv: i64,
}

/// The session of a request, and a new cookie when it is about to end.
pub(crate) struct Session {
    pub(crate) claims: Claims,
    pub(crate) renewed: Option<HeaderValue>,
}

/// The token in a request's cookies.
pub(crate) fn read_cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.trim_matches('"'))
        .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN)
}

/// A cookie for somebody who just signed in.
pub(crate) async fn new_session(admin: &Admin, client: Client) -> AdminResult<HeaderValue> {
    let version = admin.store.settings().password_hash().await?.map_or(0, |stored| stored.version);
    let now = admin.now_ms() / 1_000;
    let claims = Claims {
        authenticated: true,
        iat: now,
        exp: now + LIFETIME_SECS,
        jti: uuid::Uuid::new_v4().to_string(),
        pv: version,
    };
    cookie_for(admin, &claims, client).await
}

/// The session a token belongs to, if it is still good.
pub(crate) async fn session_of(admin: &Admin, token: &str, client: Client) -> AdminResult<Option<Session>> {
    let now = admin.now_ms() / 1_000;
    let secret = secret(admin).await?;
    let Some(mut claims) = verify(token, &secret).filter(|claims| claims.authenticated && claims.exp > now)
    else {
        return Ok(None);
    };
    let version = admin.store.settings().password_hash().await?.map_or(0, |stored| stored.version);
    if claims.pv != version || admin.store.revoked_tokens().contains(&claims.jti).await? {
        return Ok(None);
    }
    let mut renewed = None;
    if claims.exp - now < RENEW_SECS {
        (claims.iat, claims.exp) = (now, now + LIFETIME_SECS);
        renewed = Some(cookie_for(admin, &claims, client).await?);
    }
    Ok(Some(Session { claims, renewed }))
}

/// Ends a session for good.
pub(crate) async fn revoke(admin: &Admin, claims: &Claims) -> AdminResult<()> {
    // Counted from now: a renewed token of the same id may live longer than the one at hand.
    let until = admin.now_ms() + LIFETIME_SECS * 1_000;
    admin.store.revoked_tokens().insert(&claims.jti, until).await?;
    admin.store.revoked_tokens().purge(admin.now_ms()).await?;
    Ok(())
}

/// The cookie that makes a browser forget the session.
pub(crate) fn cleared_cookie(admin: &Admin, client: Client) -> AdminResult<HeaderValue> {
    cookie(admin, "", "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT", client)
}

async fn cookie_for(admin: &Admin, claims: &Claims, client: Client) -> AdminResult<HeaderValue> {
    let token = sign(claims, &secret(admin).await?)?;
    cookie(admin, &token, &format!("Max-Age={LIFETIME_SECS}"), client)
}

fn cookie(admin: &Admin, token: &str, lifetime: &str, client: Client) -> AdminResult<HeaderValue> {
    let secure = if admin.settings.cookie_secure || client.is_https { "; Secure" } else { "" };
    let text = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; {lifetime}{secure}");
    let mut value = HeaderValue::try_from(text).map_err(internal)?;
    value.set_sensitive(true);
    Ok(value)
}

async fn secret(admin: &Admin) -> AdminResult<Vec<u8>> {
    match &admin.settings.jwt_secret {
        Some(secret) => Ok(secret.expose_secret().as_bytes().to_vec()),
        None => {
            let secret =
                admin.jwt_secret.get_or_try_init(|| async { admin.store.meta().jwt_secret().await }).await?;
            Ok(secret.expose_secret().as_bytes().to_vec())
        }
    }
}

fn sign(claims: &Claims, secret: &[u8]) -> AdminResult<String> {
    let payload = serde_json::to_vec(claims).map_err(internal)?;
    let mut token = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = mac(&token, secret).finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

fn verify(token: &str, secret: &[u8]) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    mac(signed, secret).verify_slice(&signature).ok()?;
    let payload = signed.strip_prefix(HEADER)?.strip_prefix('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn mac(text: &str, secret: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims { authenticated: true, iat: 1, exp: 2, jti: "id".into(), pv: 3 }
    }

    #[test]
    fn a_signed_token_is_read_back_and_nothing_else() {
        let token = sign(&claims(), b"secret").expect("signs");
        assert_eq!(verify(&token, b"secret"), Some(claims()));
        assert_eq!(verify(&token, b"other"), None);
        let parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let forged =
            URL_SAFE_NO_PAD.encode(r#"{"authenticated":true,"iat":1,"exp":99999999999,"jti":"x","pv":0}"#);
        for bad in [
            format!("{none}.{}.", parts[1]),
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}x"),
            String::new(),
            "...".into(),
        ] {
            assert_eq!(verify(&bad, b"secret"), None, "{bad}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(read_cookie(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("theme=dark; auth_token=abc.def; x=y"));
        assert_eq!(read_cookie(&headers), Some("abc.def"));
    }
}
