//! What a step of a pipeline is asked: a text with places for what the client said and what the step before answered.

/// The template of steps that have none.
const DEFAULT: &str = "{{output}}";

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A place for something that there is not.
    #[error("has a place for `{0}`; there are only {{{{input}}}} and {{{{output}}}}")]
    Unknown(String),
    /// Two braces that are not closed.
    #[error("has `{{{{` without `}}}}` behind it")]
    Open,
}

/// Whether every place of a template is one that can be filled.
pub fn check(template: &str) -> Result<(), TemplateError> {
    let mut rest = template;
    while let Some((_, behind)) = rest.split_once("{{") {
        let (name, behind) = behind.split_once("}}").ok_or(TemplateError::Open)?;
        if !matches!(name.trim(), "input" | "output") {
            return Err(TemplateError::Unknown(name.trim().to_owned()));
        }
        rest = behind;
    }
    Ok(())
}

/// Fills the places of a template, once: what is filled in is not looked at again.
pub fn render(template: Option<&str>, input: &str, output: &str) -> String {
    let template = template.unwrap_or(DEFAULT);
    let mut text = String::with_capacity(template.len() + output.len());
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((name, behind)) = behind.split_once("}}") else {
            // A template that was never checked: it stays as it is.
            text.push_str("{{");
            rest = behind;
            break;
        };
        match name.trim() {
            "input" => text.push_str(input),
            "output" => text.push_str(output),
            other => {
                text.push_str("{{");
                text.push_str(other);
                text.push_str("}}");
            }
        }
        rest = behind;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once() {
        for (template, expected) in [
            (None, "OUT {{input}}"),
            (Some("check {{output}} against {{ input }}."), "check OUT {{input}} against IN."),
            (Some("nothing"), "nothing"),
            (Some("open {{output"), "open {{output"),
        ] {
            assert_eq!(render(template, "IN", "OUT {{input}}"), expected);
        }
    }

    #[test]
    fn only_what_can_be_filled_is_taken() {
        for (template, expected) in [
            ("{{output}} {{ input }} {plain}", Ok(())),
            ("{{date}}", Err(TemplateError::Unknown("date".into()))),
            ("{{output", Err(TemplateError::Open)),
        ] {
            assert_eq!(check(template), expected, "{template}");
        }
        assert_eq!(
            TemplateError::Unknown("date".into()).to_string(),
            "has a place for `date`; there are only {{input}} and {{output}}"
        );
    }
}
