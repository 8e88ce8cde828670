//! Schemas before and after.

use super::*;

fn raw(text: &str) -> Box<RawValue> {
    serde_json::from_str(text).expect("valid JSON")
}

#[test]
fn what_is_heeded_stays() {
    for (given, expected, change) in [
        (r#"{"type":"object","properties":{"a":{"type":"string"}} }"#, None, Change::None),
        (
            r#"{"$schema":"x","type":"object","properties":{"title":{"type":"string","pattern":"a","minLength":1},"pattern":{"const":3}},"additionalProperties":false}"#,
            Some(
                r#"{"type":"object","properties":{"title":{"type":"string"},"pattern":{"enum":[3]}},"additionalProperties":false}"#,
            ),
            Change::Form,
        ),
        (
            r##"{"type":"object","properties":{"a":{"$ref":"#/definitions/d"}},"definitions":{"d":{"type":"integer","exclusiveMinimum":0}}}"##,
            Some(
                r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/d"}},"$defs":{"d":{"type":"integer","minimum":1}}}"##,
            ),
            Change::Form,
        ),
        (
            r##"{"type":"object","properties":{"a":{"allOf":[{"$ref":"#/$defs/d"}],"description":"x"},"b":{"type":"string","nullable":true},"c":true},"$defs":{"d":{"type":"string"}}}"##,
            Some(
                r##"{"type":"object","properties":{"a":{"description":"x","$ref":"#/$defs/d"},"b":{"type":["string","null"]},"c":{}},"$defs":{"d":{"type":"string"}}}"##,
            ),
            Change::Form,
        ),
        (
            r##"{"type":"object","allOf":[{"$ref":"#/$defs/d"},{"properties":{"b":{}},"required":["b"]}],"$defs":{"d":{"properties":{"a":{}},"required":["a"]}}}"##,
            Some(
                r##"{"type":"object","$defs":{"d":{"properties":{"a":{}},"required":["a"]}},"properties":{"b":{},"a":{}},"required":["b","a"]}"##,
            ),
            Change::Form,
        ),
        (
            r#"{"items":[{"type":"string"},{"type":"number"}]}"#,
            Some(r#"{"prefixItems":[{"type":"string"},{"type":"number"}]}"#),
            Change::Form,
        ),
    ] {
        let given = raw(given);
        let found = as_json_schema(&given);
        assert_eq!((&*found.text, found.change), (expected.unwrap_or(given.get()), change));
    }
}

#[test]
fn arguments_are_objects() {
    for (given, expected) in [
        ("{}", Some(r#"{"type":"object"}"#)),
        (r#"{"properties":{"a":{}}}"#, Some(r#"{"type":"object","properties":{"a":{}}}"#)),
        (r#"{"type":"object"}"#, Some(r#"{"type":"object"}"#)),
        (r#"{"type":"string"}"#, None),
    ] {
        let given = raw(given);
        assert_eq!(
            arguments_as_json_schema(&given).map(|found| found.text.into_owned()).as_deref(),
            expected
        );
    }
    for (given, expected) in [
        (r#"{"type":"object","properties":{}}"#, Some(None)),
        ("{}", Some(None)),
        (r#"{"type":"string"}"#, None),
        ("true", None),
        (
            r#"{"anyOf":[{"properties":{"a":{"type":"string"},"c":{"type":"number"}},"required":["a","c"]},{"properties":{"b":{"type":"string"},"c":{}},"required":["b","c"]}]}"#,
            Some(Some(
                r#"{"type":"OBJECT","properties":{"a":{"type":"STRING"},"c":{"type":"NUMBER"},"b":{"type":"STRING"}},"required":["c"]}"#,
            )),
        ),
    ] {
        let given = raw(given);
        let found = arguments_as_own(&given).map(|found| found.map(|found| found.text.into_owned()));
        assert_eq!(found.as_ref().map(Option::as_deref), expected, "{given}");
    }
}

#[test]
fn f27_schemas_are_reduced_to_the_vendors_own_kind() {
    for (given, expected) in [
        (
            r#"{"type":"string","enum":["a","b",1,null]}"#,
            r#"{"type":"STRING","nullable":true,"enum":["a","b","1"]}"#,
        ),
        (
            r#"{"type":"integer","enum":[1,2],"description":"How many."}"#,
            r#"{"type":"INTEGER","description":"How many. Allowed values: 1, 2."}"#,
        ),
        (r#"{"const":"a"}"#, r#"{"type":"STRING","enum":["a"]}"#),
        (r#"{"type":["string","null"],"format":"uri"}"#, r#"{"type":"STRING","nullable":true}"#),
        (
            r#"{"type":["string","integer"],"minimum":1}"#,
            r#"{"anyOf":[{"type":"STRING"},{"type":"INTEGER","minimum":1}]}"#,
        ),
        (
            r#"{"anyOf":[{"type":"string"},{"type":"null"}],"title":"T"}"#,
            r#"{"type":"STRING","title":"T","nullable":true}"#,
        ),
        (r#"{"oneOf":[{"const":"a"},{"const":"b"}]}"#, r#"{"type":"STRING","enum":["a","b"]}"#),
        (
            r#"{"anyOf":[{"type":"string"},{"type":"number"}],"description":"d"}"#,
            r#"{"description":"d","anyOf":[{"type":"STRING"},{"type":"NUMBER"}]}"#,
        ),
        (
            r#"{"type":"array","uniqueItems":true,"minItems":2.0}"#,
            r#"{"type":"ARRAY","items":{"type":"STRING"},"minItems":2}"#,
        ),
        (
            r#"{"type":"array","prefixItems":[{"type":"number"},{"type":"number"}]}"#,
            r#"{"type":"ARRAY","items":{"type":"NUMBER"}}"#,
        ),
        (
            r#"{"type":"integer","exclusiveMinimum":0,"exclusiveMaximum":10}"#,
            r#"{"type":"INTEGER","minimum":1,"maximum":9}"#,
        ),
        (r#"{"type":"integer","minimum":0,"exclusiveMinimum":true}"#, r#"{"type":"INTEGER","minimum":1}"#),
        (
            r#"{"type":"number","exclusiveMinimum":0.5}"#,
            r#"{"type":"NUMBER","description":"Greater than 0.5."}"#,
        ),
        (
            r#"{"type":"string","format":"date-time","minLength":1,"maxItems":3,"default":"x"}"#,
            r#"{"type":"STRING","format":"date-time","minLength":1}"#,
        ),
        (
            r#"{"type":"object","properties":{"title":{"type":"string"},"enum":{"type":"number"}},"required":["title","gone"],"additionalProperties":false,"$schema":"x"}"#,
            r#"{"type":"OBJECT","properties":{"title":{"type":"STRING"},"enum":{"type":"NUMBER"}},"required":["title"]}"#,
        ),
        (
            r#"{"type":"object","properties":{"o":{"type":"object"},"any":{}}}"#,
            r#"{"type":"OBJECT","properties":{"o":{"type":"OBJECT"},"any":{"type":"STRING"}}}"#,
        ),
        (
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/d","description":"mine"}},"$defs":{"d":{"type":"string","description":"theirs"}}}"##,
            r#"{"type":"OBJECT","properties":{"a":{"type":"STRING","description":"mine"}}}"#,
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"string"}},"allOf":[{"required":["a"]},{"properties":{"b":{"type":"boolean"}},"required":["b"]}]}"#,
            r#"{"type":"OBJECT","properties":{"a":{"type":"STRING"},"b":{"type":"BOOLEAN"}},"required":["a","b"]}"#,
        ),
    ] {
        let given = raw(given);
        assert_eq!(as_own(&given).text, expected, "{given}");
    }
}

#[test]
fn recursion_is_cut() {
    let given = raw(r##"{"type":"object","properties":{"next":{"$ref":"#"},"v":{"type":"number"}}}"##);
    let found = as_own(&given);
    assert_eq!(found.change, Change::Meaning);
    assert_eq!(found.text.matches("\"next\"").count(), 6);
    let wide: String = (0..20).map(|n| format!("\"p{n}\":{{\"$ref\":\"#\"}},")).collect();
    let wide = raw(&format!("{{\"type\":\"object\",\"properties\":{{{}}}}}", wide.trim_end_matches(',')));
    assert!(as_own(&wide).text.len() < 1 << 20);
    let endless = raw(r##"{"allOf":[{"$ref":"#"}]}"##);
    assert_eq!(as_own(&endless).change, Change::Meaning);
    as_json_schema(&endless);
    let deep = raw(&format!("{}1{}", r#"{"items":"#.repeat(100), "}".repeat(100)));
    assert_eq!(as_json_schema(&deep).change, Change::Meaning);
}

#[test]
fn own_schemas_are_read() {
    let given = raw(
        r#"{"type":"OBJECT","properties":{"any_of":{"type":"STRING","nullable":true,"enum":["a"]},"b":{"type":"ARRAY","items":{"type":"INTEGER","format":"int32"},"min_items":"2"},
        "c":{"any_of":[{"type":"STRING"},{"type":"NUMBER"}],"nullable":true}},"required":["b"],"property_ordering":["b"]}"#,
    );
    let found = from_own(&given);
    assert_eq!(
        found.get(),
        r#"{"type":"object","properties":{"any_of":{"type":["string","null"],"enum":["a",null]},"b":{"type":"array","items":{"type":"integer","format":"int32"},"minItems":2},"c":{"anyOf":[{"type":"string"},{"type":"number"},{"type":"null"}]}},"required":["b"],"propertyOrdering":["b"]}"#
    );
    assert_eq!(
        as_own(&found).text,
        r#"{"type":"OBJECT","properties":{"any_of":{"type":"STRING","nullable":true,"enum":["a"]},"b":{"type":"ARRAY","items":{"type":"INTEGER","format":"int32"},"minItems":2},"c":{"nullable":true,"anyOf":[{"type":"STRING"},{"type":"NUMBER"}]}},"required":["b"],"propertyOrdering":["b"]}"#
    );
}

fn any_schema() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let leaf = prop::sample::select(vec![
        r#"{"type":"string","pattern":"x"}"#,
        r#"{"type":["integer","null"],"exclusiveMinimum":0}"#,
        r##"{"$ref":"#"}"##,
        r##"{"$ref":"#/$defs/a","description":"d"}"##,
        r##"{"$ref":"#/nowhere"}"##,
        r#"{"enum":["a",1,null]}"#,
        r#"{"const":true}"#,
        r#"{"type":"null"}"#,
        r#"{"type":"array","items":[]}"#,
        "{}",
        "true",
        "false",
        "7",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let many = prop::collection::vec(inner.clone(), 0..3).prop_map(|all| all.join(","));
        prop_oneof![
            (prop::sample::select(vec!["anyOf", "oneOf", "allOf", "prefixItems"]), many)
                .prop_map(|(name, all)| format!("{{\"{name}\":[{all}],\"title\":\"t\"}}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!(
                "{{\"type\":\"object\",\"properties\":{{\"items\":{a}}},\"required\":[\"items\",\"x\"],\"$defs\":{{\"a\":{b}}}}}"
            )),
            inner.prop_map(|a| format!("{{\"type\":\"array\",\"items\":{a}}}")),
        ]
    })
}

#[test]
fn what_was_cut_is_not_cut_again() {
    let endless = r##"{"type":"object","properties":{"items":{"allOf":[{"type":"string","pattern":"x"},{"$ref":"#"}],"title":"t"}},"required":["items","x"]}"##;
    let given = raw(endless);
    let once = as_json_schema(&given);
    assert_eq!(once.change, Change::Meaning);
    let given = raw(&once.text);
    let again = as_json_schema(&given);
    assert_eq!((again.change, &*again.text), (Change::None, &*once.text));
}

#[test]
fn schemas_of_very_many_members_and_parts_are_written_in_one_pass() {
    let many = |from: usize| {
        let members: Vec<String> = (from..from + 20_000).map(|n| format!("\"p{n}\":{{}}")).collect();
        members.join(",")
    };
    let odd: Vec<String> = (0..20_000).map(|n| format!("\"x{n}\":1")).collect();
    let names: Vec<String> = (0..20_000).map(|n| format!("\"p{n}\"")).collect();
    let given = format!(
        r#"{{"type":"object","properties":{{{}}},"required":[{names}],{odd},"allOf":[{{"properties":{{{}}},"required":[{names}],{odd}}}]}}"#,
        many(0),
        many(10_000),
        names = names.join(","),
        odd = odd.join(","),
    );
    let given = raw(&given);
    let written = as_json_schema(&given);
    assert!(written.text.contains("\"p29999\"") && !written.text.contains("\"x1\""));
    assert_eq!(written.text.matches("\"p15000\":").count(), 1);
}

proptest::proptest! {
    #[test]
    fn any_schema_can_be_written(given in any_schema()) {
        let given = raw(&given);
        for written in [as_json_schema(&given), as_own(&given)] {
            let again = raw(&written.text);
            proptest::prop_assert!(written.text.len() < 1 << 22);
            // What was made fit stays as it is.
            proptest::prop_assert_eq!(as_json_schema(&again).text.contains("allOf"), false);
        }
        proptest::prop_assert_eq!(as_json_schema(&raw(&as_json_schema(&given).text)).change, Change::None);
        let _ = (arguments_as_json_schema(&given), arguments_as_own(&given));
        from_own(&given);
    }
}
