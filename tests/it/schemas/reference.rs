//! `docs/events.md`, made from the schemas and their examples.

use std::fmt::Write as _;

use serde_json::Value;

use super::{EMITTED, folder, json_files, read, schemas};

const HEAD: &str = "\
# Events

All that Curfew takes in and sends out, as CloudEvents 1.0 in JSON. This page is made from the schemas and the valid examples in
[schemas/events](../schemas/events); a test compares. How they are read, how a run is called, and what makes two events the same one
stands in the [README there](../schemas/events/README.md); scanners' and schedulers' own formats in [findings.md](findings.md) and
[tasks.md](tasks.md).

In the tables **bold** fields must be there. `a.b` is the field `b` of the object `a`, `a[].b` of each object in the list `a`. Examples
are from `schemas/events/examples`. What is taken in may have more fields, which are dropped, and `null` counts as left out; what
is sent has no others.
";

/// Longer ones are given in words.
const PATTERN: usize = 48;
const EXAMPLE: usize = 72;

struct Row {
    field: String,
    must: bool,
    what: String,
    meaning: String,
    example: Option<String>,
    /// Its fields have rows of their own, or it is always the same.
    whole: bool,
}

/// The values that examples have at one place.
type Seen<'a> = Vec<&'a Value>;

fn page() -> String {
    let mut page = HEAD.to_owned();
    let all = schemas();
    let (sent, taken): (Vec<_>, Vec<_>) = all.iter().partition(|(name, _)| EMITTED.contains(&name.as_str()));
    for (heading, those) in [("Taken in", &taken), ("Sent out", &sent)] {
        put(&mut page, format_args!("\n| {heading} | |\n|---|---|\n"));
        for (name, schema) in those {
            put(
                &mut page,
                format_args!("| [`dev.curfew.{name}.v1`](#{}) | {} |\n", anchor(name), text(&schema["title"])),
            );
        }
    }
    for (heading, those) in [("Taken in", taken), ("Sent out", sent)] {
        put(&mut page, format_args!("\n## {heading}\n\nThe envelope of each:\n\n"));
        let envelopes: Vec<Vec<Row>> = those.iter().map(|(name, schema)| envelope(name, schema)).collect();
        let shown =
            |rows: &[Row]| rows.iter().map(|row| (row.field.clone(), row.must, row.what.clone())).collect::<Vec<_>>();
        for other in &envelopes {
            assert_eq!(shown(other), shown(&envelopes[0]), "each has the same envelope");
        }
        table(&mut page, &envelopes[0]);
        for (name, schema) in those {
            section(&mut page, name, schema);
        }
    }
    put(&mut page, format_args!("\n## Shared types\n\n"));
    let mut known = std::collections::BTreeMap::new();
    for (_, schema) in &all {
        known.extend(schema["$defs"].as_object().unwrap());
    }
    for (name, def) in known {
        put(&mut page, format_args!("### {name}\n\n{}\n\n{}.\n\n", text(&def["description"]), kind(def)));
        let mut rows = Vec::new();
        fields(def, "", &[], &mut rows);
        if !rows.is_empty() {
            table(&mut page, &rows);
            page.push('\n');
        }
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn put(page: &mut String, what: std::fmt::Arguments<'_>) {
    page.write_fmt(what).unwrap();
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// As GitHub names a heading.
fn anchor(name: &str) -> String {
    format!("devcurfew{}v1", name.replace('.', ""))
}

fn envelope(name: &str, schema: &Value) -> Vec<Row> {
    let examples = examples(name);
    let seen: Seen<'_> = examples.iter().map(|(_, event)| event).collect();
    let mut rows = Vec::new();
    fields(schema, "", &seen, &mut rows);
    rows.retain(|row| !row.field.starts_with("data.") && row.field != "data" && row.field != "data_base64");
    for row in &mut rows {
        match row.field.as_str() {
            "type" => {
                (row.what, row.meaning, row.example) =
                    ("text".into(), "`dev.curfew.<name>.v1`: the heading below.".into(), None)
            }
            "dataschema" => {
                (row.what, row.meaning, row.example) =
                    ("text".into(), "`urn:curfew:schema:<name>.v1`. Not read.".into(), None)
            }
            // Ends and findings are never refused for their times.
            "time" if row.what == "anything" || row.what == "[wish](#wish)" => {
                row.what = "[wish](#wish)".into();
                row.meaning = "When it was said. Of an end or a finding what is no time counts as left out.".into();
            }
            _ => {}
        }
    }
    rows
}

fn examples(name: &str) -> Vec<(String, Value)> {
    let files = json_files(&folder().join(format!("examples/{name}.v1/valid")));
    files.iter().map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), read(path))).collect()
}

fn section(page: &mut String, name: &str, schema: &Value) {
    let examples = examples(name);
    let data = &schema["properties"]["data"];
    put(
        page,
        format_args!(
            "\n### dev.curfew.{name}.v1\n\n**{}.** {}\n\n",
            text(&schema["title"]),
            text(&schema["description"])
        ),
    );
    let ways = data["anyOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ways: Vec<String> = ways.iter().map(|way| format!("`{}`", text(&way["required"][0]))).collect();
    if !ways.is_empty() {
        put(page, format_args!("At least one of {} must be there.\n\n", ways.join(", ")));
    }
    let seen: Seen<'_> = examples.iter().map(|(_, event)| &event["data"]).collect();
    let mut rows = Vec::new();
    fields(data, "", &seen, &mut rows);
    for row in &rows {
        assert!(!row.meaning.is_empty(), "{name}: `{}` has no description", row.field);
        let unread = row.meaning.contains("Not read");
        assert!(unread || row.whole || row.example.is_some(), "{name}: no example has `{}`", row.field);
    }
    table(page, &rows);
    let (file, longest) = examples.iter().max_by_key(|(file, event)| (event.to_string().len(), file.clone())).unwrap();
    // As it is written, with its order of fields.
    let path = folder().join(format!("examples/{name}.v1/valid/{file}.json"));
    let written = std::fs::read_to_string(path).unwrap();
    assert!(longest["data"].is_object());
    put(page, format_args!("\nExample (`{file}.json`):\n\n```json\n{}\n```\n", written.trim_end()));
}

fn table(page: &mut String, rows: &[Row]) {
    page.push_str("| field | type, limits | meaning | example |\n|---|---|---|---|\n");
    let cell = |text: &str| text.replace('|', "\\|");
    for row in rows {
        let field = if row.must { format!("**`{}`**", row.field) } else { format!("`{}`", row.field) };
        let example = row.example.as_deref().map(|example| format!("`{}`", cell(example))).unwrap_or_default();
        put(page, format_args!("| {field} | {} | {} | {example} |\n", cell(&row.what), cell(&row.meaning)));
    }
}

/// A row for each field below `node`, at which examples have `seen`.
fn fields(node: &Value, path: &str, seen: &[&Value], rows: &mut Vec<Row>) {
    let list = |key: &str| node[key].as_array().map(Vec::as_slice).unwrap_or_default();
    for alternative in list("oneOf") {
        let state = &alternative["properties"]["state"]["const"];
        let those: Seen<'_> = seen.iter().copied().filter(|one| one["state"] == *state).collect();
        let from = rows.len();
        fields(alternative, path, &those, rows);
        for row in &mut rows[from..] {
            if !row.field.ends_with(".state") {
                row.meaning = format!("Of `{}`: {}", text(state), row.meaning);
            }
        }
    }
    // What only narrows says nothing new.
    for alternative in list("anyOf").iter().filter(|alternative| alternative["type"] == "object") {
        fields(alternative, path, seen, rows);
    }
    if node["items"].is_object() {
        let inside: Seen<'_> = seen.iter().filter_map(|one| one.as_array()).flatten().collect();
        fields(&node["items"], &format!("{path}[]"), &inside, rows);
    }
    for alternative in list("anyOf").iter().filter(|alternative| alternative["type"] == "array") {
        fields(alternative, path, seen, rows);
    }
    let required: Vec<&str> = list("required").iter().map(text).collect();
    let properties = node["properties"].as_object().into_iter().flatten();
    let (first, others): (Vec<_>, Vec<_>) = properties.partition(|(name, _)| required.contains(&name.as_str()));
    for (must, those) in [(true, first), (false, others)] {
        for (name, of) in those {
            let inside: Seen<'_> = seen.iter().map(|one| &one[name.as_str()]).filter(|one| !one.is_null()).collect();
            let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let example = inside.iter().find(|one| !one.is_object() && !one.to_string().contains('{'));
            let example = example.map(|one| clipped(&one.to_string()));
            let before = rows.len();
            let (what, meaning) = (kind(of), text(&of["description"]).to_owned());
            rows.push(Row { field: field.clone(), must, what, meaning, example, whole: false });
            fields(of, &field, &inside, rows);
            let shown = rows.len() > before + 1 || (!inside.is_empty() && rows[before].example.is_none());
            rows[before].whole = shown || !of["const"].is_null();
        }
    }
}

fn clipped(text: &str) -> String {
    if text.chars().count() <= EXAMPLE { text.to_owned() } else { text.chars().take(EXAMPLE).chain(['…']).collect() }
}

/// The type with its limits, in words.
fn kind(node: &Value) -> String {
    if let Some(at) = node["$ref"].as_str() {
        let name = at.trim_start_matches("#/$defs/");
        return format!("[{name}](#{name})");
    }
    if let Some(all) = node["allOf"].as_array() {
        return kind(&all[0]);
    }
    if !node["const"].is_null() {
        return format!("`{}`", text(&node["const"]));
    }
    if let Some(words) = node["enum"].as_array() {
        let words: Vec<String> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    if let Some(ways) = node["anyOf"].as_array().or_else(|| node["oneOf"].as_array()) {
        let ways = ways.iter().filter(|way| way["type"] != "null" && way.get("required").is_none());
        let ways: Vec<String> = ways.map(kind).collect();
        return if ways.is_empty() { "object".to_owned() } else { ways.join(", or ") };
    }
    let of = node["type"].as_array().map_or(&node["type"], |types| &types[0]);
    let number = |key: &str| {
        node[key].as_i64().map(|n| if n == 9_007_199_254_740_991 { "2⁵³ − 1".to_owned() } else { n.to_string() })
    };
    let mut said = match text(of) {
        "string" if node["format"].is_string() => text(&node["format"]).to_owned(),
        "string" => "text".to_owned(),
        "boolean" => "`true`, `false`".to_owned(),
        "array" => format!("list of {}", kind(&node["items"])),
        "" => "anything".to_owned(),
        other => other.to_owned(),
    };
    for (least, most, unit) in
        [("minLength", "maxLength", " characters"), ("minItems", "maxItems", " of them"), ("minimum", "maximum", "")]
    {
        match (number(least), number(most)) {
            (Some(least), Some(most)) => said += &format!(", {least} to {most}{unit}"),
            (Some(least), None) => said += &format!(", at least {least}{unit}"),
            (None, Some(most)) => said += &format!(", at most {most}{unit}"),
            (None, None) => {}
        }
    }
    match node["pattern"].as_str() {
        Some(pattern) if pattern.len() <= PATTERN && !node["format"].is_string() => said + &format!(", `{pattern}`"),
        _ => said,
    }
}

/// `CURFEW_UPDATE_DOCS=1` writes the page anew.
#[test]
fn the_reference_of_events_says_what_the_schemas_say() {
    let path = crate::repository().join("docs/events.md");
    let page = page();
    if std::env::var_os("CURFEW_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/events.md is not what the schemas say: CURFEW_UPDATE_DOCS=1 writes it");
}
