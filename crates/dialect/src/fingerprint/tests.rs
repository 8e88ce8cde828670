//! What makes requests the same, case by case.

use bytes::Bytes;
use http::HeaderMap;
use proptest::strategy::Strategy as _;

use super::*;
use crate::registry::by_name;
use crate::{Dialect, Head};

fn decoded(dialect: &'static dyn Dialect, body: &str) -> ChatRequest {
    let headers = HeaderMap::new();
    let head = Head { headers: &headers, path: "/v1/test", query: None };
    dialect.decode_request(head, &Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

fn of(members: &str) -> Option<[u8; 32]> {
    let openai = by_name("openai").unwrap();
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{members}}}"#);
    fingerprint(&decoded(openai, &body), "p/m", &[])
}

fn of_messages(messages: &str) -> [u8; 32] {
    let openai = by_name("openai").unwrap();
    let body = format!(r#"{{"model":"m","temperature":0,"messages":[{messages}]}}"#);
    fingerprint(&decoded(openai, &body), "p/m", &[]).unwrap()
}

#[test]
fn only_a_temperature_of_zero_asks_for_the_same_again() {
    for zero in ["0", "0.0", "-0.0", "0e5"] {
        assert!(of(&format!(r#","temperature":{zero}"#)).is_some(), "{zero}");
    }
    for other in ["", r#","temperature":null"#, r#","temperature":0.1"#, r#","temperature":1"#] {
        assert!(of(other).is_none(), "{other}");
    }
}

#[test]
fn answers_that_depend_on_more_are_not_repeatable() {
    for member in [
        r#""n":2"#,
        r#""logprobs":true"#,
        r#""logprobs":true,"top_logprobs":3"#,
        r#""web_search_options":{}"#,
        r#""modalities":["text","audio"],"audio":{"voice":"a","format":"wav"}"#,
    ] {
        assert!(of(&format!(r#","temperature":0,{member}"#)).is_none(), "{member}");
    }
    let responses = by_name("responses").unwrap();
    for member in [r#""previous_response_id":"resp_1""#, r#""conversation":"conv_1""#, r#""background":true"#]
    {
        let body = format!(r#"{{"model":"m","input":"hi","temperature":0,{member}}}"#);
        assert!(fingerprint(&decoded(responses, &body), "p/m", &[]).is_none(), "{member}");
    }
}

#[test]
fn whatever_changes_the_answer_changes_the_digest() {
    let members = [
        "",
        r#","top_p":0.5"#,
        r#","seed":1"#,
        r#","seed":2"#,
        r#","stop":["x"]"#,
        r#","max_tokens":5"#,
        r#","max_tokens":6"#,
        r#","frequency_penalty":1"#,
        r#","presence_penalty":1"#,
        r#","logit_bias":{"1":2}"#,
        r#","reasoning_effort":"low""#,
        r#","response_format":{"type":"json_object"}"#,
        r#","response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"type":"object"}}}"#,
        r#","tools":[{"type":"function","function":{"name":"f"}}]"#,
        r#","tools":[{"type":"function","function":{"name":"g"}}]"#,
        r#","tools":[{"type":"function","function":{"name":"f","description":"d"}}]"#,
        r#","tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required""#,
        r#","tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none""#,
        r#","tools":[{"type":"function","function":{"name":"f"}}],"parallel_tool_calls":false"#,
        r#","verbosity":"low""#,
        r#","unheard_of":1"#,
    ];
    let mut seen = std::collections::HashMap::new();
    for member in members {
        let digest = of(&format!(r#","temperature":0{member}"#)).expect(member);
        assert_eq!(seen.insert(digest, member), None, "{member}");
    }
}

#[test]
fn bookkeeping_does_not_change_it() {
    let plain = of(r#","temperature":0"#);
    for member in [
        r#""user":"u""#,
        r#""metadata":{"a":"b"}"#,
        r#""store":true"#,
        r#""stream":true,"stream_options":{"include_usage":true}"#,
        r#""service_tier":"flex""#,
        r#""prompt_cache_key":"k""#,
        r#""safety_identifier":"s""#,
        r#""n":1"#,
    ] {
        assert_eq!(of(&format!(r#","temperature":0.0,{member}"#)), plain, "{member}");
    }
}

#[test]
fn texts_are_compared_as_people_see_them_and_json_without_its_order() {
    let text = |text: &str| of_messages(&format!(r#"{{"role":"user","content":"{text}"}}"#));
    assert_eq!(text("caf\u{e9}\\r\\nx"), text("cafe\u{301}\\nx"));
    assert_ne!(text("hi"), text("hi "));
    assert_ne!(text("hi"), text("Hi"));
    let tool = |schema: &str| {
        of(&format!(
            r#","temperature":0,"tools":[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}]"#
        ))
    };
    assert_eq!(
        tool(r#"{"type":"object","properties":{"a":{},"b":{}}}"#),
        tool(r#"{ "properties": {"b":{}, "a":{}}, "type": "object" }"#)
    );
}

#[test]
fn ids_of_calls_count_by_their_order_alone() {
    let round = |first: &str, second: &str, answered: [&str; 2]| {
        of_messages(&format!(
            r#"{{"role":"user","content":"go"}},{{"role":"assistant","content":null,"tool_calls":[
            {{"id":"{first}","type":"function","function":{{"name":"f","arguments":"{{\"x\":1}}"}}}},
            {{"id":"{second}","type":"function","function":{{"name":"f","arguments":"{{\"x\":2}}"}}}}]}},
            {{"role":"tool","tool_call_id":"{}","content":"one"}},{{"role":"tool","tool_call_id":"{}","content":"two"}}"#,
            answered[0], answered[1]
        ))
    };
    assert_eq!(round("a", "b", ["a", "b"]), round("call_77", "call_3", ["call_77", "call_3"]));
    assert_ne!(round("a", "b", ["a", "b"]), round("a", "b", ["b", "a"]));
}

#[test]
fn the_target_and_what_surrounds_the_request_count() {
    let openai = by_name("openai").unwrap();
    let request =
        decoded(openai, r#"{"model":"m","temperature":0,"messages":[{"role":"user","content":"hi"}]}"#);
    let all = [
        fingerprint(&request, "p/m", &[]),
        fingerprint(&request, "q/m", &[]),
        fingerprint(&request, "p/m", &["prompt"]),
        fingerprint(&request, "p/m", &["pro", "mpt"]),
    ];
    for (place, one) in all.iter().enumerate() {
        assert!(one.is_some() && !all[..place].contains(one));
    }
}

#[test]
fn every_dialect_tells_a_wish_for_the_same_answer() {
    let body = |dialect: &str, temperature: &str| match dialect {
        "openai" => format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],{temperature}"max_tokens":9}}"#
        ),
        "responses" => format!(r#"{{"model":"m","input":"hi",{temperature}"max_output_tokens":9}}"#),
        "anthropic" => {
            format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],{temperature}"max_tokens":9}}"#
            )
        }
        "gemini" => format!(
            r#"{{"contents":[{{"role":"user","parts":[{{"text":"hi"}}]}}],"generationConfig":{{{temperature}"maxOutputTokens":9}}}}"#
        ),
        "ollama" => format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],"options":{{{temperature}"num_predict":9}}}}"#
        ),
        other => panic!("no body for {other}"),
    };
    let headers = HeaderMap::new();
    let mut digests = Vec::new();
    for dialect in crate::registry::DIALECTS {
        let id = dialect.id().as_str();
        let head = Head { headers: &headers, path: "/v1beta/models/m:generateContent", query: None };
        let is_cold = |temperature: &str| {
            let body = Bytes::from(body(id, temperature));
            dialect.envelope(head, &body).unwrap().spans.is_cold
        };
        assert!(is_cold(r#""temperature":0,"#) && is_cold(r#""temperature": 0.0 ,"#), "{id}");
        for other in ["", r#""temperature":null,"#, r#""temperature":0.1,"#, r#""top_p":0,"#] {
            assert!(!is_cold(other), "{id}: {other}");
        }
        let body = Bytes::from(body(id, r#""temperature":0,"#));
        let request = dialect.decode_request(head, &body).unwrap();
        digests.push((id, fingerprint(&request, "p/m", &[]).unwrap()));
    }
    let first = digests[0].1;
    assert!(digests.iter().all(|(_, digest)| *digest == first), "not the same question in all: {digests:?}");
}

#[test]
fn a_conversation_with_tools_is_the_same_in_two_dialects() {
    let openai = by_name("openai").unwrap();
    let anthropic = by_name("anthropic").unwrap();
    let one = r#"{"model":"m","temperature":0,"max_tokens":64,"stop":["END"],"messages":[
        {"role":"system","content":"Be brief."},{"role":"user","content":"weather?"},
        {"role":"assistant","content":null,"tool_calls":[
            {"id":"call_1","type":"function","function":{"name":"w","arguments":"{\"c\":\"Rome\",\"d\":1}"}},
            {"id":"call_2","type":"function","function":{"name":"w","arguments":"{\"c\":\"Oslo\"}"}}]},
        {"role":"tool","tool_call_id":"call_1","content":"sun"},{"role":"tool","tool_call_id":"call_2","content":"snow"}],
        "tools":[{"type":"function","function":{"name":"w","description":"d","parameters":{"type":"object","properties":{"c":{"type":"string"}}}}}]}"#;
    let other = r#"{"model":"m","temperature":0.0,"max_tokens":64,"stop_sequences":["END"],"system":"Be brief.","messages":[
        {"role":"user","content":"weather?"},
        {"role":"assistant","content":[
            {"type":"tool_use","id":"toolu_a","name":"w","input":{"d":1,"c":"Rome"}},
            {"type":"tool_use","id":"toolu_b","name":"w","input":{"c":"Oslo"}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_a","content":"sun"},
            {"type":"tool_result","tool_use_id":"toolu_b","content":[{"type":"text","text":"snow"}]}]}],
        "tools":[{"name":"w","description":"d","input_schema":{"properties":{"c":{"type":"string"}},"type":"object"}}],
        "metadata":{"user_id":"u"}}"#;
    fn digest(dialect: &'static dyn Dialect, body: &str) -> [u8; 32] {
        fingerprint(&decoded(dialect, body), "p/m", &[]).unwrap()
    }
    assert_eq!(digest(openai, one), digest(anthropic, other));
    assert_ne!(digest(openai, one), digest(anthropic, &other.replace("snow", "rain")));
    assert_ne!(digest(openai, one), digest(anthropic, &other.replace("Oslo", "Bonn")));
}

/// A member of a request as it can be written in two ways, and one that means something else.
type Written = (&'static str, &'static str, &'static str);

const WRITTEN: &[Written] = &[
    (r#""temperature":0"#, r#""temperature" : 0.0"#, r#""temperature":0,"seed":1"#),
    (r#""top_p":0.5"#, r#""top_p": 5e-1"#, r#""top_p":0.6"#),
    (r#""seed":7"#, r#""seed":7.0"#, r#""seed":8"#),
    (r#""stop":["a","b"]"#, r#""stop":[ "\u0061" , "b" ]"#, r#""stop":["b","a"]"#),
    (r#""max_tokens":5"#, r#""max_completion_tokens":5"#, r#""max_tokens":6"#),
    (r#""logit_bias":{"1":2,"3":4}"#, r#""logit_bias":{"3":4.0, "1":2}"#, r#""logit_bias":{"1":4,"3":2}"#),
    (r#""presence_penalty":0.1"#, r#""presence_penalty":0.10"#, r#""frequency_penalty":0.1"#),
    (r#""verbosity":"low""#, r#""verbosity":"\u006cow""#, r#""verbosity":"high""#),
    (r#""reasoning_effort":"low""#, r#""reasoning_effort" :"low""#, r#""reasoning_effort":"high""#),
    (r#""user":"a""#, r#""metadata":{"x":"y"}"#, r#""unheard_of":true"#),
    (
        r#""unheard_of":{"a":1,"b":[2]}"#,
        r#""unheard_of":{"b":[2.0],"a":1}"#,
        r#""unheard_of":{"a":1,"b":[3]}"#,
    ),
    (
        r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","required":["a"]}}}"#,
        r#""response_format":{"json_schema":{"schema":{"required":["a"],"type":"object"},"name":"n"},"type":"json_schema"}"#,
        r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","required":["b"]}}}"#,
    ),
    (
        r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}]"#,
        r#""tools":[{"function":{"parameters":{"properties":{},"type":"object"},"name":"f"},"type":"function"}]"#,
        r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#,
    ),
];

proptest::proptest! {
    /// However a request is written it has one digest, and whichever member is changed it has another.
    #[test]
    fn only_meaning_counts(
        picked in proptest::sample::subsequence((1..WRITTEN.len()).collect::<Vec<_>>(), 0..WRITTEN.len() - 1)
            .prop_flat_map(|picked| proptest::strategy::Just(picked).prop_shuffle()),
        others in proptest::collection::vec(proptest::bool::ANY, WRITTEN.len()),
        changed in proptest::sample::select((0..WRITTEN.len()).collect::<Vec<_>>()),
        text in "[a-zA-Zé \\u{301}]{0,12}",
    ) {
        let openai = by_name("openai").unwrap();
        let digest = |members: Vec<&str>, text: &str, ends: &str| {
            let text = serde_json::to_string(text).unwrap();
            let body = format!(
                r#"{{"model":"m",{}{ends}"messages":[{{"role":"user","content":{text}}}]{ends}}}"#,
                members.iter().map(|member| format!("{member},")).collect::<String>()
            );
            fingerprint(&decoded(openai, &body), "p/m", &[]).unwrap()
        };
        // Two that would say the same thing twice stay apart.
        let picked: Vec<usize> = std::iter::once(0)
            .chain(picked)
            .filter(|at| !(*at == 10 && changed == 9))
            .collect();
        let plain: Vec<&str> = picked.iter().map(|at| WRITTEN[*at].0).collect();
        let written: Vec<&str> =
            picked.iter().rev().map(|at| if others[*at] { WRITTEN[*at].1 } else { WRITTEN[*at].0 }).collect();
        let one = digest(plain.clone(), &text, "");
        proptest::prop_assert_eq!(one, digest(written, &text, "\n "));
        proptest::prop_assert_ne!(one, digest(plain.clone(), &format!("{text}!"), ""));
        if let Some(place) = picked.iter().position(|at| *at == changed) {
            let is_repeated = WRITTEN[changed].2.contains("\"seed\"") && picked.contains(&2) && changed == 0
                || changed == 9 && picked.contains(&10);
            if !is_repeated {
                let mut other = plain;
                other[place] = WRITTEN[changed].2;
                proptest::prop_assert_ne!(one, digest(other, &text, ""));
            }
        }
    }
}

/// What `question` sees in a Chat request with these messages and members.
fn asked(messages: &str, members: &str) -> Option<Question> {
    let body = format!(r#"{{"model":"m","temperature":0,"messages":[{messages}]{members}}}"#);
    question(&decoded(by_name("openai").unwrap(), &body), "p/m", &["c"])
}

#[test]
fn a_single_text_is_a_question_and_everything_else_is_the_rest() {
    let user = |text: &str| format!(r#"{{"role":"user","content":"{text}"}}"#);
    let one = asked(&user("cafe\u{301}\\r\\nhi"), "").unwrap();
    assert_eq!(one.text, "caf\u{e9}\nhi");
    assert_eq!(asked(&user("other"), "").unwrap().rest, one.rest, "the text is no part of the rest");
    let parts = r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#;
    assert_eq!(asked(parts, "").unwrap().text, "a\nb");
    let system = r#"{"role":"system","content":"be brief"},"#;
    for other in [
        asked(&format!("{system}{}", user("hi")), ""),
        asked(&user("hi"), r#","max_tokens":5"#),
        asked(&user("hi"), r#","response_format":{"type":"json_object"}"#),
        asked(r#"{"role":"user","name":"eve","content":"hi"}"#, ""),
    ] {
        assert_ne!(other.unwrap().rest, one.rest);
    }
    let image = r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"https://a.example/b.png"}}]}"#;
    let turns = format!(r#"{},{{"role":"assistant","content":"x"}},{}"#, user("a"), user("b"));
    let tool = r#","tools":[{"type":"function","function":{"name":"f"}}]"#;
    for (messages, members) in
        [(image, ""), (&*turns, ""), (&*user("hi"), tool), (&*user("hi"), r#","n":2"#), (&*user("  "), "")]
    {
        assert_eq!(asked(messages, members), None, "{messages}{members}");
    }
    let messages = by_name("anthropic").unwrap();
    let theirs =
        r#"{"model":"m","max_tokens":5,"temperature":0.0,"messages":[{"role":"user","content":"hi"}]}"#;
    let theirs = question(&decoded(messages, theirs), "p/m", &["c"]).unwrap();
    assert_eq!(theirs, asked(&user("hi"), r#","max_tokens":5"#).unwrap(), "the dialect does not count");
}
