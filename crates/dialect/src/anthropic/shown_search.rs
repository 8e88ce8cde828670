//! Searches of other vendors in the history of clients that were shown them as this vendor's own.
//!
//! What such blocks lack is `encrypted_content`, and the vendor refuses blocks without it. They are told from the
//! vendor's own by that, and go back as text; so do the sources of texts that come from them, which are left out.

use std::{collections::HashMap, ops::Range};

use bytes::{Bytes, BytesMut};
use omniroute_wire::{json_out::Object, members, splice::Splice};
use serde_json::value::RawValue;

use super::search;
use crate::json_in::{Fields, list_of, str_of};

/// Whether the block that answers a search was written for a client whose upstream was another vendor.
pub(super) fn is_shown(answer: &Fields<'_>) -> bool {
    let pages = answer.raw("content").and_then(list_of).unwrap_or_default();
    pages.into_iter().any(|page| has_empty(page, "encrypted_content"))
}

/// The same of the source of a text.
pub(super) fn is_shown_source(source: &RawValue) -> bool {
    has_empty(source, "encrypted_index")
}

/// Adds the edits that put texts in the place of such searches.
pub(super) fn edit(body: &Bytes, splice: &mut Splice) {
    let has = |words: &[u8]| memchr::memmem::find(body, words).is_some();
    if !has(b"\"web_search_tool_result\"") && !has(b"\"encrypted_index\"") {
        return;
    }
    let Ok(text) = std::str::from_utf8(body) else { return };
    let Ok(request) = Fields::lenient(text.trim_start_matches('\u{feff}'), "") else { return };
    for message in request.raw("messages").and_then(list_of).unwrap_or_default() {
        let Ok(message) = Fields::lenient(message.get(), "") else { continue };
        let content = message.raw("content").and_then(list_of).unwrap_or_default();
        for (span, with) in edits(text, &content) {
            splice.replace(span, with);
        }
    }
}

/// The edits within one list of blocks.
fn edits(text: &str, content: &[&RawValue]) -> Vec<(Range<usize>, Bytes)> {
    let mut edits = Vec::new();
    let mut asked = HashMap::new();
    for (at, raw) in content.iter().enumerate() {
        let span = span(text, raw);
        let Ok(block) = Fields::lenient(raw.get(), "") else { continue };
        let word = |name| block.raw(name).and_then(str_of).unwrap_or_default();
        match &*word("type") {
            "server_tool_use" => {
                asked.insert(word("id").into_owned(), (span, raw.get()));
            }
            "web_search_tool_result" if is_shown(&block) => {
                let question = asked.remove(&*word("tool_use_id"));
                let asks = question.as_ref().map_or("{}", |(_, raw)| raw);
                let said = as_block(&search::search(asks, raw.get(), false).as_text());
                match (question, at.checked_sub(1)) {
                    (Some((place, _)), Some(before)) => {
                        edits.push((place, said));
                        edits.push((self::span(text, content[before]).end..span.end, Bytes::new()));
                    }
                    _ => edits.push((span, said)),
                }
            }
            "text" => {
                let sources = block.raw("citations").and_then(list_of).unwrap_or_default();
                if sources.into_iter().any(is_shown_source) {
                    let cuts =
                        members::removals(raw.get().as_bytes(), span.start, &mut |key| key == "citations");
                    edits.extend(cuts.into_iter().map(|cut| (cut, Bytes::new())));
                }
            }
            _ => {}
        }
    }
    edits
}

fn has_empty(raw: &RawValue, name: &str) -> bool {
    let fields = Fields::lenient(raw.get(), "").ok();
    fields.and_then(|fields| fields.raw(name).and_then(str_of)).is_some_and(|text| text.is_empty())
}

fn as_block(text: &str) -> Bytes {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("type", "text").str("text", text);
    object.end();
    out.freeze()
}

fn span(text: &str, raw: &RawValue) -> Range<usize> {
    let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + raw.get().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(body: &str) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let mut splice = Splice::new(body.clone());
        edit(&body, &mut splice);
        String::from_utf8(splice.to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn searches_that_were_only_shown_go_back_as_texts_and_all_else_keeps_its_bytes() {
        let body = r#"{"model":"m", "messages":[{"role":"user","content":"q"},{"role":"assistant","content":[
            {"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"rust"}} ,
            {"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[{"type":"web_search_result","url":"https://a.example","title":"A","encrypted_content" : "","page_age":null}]},
            {"type":"text", "citations":[{"type":"web_search_result_location","url":"https://a.example","encrypted_index":"","cited_text":"x"}] ,"text":"so"},
            {"type":"server_tool_use","id":"srvtoolu_2","name":"web_search","input":{"query":"own"}},
            {"type":"web_search_tool_result","tool_use_id":"srvtoolu_2","content":[{"type":"web_search_result","url":"https://b.example","title":"B","encrypted_content":"EqgB"}]}
            ]}],"max_tokens":1.0}"#;
        let expected = r#"{"model":"m", "messages":[{"role":"user","content":"q"},{"role":"assistant","content":[
            {"type":"text","text":"[web search: rust]\n- A https://a.example"},
            {"type":"text" ,"text":"so"},
            {"type":"server_tool_use","id":"srvtoolu_2","name":"web_search","input":{"query":"own"}},
            {"type":"web_search_tool_result","tool_use_id":"srvtoolu_2","content":[{"type":"web_search_result","url":"https://b.example","title":"B","encrypted_content":"EqgB"}]}
            ]}],"max_tokens":1.0}"#;
        assert_eq!(edited(body), expected);
        assert_eq!(edited(expected), expected, "what is the vendor's own stays");
    }

    #[test]
    fn an_answer_without_its_question_is_told_too() {
        let page = r#"{"type":"web_search_result","url":"u","title":"T","encrypted_content":""}"#;
        let answer = format!(r#"{{"type":"web_search_tool_result","tool_use_id":"s","content":[{page}]}}"#);
        let body = |block: &str| format!(r#"{{"messages":[{{"role":"assistant","content":[{block}]}}]}}"#);
        let text = r#"{"type":"text","text":"[web search: ]\n- T u"}"#;
        assert_eq!(edited(&body(&answer)), body(text));
        for odd in ["{", r#"{"messages":"web_search_tool_result"}"#, r#"{"messages":[1,{"content":[2]}]}"#] {
            assert_eq!(edited(odd), odd);
        }
    }
}
