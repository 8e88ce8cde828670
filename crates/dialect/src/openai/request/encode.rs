//! Writing a request for an upstream.

use std::{borrow::Cow, collections::HashSet};

use bytes::BytesMut;
use omniroute_wire::json_out::{Array, Object};
use serde_json::value::RawValue;

use super::{super::ID, conversation, reasoning};
use crate::{
    Caps, EncodeError, Encoded, JsonAnswer, caps, custom_format, ids,
    ir::{
        self, ChatRequest, Function, Loss, LossAction, OutputFormat, Tool, ToolChoice, ToolKind,
        WebSearchTool, Word,
    },
    json_in::is_object,
    responses, schema_words, strict_schema, tool_list,
    web_search::write_place,
};

/// Most stop sequences that the vendor's own endpoint takes.
const MAX_STOP: usize = 4;
const EMPTY_SCHEMA: &str = r#"{"type":"object","properties":{}}"#;

/// Writes a request. Members come in a fixed order, so that equal requests are equal bytes.
pub(in crate::openai) fn encode(request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
    let mut losses = request.losses_elsewhere();
    let mut out = BytesMut::with_capacity(1024);
    let origin = request.extras.origin;
    let native = origin == Some(ID);
    let kin = native || origin == Some(responses::ID);
    let mut writer = Writer { request, caps, native, kin, losses: &mut losses };
    let mut body = Object::begin(&mut out);
    body.str("model", &request.model);
    let note = writer.schema_note();
    conversation::write(request, caps, note.as_deref(), body.key("messages"), writer.losses)?;
    writer.tools(&mut body)?;
    writer.limits(&mut body);
    writer.sampling(&mut body);
    writer.format(&mut body);
    reasoning::write(request, caps, writer.native, &mut body, writer.losses);
    writer.identity(&mut body);
    writer.extras(&mut body)?;
    if request.stream {
        body.bool("stream", true);
        if caps.stream_options {
            body.raw("stream_options", r#"{"include_usage":true}"#);
        }
    }
    body.end();
    Ok(Encoded { body: out.freeze(), losses })
}

/// Whether the target is asked for its JSON in words.
pub(in crate::openai) fn json_answer(request: &ChatRequest, caps: &Caps) -> JsonAnswer {
    let in_words = matches!(request.output_format, OutputFormat::JsonSchema { .. }) && !caps.json_schema;
    if in_words { JsonAnswer::Fenced } else { JsonAnswer::AsIs }
}

struct Writer<'a> {
    request: &'a ChatRequest,
    caps: &'a Caps,
    /// Whether the request came in this dialect.
    native: bool,
    /// Whether it came in this one or in the vendor's other, which has the same members for who asks.
    kin: bool,
    losses: &'a mut Vec<Loss>,
}

impl Writer<'_> {
    /// Whether tools that take free text are offered as such.
    fn takes_custom(&self) -> bool {
        self.native || self.caps.custom_tools
    }

    fn lose(&mut self, path: impl Into<std::borrow::Cow<'static, str>>, action: LossAction) {
        self.losses.push(ir::loss(path, action));
    }

    fn tools(&mut self, body: &mut Object<'_>) -> Result<(), EncodeError> {
        let request = self.request;
        if request.tools.is_empty() {
            for (given, name) in [
                (request.tool_choice.is_some(), "tool_choice"),
                (request.parallel_tool_calls.is_some(), "parallel_tool_calls"),
            ] {
                if given {
                    self.losses.push(ir::quiet(name, LossAction::Dropped));
                }
            }
            return Ok(());
        }
        if !self.caps.tools {
            return Err(EncodeError {
                code: "unsupported_tool",
                param: Some("tools".to_owned()),
                message: "the target does not call tools; use a model that does".to_owned(),
            });
        }
        let mut kept = BytesMut::new();
        let mut list = Array::begin(&mut kept);
        for (at, tool) in request.tools.iter().enumerate() {
            self.tool(at, tool, &mut list)?;
        }
        let any = !list.is_empty();
        list.end();
        self.web_search(body);
        if !any {
            return Ok(());
        }
        body.key("tools").extend_from_slice(&kept);
        if !self.native {
            tool_list::check_chosen(self.request)?;
        }
        self.tool_choice(body);
        if let Some(parallel) = request.parallel_tool_calls {
            body.bool("parallel_tool_calls", parallel);
        }
        Ok(())
    }

    fn tool(&mut self, at: usize, tool: &Tool, list: &mut Array<'_>) -> Result<(), EncodeError> {
        match &tool.kind {
            ToolKind::Custom { name, description, format } if self.takes_custom() => {
                let mut entry = list.object();
                entry.str("type", "custom");
                let mut custom = entry.object("custom");
                custom.str("name", name).opt_str("description", description.as_deref());
                if let Some(format) = format {
                    custom.raw("format", custom_format::nested(format).get());
                }
                custom.end();
                entry.end();
                for (key, _) in &tool.extras {
                    self.lose(format!("tools[{at}].{key}"), LossAction::Dropped);
                }
                return Ok(());
            }
            ToolKind::Custom { .. } => {
                self.losses.push(ir::quiet(format!("tools[{at}]"), LossAction::Mapped));
            }
            ToolKind::Opaque { origin, raw, .. } if *origin == ID => {
                list.raw(raw.get());
                return Ok(());
            }
            // Not among the tools but a switch of its own.
            ToolKind::WebSearch(search) if self.searches(search) => return Ok(()),
            ToolKind::Function { .. } | ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => {}
        }
        let Some(Function { name, description, schema, strict }) = tool.as_function() else {
            return self.foreign_tool(at, tool);
        };
        if !self.native && schema.is_some_and(|schema| !is_object(schema)) {
            return Err(EncodeError {
                code: "invalid_tool_schema",
                param: Some(format!("tools[{at}]")),
                message: format!("the schema of tool `{name}` must be an object"),
            });
        }
        let mut description = description.map(Cow::into_owned);
        let mut extras = Vec::new();
        for (key, raw) in &tool.extras {
            if self.native {
                extras.push((key, raw));
            } else if key == "input_examples" {
                let text = description.get_or_insert_default();
                text.push_str("\n\nExamples of arguments: ");
                text.push_str(raw.get());
                self.losses.push(ir::quiet(format!("tools[{at}].{key}"), LossAction::Mapped));
            } else {
                self.lose(format!("tools[{at}].{key}"), LossAction::Dropped);
            }
        }
        if let Some(mark) = tool.cache_mark.filter(|_| !self.native) {
            let path = format!("tools[{at}].cache_control").into();
            self.losses.push(Loss { path, action: LossAction::Dropped, silent: !mark.one_hour });
        }
        let parameters = schema.map(|schema| {
            let path = || format!("tools[{at}].function.parameters");
            self.schema(schema, self.caps.schema_without, path)
        });
        let mut entry = list.object();
        entry.str("type", "function");
        let mut function = entry.object("function");
        function.str("name", name).opt_str("description", description.as_deref());
        function.raw("parameters", parameters.as_deref().unwrap_or(EMPTY_SCHEMA));
        if let Some(strict) = strict {
            // A schema that models cannot be held to in full would be refused.
            let kept = strict && (self.native || schema.is_some_and(strict_schema::is_legal));
            if kept != strict {
                self.losses.push(ir::loss(format!("tools[{at}].strict"), LossAction::Mapped));
            }
            function.bool("strict", kept);
        }
        function.end();
        for (key, raw) in extras {
            entry.raw(key, raw.get());
        }
        entry.end();
        Ok(())
    }

    /// A schema without the words that the target refuses in it.
    fn schema<'s>(
        &mut self,
        schema: &'s RawValue,
        refused: &[&str],
        path: impl Fn() -> String,
    ) -> Cow<'s, str> {
        match schema_words::without(schema, refused).filter(|_| !self.native) {
            None => Cow::Borrowed(schema.get()),
            Some((text, less)) => {
                self.losses.push(Loss { silent: !less, ..ir::loss(path(), LossAction::Mapped) });
                Cow::Owned(text)
            }
        }
    }

    /// A tool that the other dialect's vendor runs: left out when there are others, refused when it is wanted.
    fn foreign_tool(&mut self, at: usize, tool: &Tool) -> Result<(), EncodeError> {
        let functions = self.request.tools.iter().any(|tool| match &tool.kind {
            ToolKind::Function { .. } | ToolKind::Custom { .. } => true,
            ToolKind::Opaque { origin, .. } => *origin == ID,
            ToolKind::WebSearch(search) => self.searches(search),
        });
        let forced = match (&self.request.tool_choice, tool.name()) {
            (Some(ToolChoice::Named(wanted)), Some(name)) => wanted == name,
            (Some(ToolChoice::WebSearch), None) => true,
            _ => false,
        };
        if forced || !functions || !tool_list::is_spare(tool) {
            return Err(EncodeError {
                code: "unsupported_tool",
                param: Some(format!("tools[{at}]")),
                message: "the target has no tool of this kind; use a provider that has, or leave it out"
                    .to_owned(),
            });
        }
        self.lose(format!("tools[{at}]"), LossAction::Dropped);
        Ok(())
    }

    /// Whether the target searches the web when it is asked to.
    fn searches(&self, search: &WebSearchTool) -> bool {
        search.native.origin == ID || self.caps.web_search
    }

    fn web_search(&mut self, body: &mut Object<'_>) {
        let request = self.request;
        let found = request.tools.iter().enumerate().find_map(|(at, tool)| match &tool.kind {
            ToolKind::WebSearch(search) => Some((at, search)),
            _ => None,
        });
        let Some((at, search)) = found.filter(|(_, search)| self.searches(search)) else { return };
        if let Some(raw) = search.native.raw.first().filter(|_| search.native.origin == ID) {
            body.raw("web_search_options", raw.get());
            return;
        }
        for (given, name) in [
            (!search.allowed_domains.is_empty(), "allowed_domains"),
            (!search.blocked_domains.is_empty(), "blocked_domains"),
            (search.max_uses.is_some(), "max_uses"),
        ] {
            if given {
                self.lose(format!("tools[{at}].{name}"), LossAction::Dropped);
            }
        }
        self.losses.push(ir::quiet(format!("tools[{at}]"), LossAction::Mapped));
        let mut options = body.object("web_search_options");
        options.opt_str("search_context_size", search.context_size.as_deref());
        if let Some(place) = &search.place {
            let mut user = options.object("user_location");
            user.str("type", "approximate");
            let mut inner = user.object("approximate");
            write_place(&mut inner, place);
            inner.end();
            user.end();
        }
        options.end();
    }

    fn tool_choice(&mut self, body: &mut Object<'_>) {
        let custom = if self.takes_custom() { tool_list::custom_names(self.request) } else { HashSet::new() };
        match &self.request.tool_choice {
            None => {}
            Some(ToolChoice::Auto) => {
                body.str("tool_choice", "auto");
            }
            Some(ToolChoice::None) => {
                body.str("tool_choice", "none");
            }
            Some(ToolChoice::Required) => {
                body.str("tool_choice", "required");
            }
            // Such a target searches by itself; elsewhere the tool was left out or refused before.
            Some(ToolChoice::WebSearch) => self.losses.push(ir::quiet("tool_choice", LossAction::Mapped)),
            Some(ToolChoice::Named(name)) => {
                let mut choice = body.object("tool_choice");
                write_named(name, &custom, &mut choice);
                choice.end();
            }
            Some(ToolChoice::Allowed { required, names }) => {
                let mut choice = body.object("tool_choice");
                choice.str("type", "allowed_tools");
                let mut allowed = choice.object("allowed_tools");
                allowed.str("mode", if *required { "required" } else { "auto" });
                let mut list = allowed.array("tools");
                for name in names {
                    let mut entry = list.object();
                    write_named(name, &custom, &mut entry);
                    entry.end();
                }
                list.end();
                allowed.end();
                choice.end();
            }
        }
    }

    fn limits(&mut self, body: &mut Object<'_>) {
        if let Some(asked) = self.request.max_output_tokens {
            let limit = self.caps.max_output_tokens.map_or(asked, |most| most.min(asked));
            if limit != asked {
                self.losses.push(ir::quiet(self.request.word(Word::OutputLimit), LossAction::Clamped));
            }
            let name = if self.caps.max_completion_tokens { "max_completion_tokens" } else { "max_tokens" };
            body.u64(name, limit);
        }
        let mut stop: Vec<&String> = self.request.stop.iter().collect();
        let path = self.request.word(Word::Stop);
        if !self.native && stop.iter().any(|text| text.is_empty()) {
            stop.retain(|text| !text.is_empty());
            self.lose(path, LossAction::Dropped);
        }
        if !self.native && self.caps.developer_role && stop.len() > MAX_STOP {
            // The gateway itself ends the answer at the others.
            stop.truncate(MAX_STOP);
            self.losses.push(ir::quiet(path, LossAction::Mapped));
        }
        if !stop.is_empty() {
            let mut list = body.array("stop");
            for text in stop {
                list.str(text);
            }
            list.end();
        }
    }

    fn sampling(&mut self, body: &mut Object<'_>) {
        let sampling = &self.request.sampling;
        let samples = self.caps.takes_sampling(self.request);
        for (name, value) in [("temperature", &sampling.temperature), ("top_p", &sampling.top_p)] {
            match value {
                Some(_) if !samples => self.lose(name, LossAction::Dropped),
                Some(raw) if !self.kin && name == "temperature" && caps::is_above_two(raw) => {
                    body.raw(name, "2");
                    self.lose(name, LossAction::Clamped);
                }
                Some(raw) => {
                    body.raw(name, raw.get());
                }
                None => {}
            }
        }
        match &sampling.top_k {
            Some(raw) if self.native || (self.caps.top_k && self.caps.sampling) => {
                body.raw("top_k", raw.get());
            }
            Some(_) => self.lose("top_k", LossAction::Dropped),
            None => {}
        }
        for (name, value) in [
            ("frequency_penalty", &sampling.frequency_penalty),
            ("presence_penalty", &sampling.presence_penalty),
            ("seed", &sampling.seed),
            ("logit_bias", &sampling.logit_bias),
        ] {
            if let Some(raw) = value {
                body.raw(name, raw.get());
            }
        }
        if sampling.logprobs {
            body.bool("logprobs", true);
        }
        if self.native || sampling.logprobs {
            body.opt_u64("top_logprobs", sampling.top_logprobs);
        } else if sampling.top_logprobs.is_some() {
            // Refused where the others are not asked for.
            self.losses.push(ir::quiet("top_logprobs", LossAction::Dropped));
        }
        if let Some(n) = sampling.n.filter(|n| self.native || *n > 1) {
            body.u64("n", n);
        }
    }

    /// What to say about the form of the answer to a target that cannot be told otherwise.
    fn schema_note(&mut self) -> Option<String> {
        match &self.request.output_format {
            OutputFormat::JsonSchema { schema, .. } if !self.caps.json_schema => {
                self.lose(self.request.word(Word::Format), LossAction::Mapped);
                Some(format!(
                    "Answer with one JSON object only, valid under this JSON schema: {}",
                    schema.get()
                ))
            }
            _ => None,
        }
    }

    fn format(&mut self, body: &mut Object<'_>) {
        let request = self.request;
        match &request.output_format {
            OutputFormat::Text => {}
            OutputFormat::JsonSchema { name, description, schema, strict } if self.caps.json_schema => {
                let path = || request.word(Word::Schema).to_owned();
                let taken = self.schema(schema, self.caps.answer_schema_without, path);
                let mut format = body.object("response_format");
                format.str("type", "json_schema");
                let mut inner = format.object("json_schema");
                inner.str("name", name.as_deref().unwrap_or("response"));
                inner.opt_str("description", description.as_deref()).raw("schema", &taken);
                if let Some(strict) = self.strict_format(schema, *strict) {
                    inner.bool("strict", strict);
                }
                inner.end();
                format.end();
            }
            OutputFormat::JsonObject | OutputFormat::JsonSchema { .. } => {
                body.raw("response_format", r#"{"type":"json_object"}"#);
            }
        }
    }

    /// Whether the answer has to obey its schema. The dialects of others have no word for it since they hold every answer
    /// to its schema; here it has to be said, and only some schemas can be obeyed in full.
    fn strict_format(&mut self, schema: &RawValue, strict: Option<bool>) -> Option<bool> {
        if self.native {
            return strict;
        }
        let wanted = match strict {
            Some(strict) => strict,
            None if self.kin || !self.caps.developer_role => return None,
            None => true,
        };
        let is_legal =
            if strict.is_some() { strict_schema::is_legal } else { strict_schema::is_surely_legal };
        let kept = wanted && is_legal(schema);
        if kept != wanted {
            let path = format!("{}.strict", self.request.word(Word::Format));
            let silent = strict.is_none();
            self.losses.push(Loss { silent, ..ir::loss(path, LossAction::Mapped) });
        }
        Some(kept)
    }

    /// Who asks, and on what terms.
    fn identity(&mut self, body: &mut Object<'_>) {
        let request = self.request;
        if let Some(user) = request.user.as_deref() {
            if self.kin {
                body.str(if request.user_is_safety_id { "safety_identifier" } else { "user" }, user);
            } else if self.caps.developer_role {
                body.str("safety_identifier", &ids::sha256_hex(user));
                self.losses.push(ir::quiet(request.word(Word::User), LossAction::Mapped));
            } else {
                self.lose(request.word(Word::User), LossAction::Dropped);
            }
        }
        body.opt_str("prompt_cache_key", request.prompt_cache_key.as_deref());
        match request.service_tier.as_deref() {
            None => {}
            Some(tier) if self.kin => {
                body.str("service_tier", tier);
            }
            Some(tier) if self.caps.developer_role => {
                body.str("service_tier", if tier == "standard_only" { "default" } else { tier });
                self.losses.push(ir::quiet("service_tier", LossAction::Mapped));
            }
            Some("auto") => self.losses.push(ir::quiet("service_tier", LossAction::Dropped)),
            Some(_) => self.lose("service_tier", LossAction::Dropped),
        }
        for (name, given) in [("metadata", request.metadata.is_some()), ("store", request.store.is_some())] {
            if given && !self.kin {
                self.losses.push(ir::quiet(name, LossAction::Dropped));
            }
        }
        if !self.kin {
            if request.verbosity.is_some() {
                self.lose("verbosity", LossAction::Dropped);
            }
            return;
        }
        if let Some(metadata) = &request.metadata {
            body.raw("metadata", metadata.get());
        }
        // Not to be kept is what happens anyway in this dialect, and not every server knows the word.
        if let Some(store) = request.store.filter(|store| self.native || *store) {
            body.bool("store", store);
        }
        body.opt_str("verbosity", request.verbosity.as_deref());
    }

    fn extras(&mut self, body: &mut Object<'_>) -> Result<(), EncodeError> {
        for (name, raw) in &self.request.extras.members {
            if self.native {
                body.raw(name, raw.get());
            } else {
                self.losses.push(self.request.extras.leave_out(name, raw)?);
            }
        }
        Ok(())
    }
}

/// Names a tool; `custom` are those that take free text.
fn write_named(wanted: &str, custom: &HashSet<&str>, entry: &mut Object<'_>) {
    let kind = if custom.contains(wanted) { "custom" } else { "function" };
    entry.str("type", kind);
    let mut inner = entry.object(kind);
    inner.str("name", wanted);
    inner.end();
}
