//! The hand-written tables of `ultravox::schema` against the published OpenAPI document: the same
//! members, types, bounds of texts, required and nullable marks. The document is found under
//! `VOXEDGE_TEST_DATA`; the test must run where `CI` is set and is skipped elsewhere without it.

use std::collections::BTreeMap;
use voxedge::ultravox::schema::{Field, Kind, PUBLISHED, Shape};

/// Members that a request needs although the document marks them in prose only.
const REQUIRED_IN_PROSE: &[(&str, &str)] =
    &[("ultravox.v1.CallMedium_WebSocketMedium", "inputSampleRate")];

#[test]
fn the_tables_agree_with_the_published_document() {
    let Some(document) = published_document() else { return };
    let components = Components::parse(&document);
    let mut differences = Vec::new();
    for shape in PUBLISHED {
        match components.0.get(shape.name) {
            Some(component) => compare(shape, component, &components, &mut differences),
            None => differences.push(format!("{}: not in the document", shape.name)),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_difference_is_found() {
    let document = "components:\n  schemas:\n    Thing:\n      type: object\n      properties:\n        \
        a:\n          type: string\n        b:\n          type: integer\n      required:\n      - b\n";
    let components = Components::parse(document);
    let flag = Field { name: "a", kind: Kind::Flag, required: false, nullable: false };
    let unknown = Field { name: "c", ..flag };
    let fields: &'static [Field] = Box::leak(Box::new([flag, unknown]));
    let shape = Shape { name: "Thing", fields, closed: true, one_of: false };
    let mut differences = Vec::new();
    compare(&shape, &components.0["Thing"], &components, &mut differences);
    assert_eq!(
        differences,
        [
            "Thing.a: table has Flag, document has string",
            "Thing.c: not in the document",
            "Thing.b: not in the table"
        ]
    );
}

fn published_document() -> Option<String> {
    let must = std::env::var("CI").is_ok_and(|value| value == "true");
    let Ok(root) = std::env::var("VOXEDGE_TEST_DATA") else {
        assert!(!must, "VOXEDGE_TEST_DATA must be set where CI=true");
        eprintln!("skipped: VOXEDGE_TEST_DATA is not set, the published document is not at hand");
        return None;
    };
    let path = format!("{root}/facts/ultravox-openapi.yaml");
    match std::fs::read_to_string(&path) {
        Ok(document) => Some(document),
        Err(error) => {
            assert!(!must, "{path}: {error}");
            eprintln!("skipped: {path}: {error}");
            None
        }
    }
}

fn compare(shape: &Shape, component: &Component, components: &Components, out: &mut Vec<String>) {
    for field in shape.fields {
        match component.properties.get(field.name) {
            Some(property) => compare_field(shape, field, property, component, components, out),
            None => out.push(format!("{}.{}: not in the document", shape.name, field.name)),
        }
    }
    // A closed table must be complete, since what it does not name is refused.
    for name in component.properties.keys() {
        if shape.closed && shape.field(name).is_none() {
            out.push(format!("{}.{name}: not in the table", shape.name));
        }
    }
    for name in &component.required {
        if !shape.closed && !shape.field(name).is_some_and(|field| field.required) {
            out.push(format!("{}.{name}: required by the document only", shape.name));
        }
    }
}

fn compare_field(
    shape: &Shape,
    field: &Field,
    property: &Property,
    component: &Component,
    components: &Components,
    out: &mut Vec<String>,
) {
    let place = format!("{}.{}", shape.name, field.name);
    if !fits(&field.kind, property, components) {
        out.push(format!("{place}: table has {:?}, document has {}", field.kind, property.kind()));
    }
    let in_prose = REQUIRED_IN_PROSE.contains(&(shape.name, field.name));
    if field.required && !in_prose && !component.required.iter().any(|name| name == field.name) {
        out.push(format!("{place}: required by the table only"));
    }
    if field.nullable != property.nullable {
        out.push(format!("{place}: nullable {} in the document", property.nullable));
    }
}

fn fits(kind: &Kind, property: &Property, components: &Components) -> bool {
    let is = |name: &str| property.kind == name;
    let references = |name: &str| property.references.iter().any(|reference| reference == name);
    // A reference to an object that the table leaves open.
    let references_object = || {
        let target = property.references.first().and_then(|name| components.0.get(name));
        target.is_some_and(|target| target.values.is_empty())
    };
    match kind {
        Kind::Any => true,
        Kind::Text => is("string") && property.values.is_empty() && !property.is_duration,
        Kind::LimitedText { chars_max } => {
            is("string") && property.chars_max == Some(*chars_max) && property.values.is_empty()
        }
        Kind::Duration => is("string") && property.is_duration,
        Kind::Uuid => is("string") && property.format == "uuid",
        Kind::DateTime => is("string") && property.format == "date-time",
        Kind::Integer { .. } => is("integer"),
        Kind::Number => is("number"),
        Kind::Flag => is("boolean"),
        Kind::Object(shape) => references(shape.name) && !is("array"),
        Kind::Objects(shape) => is("array") && references(shape.name),
        Kind::Texts => is("array") && property.item_kind == "string",
        Kind::TextMap => is("object") && property.item_kind == "string",
        Kind::FreeObject => is("object") || references_object(),
        Kind::FreeList => is("array"),
        Kind::Choice(names) => {
            let own = property.values.iter();
            let referenced = property.references.iter().filter_map(|name| components.0.get(name));
            let mut values: Vec<&str> = own
                .chain(referenced.flat_map(|target| &target.values))
                .map(String::as_str)
                .collect();
            let mut names = names.to_vec();
            values.sort_unstable();
            names.sort_unstable();
            values == names
        }
    }
}

/// One schema of the document, as much as is compared.
#[derive(Default, Debug)]
struct Component {
    properties: BTreeMap<String, Property>,
    required: Vec<String>,
    /// Of an enumeration.
    values: Vec<String>,
}

#[derive(Default, Debug)]
struct Property {
    kind: String,
    format: String,
    item_kind: String,
    is_duration: bool,
    chars_max: Option<usize>,
    nullable: bool,
    values: Vec<String>,
    references: Vec<String>,
}

impl Property {
    fn kind(&self) -> String {
        if self.kind.is_empty() { format!("{:?}", self.references) } else { self.kind.clone() }
    }

    /// Reads one line below the property. `depth` counts spaces from the property's own members.
    fn read(&mut self, depth: usize, line: &str) {
        let (key, value) =
            line.split_once(':').map_or((line, ""), |(key, value)| (key, value.trim()));
        match (depth, key) {
            (0, "type") => self.kind = value.into(),
            (0, "format") => self.format = value.into(),
            (0, "maxLength") => self.chars_max = value.parse().ok(),
            (0, "nullable") => self.nullable = value == "true",
            (0, "pattern") => self.is_duration = value.ends_with("s$"),
            (2, "type") => self.item_kind = value.into(),
            (0, _) if line.starts_with("- ") && !line.contains(':') => {
                self.values.push(line[2..].into())
            }
            _ => {}
        }
        if let Some((_, target)) = line.split_once("$ref: '#/components/schemas/") {
            let name = target.trim_end_matches('\'');
            if name != "NullEnum" {
                self.references.push(name.into());
            }
        }
    }
}

/// The part `components.schemas` of the document. Its layout is a generator's and so is regular: two
/// spaces a level, lists in line with their key, block texts only under `description`.
struct Components(BTreeMap<String, Component>);

impl Components {
    fn parse(document: &str) -> Components {
        let mut components = BTreeMap::new();
        let lines = document.lines().skip_while(|line| *line != "  schemas:").skip(1);
        let (mut name, mut section, mut property) = (String::new(), String::new(), String::new());
        let mut description_depth = None;
        let inside = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
        for line in inside.filter(|line| !line.is_empty()) {
            let text = line.trim_start();
            let depth = line.len() - text.len();
            // A description may run over many lines, all deeper than its key.
            if description_depth.is_some_and(|key_depth| depth > key_depth) {
                continue;
            }
            description_depth = text.starts_with("description: ").then_some(depth);
            let key = text.split(':').next().unwrap_or_default().to_owned();
            match depth {
                4 => (name, section) = (key.clone(), String::new()),
                6 if !text.starts_with("- ") => section = key.clone(),
                _ => {}
            }
            let component: &mut Component = components.entry(name.clone()).or_default();
            match (section.as_str(), depth) {
                ("required", 6) if text.starts_with("- ") => {
                    component.required.push(text[2..].into())
                }
                ("enum", 6) if text.starts_with("- ") => component.values.push(text[2..].into()),
                ("properties", 8) => {
                    property = key;
                    component.properties.entry(property.clone()).or_default();
                }
                ("properties", deeper) if deeper >= 10 => {
                    component
                        .properties
                        .entry(property.clone())
                        .or_default()
                        .read(deeper - 10, text);
                }
                _ => {}
            }
        }
        Components(components)
    }
}
