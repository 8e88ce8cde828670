//! Members that nobody knows, at every place of a request: within the dialect they are passed on, into another they are
//! recorded.

use std::fs;

use bytes::Bytes;
use http::HeaderMap;
use omniroute_dialect::{Dialect, EncodeError, Head, ir::Loss, registry::DIALECTS};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{decode, full_caps, snapshot, translate};

/// What nobody calls anything.
const ODD: &str = "xOdd";

/// Requests of one dialect that have an object wherever it has any.
#[derive(Deserialize)]
struct Samples {
    /// Objects whose names are the client's own: schemas, arguments, notes.
    free: Vec<String>,
    requests: Vec<Value>,
}

fn samples(dialect: &dyn Dialect) -> Samples {
    let path = format!("{}/tests/harness/unknown/{}.json", env!("CARGO_MANIFEST_DIR"), dialect.id());
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The places of all objects of a request, as `messages[1].content[0]`; that of the whole is empty.
fn objects(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(place.to_owned());
            for (name, member) in members {
                let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                objects(member, &place, found);
            }
        }
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                objects(element, &format!("{place}[{at}]"), found);
            }
        }
        _ => {}
    }
}

/// The request with a member more at this place.
fn with_odd(request: &Value, place: &str) -> Value {
    let mut request = request.clone();
    let steps: Vec<String> = match place {
        "" => Vec::new(),
        place => place.replace('[', ".").replace(']', "").split('.').map(Into::into).collect(),
    };
    let target = steps.iter().fold(&mut request, |value, step| match value {
        Value::Array(elements) => &mut elements[step.parse::<usize>().unwrap()],
        value => &mut value[step.as_str()],
    });
    target[ODD] = json!(1);
    request
}

/// Whether a place is the client's own, or within such a one.
fn is_free(place: &str, free: &[String]) -> bool {
    let mut plain = String::new();
    let mut inside = false;
    for c in place.chars() {
        match c {
            '[' => {
                inside = true;
                plain.push('[');
            }
            ']' => {
                inside = false;
                plain.push(']');
            }
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    free.iter().any(|known| {
        plain == *known || plain.strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
    })
}

fn is_within(place: &str, path: &str) -> bool {
    place == path || place.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// Whether a path names the turn that an item of Responses belongs to, which begins with an earlier item.
fn is_of_turn(place: &str, path: &str) -> bool {
    let item = |path: &str| {
        path.strip_prefix("input[")?
            .split_once(']')
            .map(|(at, rest)| (at.parse::<usize>().ok(), rest.to_owned()))
    };
    let (Some((Some(turn), rest)), Some((Some(item), _))) = (item(path), item(place)) else { return false };
    turn > 1 && turn < item && (rest.is_empty() || rest.ends_with(']'))
}

/// The elements of lists that a place stands in, the innermost first.
fn hosts(place: &str) -> impl Iterator<Item = &str> {
    let ends = place.char_indices().rev().filter(|(_, c)| *c == ']');
    ends.map(|(end, _)| &place[..=end])
}

/// The request without the element of a list that stands there.
fn without(request: &Value, host: &str) -> Value {
    let mut request = request.clone();
    let (list, at) = host.rsplit_once('[').unwrap();
    let at = at.trim_end_matches(']').parse().unwrap();
    let pointer = format!("/{}", list.replace('[', "/").replace(']', "").replace('.', "/"));
    request.pointer_mut(&pointer).unwrap().as_array_mut().unwrap().remove(at);
    request
}

/// The request with nothing in the element that stands at `host` but what leads to `place`, and where that is then.
fn alone(request: &Value, host: &str, place: &str) -> Value {
    let steps = |path: &str| -> Vec<String> {
        path.replace('[', ".").replace(']', "").split('.').map(Into::into).collect()
    };
    let mut request = request.clone();
    let (host, place) = (steps(host), steps(place));
    let mut value = &mut request;
    for (at, step) in place.iter().enumerate() {
        let within = at >= host.len();
        value = match value {
            Value::Array(elements) => {
                let mut at = step.parse::<usize>().unwrap();
                if within {
                    elements.swap(0, at);
                    elements.truncate(1);
                    at = 0;
                }
                &mut elements[at]
            }
            value => {
                if within && let Value::Object(members) = value {
                    members.retain(|name, member| name == step || !member.is_array());
                }
                &mut value[step.as_str()]
            }
        };
    }
    request
}

/// How many losses are of the kind of this one.
fn alike(losses: &[Loss], loss: &Loss) -> usize {
    losses.iter().filter(|other| (other.action, other.silent) == (loss.action, loss.silent)).count()
}

/// What became of the odd member at a place; `None` if nobody says anything. What is told of a whole turn or block tells of
/// the member only if it is about what the member stands in: if there is less to tell without that.
fn verdict(
    place: &str,
    before: &[Loss],
    after: &Result<(Value, Vec<Loss>), EncodeError>,
    fewer: &dyn Fn() -> Option<Vec<Loss>>,
    element: &dyn Fn() -> Option<Loss>,
) -> Option<String> {
    let (_, losses) = match after {
        Ok(sent) => sent,
        Err(error) => return Some(format!("refused: {}", error.param.as_deref().unwrap_or_default())),
    };
    let named = losses.iter().find(|loss| loss.path.ends_with(ODD));
    let fresh = || {
        losses
            .iter()
            .find(|loss| !before.contains(loss) && !loss.path.is_empty() && is_within(place, &loss.path))
    };
    let whole = || {
        let fewer = fewer()?;
        let around =
            before.iter().filter(|loss| is_within(place, &loss.path) || is_of_turn(place, &loss.path));
        let own = around.filter(|loss| alike(before, loss) > alike(&fewer, loss));
        own.max_by_key(|loss| loss.path.len())
    };
    // A member that is left out as a whole, whatever is in it.
    let member = || before.iter().find(|loss| !loss.path.ends_with(']') && is_within(place, &loss.path));
    let member = || member().filter(|loss| !loss.path.is_empty());
    let apart;
    let found = match named.or_else(fresh).or_else(whole).or_else(member) {
        Some(found) => found,
        None => {
            apart = element()?;
            &apart
        }
    };
    let how = if found.silent { "recorded" } else { "told" };
    let what = if named.is_some() { String::new() } else { format!(", with {}", found.path) };
    Some(format!("{how}{what}"))
}

#[test]
fn members_that_nobody_knows_are_recorded_wherever_they_stand() {
    let mut faults = Vec::new();
    let mut tables = Vec::new();
    for from in DIALECTS.iter().copied() {
        let mut table = String::new();
        let Samples { free, requests } = samples(from);
        for request in &requests {
            let mut places = Vec::new();
            objects(request, "", &mut places);
            for place in places.iter().filter(|place| !is_free(place, &free)) {
                let odd = with_odd(request, place);
                let mut said = Vec::new();
                for to in DIALECTS.iter().copied().filter(|to| to.id() != from.id()) {
                    // Not everything in a sample is there for all.
                    let before = translate(from.id().as_str(), to.id().as_str(), request, &full_caps());
                    let Ok((_, before)) = before else { continue };
                    let after = translate(from.id().as_str(), to.id().as_str(), &odd, &full_caps());
                    if let Ok((body, _)) = &after
                        && body.to_string().contains(ODD)
                    {
                        faults.push(format!("{}: {place} goes to {}: {body}", from.id(), to.id()));
                    }
                    let fewer = || {
                        hosts(place).find_map(|host| {
                            let smaller = without(request, host);
                            let read = decode(from, &smaller.to_string()).ok()?;
                            let sent = to.encode_request(&read, &full_caps()).ok()?;
                            Some(sent.losses)
                        })
                    };
                    // What is told of an element as a whole still is when there is nothing else in it, and not without it.
                    let element = || {
                        let losses = |request: &Value| {
                            let read = decode(from, &request.to_string()).ok()?;
                            Some(to.encode_request(&read, &full_caps()).ok()?.losses)
                        };
                        hosts(place).find_map(|host| {
                            let apart = losses(&alone(request, host, place))?;
                            let gone = losses(&without(request, host))?;
                            let about = |loss: &&Loss| {
                                (loss.path == host || is_of_turn(host, &loss.path))
                                    && alike(&apart, loss) > alike(&gone, loss)
                            };
                            apart.iter().find(about).cloned()
                        })
                    };
                    match verdict(place, &before, &after, &fewer, &element) {
                        Some(how) => said.push(how),
                        None => {
                            faults.push(format!("{}: {place} is lost on the way to {}", from.id(), to.id()));
                        }
                    }
                }
                assert!(!said.is_empty() || !faults.is_empty(), "nobody takes {request}");
                said.dedup();
                let place = if place.is_empty() { "the request" } else { place };
                table.push_str(&format!("{place}: {}\n", said.join("; ")));
            }
        }
        tables.push((format!("unknown_{}", from.id()), table));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    tables.into_iter().for_each(|(name, table)| snapshot(name, &table));
}

#[test]
fn members_that_nobody_knows_stay_within_their_dialect() {
    for own in DIALECTS.iter().copied() {
        for request in samples(own).requests {
            let mut places = Vec::new();
            objects(&request, "", &mut places);
            for place in places {
                let odd = with_odd(&request, &place);
                let (headers, body) = (HeaderMap::new(), Bytes::from(odd.to_string()));
                let head = Head { headers: &headers, path: "/v1beta/models/m:generateContent", query: None };
                let envelope = own.envelope(head, &body).unwrap();
                let sent = own.edit_request(&body, &envelope, "up").to_bytes();
                let sent: Value = serde_json::from_slice(&sent).unwrap();
                let mut places = Vec::new();
                odd_places(&sent, "", &mut places);
                assert_eq!(places, [place], "{}: {sent}", own.id());
            }
        }
    }
}

fn odd_places(value: &Value, place: &str, found: &mut Vec<String>) {
    let mut all = Vec::new();
    objects(value, place, &mut all);
    let pointer = |place: &str| match place {
        "" => String::new(),
        place => format!("/{}", place.replace('[', "/").replace(']', "").replace('.', "/")),
    };
    found.extend(
        all.into_iter()
            .filter(|place| value.pointer(&pointer(place)).is_some_and(|it| it.get(ODD).is_some())),
    );
}
