//! Which version of a resource somebody has read: `ETag` tells it, `If-Match` names it, and a change of another one is refused.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Answer, Argument, Describe, Incoming, to_json};
use crate::error::{AdminResult, conflict, internal, invalid_field};

/// A version of a resource: what it is shown as tells it from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version(String);

impl Version {
    /// That of a resource that is shown so.
    pub(crate) fn of<T: Serialize>(shown: &T) -> AdminResult<Self> {
        let digest = Sha256::digest(to_json(shown)?);
        Ok(Self(digest[..12].iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}

/// An answer that shows one resource, and which version of it.
pub(crate) struct Versioned<A>(pub(crate) Version, pub(crate) A);

impl<A: Answer> Answer for Versioned<A> {
    fn describe(route: &mut Describe) {
        A::describe(route);
        route.tells_version();
    }

    fn respond(self) -> AdminResult<Response> {
        let mut response = self.1.respond()?;
        let tag = HeaderValue::try_from(format!("\"{}\"", self.0.0)).map_err(internal)?;
        response.headers_mut().insert(header::ETAG, tag);
        Ok(response)
    }
}

/// Which versions a change is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// Any; that something is there a change asks for anyhow.
    Any,
    /// One of these. A weak one is none.
    These(Vec<String>),
}

impl IfMatch {
    /// Refuses a change of a version that it is not for. To be asked where nobody can change it any more before it is written.
    pub(crate) fn check(&self, what: &str, current: &Version) -> AdminResult<()> {
        match self {
            Self::Any => Ok(()),
            Self::These(versions) if versions.contains(&current.0) => Ok(()),
            Self::These(_) => Err(conflict(format!(
                "the {what} is not what `If-Match` names any more: its version is \"{}\" now; read it again",
                current.0
            ))),
        }
    }

    fn of(headers: &HeaderMap) -> AdminResult<Self> {
        let mut sent = headers.get_all(header::IF_MATCH).iter().peekable();
        if sent.peek().is_none() {
            return Ok(Self::Any);
        }
        let mut versions = Vec::new();
        let mut is_any = false;
        for value in sent {
            match value.to_str().map(str::trim) {
                Ok("*") => is_any = true,
                Ok(list) if read_tags(list, &mut versions).is_some() => {}
                _ => {
                    return Err(invalid_field(
                        "If-Match",
                        "must be `*`, or versions as `ETag` tells them, in quotes and with commas between them",
                    ));
                }
            }
        }
        Ok(if is_any { Self::Any } else { Self::These(versions) })
    }
}

/// The strong ones of a list of tags; `None` where it is none.
fn read_tags(mut list: &str, tags: &mut Vec<String>) -> Option<()> {
    loop {
        let weak = list.strip_prefix("W/");
        let (tag, rest) = weak.unwrap_or(list).strip_prefix('"')?.split_once('"')?;
        if tag.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return None;
        }
        if weak.is_none() {
            tags.push(tag.to_owned());
        }
        match rest.trim_start() {
            "" => return Some(()),
            rest => list = rest.strip_prefix(',')?.trim_start(),
        }
    }
}

impl Argument for IfMatch {
    fn describe(route: &mut Describe) {
        route.asks_version();
    }

    async fn take(incoming: &mut Incoming) -> AdminResult<Self> {
        Self::of(&incoming.parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sent: &[&str]) -> Option<IfMatch> {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(header::IF_MATCH, HeaderValue::from_str(value).expect("a value"));
        }
        IfMatch::of(&headers).ok()
    }

    #[test]
    fn versions_are_named_in_quotes() {
        let these = |tags: &[&str]| Some(IfMatch::These(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        assert_eq!(read(&[]), Some(IfMatch::Any));
        assert_eq!(read(&[" * "]), Some(IfMatch::Any));
        assert_eq!(read(&[r#""a""#]), these(&["a"]));
        assert_eq!(read(&[r#""a" ,W/"b", "c,d""#, r#""e""#]), these(&["a", "c,d", "e"]));
        assert_eq!(read(&[r#"W/"a""#]), these(&[]), "which nothing matches");
        for wrong in ["", "a", r#""a"#, r#""a" "b""#, r#""a","#, r#"*, "a""#, r#""a b""#, r#"w/"a""#] {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
    }
}
