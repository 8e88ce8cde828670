//! Searches of the web, and the sources that texts name.

use std::{borrow::Cow, collections::HashMap};

use bytes::BytesMut;
use omniroute_wire::json_out::{self, Object};
use serde_json::value::RawValue;

use super::{ID, shown_search, wire::write_list};
use crate::{
    DecodeError, arguments,
    ids::answer_id,
    ir::{Citation, Loss, LossAction, Native, SearchResult, WebSearch, WebSearchTool, loss},
    json_in::{self, Fields},
    web_search::{domains, place, write_place},
};

/// The tool's name, which is the same in all its versions.
pub(super) const NAME: &str = "web_search";
/// The version that every model with the tool has.
const VERSION: &str = "web_search_20250305";

/// Whether a tool of this type is the search of the web.
pub(super) fn is_tool(kind: &str) -> bool {
    kind.starts_with("web_search_")
}

/// Members of the tool's entry that are read.
const KNOWN: &[&str] = &["type", "name", "allowed_domains", "blocked_domains", "max_uses", "user_location"];

/// Reads the tool's entry.
pub(super) fn tool(
    fields: &Fields<'_>,
    raw: &RawValue,
    losses: &mut Vec<Loss>,
) -> Result<WebSearchTool, DecodeError> {
    let mark = fields.object_or_none("cache_control");
    let one_hour = mark.is_some_and(|mark| mark.str("ttl").is_ok_and(|ttl| ttl.as_deref() == Some("1h")));
    for (name, _) in fields.unlisted(KNOWN) {
        let silent = name == "cache_control" && !one_hour;
        losses.push(Loss { silent, ..loss(fields.path_of(name), LossAction::Dropped) });
    }
    Ok(WebSearchTool {
        native: Native { origin: ID, raw: vec![raw.to_owned()] },
        allowed_domains: domains(fields, "allowed_domains")?,
        blocked_domains: domains(fields, "blocked_domains")?,
        max_uses: fields.count("max_uses")?,
        context_size: None,
        place: place(fields, "user_location", losses)?,
    })
}

/// Writes the tool's entry.
pub(super) fn write_tool(out: &mut BytesMut, search: &WebSearchTool) {
    if search.native.origin == ID {
        out.extend_from_slice(search.native.raw.first().map_or("{}", |raw| raw.get()).as_bytes());
        return;
    }
    let mut object = Object::begin(out);
    object.str("type", VERSION).str("name", NAME).opt_u64("max_uses", search.max_uses);
    let (name, domains) = match search.allowed_domains.is_empty() {
        true => ("blocked_domains", &search.blocked_domains),
        false => ("allowed_domains", &search.allowed_domains),
    };
    if !domains.is_empty() {
        write_list(object.key(name), domains.iter(), |out, text| json_out::string(out, text));
    }
    if let Some(place) = &search.place {
        let mut user = object.object("user_location");
        user.str("type", "approximate");
        write_place(&mut user, place);
        user.end();
    }
    object.end();
}

/// What the entry cannot say.
pub(super) fn tool_losses(search: &WebSearchTool, path: &str, losses: &mut Vec<Loss>) {
    if search.native.origin == ID {
        return;
    }
    if search.context_size.is_some() {
        losses.push(loss(format!("{path}.search_context_size"), LossAction::Dropped));
    }
    // The vendor takes one list or the other.
    if !search.allowed_domains.is_empty() && !search.blocked_domains.is_empty() {
        losses.push(loss(format!("{path}.blocked_domains"), LossAction::Dropped));
    }
}

/// The searches in a list of content blocks: the block that asks and the one that answers are one.
#[derive(Debug, Default)]
pub(super) struct Searches {
    found: HashMap<usize, Option<WebSearch>>,
}

impl Searches {
    /// Finds them. `compact` for blocks that are kept without white space.
    pub(super) fn of(content: &[&RawValue], compact: bool) -> Self {
        let mut asked: HashMap<String, (usize, String)> = HashMap::new();
        let mut searches = Self::default();
        for (at, raw) in content.iter().enumerate() {
            if memchr::memmem::find(raw.get().as_bytes(), b"web_search").is_none() {
                continue;
            }
            let Ok(fields) = Fields::lenient(raw.get(), "") else { continue };
            let text = |name| fields.raw(name).and_then(json_in::str_of).unwrap_or_default();
            match &*text("type") {
                "server_tool_use" if text("name") == NAME => {
                    let input = fields.raw("input").map_or("{}", RawValue::get);
                    let own = || question(&text("id"), &json_in::compact(input));
                    let whole = if compact { own() } else { raw.get().to_owned() };
                    asked.insert(text("id").into_owned(), (at, whole));
                }
                "web_search_tool_result" => {
                    let Some((place, question)) = asked.remove(&*text("tool_use_id")) else { continue };
                    searches.found.insert(place, None);
                    searches.found.insert(at, Some(search(&question, raw.get(), compact)));
                }
                _ => {}
            }
        }
        searches
    }

    /// What stands at this place: half a search that is no block, a whole one, or something else.
    pub(super) fn at(&mut self, place: usize) -> Option<Option<WebSearch>> {
        self.found.remove(&place)
    }
}

/// A search of the block that asks and the one that answers, as JSON.
pub(super) fn search(question: &str, answer: &str, compact: bool) -> WebSearch {
    let native = [question, answer].into_iter().filter_map(|text| {
        let text = if compact { json_in::compact(text) } else { text.to_owned() };
        RawValue::from_string(text).ok()
    });
    let raw: Vec<_> = native.collect();
    let text = |fields: &Fields<'_>, name| fields.raw(name).and_then(json_in::str_of).map(Cow::into_owned);
    let asked = Fields::lenient(question, "").ok();
    let query = asked.as_ref().and_then(|asked| text(&asked.object_or_none("input")?, "query"));
    let found = Fields::lenient(answer, "").ok();
    let list = found.as_ref().and_then(|found| found.raw("content")).and_then(json_in::list_of);
    let results = list.unwrap_or_default().into_iter().filter_map(|raw| {
        let page = Fields::lenient(raw.get(), "").ok()?;
        let (url, title) = (text(&page, "url")?, text(&page, "title").unwrap_or_default());
        Some(SearchResult { url, title })
    });
    let is_own = !found.as_ref().is_some_and(shown_search::is_shown);
    WebSearch {
        id: asked.as_ref().and_then(|asked| text(asked, "id")).unwrap_or_default(),
        queries: query.into_iter().collect(),
        results: results.collect(),
        native: is_own.then_some(Native { origin: ID, raw }),
    }
}

/// The two blocks of a search for a client. Searches of other vendors have nothing that could be sent back to this one.
pub(super) fn client_blocks(search: &WebSearch, answer: &str, n: usize) -> [String; 2] {
    if let Some(Native { origin, raw }) = &search.native
        && *origin == ID
        && let [question, found] = raw.as_slice()
    {
        return [question.get().to_owned(), found.get().to_owned()];
    }
    let id = if search.id.starts_with("srvtoolu_") {
        search.id.clone()
    } else {
        answer_id("srvtoolu_", &search.id, &format!("{answer} {n}"))
    };
    let mut input = BytesMut::new();
    let mut object = Object::begin(&mut input);
    object.str("query", &search.queries.join("; "));
    object.end();
    let question = question(&id, &String::from_utf8_lossy(&input));
    let mut found = BytesMut::new();
    let mut object = Object::begin(&mut found);
    object.str("type", "web_search_tool_result").str("tool_use_id", &id);
    write_list(object.key("content"), search.results.iter(), |out, page| {
        let mut object = Object::begin(out);
        object.str("type", "web_search_result").str("url", &page.url).str("title", &page.title);
        object.str("encrypted_content", "").raw("page_age", "null");
        object.end();
    });
    object.end();
    [question, String::from_utf8_lossy(&found).into_owned()]
}

/// The block that asks.
pub(super) fn question(id: &str, input: &str) -> String {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("type", "server_tool_use").str("id", id).str("name", NAME);
    object.raw("input", arguments::object(input).object.get());
    object.end();
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads the source of a text.
pub(super) fn citation(raw: &RawValue) -> Citation {
    let fields = Fields::lenient(raw.get(), "").ok();
    let text = |name| {
        let fields = fields.as_ref()?;
        fields.raw(name).and_then(json_in::str_of).map(Cow::into_owned)
    };
    let source = || text("source").filter(|source| source.starts_with("http"));
    let is_own = !shown_search::is_shown_source(raw);
    let kept = RawValue::from_string(json_in::compact(raw.get())).ok().filter(|_| is_own);
    Citation {
        url: text("url").or_else(source),
        title: text("title").or_else(|| text("document_title")),
        cited_text: text("cited_text"),
        span: None,
        native: kept.map(|raw| Native { origin: ID, raw: vec![raw] }),
    }
}

/// The source of a text as it is written; `None` for parts of documents that only another vendor has.
pub(super) fn citation_out(citation: &Citation) -> Option<Cow<'_, str>> {
    if let Some(raw) = citation.native.as_ref().filter(|native| native.origin == ID) {
        return raw.raw.first().map(|raw| Cow::Borrowed(raw.get()));
    }
    let url = citation.url.as_deref()?;
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("type", "web_search_result_location").str("url", url);
    object.str_or_null("title", citation.title.as_deref()).str("encrypted_index", "");
    object.str("cited_text", citation.cited_text.as_deref().unwrap_or_default());
    object.end();
    Some(Cow::Owned(String::from_utf8_lossy(&out).into_owned()))
}
