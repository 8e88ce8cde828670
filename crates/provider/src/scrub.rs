//! Takes out of an upstream's text what a client must not see: credentials, e-mail addresses, file paths, query strings.
//! Every upstream text on its way to a client or into a log row passes here.

use http::HeaderMap;

/// Headers whose values are no secrets.
const HARMLESS_HEADERS: [&str; 5] =
    ["accept", "accept-encoding", "anthropic-version", "content-type", "user-agent"];
/// What is shorter is taken for a word.
const SHORTEST_CREDENTIAL: usize = 6;
/// Beginnings of well-known keys and tokens.
const KEY_PREFIXES: &[&str] = &[
    "sk-",
    "sk_",
    "pk-",
    "pk_",
    "rk_",
    "sess-",
    "gsk_",
    "xai-",
    "AIza",
    "ya29.",
    "hf_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "AKIA",
    "ASIA",
    "r8_",
    "nvapi-",
    "pplx-",
    "fw_",
    "csk-",
    "tgp_v1_",
    "tgp_",
    "fpk_",
    "eyJ",
    "key-",
    "omr-",
    "or-",
    "dapi",
    "xoxb-",
    "whsec_",
    "AQ.Ab",
];
/// A key of a known kind is at least this long; what is shorter is a word.
const SHORTEST_KEY: usize = 10;
/// The same where nothing else says that it is one.
const SHORTEST_WELL_KNOWN: usize = 20;
/// Letters and digits without a break: longer ones are no names but secrets or hashes.
const LONGEST_NAME: usize = 31;
/// What stands before a secret.
const LABELS: &[&str] = &[
    "bearer",
    "basic",
    "authorization",
    "api_key",
    "apikey",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "access_token",
    "refresh_token",
    "id_token",
    "token",
    "secret",
    "client_secret",
    "password",
    "passwd",
    "cookie",
];
/// Where the file paths of servers begin. Paths of URLs (`/v1/…`) do not.
const ROOTS: &[&str] = &[
    "app",
    "bin",
    "data",
    "dev",
    "etc",
    "home",
    "lib",
    "lib64",
    "mnt",
    "nix",
    "opt",
    "private",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr",
    "Users",
    "var",
    "Volumes",
    "workspace",
    "workspaces",
];

/// The text without secrets.
pub fn scrub(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Whether the words before were a label such as `Bearer`, so that a word that looks like a secret is one.
    let mut after_label = false;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if is_delimiter(first) {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let end = rest.find(is_delimiter).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail;
        let core = word.trim_end_matches(['.', ':', '!', '?']);
        let replaced = replace(core, after_label);
        after_label = is_label(core) || (after_label && matches!(core, "" | "="));
        out.push_str(&replaced);
        out.push_str(&word[core.len()..]);
    }
    out
}

/// The text without anything that was sent in `headers`: some upstreams repeat the credential that they refuse, and not
/// every credential looks like one.
pub fn without_credentials(mut text: String, headers: &HeaderMap) -> String {
    for (name, value) in headers {
        let Ok(value) = value.to_str() else { continue };
        // Of `Bearer <key>` the key counts.
        let value = value.rsplit(' ').next().unwrap_or(value);
        let is_secret = !HARMLESS_HEADERS.contains(&name.as_str()) && value.len() >= SHORTEST_CREDENTIAL;
        if is_secret && text.contains(value) {
            text = text.replace(value, "[key]");
        }
    }
    text
}

/// What is sent in `headers` as credentials: as it is, and without the word before it (`Bearer`).
pub fn credentials(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let sensitive = headers.values().filter(|value| value.is_sensitive());
    let texts = sensitive.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| [Some(text.trim()), text.trim().rsplit_once(' ').map(|(_, last)| last)])
        .flatten()
        .filter(|text| text.len() >= SHORTEST_CREDENTIAL)
}

/// Whether a word is a key of a known kind, and nothing else that looks like one.
pub fn is_well_known_key(word: &str) -> bool {
    word.len() >= SHORTEST_WELL_KNOWN
        && KEY_PREFIXES.iter().any(|prefix| word.starts_with(prefix))
        && word.bytes().all(is_key_byte)
        && word.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_delimiter(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '"' | '\'' | '`' | '(' | ')' | '<' | '>' | '[' | ']' | '{' | '}' | ',' | ';' | '|')
}

fn replace(word: &str, after_label: bool) -> String {
    if let Some((scheme, rest)) = word.split_once("://") {
        return replace_url(scheme, rest);
    }
    if is_email(word) {
        return "[email]".to_owned();
    }
    if is_path(word) {
        return "[path]".to_owned();
    }
    if is_key(word) || (after_label && could_be_secret(word)) {
        return "[key]".to_owned();
    }
    for separator in ['=', ':'] {
        if let Some((label, value)) = word.split_once(separator)
            && !value.is_empty()
        {
            let value = replace(value, is_label(label));
            return format!("{label}{separator}{value}");
        }
    }
    word.to_owned()
}

fn replace_url(scheme: &str, rest: &str) -> String {
    let (address, query) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], true),
        None => (rest, false),
    };
    let (host, path) = address.split_at(address.find('/').unwrap_or(address.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let path: Vec<String> =
        path.split('/').map(|part| if is_key(part) { "[key]".to_owned() } else { part.to_owned() }).collect();
    let query = if query { "?[removed]" } else { "" };
    format!("{scheme}://{host}{}{query}", path.join("/"))
}

fn is_label(word: &str) -> bool {
    let word = word.trim_matches(['.', ':', '=', '-']);
    LABELS.iter().any(|label| word.eq_ignore_ascii_case(label))
}

fn is_key(word: &str) -> bool {
    let known = KEY_PREFIXES.iter().any(|prefix| word.starts_with(prefix));
    if known && word.len() >= SHORTEST_KEY && word.bytes().all(is_key_byte) {
        // Names such as `sk-learn-models` are words; a key has digits or stars.
        return word.bytes().any(|byte| byte.is_ascii_digit() || byte == b'*');
    }
    word.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| {
        run.len() > LONGEST_NAME
            && run.bytes().any(|byte| byte.is_ascii_digit())
            && run.bytes().any(|byte| byte.is_ascii_alphabetic())
    })
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*' | b'=' | b'+' | b'/')
}

fn could_be_secret(word: &str) -> bool {
    word.len() >= 8
        && word.bytes().all(is_key_byte)
        && word.bytes().any(|byte| byte.is_ascii_digit() || byte == b'*' || byte.is_ascii_uppercase())
}

fn is_email(word: &str) -> bool {
    let Some((local, domain)) = word.split_once('@') else { return false };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+' | b'%');
    !local.is_empty()
        && local.bytes().all(allowed)
        && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        && domain.rsplit_once('.').is_some_and(|(name, top)| {
            !name.is_empty() && top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_alphabetic())
        })
}

fn is_path(word: &str) -> bool {
    let word = word.strip_prefix("file:").unwrap_or(word);
    let bytes = word.as_bytes();
    if bytes.len() > 3
        && bytes[0].is_ascii_alphabetic()
        && bytes[1] == b':'
        && matches!(bytes[2], b'\\' | b'/')
    {
        return true;
    }
    let mut parts = word.split('/');
    parts.next() == Some("")
        && parts.next().is_some_and(|root| ROOTS.contains(&root))
        && parts.next().is_some_and(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let cases = [
            ("Incorrect API key provided: sk-proj-abc***xyz9.", "Incorrect API key provided: [key]."),
            ("key gsk_0123456789abcdef is bad", "key [key] is bad"),
            ("invalid x-api-key", "invalid x-api-key"),
            ("Authorization: Bearer abcDEF123456", "Authorization: Bearer [key]"),
            ("api_key=ABCDEF0123 was refused", "api_key=[key] was refused"),
            (r#"{"token":"Zm9vYmFyMTIz"}"#, r#"{"token":"[key]"}"#),
            ("token limit exceeded: 8192", "token limit exceeded: 8192"),
            ("contact jane.doe@example.com, please", "contact [email], please"),
            ("no such file: /home/jane/models/a.gguf", "no such file: [path]"),
            (r"cannot open C:\models\a.gguf", "cannot open [path]"),
            ("unknown route /v1/chat/completions", "unknown route /v1/chat/completions"),
            ("see https://x.example/a?key=1&b=2 for more", "see https://x.example/a?[removed] for more"),
            ("see https://u:p@x.example/a.", "see https://x.example/a."),
            (
                "see https://platform.openai.com/account/api-keys.",
                "see https://platform.openai.com/account/api-keys.",
            ),
            (
                "The model `meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8` does not exist",
                "The model `meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8` does not exist",
            ),
            (
                "model @cf/meta/llama-3.1-8b and claude@20250101",
                "model @cf/meta/llama-3.1-8b and claude@20250101",
            ),
            ("request req_011CSHoEeqs5C35K2UUvgJ7Z", "request req_011CSHoEeqs5C35K2UUvgJ7Z"),
            ("hash 0123456789abcdef0123456789abcdef0123", "hash [key]"),
            ("id 6a1f0c1e-8f1e-4c52-9a39-1f2b3c4d5e6f", "id 6a1f0c1e-8f1e-4c52-9a39-1f2b3c4d5e6f"),
            ("ümläut: größer", "ümläut: größer"),
            ("", ""),
        ];
        for (text, want) in cases {
            assert_eq!(scrub(text), want);
        }
    }

    #[test]
    fn what_was_sent_is_taken_out_whatever_it_looks_like() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer correct-horse".parse().unwrap());
        headers.insert("x-tenant", "battery-staple".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("x-mode", "a".parse().unwrap());
        let text = "correct-horse of battery-staple may not send application/json".to_owned();
        let want = "[key] of [key] may not send application/json";
        assert_eq!(without_credentials(text, &headers), want);
    }

    #[test]
    fn credentials_are_the_headers_that_are_marked() {
        let mut headers = HeaderMap::new();
        for (name, value, is_secret) in [
            ("authorization", "Bearer correct-horse", true),
            ("x-api-key", "battery-staple", true),
            ("x-short", "abc", true),
            ("x-title", "OmniRoute", false),
        ] {
            let mut value: http::HeaderValue = value.parse().unwrap();
            value.set_sensitive(is_secret);
            headers.insert(name, value);
        }
        assert_eq!(
            credentials(&headers).collect::<Vec<_>>(),
            ["Bearer correct-horse", "correct-horse", "battery-staple"]
        );
    }

    #[test]
    fn words_are_not_taken_for_keys() {
        for word in ["sk-learn-models-of-all-kinds", "sk-1234", "or-else", "req_011CSHoEeqs5C35K2UUvgJ7Z"] {
            assert!(!is_well_known_key(word), "{word}");
        }
        for word in ["sk-proj-0123456789abcdefghij", "AIzaSyA0123456789abcdefg", "gsk_0123456789abcdefghij"] {
            assert!(is_well_known_key(word), "{word}");
        }
    }

    #[test]
    fn scrubbing_twice_changes_nothing() {
        let text = "Bearer abcDEF123456 /home/a/b https://u@h.example/p?q=1 a@b.cc sk-1234567890";
        assert_eq!(scrub(&scrub(text)), scrub(text));
    }
}
