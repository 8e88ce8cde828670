//! What has to be the same to the letter: quotations, code, addresses, identifiers, operators.

/// Opening and closing signs. Those of code come first: what stands in them is nothing else.
const PAIRS: &[(&str, &str)] =
    &[("```", "```"), ("`", "`"), ("\"", "\""), ("“", "”"), ("„", "“"), ("«", "»"), ("‘", "’"), ("「", "」")];

/// All of a text, in their order.
pub(super) fn of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let next = PAIRS
            .iter()
            .filter_map(|(open, close)| Some((rest.find(open)?, *open, *close)))
            // The longer sign where two begin at one place.
            .min_by_key(|(at, open, _)| (*at, usize::MAX - open.len()));
        let Some((at, open, close)) = next else { break };
        plain(&rest[..at], &mut found);
        let inner = &rest[at + open.len()..];
        // What is not closed goes on to the end.
        let end = inner.find(close).unwrap_or(inner.len());
        found.push(inner[..end].split_whitespace().collect::<Vec<_>>().join(" "));
        rest = inner.get(end + close.len()..).unwrap_or_default();
    }
    plain(rest, &mut found);
    found
}

fn plain(text: &str, found: &mut Vec<String>) {
    for token in text.split_whitespace() {
        let bare = token.trim_matches(|char: char| {
            matches!(char, '.' | ',' | ';' | ':' | '!' | '?' | '(' | ')' | '\'' | '’' | '¿' | '¡' | '…')
        });
        if is_code(bare) {
            found.push(bare.to_owned());
        }
    }
}

/// Whether people write it so that machines understand it.
fn is_code(token: &str) -> bool {
    const OPERATORS: &str = "=<>+*^{}[]|&~$€£¥#@\\_/%§";
    let has_operator = token.chars().any(|char| OPERATORS.contains(char));
    let has_digit = token.chars().any(|char| char.is_ascii_digit());
    // `gpt-4o`, `H2O`, `utf-8`, `2024-05-01`; but not `3rd`, `1,000`, `2.5`, `10km`.
    let is_mixed = has_digit && !is_number(token);
    let inner_point = token.char_indices().any(|(at, char)| {
        let after = token[at + char.len_utf8()..].chars().next();
        matches!(char, '.' | ':' | '(') && after.is_some_and(char::is_alphanumeric) && !is_number(token)
    });
    let mut before = ' ';
    let is_camel = token.chars().any(|char| {
        let turns = before.is_lowercase() && char.is_uppercase();
        before = char;
        turns
    });
    has_operator || is_mixed || inner_point || is_camel || token.starts_with('-')
}

/// A number as people write it, perhaps with an ending of letters (`3rd`, `10km`).
fn is_number(token: &str) -> bool {
    let digits = token.trim_end_matches(char::is_alphabetic);
    !digits.is_empty()
        && digits.starts_with(|char: char| char.is_ascii_digit())
        && digits.chars().all(|char| char.is_ascii_digit() || matches!(char, '.' | ','))
}
