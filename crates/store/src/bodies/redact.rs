//! Takes credentials out of what is written down: those that the gateway knows (of accounts, of the caller), keys of known
//! kinds, and members and headers whose names say that they hold one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use aho_corasick::{AhoCorasick, BuildError, MatchKind};
use http::{HeaderMap, Uri};
use omniroute_domain::snapshot::Snapshot;
use omniroute_engine::bodies::RequestBodies;
use omniroute_provider::scrub;
use percent_encoding::percent_decode_str;

use super::media::without_media;
use super::plain::unescaped;

/// What stands for a secret.
const KEY: &str = "[key]";
/// A secret that is shorter is only taken for one where it stands alone.
const SHORT: usize = 12;
/// Shorter ones are words.
const SHORTEST: usize = 6;
/// Longest value of a header that is written down.
const MAX_HEADER: usize = 2_048;
/// Most headers of one message.
const MAX_HEADERS: usize = 64;
/// Members of a query that hold no secrets.
const HARMLESS_QUERY: [&str; 9] =
    ["alt", "api-version", "after", "before", "limit", "order", "stream", "starting_after", "beta"];
/// Members that hold a credential, in small letters and without what joins words.
const SECRET_MEMBERS: [&str; 24] = [
    "accesskey",
    "accesstoken",
    "apikey",
    "apikeys",
    "apitoken",
    "authorization",
    "authorizationtoken",
    "authtoken",
    "bearertoken",
    "clientsecret",
    "cookie",
    "idtoken",
    "passwd",
    "password",
    "privatekey",
    "proxyauthorization",
    "refreshtoken",
    "secret",
    "secretaccesskey",
    "secretkey",
    "setcookie",
    "xapikey",
    "xauthtoken",
    "xgoogapikey",
];
/// Parts of the names of headers that hold one.
const SECRET_HEADERS: [&str; 9] = [
    "auth",
    "key",
    "token",
    "secret",
    "cookie",
    "password",
    "credential",
    "signature",
    "sec-websocket-protocol",
];
/// Members of a query that hold one, beside those with such a part.
const SECRET_QUERY: [&str; 3] = ["sig", "code", "pass"];
/// Headers that have such a part and hold none.
const HARMLESS_HEADERS: [&str; 4] =
    ["idempotency-key", "x-ratelimit-", "anthropic-ratelimit-", "sec-websocket-key"];
/// What browsers put before a key in `sec-websocket-protocol`.
const KEY_PROTOCOL: &str = "api-key.";

/// Knows the secrets of the accounts of one snapshot, for one request after the other.
#[derive(Default)]
pub(super) struct Redactor {
    of: Weak<Snapshot>,
    known: Finder,
}

impl Redactor {
    /// What is to be taken out of this request.
    pub(super) fn of(&mut self, bodies: &RequestBodies) -> Result<Redaction<'_>, BuildError> {
        if !std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(&bodies.snapshot)) {
            self.known = Finder::of(bodies.snapshot.credentials())?;
            // Only now, so that without a finder nothing is written down.
            self.of = Arc::downgrade(&bodies.snapshot);
        }
        let mut own: Vec<String> = Vec::new();
        for (name, value) in &bodies.headers {
            if is_secret_header(name.as_str())
                && let Ok(text) = value.to_str()
            {
                own.extend(secrets_of_header(name.as_str(), text).into_iter().map(str::to_owned));
            }
        }
        if let Some(call) = &bodies.call {
            own.extend(scrub::credentials(&call.headers).map(str::to_owned));
            own.extend(secrets_of_query(call.uri.query()));
        }
        own.extend(secrets_of_query(bodies.query.as_deref()));
        Ok(Redaction { known: &self.known, own: Finder::of(own)? })
    }
}

/// What is secret in a header that holds a credential.
fn secrets_of_header<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
    match name {
        // Short ones are words of a page, such as its language.
        "cookie" => {
            let values = text.split(';').filter_map(|pair| pair.split_once('='));
            values
                .map(|(_, value)| value.trim().trim_matches('"'))
                .filter(|value| value.len() >= SHORT)
                .collect()
        }
        "sec-websocket-protocol" => {
            let keys = text.split(',').filter_map(|word| word.split_once(KEY_PROTOCOL));
            keys.map(|(_, key)| key.trim()).collect()
        }
        _ => text.trim().rsplit(' ').next().into_iter().collect(),
    }
}

/// What is secret in a query, as it is sent and as it is meant. Values of other names are words of anybody's text.
fn secrets_of_query(query: Option<&str>) -> impl Iterator<Item = String> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let secrets = pairs.filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        SECRET_QUERY.contains(&&*name) || is_secret_header(&name)
    });
    secrets
        .flat_map(|(_, value)| [value.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned()])
}

/// Finds secrets.
#[derive(Debug, Default)]
struct Finder {
    long: Option<AhoCorasick>,
    /// Those that are only taken for secrets where they stand alone.
    short: Option<AhoCorasick>,
}

impl Finder {
    /// Finds these texts, also as JSON writes them.
    fn of(secrets: Vec<String>) -> Result<Self, BuildError> {
        let (mut long, mut short) = (Vec::with_capacity(secrets.len()), Vec::new());
        for secret in secrets.into_iter().filter(|secret| secret.len() >= SHORTEST) {
            let quoted = serde_json::to_string(&secret).unwrap_or_default();
            let quoted = quoted.trim_matches('"').to_owned();
            let slashed = quoted.replace('/', "\\/");
            let all = if secret.len() < SHORT { &mut short } else { &mut long };
            all.extend([secret, quoted, slashed]);
        }
        Ok(Self { long: automaton(long)?, short: automaton(short)? })
    }
}

fn automaton(mut texts: Vec<String>) -> Result<Option<AhoCorasick>, BuildError> {
    texts.sort_unstable();
    texts.dedup();
    if texts.is_empty() {
        return Ok(None);
    }
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts).map(Some)
}

/// What is to be taken out of one request.
pub(super) struct Redaction<'a> {
    known: &'a Finder,
    own: Finder,
}

impl Redaction<'_> {
    /// The text without secrets, and without bytes that are written as base64. A JSON document stays one.
    pub(super) fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let text = unescaped(text).map_or(Cow::Borrowed(text), Cow::Owned);
        let text = then(text, |text| match without_media(text) {
            Cow::Owned(changed) => Some(changed),
            Cow::Borrowed(_) => None,
        });
        // The long ones first: what is left of one of which a short one was taken out would not be found.
        let finders = [
            (&self.known.long, true),
            (&self.own.long, true),
            (&self.known.short, false),
            (&self.own.short, false),
        ];
        let text = finders.into_iter().fold(text, |text, (finder, is_long)| {
            then(text, |text| replaced(finder.as_ref()?, is_long, text))
        });
        let text = then(text, without_secret_members);
        then(text, without_well_known_keys)
    }

    /// Headers as an object. One that holds a credential shows that it was there.
    pub(super) fn headers(&self, headers: &HeaderMap) -> BTreeMap<String, String> {
        let mut shown = BTreeMap::new();
        for name in headers.keys().take(MAX_HEADERS) {
            let texts = headers.get_all(name).iter().map(|value| {
                if value.is_sensitive() || is_secret_header(name.as_str()) {
                    return KEY.to_owned();
                }
                let text = String::from_utf8_lossy(value.as_bytes());
                let text = self.text(&text);
                text[..text.floor_char_boundary(MAX_HEADER)].to_owned()
            });
            shown.insert(name.to_string(), texts.collect::<Vec<_>>().join(", "));
        }
        shown
    }

    /// A query without its values, but for those that are known to hold no secrets.
    pub(super) fn query(&self, query: &str) -> String {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if !HARMLESS_QUERY.contains(&name) => format!("{name}={KEY}"),
            _ => pair.to_owned(),
        });
        let query = pairs.collect::<Vec<_>>().join("&");
        self.text(&query).into_owned()
    }

    /// An address, without who is named in it.
    pub(super) fn uri(&self, uri: &Uri) -> String {
        let host = uri.authority().map_or("", |authority| {
            authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host)
        });
        let mut text = format!("{}://{host}{}", uri.scheme_str().unwrap_or("http"), self.text(uri.path()));
        if let Some(query) = uri.query() {
            text.push('?');
            text.push_str(&self.query(query));
        }
        text
    }
}

/// The next step over the outcome of the one before.
fn then<'t>(text: Cow<'t, str>, step: impl FnOnce(&str) -> Option<String>) -> Cow<'t, str> {
    match step(&text) {
        Some(changed) => Cow::Owned(changed),
        None => text,
    }
}

/// `None` where there is none of them.
fn replaced(finder: &AhoCorasick, is_long: bool, text: &str) -> Option<String> {
    let mut out: Option<String> = None;
    let mut done = 0;
    for found in finder.find_iter(text) {
        let stands_alone = || {
            let bytes = text.as_bytes();
            let is_letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            let before = bytes[..found.start()].last();
            let is_joined = is_letter(before) && escape_before(bytes, found.start()).is_none();
            !is_joined && !is_letter(bytes.get(found.end()))
        };
        if !is_long && !stands_alone() {
            continue;
        }
        let out = out.get_or_insert_default();
        out.push_str(&text[done..found.start()]);
        out.push_str(KEY);
        done = found.end();
    }
    out.map(|mut out| {
        out.push_str(&text[done..]);
        out
    })
}

/// Strings behind names that say that they hold a credential, in documents and in documents within strings.
fn without_secret_members(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out: Option<String> = None;
    let (mut done, mut at) = (0, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'"')) {
        let quote = at + found;
        at = quote + 1;
        let depth = bytes[..quote].iter().rev().take_while(|byte| **byte == b'\\').count();
        let Some(mut rest) = behind_secret_name(bytes, at, depth) else { continue };
        let is_list = bytes.get(rest) == Some(&b'[');
        rest += usize::from(is_list);
        while let Some((start, end)) = string_at(bytes, rest, depth) {
            let out = out.get_or_insert_default();
            out.push_str(&text[done..start]);
            out.push_str(KEY);
            done = end;
            at = (end + depth + 1).min(bytes.len());
            rest = blanks(bytes, at);
            if !is_list || bytes.get(rest) != Some(&b',') {
                break;
            }
            rest += 1;
        }
    }
    out.map(|mut out| {
        out.push_str(&text[done..]);
        out
    })
}

/// Where the value of a member begins whose name begins here, if the name is that of a credential.
fn behind_secret_name(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    const LONGEST: usize = 40;
    let rest = bytes.get(at..)?;
    let length = rest
        .iter()
        .take(LONGEST)
        .take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
        .count();
    if !closes(rest, length, depth) {
        return None;
    }
    let mut name = [0; LONGEST];
    let mut used = 0;
    for byte in rest[..length].iter().filter(|byte| byte.is_ascii_alphanumeric()) {
        name[used] = byte.to_ascii_lowercase();
        used += 1;
    }
    let name = str::from_utf8(&name[..used]).ok()?;
    SECRET_MEMBERS.binary_search(&name).ok()?;
    let colon = blanks(bytes, at + length + depth + 1);
    (bytes.get(colon) == Some(&b':')).then(|| blanks(bytes, colon + 1))
}

/// The string that begins here: from its first byte to behind its last.
fn string_at(bytes: &[u8], at: usize, depth: usize) -> Option<(usize, usize)> {
    let at = blanks(bytes, at);
    if !closes(bytes.get(at..)?, 0, depth) {
        return None;
    }
    let start = at + depth + 1;
    let mut end = start;
    while end < bytes.len() {
        let slashes = bytes[end..].iter().take_while(|byte| **byte == b'\\').count();
        if bytes.get(end + slashes) == Some(&b'"') {
            // Each level of strings within strings doubles what stands before a quote: at this depth it belongs to the text
            // where it is escaped once more; else it ends this string, or one around it.
            let odd = slashes % (2 * (depth + 1));
            if odd != 2 * depth + 1 {
                return Some((start, end + slashes - odd.min(depth)));
            }
        }
        end += slashes + 1;
    }
    // What was cut off ends with the text.
    Some((start, bytes.len()))
}

/// Whether a quote of this depth stands there.
fn closes(rest: &[u8], at: usize, depth: usize) -> bool {
    let Some(rest) = rest.get(at..) else { return false };
    rest.iter().take_while(|byte| **byte == b'\\').count() == depth && rest.get(depth) == Some(&b'"')
}

fn blanks(bytes: &[u8], at: usize) -> usize {
    at + bytes.get(at..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Keys of known kinds, wherever they stand.
fn without_well_known_keys(text: &str) -> Option<String> {
    let mut out: Option<String> = None;
    let mut done = 0;
    let mut at = 0;
    for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))) {
        let (start, end) = (at, at + word.len());
        at = end + text[end..].chars().next().map_or(0, char::len_utf8);
        // The letter of an escape is no part of the word behind it.
        let skipped = usize::from(start > 0 && escape_before(text.as_bytes(), start + 1).is_some());
        let (start, word) = (start + skipped, &word[skipped.min(word.len())..]);
        if scrub::is_well_known_key(word) {
            let out = out.get_or_insert_default();
            out.push_str(&text[done..start]);
            out.push_str(KEY);
            done = end;
        }
    }
    out.map(|mut out| {
        out.push_str(&text[done..]);
        out
    })
}

/// The letter of an escape such as `\\n` that ends here.
fn escape_before(bytes: &[u8], end: usize) -> Option<u8> {
    match bytes.get(..end)? {
        [.., b'\\', letter @ (b'n' | b'r' | b't' | b'b' | b'f')] => Some(*letter),
        _ => None,
    }
}

fn is_secret_header(name: &str) -> bool {
    SECRET_HEADERS.iter().any(|part| name.contains(part))
        && !HARMLESS_HEADERS.iter().any(|harmless| name.starts_with(harmless))
}

#[cfg(test)]
mod tests {
    use super::*;

    static NOTHING: Finder = Finder { long: None, short: None };

    fn none() -> Redaction<'static> {
        Redaction { known: &NOTHING, own: Finder::default() }
    }

    fn finder<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Finder {
        Finder::of(secrets.into_iter().map(str::to_owned).collect()).unwrap()
    }

    #[test]
    fn members_that_hold_credentials_are_emptied_wherever_they_stand() {
        for (text, want) in [
            (r#"{"authorization_token":"abc","b":1}"#, r#"{"authorization_token":"[key]","b":1}"#),
            (
                r#"{"headers":{"Authorization" : "Bearer abc\"d"}}"#,
                r#"{"headers":{"Authorization" : "[key]"}}"#,
            ),
            (r#"{"api_keys":["a", "b"],"c":"d"}"#, r#"{"api_keys":["[key]", "[key]"],"c":"d"}"#),
            (
                r#"{"arguments":"{\"password\": \"p\\\"q\", \"a\": 1}"}"#,
                r#"{"arguments":"{\"password\": \"[key]\", \"a\": 1}"}"#,
            ),
            (
                r#"{"properties":{"password":{"type":"string"}}}"#,
                r#"{"properties":{"password":{"type":"string"}}}"#,
            ),
            (r#"{"token":"Hello","logprob":-1}"#, r#"{"token":"Hello","logprob":-1}"#),
            (r#"{"text":"password"}"#, r#"{"text":"password"}"#),
            (r#"{"client-secret":"cut of"#, r#"{"client-secret":"[key]"#),
            (r#"{"password":"\\","b":"c"}"#, r#"{"password":"[key]","b":"c"}"#),
            (r#"{"a":"{\"password\":\"x\\\\\",\"b\":1}"}"#, r#"{"a":"{\"password\":\"[key]\",\"b\":1}"}"#),
            ("data: {\"apiKey\":\"x\"}\n\n", "data: {\"apiKey\":\"[key]\"}\n\n"),
            ("", ""),
        ] {
            assert_eq!(none().text(text), want);
        }
    }

    #[test]
    fn the_names_are_sorted_and_in_one_form() {
        assert!(SECRET_MEMBERS.is_sorted());
        for name in SECRET_MEMBERS {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{name}");
        }
    }

    #[test]
    fn known_secrets_go_in_every_way_of_writing() {
        let known = finder(["s3cret/with\"quote+plus", "ollama", "abc", "x-short", "short-but-longer"]);
        let redaction = Redaction { known: &known, own: finder(["the-caller's-own"]) };
        for (text, want) in [
            ("a s3cret/with\"quote+plus b", "a [key] b"),
            (r#"{"a":"s3cret/with\"quote+plus"}"#, r#"{"a":"[key]"}"#),
            (r#"{"a":"s3cret\/with\"quote+plus"}"#, r#"{"a":"[key]"}"#),
            (r#"{"a":"s3cret/with\u0022quote\u002Bplus"}"#, r#"{"a":"[key]"}"#),
            (r#"{"a":"s3cret\u002fwith\"quote\u002bplus"}"#, r#"{"a":"[key]"}"#),
            (r#"{"a":"{\u0022password\u0022:\u0022x\u0022}"}"#, r#"{"a":"{\"password\":\"[key]\"}"}"#),
            // A short one that does not stand alone hides no longer one that begins within it.
            ("ax-short-but-longer", "ax-[key]"),
            ("ollama is a key, ollamas are none", "[key] is a key, ollamas are none"),
            ("abc is too short", "abc is too short"),
            ("says the-caller's-own key", "says [key] key"),
            ("my key is sk-proj-0123456789abcdefghij, ok", "my key is [key], ok"),
            (r#"{"a":"this:\nsk-proj-0123456789abcdefghij\nollama"}"#, r#"{"a":"this:\n[key]\n[key]"}"#),
        ] {
            assert_eq!(redaction.text(text), want);
        }
    }

    #[test]
    fn addresses_show_no_keys() {
        let redaction = Redaction { known: &NOTHING, own: finder(["part-of-a-path"]) };
        for (uri, want) in [
            (
                "https://x.example/v1beta/m:g?key=AIzaSy123&alt=sse",
                "https://x.example/v1beta/m:g?key=[key]&alt=sse",
            ),
            ("https://user:pass@x.example/a", "https://x.example/a"),
            ("https://x.example/part-of-a-path/b?sig=1", "https://x.example/[key]/b?sig=[key]"),
        ] {
            assert_eq!(redaction.uri(&uri.parse().unwrap()), want);
        }
    }

    #[test]
    fn headers_that_hold_credentials_only_show_that_they_were_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer abc"),
            ("x-goog-api-key", "abc"),
            ("cookie", "a=b"),
            ("x-amz-security-token", "abc"),
            ("user-agent", "curl/8"),
            ("x-ratelimit-remaining-tokens", "12"),
            ("idempotency-key", "k1"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.abc"),
            ("sec-websocket-key", "nonce"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let mut own = http::HeaderValue::from_static("abc");
        own.set_sensitive(true);
        headers.insert("x-tenant", own);
        let shown = none().headers(&headers);
        let text = |name: &str| shown[name].as_str();
        for name in [
            "authorization",
            "x-goog-api-key",
            "cookie",
            "x-amz-security-token",
            "x-tenant",
            "sec-websocket-protocol",
        ] {
            assert_eq!(text(name), "[key]", "{name}");
        }
        assert_eq!(text("sec-websocket-key"), "nonce");
        assert_eq!(text("user-agent"), "curl/8");
        assert_eq!((text("x-ratelimit-remaining-tokens"), text("idempotency-key")), ("12", "k1"));
    }

    #[test]
    fn of_what_a_client_sends_only_secrets_are_looked_for() {
        for (name, value, secrets) in [
            ("authorization", "Bearer abc", &["abc"][..]),
            ("x-api-key", " abc ", &["abc"]),
            (
                "cookie",
                "session=a-long-session-1; lang=en; t=\"a-long-session-2\"",
                &["a-long-session-1", "a-long-session-2"],
            ),
            (
                "sec-websocket-protocol",
                "realtime, openai-insecure-api-key.abc, openai-beta.realtime-v1",
                &["abc"],
            ),
        ] {
            assert_eq!(secrets_of_header(name, value), secrets, "{name}");
        }
        let of = |query| secrets_of_query(Some(query)).collect::<Vec<_>>();
        assert_eq!(of("user=assistant&tag=content&alt=sse&limit=5"), Vec::<String>::new());
        assert_eq!(of("Key=a%2Fb&sig=c"), ["a%2Fb", "a/b", "c", "c"]);
        assert_eq!(of("x-goog-api-key=d&access_token=e"), ["d", "d", "e", "e"]);
    }

    proptest::proptest! {
        /// Whatever is written down: no panic, no secret, and a document stays one.
        #[test]
        fn any_text_can_be_cleaned(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "\"", "\\", "\\\"", "api_key", "password", ":", " ", "[", "]", ",", "é", "data:image/png;base64,", "{", "}",
                    " sk-proj-0123456789abcdefghij ", "=", "/", "\n", "known-secret", "u002B", "u0022", "u005C", "u00e9",
                ]),
                0..40,
            ),
            run in 0..1_500_usize,
        ) {
            let known = finder(["known-secret"]);
            let redaction = Redaction { known: &known, own: Finder::default() };
            let base64: String = "aB3/".chars().cycle().take(run).collect();
            let text = format!("{}{base64}{}", parts.concat(), parts.concat());
            let clean = redaction.text(&text).into_owned();
            proptest::prop_assert!(!clean.contains("known-secret") && !clean.contains("sk-proj-"), "{clean}");
            let document = serde_json::to_string(&serde_json::json!({"a": text, "api_key": parts.concat()})).unwrap();
            let clean = redaction.text(&document).into_owned();
            proptest::prop_assert!(serde_json::from_str::<serde_json::Value>(&clean).is_ok(), "{document}\n{clean}");
        }
    }
}
