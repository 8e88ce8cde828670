//! The dialects as a client sees them: where to ask, what to send, and where things are in an answer.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chat,
    Responses,
    Messages,
    Gemini,
    Ollama,
}

pub(crate) use Dialect::{Chat, Gemini, Messages, Ollama, Responses};

pub(crate) const ALL: [Dialect; 5] = [Chat, Responses, Messages, Gemini, Ollama];

/// A request before it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) dialect: Dialect,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// A minimal request.
pub(crate) fn call(dialect: Dialect, model: &str, stream: bool) -> Call {
    let messages = json!([{"role": "user", "content": SAID}]);
    let (path, body) = match dialect {
        Chat => (
            "/v1/chat/completions".to_owned(),
            json!({"model": model, "stream": stream, "messages": messages}),
        ),
        Responses => {
            ("/v1/responses".to_owned(), json!({"model": model, "stream": stream, "input": messages}))
        }
        Ollama => ("/api/chat".to_owned(), json!({"model": model, "stream": stream, "messages": messages})),
        Messages => (
            "/v1/messages".to_owned(),
            json!({"model": model, "stream": stream, "max_tokens": 1000, "messages": messages}),
        ),
        Gemini => {
            let action = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            let contents = json!([{"role": "user", "parts": [{"text": SAID}]}]);
            (format!("/v1beta/models/{model}:{action}"), json!({"contents": contents}))
        }
    };
    Call { dialect, path, body }
}

impl Call {
    /// The same with other members.
    pub(crate) fn with(mut self, more: Value) -> Self {
        self.body = with(self.body, more);
        self
    }

    /// The same, but the user says this.
    pub(crate) fn saying(self, text: &str) -> Self {
        let turn = match self.dialect {
            Gemini => json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}),
            Responses => json!({"input": text}),
            Chat | Messages | Ollama => json!({"messages": [{"role": "user", "content": text}]}),
        };
        self.with(turn)
    }

    /// The same with two tools: `weather`, which needs a city, and `now`.
    pub(crate) fn with_tools(self) -> Self {
        let weather =
            json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        let tools = match self.dialect {
            Chat | Ollama => json!([
                {"type": "function", "function": {"name": "weather", "parameters": weather}},
                {"type": "function", "function": {"name": "now"}}
            ]),
            Responses => json!([
                {"type": "function", "name": "weather", "parameters": weather},
                {"type": "function", "name": "now"}
            ]),
            Messages => json!([
                {"name": "weather", "input_schema": weather},
                {"name": "now", "input_schema": {"type": "object"}}
            ]),
            Gemini => json!([{"functionDeclarations": [
                {"name": "weather", "parameters": weather}, {"name": "now"}]}]),
        };
        self.with(json!({"tools": tools}))
    }

    /// The request as it goes out, with a key.
    pub(crate) fn request(&self, key: &str) -> Request<Bytes> {
        let request = Request::post(&self.path).header("content-type", "application/json");
        let request = match self.dialect {
            Chat | Responses | Ollama => request.header("authorization", format!("Bearer {key}")),
            Messages => request.header("x-api-key", key).header("anthropic-version", "2023-06-01"),
            Gemini => request.header("x-goog-api-key", key),
        };
        request.body(Bytes::from(self.body.to_string())).unwrap()
    }

    pub(crate) async fn send(&self, simulator: &Simulator, key: &str) -> Answer {
        super::send(simulator, self.dialect, self.request(key)).await
    }
}

/// What an answer says, wherever its dialect has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) thoughts: String,
    /// Names and arguments.
    pub(crate) calls: Vec<(String, String)>,
    /// The vendor's word for the end.
    pub(crate) finish: Option<String>,
}

impl Answer {
    /// What a whole answer says.
    pub(crate) fn said(&self) -> Said {
        let document = self.json();
        let mut said = Said::default();
        match self.dialect {
            Chat => said.chat(&document["choices"][0], "message"),
            Responses => said.response(&document),
            Messages => {
                for block in document["content"].as_array().unwrap() {
                    said.block(block);
                }
                said.finish = string(&document["stop_reason"]);
            }
            Gemini => said.candidate(&document["candidates"][0]),
            Ollama => said.line(&document),
        }
        said
    }

    /// The data of all events; what is not JSON is a string.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.raw().replace("\r\n", "\n");
        let parsed = |data: &str| serde_json::from_str(data).unwrap_or_else(|_| json!(data));
        if self.dialect == Ollama {
            return text.split_terminator('\n').map(parsed).collect();
        }
        let data = |block: &str| {
            let lines = block.lines().filter_map(|line| line.strip_prefix("data:"));
            let data: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
            (!data.is_empty()).then(|| parsed(&data.join("\n")))
        };
        text.split("\n\n").filter_map(data).collect()
    }

    /// What a stream says.
    pub(crate) fn streamed(&self) -> Said {
        let mut said = Said::default();
        for event in self.events() {
            match self.dialect {
                Chat => said.chat(&event["choices"][0], "delta"),
                Responses => said.item_event(&event),
                Messages => said.event(&event),
                Gemini => said.candidate(&event["candidates"][0]),
                Ollama => said.line(&event),
            }
        }
        said
    }
}

fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

impl Said {
    fn chat(&mut self, choice: &Value, member: &str) {
        let message = &choice[member];
        self.text.push_str(message["content"].as_str().unwrap_or_default());
        self.text.push_str(message["refusal"].as_str().unwrap_or_default());
        self.thoughts.push_str(message["reasoning_content"].as_str().unwrap_or_default());
        for (position, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let index = call["index"].as_u64().map_or(position, |index| usize::try_from(index).unwrap());
            if index == self.calls.len() {
                self.calls.push(Default::default());
            }
            let (name, arguments) = &mut self.calls[index];
            name.push_str(call["function"]["name"].as_str().unwrap_or_default());
            arguments.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
        }
        self.finish = self.finish.take().or(string(&choice["finish_reason"]));
    }

    fn response(&mut self, response: &Value) {
        for item in response["output"].as_array().unwrap() {
            match item["type"].as_str().unwrap() {
                "message" => {
                    for part in item["content"].as_array().unwrap() {
                        let text = part["text"].as_str().or(part["refusal"].as_str());
                        self.text.push_str(text.unwrap());
                    }
                }
                "reasoning" => {
                    for part in item["summary"].as_array().unwrap() {
                        self.thoughts.push_str(part["text"].as_str().unwrap());
                    }
                }
                _ => {
                    let arguments = string(&item["arguments"]).unwrap();
                    self.calls.push((string(&item["name"]).unwrap(), arguments));
                }
            }
        }
        self.finish = string(&response["incomplete_details"]["reason"]).or(string(&response["status"]));
    }

    fn item_event(&mut self, event: &Value) {
        let delta = event["delta"].as_str().unwrap_or_default();
        match event["type"].as_str().unwrap_or_default() {
            "response.output_text.delta" | "response.refusal.delta" => self.text.push_str(delta),
            "response.reasoning_summary_text.delta" => self.thoughts.push_str(delta),
            "response.output_item.added" if event["item"]["type"] == "function_call" => {
                self.calls.push((string(&event["item"]["name"]).unwrap(), String::new()));
            }
            "response.function_call_arguments.delta" => {
                // Thoughts are the first item, if there are any.
                let first = usize::from(!self.thoughts.is_empty());
                let index = usize::try_from(event["output_index"].as_u64().unwrap()).unwrap() - first;
                self.calls[index].1.push_str(delta);
            }
            "response.completed" | "response.incomplete" => {
                let mut whole = Self::default();
                whole.response(&event["response"]);
                self.finish = whole.finish;
            }
            _ => {}
        }
    }

    fn block(&mut self, block: &Value) {
        match block["type"].as_str().unwrap() {
            "text" => self.text.push_str(block["text"].as_str().unwrap()),
            "thinking" => self.thoughts.push_str(block["thinking"].as_str().unwrap()),
            "tool_use" => self.calls.push((string(&block["name"]).unwrap(), block["input"].to_string())),
            _ => {}
        }
    }

    fn event(&mut self, event: &Value) {
        if event["content_block"]["type"] == "tool_use" {
            self.calls.push((string(&event["content_block"]["name"]).unwrap(), String::new()));
        }
        let delta = &event["delta"];
        self.text.push_str(delta["text"].as_str().unwrap_or_default());
        self.thoughts.push_str(delta["thinking"].as_str().unwrap_or_default());
        if let Some(piece) = delta["partial_json"].as_str() {
            self.calls.last_mut().unwrap().1.push_str(piece);
        }
        self.finish = self.finish.take().or(string(&delta["stop_reason"]));
    }

    fn line(&mut self, line: &Value) {
        let message = &line["message"];
        self.text.push_str(message["content"].as_str().unwrap_or_default());
        self.thoughts.push_str(message["thinking"].as_str().unwrap_or_default());
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            self.calls.push((string(&function["name"]).unwrap(), function["arguments"].to_string()));
        }
        self.finish = self.finish.take().or(string(&line["done_reason"]));
    }

    fn candidate(&mut self, candidate: &Value) {
        for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
            let text = part["text"].as_str().unwrap_or_default();
            if part["thought"] == true {
                self.thoughts.push_str(text);
            } else {
                self.text.push_str(text);
            }
            if let Some(call) = part.get("functionCall") {
                let args = call.get("args").map(Value::to_string).unwrap_or_default();
                self.calls.push((string(&call["name"]).unwrap(), args));
            }
        }
        self.finish = self.finish.take().or(string(&candidate["finishReason"]));
    }
}

/// The content type of a stream.
pub(crate) fn stream_type(dialect: Dialect) -> &'static str {
    match dialect {
        Chat | Responses | Messages | Gemini => "text/event-stream; charset=utf-8",
        Ollama => "application/x-ndjson",
    }
}

/// The piece of text that an event carries.
pub(crate) fn piece(dialect: Dialect, event: &Value) -> Option<String> {
    let pointer = match dialect {
        Chat => "/choices/0/delta/content",
        Responses => "/delta",
        Messages => "/delta/text",
        Gemini => "/candidates/0/content/parts/0/text",
        Ollama => "/message/content",
    };
    string(event.pointer(pointer)?).filter(|text| !text.is_empty())
}

/// Where an error document says of which kind it is.
pub(crate) fn error_kind(dialect: Dialect) -> &'static str {
    match dialect {
        Chat | Responses | Messages => "/error/type",
        Gemini => "/error/status",
        // There are no kinds.
        Ollama => "/kind",
    }
}

/// The kind that goes with a status.
pub(crate) fn kind_of(dialect: Dialect, status: u16) -> Value {
    let at = [400, 401, 403, 429, 500, 529].iter().position(|known| *known == status).unwrap();
    let invalid = "invalid_request_error";
    let kinds = match dialect {
        Chat | Responses => [invalid, invalid, invalid, "requests", "server_error", "server_error"],
        Messages => [
            invalid,
            "authentication_error",
            "permission_error",
            "rate_limit_error",
            "api_error",
            "overloaded_error",
        ],
        Gemini => [
            "INVALID_ARGUMENT",
            "UNAUTHENTICATED",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "INTERNAL",
            "UNAVAILABLE",
        ],
        Ollama => return Value::Null,
    };
    json!(kinds[at])
}

/// The message of an event that is an error.
pub(crate) fn error_in(event: &Value) -> Option<String> {
    let pointers = ["/error/message", "/response/error/message", "/error", "/message"];
    string(pointers.iter().find_map(|pointer| event.pointer(pointer))?)
}

/// The numbers of tokens that a document tells, those that it tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) prompt: Option<u64>,
    pub(crate) cached: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) reasoning: Option<u64>,
}

/// What a document says about tokens, as its dialect counts them.
pub(crate) fn tokens(document: &Value) -> Tokens {
    let document = document.get("response").unwrap_or(document);
    let find = |pointers: &[&str]| {
        pointers.iter().find_map(|pointer| document.pointer(pointer)).and_then(Value::as_u64)
    };
    Tokens {
        prompt: find(&[
            "/usage/prompt_tokens",
            "/usage/input_tokens",
            "/usageMetadata/promptTokenCount",
            "/prompt_eval_count",
        ]),
        cached: find(&[
            "/usage/prompt_tokens_details/cached_tokens",
            "/usage/input_tokens_details/cached_tokens",
            "/usage/cache_read_input_tokens",
            "/usageMetadata/cachedContentTokenCount",
        ]),
        output: find(&[
            "/usage/completion_tokens",
            "/usage/output_tokens",
            "/usageMetadata/candidatesTokenCount",
            "/eval_count",
        ]),
        reasoning: find(&[
            "/usage/completion_tokens_details/reasoning_tokens",
            "/usage/output_tokens_details/reasoning_tokens",
            "/usage/output_tokens_details/thinking_tokens",
            "/usageMetadata/thoughtsTokenCount",
        ]),
    }
}

/// Whether an event tells tokens.
pub(crate) fn tells_tokens(event: &Value) -> bool {
    ["/usage", "/message/usage", "/response/usage", "/usageMetadata", "/eval_count"]
        .iter()
        .any(|pointer| event.pointer(pointer).is_some_and(|told| !told.is_null()))
}

/// How a request says that it wants no thoughts, that it need not see them, and that it wants to see them.
pub(crate) fn wishes(dialect: Dialect) -> (Option<Value>, Option<Value>, Option<Value>) {
    let gemini = |config: Value| Some(json!({"generationConfig": {"thinkingConfig": config}}));
    match dialect {
        Chat => (Some(json!({"reasoning_effort": "none"})), None, Some(json!({"reasoning_effort": "low"}))),
        Responses => (
            Some(json!({"reasoning": {"effort": "none"}})),
            Some(json!({"reasoning": {"effort": "low"}})),
            Some(json!({"reasoning": {"summary": "auto"}})),
        ),
        Messages => (
            Some(json!({"thinking": {"type": "disabled"}})),
            Some(json!({"thinking": {"type": "adaptive", "display": "omitted"}})),
            Some(json!({"thinking": {"type": "adaptive"}})),
        ),
        Ollama => (Some(json!({"think": false})), None, Some(json!({"think": "high"}))),
        Gemini => (
            gemini(json!({"thinkingBudget": 0})),
            gemini(json!({"thinkingLevel": "low"})),
            gemini(json!({"includeThoughts": true})),
        ),
    }
}

/// How a request limits its answer.
pub(crate) struct Limits {
    /// 16 tokens.
    pub(crate) limit: Value,
    /// The vendor's word for an answer that was cut at the limit.
    pub(crate) length: &'static str,
    /// An end before " up", where the dialect can say that.
    pub(crate) stop: Option<Value>,
    /// A message with an image.
    pub(crate) image: Value,
    /// An object whose member `a` is a boolean.
    pub(crate) schema: Value,
}

/// How requests of a dialect limit their answers.
pub(crate) fn limits(dialect: Dialect) -> Limits {
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]});
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    match dialect {
        Chat => Limits {
            limit: json!({"max_completion_tokens": 16}),
            length: "length",
            stop: Some(json!({"stop": " up"})),
            image: user(json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}])),
            schema: json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "x", "schema": schema}}}),
        },
        Responses => Limits {
            limit: json!({"max_output_tokens": 16}),
            length: "max_output_tokens",
            stop: None,
            image: json!({"input": [{"role": "user", "content": [
                {"type": "input_image", "image_url": "data:image/png;base64,aGk="}]}]}),
            schema: json!({"text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}),
        },
        Messages => Limits {
            limit: json!({"max_tokens": 16}),
            length: "max_tokens",
            stop: Some(json!({"stop_sequences": [" up"]})),
            image: user(json!([{"type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}])),
            schema: json!({"output_config": {"format": {"type": "json_schema",
                "schema": with(schema, json!({"additionalProperties": false}))}}}),
        },
        Ollama => Limits {
            limit: json!({"options": {"num_predict": 16}}),
            length: "length",
            stop: Some(json!({"options": {"stop": [" up"]}})),
            image: json!({"messages": [{"role": "user", "content": "", "images": ["aGk="]}]}),
            schema: json!({"format": schema}),
        },
        Gemini => Limits {
            limit: json!({"generationConfig": {"maxOutputTokens": 16}}),
            length: "MAX_TOKENS",
            stop: Some(json!({"generation_config": {"stop_sequences": [" up"]}})),
            image: json!({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "aGk="}}]}]}),
            schema: json!({"generationConfig":
                {"responseMimeType": "application/json", "responseJsonSchema": schema}}),
        },
    }
}
