use super::*;

fn read(form: Form, body: &str) -> EmbedRequest {
    EmbedRequest::read(form, &Bytes::copy_from_slice(body.as_bytes())).expect(body)
}

fn refused(form: Form, body: &str) -> (&'static str, String) {
    let error = EmbedRequest::read(form, &Bytes::copy_from_slice(body.as_bytes())).expect_err(body);
    (error.code, error.param.unwrap_or_default())
}

fn written(request: &EmbedRequest, to: Form, caps: &EmbedCaps) -> (String, Vec<String>) {
    let to = request.form.upstream(to);
    request.check(to, caps).expect("it can be asked");
    let encoded = request.write(to, 0..request.len(), "up", caps);
    let losses = encoded.losses.iter().filter(|loss| !loss.silent).map(|loss| loss.path.to_string());
    (String::from_utf8(encoded.body.to_vec()).unwrap(), losses.collect())
}

#[test]
fn what_is_no_request_is_refused_by_name() {
    let openai = [
        (r#"{"input":"a"}"#, "missing_required_parameter", "model"),
        (r#"{"model":"  ","input":"a"}"#, "invalid_value", "model"),
        (r#"{"model":1,"input":"a"}"#, "invalid_type", "model"),
        (r#"{"model":"m","model":"n","input":"a"}"#, "invalid_json", "model"),
        (r#"{"model":"m"}"#, "missing_required_parameter", "input"),
        (r#"{"model":"m","input":null}"#, "missing_required_parameter", "input"),
        (r#"{"model":"m","input":""}"#, "invalid_value", "input"),
        (r#"{"model":"m","input":[]}"#, "invalid_value", "input"),
        (r#"{"model":"m","input":["a",""]}"#, "invalid_value", "input"),
        (r#"{"model":"m","input":[[]]}"#, "invalid_value", "input"),
        (r#"{"model":"m","input":[1,"a"]}"#, "invalid_type", "input"),
        (r#"{"model":"m","input":[[1,"a"]]}"#, "invalid_type", "input"),
        (r#"{"model":"m","input":[1.5]}"#, "invalid_type", "input"),
        (r#"{"model":"m","input":{}}"#, "invalid_type", "input"),
        (r#"{"model":"m","input":true}"#, "invalid_type", "input"),
        (r#"{"model":"m","input":"a","encoding_format":"hex"}"#, "invalid_value", "encoding_format"),
        (r#"{"model":"m","input":"a","dimensions":0}"#, "invalid_value", "dimensions"),
        (r#"{"model":"m","input":"a","dimensions":-1}"#, "invalid_value", "dimensions"),
        (r#"{"model":"m","input":"a""#, "invalid_json", ""),
        ("[]", "invalid_json", ""),
    ];
    for (body, code, param) in openai {
        assert_eq!(refused(Form::OpenAi, body), (code, param.to_owned()), "{body}");
    }
    let many = format!(r#"{{"model":"m","input":[{}"a"]}}"#, "\"a\",".repeat(MAX_ITEMS));
    assert_eq!(refused(Form::OpenAi, &many), ("invalid_value", "input".to_owned()));
    let gemini = [
        ("{}", "missing_required_parameter", "requests"),
        (r#"{"requests":[]}"#, "invalid_value", "requests"),
        (r#"{"requests":[{}]}"#, "missing_required_parameter", "requests[0].content"),
        (r#"{"requests":[{"content":{"parts":[]}}]}"#, "invalid_value", "requests[0].content"),
        (r#"{"requests":[{"content":{"parts":[{"text":""}]}}]}"#, "invalid_value", "requests[0].content"),
    ];
    for (body, code, param) in gemini {
        assert_eq!(refused(Form::GeminiBatch, body), (code, param.to_owned()), "{body}");
    }
    let ollama = [
        (r#"{"input":"a"}"#, "missing_required_parameter", "model"),
        (r#"{"model":"m"}"#, "missing_required_parameter", "input"),
        (r#"{"model":"m","input":["a",""]}"#, "invalid_value", "input"),
        (r#"{"model":"m","input":[1]}"#, "invalid_type", "input"),
    ];
    for (body, code, param) in ollama {
        assert_eq!(refused(Form::Ollama, body), (code, param.to_owned()), "{body}");
    }
    assert_eq!(refused(Form::OllamaOne, r#"{"model":"m","input":"a"}"#).1, "prompt");
}

#[test]
fn the_vectors_of_nothing() {
    let of_nothing = |form, body: &str| {
        let request = EmbedRequest::read(form, &Bytes::copy_from_slice(body.as_bytes())).unwrap();
        request.of_nothing().map(|body| String::from_utf8(body.to_vec()).unwrap())
    };
    for body in [r#"{"model":"m","input":""}"#, r#"{"model":"m","input":[]}"#] {
        assert_eq!(of_nothing(Form::Ollama, body).as_deref(), Some(r#"{"model":"m","embeddings":[]}"#));
    }
    let one = of_nothing(Form::OllamaOne, r#"{"model":"m","prompt":""}"#);
    assert_eq!(one.as_deref(), Some(r#"{"embedding":[]}"#));
    assert_eq!(of_nothing(Form::Ollama, r#"{"model":"m","input":"a"}"#), None);
    assert_eq!(of_nothing(Form::OpenAi, r#"{"model":"m","input":"a"}"#), None);
}

#[test]
fn within_a_dialect_bytes_stay() {
    let full = EmbedCaps::default();
    for (form, body, expected) in [
        (
            Form::OpenAi,
            r#"{ "input": ["a", "\u0062"], "x": 1.0, "model": "asked", "encoding_format":"base64" }"#,
            r#"{ "input": ["a", "\u0062"], "x": 1.0, "model": "up", "encoding_format":"base64" }"#,
        ),
        (
            Form::GeminiOne,
            r#"{"content":{"parts":[{"text":"a"}]},"model":"models/asked","n":1.0}"#,
            r#"{"content":{"parts":[{"text":"a"}]},"model":"models/up","n":1.0}"#,
        ),
        (
            Form::GeminiOne,
            r#"{"content":{"parts":[{"text":"a"}]}}"#,
            r#"{"content":{"parts":[{"text":"a"}]}}"#,
        ),
        (
            Form::GeminiBatch,
            r#"{"requests":[ {"model":"models/asked","content":{"parts":[{"text":"a"}]}}, {"content":{"parts":[{"text":"b"}]}}],"y":2}"#,
            r#"{"requests":[ {"model":"models/up","content":{"parts":[{"text":"a"}]}}, {"content":{"parts":[{"text":"b"}]},"model":"models/up"}],"y":2}"#,
        ),
        (
            Form::Ollama,
            r#"{"model":"asked","input":["a"],"keep_alive":"5m","options":{"num_ctx":1}}"#,
            r#"{"model":"up","input":["a"],"keep_alive":"5m","options":{"num_ctx":1}}"#,
        ),
        (Form::OllamaOne, r#"{"model":"asked","prompt":"a"}"#, r#"{"model":"up","prompt":"a"}"#),
    ] {
        assert_eq!(written(&read(form, body), form, &full), (expected.to_owned(), vec![]), "{form:?}");
    }
}

#[test]
fn an_upstream_gets_what_it_knows() {
    let plain = EmbedCaps { base64: false, ..EmbedCaps::default() };
    let request =
        read(Form::OpenAi, r#"{"encoding_format":"base64","model":"m","input":"a","stream":false}"#);
    assert_eq!(written(&request, Form::OpenAi, &plain).0, r#"{"model":"up","input":"a"}"#);
    let silent = EmbedCaps { float_word: false, dimensions_name: "output_dimension", ..EmbedCaps::default() };
    let request =
        read(Form::OpenAi, r#"{"model":"m","input":"a","dimensions" : 8,"encoding_format":"float"}"#);
    let expected = r#"{"model":"up","input":"a","output_dimension" : 8}"#;
    assert_eq!(written(&request, Form::OpenAi, &silent).0, expected);
    let typed =
        EmbedCaps { input_types: Some(["query", "passage"]), needs_input_type: true, ..EmbedCaps::default() };
    let request = read(Form::OpenAi, r#"{"model":"m","input":"a"}"#);
    assert_eq!(
        written(&request, Form::OpenAi, &typed).0,
        r#"{"model":"up","input":"a","input_type":"query"}"#
    );
    let request = read(Form::OpenAi, r#"{"model":"m","input":"a","input_type":"passage"}"#);
    assert!(written(&request, Form::OpenAi, &typed).0.ends_with(r#""input_type":"passage"}"#));
}

#[test]
fn one_form_becomes_another() {
    let caps = EmbedCaps { input_types: Some(["query", "document"]), ..EmbedCaps::default() };
    let openai = r#"{"model":"m","input":["a\n","b"],"dimensions":3,"input_type":"query","x":1,"user":"u"}"#;
    let gemini = r#"{"requests":[{"content":{"parts":[{"text":"a"},{"text":"c"}]},"task_type":"RETRIEVAL_DOCUMENT","output_dimensionality":3}]}"#;
    let ollama = r#"{"model":"m","input":"a","dimensions":3,"truncate":true,"options":{}}"#;
    for (form, body, to, expected, losses) in [
        (
            Form::OpenAi,
            openai,
            Form::GeminiBatch,
            r#"{"requests":[{"model":"models/up","content":{"parts":[{"text":"a\n"}]},"taskType":"RETRIEVAL_QUERY","outputDimensionality":3},{"model":"models/up","content":{"parts":[{"text":"b"}]},"taskType":"RETRIEVAL_QUERY","outputDimensionality":3}]}"#,
            vec!["x"],
        ),
        (
            Form::OpenAi,
            openai,
            Form::Ollama,
            r#"{"model":"up","input":["a\n","b"],"dimensions":3}"#,
            vec!["input_type", "x"],
        ),
        (
            Form::GeminiBatch,
            gemini,
            Form::OpenAi,
            r#"{"model":"up","input":["a\nc"],"dimensions":3,"input_type":"document"}"#,
            vec![],
        ),
        (
            Form::GeminiBatch,
            gemini,
            Form::Ollama,
            r#"{"model":"up","input":["a\nc"],"dimensions":3}"#,
            vec!["taskType"],
        ),
        (Form::Ollama, ollama, Form::OpenAi, r#"{"model":"up","input":["a"],"dimensions":3}"#, vec![]),
        (
            Form::Ollama,
            ollama,
            Form::GeminiBatch,
            r#"{"requests":[{"model":"models/up","content":{"parts":[{"text":"a"}]},"outputDimensionality":3}]}"#,
            vec![],
        ),
        (
            Form::GeminiOne,
            r#"{"content":{"parts":[{"text":"a"}]},"title":"t"}"#,
            Form::Ollama,
            r#"{"model":"up","input":["a"]}"#,
            vec!["title"],
        ),
    ] {
        let losses: Vec<String> = losses.into_iter().map(str::to_owned).collect();
        assert_eq!(written(&read(form, body), to, &caps), (expected.to_owned(), losses), "{form:?} {to:?}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let openai = EmbedCaps::default();
    let fixed = EmbedCaps { fixed_dimensions: true, max_dimensions: Some(8), ..EmbedCaps::default() };
    let strangers = EmbedCaps { token_lists: false, ..EmbedCaps::default() };
    let differing = r#"{"requests":[{"content":{"parts":[{"text":"a"}]}},{"content":{"parts":[{"text":"b"}]},"taskType":"CLUSTERING"}]}"#;
    let image = r#"{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":""}}]}}"#;
    let one = r#"{"model":"m","input":"a","dimensions":9}"#;
    for (form, body, to, caps, code) in [
        (
            Form::OpenAi,
            r#"{"model":"m","input":[1,2]}"#,
            Form::OpenAi,
            &strangers,
            Some("unsupported_content"),
        ),
        (
            Form::OpenAi,
            r#"{"model":"m","input":[[1],[2]]}"#,
            Form::Ollama,
            &openai,
            Some("unsupported_content"),
        ),
        (Form::OpenAi, r#"{"model":"m","input":[1,2]}"#, Form::OpenAi, &openai, None),
        (Form::OpenAi, r#"{"model":"m","input":[{"image":"x"}]}"#, Form::OpenAi, &openai, None),
        (
            Form::OpenAi,
            r#"{"model":"m","input":[{"image":"x"}]}"#,
            Form::GeminiBatch,
            &openai,
            Some("unsupported_content"),
        ),
        (Form::GeminiOne, image, Form::GeminiBatch, &openai, None),
        (Form::GeminiOne, image, Form::OpenAi, &openai, Some("unsupported_content")),
        (Form::GeminiBatch, differing, Form::GeminiBatch, &openai, None),
        (Form::GeminiBatch, differing, Form::OpenAi, &openai, Some("unsupported_parameter")),
        (Form::OpenAi, one, Form::OpenAi, &fixed, Some("invalid_value")),
        (
            Form::OpenAi,
            r#"{"model":"m","input":"a","dimensions":4}"#,
            Form::OpenAi,
            &fixed,
            Some("unsupported_parameter"),
        ),
        (Form::OpenAi, r#"{"model":"m","input":"a","dimensions":8}"#, Form::OpenAi, &fixed, None),
        (Form::OpenAi, one, Form::OpenAi, &openai, None),
    ] {
        let request = read(form, body);
        let checked = request.check(form.upstream(to), caps);
        assert_eq!(checked.err().map(|error| error.code), code, "{body} to {to:?}");
    }
}

#[test]
fn long_lists_are_cut() {
    let caps = EmbedCaps::default();
    for (form, body, expected) in [
        (
            Form::OpenAi,
            r#"{"model":"m","input":["a","b","c"],"x":1}"#,
            r#"{"model":"up","input":["b","c"],"x":1}"#,
        ),
        (Form::OpenAi, r#"{"model":"m","input":[[1],[2],[3]]}"#, r#"{"model":"up","input":[[2],[3]]}"#),
        (Form::Ollama, r#"{"model":"m","input":["a","b","c"]}"#, r#"{"model":"up","input":["b","c"]}"#),
        (
            Form::GeminiBatch,
            r#"{"requests":[{"content":{"parts":[{"text":"a"}]}},{"content":{"parts":[{"text":"b"}]}},{"content":{"parts":[{"text":"c"}]}}]}"#,
            r#"{"requests":[{"content":{"parts":[{"text":"b"}]},"model":"models/up"},{"content":{"parts":[{"text":"c"}]},"model":"models/up"}]}"#,
        ),
    ] {
        let encoded = read(form, body).write(form, 1..3, "up", &caps);
        assert_eq!(encoded.body, expected);
    }
}

/// 1.0 and -2.5 as 32-bit floats.
const BASE64: &str = "AACAPwAAIMA=";

fn answered(form: Form, request: &str, from: Form, answers: &[&str]) -> String {
    let request = read(form, request);
    let each = request.len() / answers.len();
    let answers: Vec<EmbedAnswer> = answers
        .iter()
        .map(|body| read_answer(from, &Bytes::copy_from_slice(body.as_bytes()), each).expect(body))
        .collect();
    let body = request.answer(from, &answers, 7, "asked").unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn answers_of_the_same_form_stay_but_for_the_model() {
    let asked = r#"{"model":"m","input":"a"}"#;
    let theirs = r#"{"object":"list","x":1.0,"data":[{"embedding":[1.0,-2.50],"index":0,"y":2}],"model":"up","usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    assert_eq!(answered(Form::OpenAi, asked, Form::OpenAi, &[theirs]), theirs.replace("\"up\"", "\"asked\""));
    let theirs = r#"{"model":"up","embeddings":[[1.0]],"total_duration":5}"#;
    assert_eq!(answered(Form::Ollama, asked, Form::Ollama, &[theirs]), theirs.replace("\"up\"", "\"asked\""));
    let theirs = r#"{"embedding":{"values":[1.0],"shape":[1]}}"#;
    let one = r#"{"content":{"parts":[{"text":"a"}]}}"#;
    assert_eq!(answered(Form::GeminiOne, one, Form::GeminiOne, &[theirs]), theirs);
}

#[test]
fn answers_are_put_in_order_and_completed() {
    let asked = r#"{"model":"m","input":["a","b"]}"#;
    let theirs = r#"{"data":[{"embedding":[2],"index":1},{"embedding":[1],"index":0}]}"#;
    let expected = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1]},{"object":"embedding","index":1,"embedding":[2]}],"model":"asked","usage":{"prompt_tokens":7,"total_tokens":7}}"#;
    assert_eq!(answered(Form::OpenAi, asked, Form::OpenAi, &[theirs]), expected);
    let parts = [r#"{"data":[{"embedding":[1],"index":0}]}"#, r#"{"data":[{"embedding":[2],"index":0}]}"#];
    assert_eq!(answered(Form::OpenAi, asked, Form::OpenAi, &parts), expected);
    assert_eq!(
        answered(
            Form::OpenAi,
            asked,
            Form::GeminiBatch,
            &[r#"{"embeddings":[{"values":[1]},{"values":[2]}]}"#]
        ),
        expected
    );
    assert_eq!(
        answered(Form::OpenAi, asked, Form::Ollama, &[r#"{"embeddings":[[1],[2]],"prompt_eval_count":7}"#]),
        expected
    );
}

#[test]
fn vectors_are_written_as_they_are_wanted() {
    let list = |vector: &str| {
        format!(r#"{{"data":[{{"embedding":{vector},"index":0}}],"usage":{{"prompt_tokens":7}}}}"#)
    };
    let (floats, base64) = (list("[1.0,-2.5]"), list(&format!("\"{BASE64}\"")));
    let (plain, packed) =
        (r#"{"model":"m","input":"a"}"#, r#"{"model":"m","input":"a","encoding_format":"base64"}"#);
    assert!(
        answered(Form::OpenAi, packed, Form::OpenAi, &[&floats])
            .contains(&format!("\"embedding\":\"{BASE64}\""))
    );
    assert!(answered(Form::OpenAi, plain, Form::OpenAi, &[&base64]).contains(r#""embedding":[1.0,-2.5]"#));
    assert!(answered(Form::Ollama, plain, Form::OpenAi, &[&base64]).contains(r#""embeddings":[[1.0,-2.5]]"#));
    let one = r#"{"content":{"parts":[{"text":"a"}]}}"#;
    assert_eq!(
        answered(Form::GeminiOne, one, Form::OpenAi, &[&base64]),
        r#"{"embedding":{"values":[1.0,-2.5]}}"#
    );
    let old = r#"{"model":"m","prompt":"a"}"#;
    assert_eq!(answered(Form::OllamaOne, old, Form::OpenAi, &[&floats]), r#"{"embedding":[1.0,-2.5]}"#);
}

#[test]
fn what_is_no_answer_is_the_upstreams_failure() {
    for (form, body) in [
        (Form::OpenAi, "{}"),
        (Form::OpenAi, r#"{"data":[]}"#),
        (Form::OpenAi, r#"{"data":[{"embedding":[],"index":0}]}"#),
        (Form::OpenAi, r#"{"data":[{"embedding":[[1],[2]],"index":0}]}"#),
        (Form::Ollama, r#"{"embeddings":[[ [1]]]}"#),
        (Form::OpenAi, r#"{"data":[{"embedding":null,"index":0}]}"#),
        (Form::OpenAi, r#"{"data":[{"embedding":[1],"index":1}]}"#),
        (Form::OpenAi, r#"{"data":[{"embedding":[1]},{"embedding":[2]}]}"#),
        (Form::GeminiBatch, r#"{"embeddings":[{"values":[]}]}"#),
        (Form::GeminiBatch, "{}"),
        (Form::Ollama, r#"{"embeddings":[[]]}"#),
        (Form::Ollama, r#"{"embeddings":["x"]}"#),
    ] {
        assert!(read_answer(form, &Bytes::copy_from_slice(body.as_bytes()), 1).is_err(), "{body}");
    }
    for body in
        [r#"{"data":[{"embedding":"AAA=","index":0}]}"#, r#"{"data":[{"embedding":"AADAfw==","index":0}]}"#]
    {
        let answer = read_answer(Form::OpenAi, &Bytes::copy_from_slice(body.as_bytes()), 1).unwrap();
        assert!(answer.vectors[0].values().is_err(), "{body}");
    }
}

#[test]
fn odd_bytes_are_survived() {
    for body in [
        "\u{feff}{\"model\":\"m\",\"input\":\"a\"}".as_bytes(),
        br#"{"model":"m","input":"\ud83d"}"#,
        br#"{"model":"m","input":["\ud83d\ude00"]}"#,
        br#"{"requests":[{"content":{"parts":[{"text":"\ud83d"}]}}]}"#,
        br#"{"data":[{"embedding":"AACAPw=\u003d"}]}"#,
        b"\xff",
        b"{",
    ] {
        fuzz_embeddings(body);
    }
    let request =
        EmbedRequest::read(Form::OpenAi, &Bytes::from_static(br#"{"model":"m","input":"\ud83d"}"#)).unwrap();
    let sent = request.write(Form::OpenAi, 0..1, "up", &EmbedCaps::default()).body;
    assert_eq!(sent, r#"{"model":"up","input":"\ufffd"}"#);
}

#[test]
fn tokens_are_estimated() {
    assert_eq!(read(Form::OpenAi, r#"{"model":"m","input":[[1,2,3],[4]]}"#).estimated_tokens(0..2), 4);
    let text = "word ".repeat(80);
    let request = read(Form::OpenAi, &format!(r#"{{"model":"m","input":["{text}","a"]}}"#));
    assert_eq!((request.estimated_tokens(0..1), request.estimated_tokens(1..2)), (100, 1));
}
