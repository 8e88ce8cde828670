//! The requests of a scenario, written once, and which accounts could serve them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use omniroute_dialect::{Dialect, anthropic::Anthropic, openai::OpenAi, responses::Responses};
use omniroute_domain::entity::{ConnectionId, KeyHash};
use omniroute_domain::resolve::{self, Route, Target};
use omniroute_domain::snapshot::{Caller, Snapshot};
use omniroute_engine::Arrival;
use toml::Spanned;

use crate::error::ScenarioError;
use crate::random::Random;
use crate::scenario::{Impatient, Scenario, Traffic};
use crate::setup::KeySetup;
use crate::upstream::WORD;

/// Different lengths of prompts of each kind of request.
const SIZES: usize = 8;
/// Longest prompt, in tokens.
const MAX_INPUT: u64 = 1_000_000;

/// How clients ask in one dialect.
struct Form {
    name: &'static str,
    dialect: &'static dyn Dialect,
    path: &'static str,
    endpoint: &'static str,
    /// What stands only at the proper end of a stream.
    end: &'static str,
}

const FORMS: [Form; 3] = [
    Form {
        name: "openai",
        dialect: &OpenAi,
        path: "/v1/chat/completions",
        endpoint: "chat",
        end: "data: [DONE]",
    },
    Form {
        name: "anthropic",
        dialect: &Anthropic,
        path: "/v1/messages",
        endpoint: "messages",
        end: "event: message_stop",
    },
    Form {
        name: "responses",
        dialect: &Responses,
        path: "/v1/responses",
        endpoint: "responses",
        end: "event: response.completed",
    },
];

/// A kind of request.
pub(crate) struct Ask {
    pub(crate) share: f64,
    stream: f64,
    conversations: Option<u64>,
    pub(crate) impatient: Option<Impatient>,
    form: &'static Form,
    headers: HeaderMap,
    whole: Vec<Bytes>,
    streaming: Vec<Bytes>,
    /// The accounts that may serve it.
    pub(crate) reach: Vec<usize>,
}

/// One request.
pub(crate) struct Request {
    pub(crate) arrival: Arrival,
    pub(crate) body: Bytes,
    /// What stands at the end of its answer if it is a stream.
    pub(crate) end: Option<&'static str>,
}

impl Ask {
    /// All kinds of a scenario.
    pub(crate) fn all(
        scenario: &Scenario,
        text: &str,
        snapshot: &Snapshot,
        marks: &HashMap<ConnectionId, usize>,
        keys: &[KeySetup],
    ) -> Result<Vec<Self>, ScenarioError> {
        if scenario.traffic.is_empty() {
            return Err(ScenarioError::whole("the scenario has no [[traffic]]"));
        }
        let asks = scenario.traffic.iter();
        asks.map(|traffic| Self::new(traffic, text, snapshot, marks, keys)).collect()
    }

    fn new(
        traffic: &Traffic,
        text: &str,
        snapshot: &Snapshot,
        marks: &HashMap<ConnectionId, usize>,
        keys: &[KeySetup],
    ) -> Result<Self, ScenarioError> {
        let wrong =
            |at: &Spanned<String>, message: String| ScenarioError::at(text, Some(at.span().start), message);
        let form = match &traffic.dialect {
            None => &FORMS[0],
            Some(name) => FORMS.iter().find(|form| form.name == name.get_ref()).ok_or_else(|| {
                let message = format!("`{}` is none of openai, anthropic, responses", name.get_ref());
                wrong(name, message)
            })?,
        };
        let key = match &traffic.key {
            None => None,
            Some(name) => {
                let place = keys.iter().position(|key| key.name == *name.get_ref());
                Some(place.ok_or_else(|| wrong(name, format!("there is no key `{}`", name.get_ref())))?)
            }
        };
        let model = traffic.model.get_ref();
        let route =
            resolve::resolve(snapshot, model).map_err(|error| wrong(&traffic.model, error.to_string()))?;
        let caller = key.and_then(|place| snapshot.caller(KeyHash::of(&keys[place].text)));
        let reach = reach(snapshot, &route, model, caller, marks);
        if reach.is_empty() {
            let message = format!("`{model}` leads to no account that this traffic may use");
            return Err(wrong(&traffic.model, message));
        }
        let shares = [traffic.stream, traffic.impatient.map_or(0.0, |impatient| impatient.share)];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) || traffic.share < 0.0 {
            let message = "`stream` and `impatient.share` are between 0 and 1, `share` is not below 0";
            return Err(wrong(&traffic.model, message.to_owned()));
        }
        let [low, high] = traffic.input_tokens;
        if low > high || high > MAX_INPUT {
            let message = format!("`input_tokens` is the least and the most, at most {MAX_INPUT}");
            return Err(wrong(&traffic.model, message));
        }
        let sizes = (0..SIZES as u64).map(|step| low + (high - low) * step / (SIZES as u64 - 1));
        let bodies = |stream: bool| sizes.clone().map(|tokens| form.body(traffic, tokens, stream)).collect();
        Ok(Self {
            share: traffic.share,
            stream: traffic.stream,
            conversations: traffic.conversations.filter(|number| *number > 0),
            impatient: traffic.impatient,
            form,
            headers: headers(key.map(|place| keys[place].text.as_str())),
            whole: bodies(false),
            streaming: bodies(true),
            reach,
        })
    }

    /// One of them.
    pub(crate) fn request(&self, id: &str, random: &mut Random) -> Request {
        let is_stream = random.hits(self.stream);
        let bodies = if is_stream { &self.streaming } else { &self.whole };
        let place = usize::try_from(random.next() % SIZES as u64).unwrap_or(0);
        let mut headers = self.headers.clone();
        let conversation = match self.conversations {
            Some(number) => format!("{}-{}", self.form.name, random.next() % number),
            None => id.to_owned(),
        };
        for (name, value) in [("x-request-id", id), ("x-session-id", conversation.as_str())] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let arrival = Arrival {
            peer: ([127, 0, 0, 1], 50_000).into(),
            method: Method::POST,
            path: self.form.path.into(),
            query: None,
            headers,
            dialect: self.form.dialect,
            endpoint: self.form.endpoint,
            provider: None,
            is_logged: true,
        };
        Request { arrival, body: bodies[place].clone(), end: is_stream.then_some(self.form.end) }
    }
}

impl Form {
    fn body(&self, traffic: &Traffic, tokens: u64, stream: bool) -> Bytes {
        let prompt = WORD.repeat(usize::try_from(tokens).unwrap_or(0).max(1));
        let model = traffic.model.get_ref().replace(['"', '\\'], "");
        let limit = match (self.name, traffic.max_tokens) {
            ("anthropic", most) => format!(r#""max_tokens":{},"#, most.unwrap_or(4_096)),
            ("responses", Some(most)) => format!(r#""max_output_tokens":{most},"#),
            (_, Some(most)) => format!(r#""max_tokens":{most},"#),
            (_, None) => String::new(),
        };
        let prompt = match self.name {
            "responses" => format!(r#""input":"{prompt}""#),
            _ => format!(r#""messages":[{{"role":"user","content":"{prompt}"}}]"#),
        };
        format!(r#"{{"model":"{model}",{limit}"stream":{stream},{prompt}}}"#).into()
    }
}

fn headers(key: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(Ok(value)) = key.map(|key| HeaderValue::from_str(&format!("Bearer {key}"))) {
        headers.insert(AUTHORIZATION, value);
    }
    headers
}

/// The accounts that may serve a request of this route.
fn reach(
    snapshot: &Snapshot,
    route: &Route,
    requested: &str,
    caller: Option<&Arc<Caller>>,
    marks: &HashMap<ConnectionId, usize>,
) -> Vec<usize> {
    let targets = match route {
        Route::Target(target) => vec![target.clone()],
        Route::Combo(combo) => combo.targets(snapshot),
    };
    let may_use = |target: &Target| {
        let by_id = format!("{}/{}", target.provider.id, target.model);
        let names = [requested, &*target.model, &target.full_name(), &by_id];
        caller.is_none_or(|caller| caller.allows_model(&names))
    };
    let mut reach: Vec<usize> = Vec::new();
    for target in targets.iter().filter(|target| may_use(target)) {
        let accounts = target.provider.connections.iter().filter(|connection| {
            target.connection_name.as_ref().is_none_or(|name| **name == *connection.name)
                && !connection.excludes(&target.model)
                && caller.is_none_or(|caller| caller.allows_connection(&connection.id))
        });
        reach.extend(accounts.filter_map(|connection| marks.get(&connection.id)));
    }
    reach.sort_unstable();
    reach.dedup();
    reach
}
