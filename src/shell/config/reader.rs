//! TOML with its lines: the door to the `toml` package. A [`Section`] hands out typed values with
//! the span they were written at, notes every key that is of the wrong type, and at its end every
//! key that nobody asked for.

use super::problem::Report;
use std::ops::{Range, RangeInclusive};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and the bytes of the file that it was written at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// Parses `text` and lends its root to `read`; `None` when it is not TOML (all syntax errors are
/// then in the report).
pub fn with_root<T>(
    text: &str,
    report: &mut Report,
    read: impl FnOnce(&mut Section<'_>, &mut Report) -> T,
) -> Option<T> {
    let (root, faults) = DeTable::parse_recoverable(text);
    for fault in &faults {
        let message = fault.message().lines().collect::<Vec<_>>().join(", ");
        let fix = match message.starts_with("duplicate key") {
            true => "it stands above already: keep one of the two, with the keys of both",
            false => "correct the TOML syntax here; strings stand in \"quotes\"",
        };
        let fix = fix.to_owned();
        report.error(&fault.span().unwrap_or(0..0), "", format!("not TOML: {message}"), fix);
    }
    if !faults.is_empty() {
        return None;
    }
    let mut section = Section::of("", Some(root.get_ref()), 0..0);
    let value = read(&mut section, report);
    section.finish(report);
    Some(value)
}

/// One table of the file, or the empty place of an absent one.
pub struct Section<'d> {
    name: String,
    table: Option<&'d DeTable<'d>>,
    span: Range<usize>,
    known: Vec<&'static str>,
}

impl<'d> Section<'d> {
    fn of(name: &str, table: Option<&'d DeTable<'d>>, span: Range<usize>) -> Section<'d> {
        Section { name: name.to_owned(), table, span, known: Vec::new() }
    }

    /// Its dotted name; with its number when it is one of a list.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the section begins; the start of the file when it is absent.
    pub fn span(&self) -> &Range<usize> {
        &self.span
    }

    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The dotted name of one of its keys.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn value(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.push(key);
        self.table?.get(key)
    }

    fn wrong_type(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
        example: &str,
        report: &mut Report,
    ) {
        let what = format!("must be {wanted}, not {}", type_words(value.get_ref()));
        let fix = format!("write it as {key} = {example}");
        report.error(&value.span(), &self.path(key), what, fix);
    }

    /// A table inside this one.
    pub fn section(&mut self, key: &'static str, report: &mut Report) -> Section<'d> {
        let path = self.path(key);
        let Some(value) = self.value(key) else { return Section::of(&path, None, 0..0) };
        let table = value.get_ref().as_table();
        if table.is_none() {
            let what = format!("must be a section, not {}", type_words(value.get_ref()));
            report.error(&value.span(), &path, what, format!("write it as [{path}]"));
        }
        Section::of(&path, table, self.key_span(key).unwrap_or(value.span()))
    }

    /// The tables of a `[[key]]` list.
    pub fn sections(&mut self, key: &'static str, report: &mut Report) -> Vec<Section<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let path = self.path(key);
        let Some(items) = value.get_ref().as_array() else {
            let what = format!("must be a list of sections, not {}", type_words(value.get_ref()));
            report.error(&value.span(), &path, what, format!("write it as [[{path}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let name = format!("{path}[{index}]");
                    sections.push(Section::of(&name, Some(table), item.span()));
                }
                None => {
                    let what = format!("must be a section, not {}", type_words(item.get_ref()));
                    report.error(&item.span(), &path, what, format!("write it as [[{path}]]"));
                }
            }
        }
        sections
    }

    /// Text. Empty text is an error: leave the key out instead.
    pub fn text(&mut self, key: &'static str, report: &mut Report) -> Option<Found<String>> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "text", "\"…\"", report);
            return None;
        };
        if text.is_empty() {
            let fix = "give it a value, or leave the key out".to_owned();
            report.error(&value.span(), &self.path(key), "is empty".to_owned(), fix);
            return None;
        }
        Some(Found { value: text.to_owned(), span: value.span() })
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &'static str, report: &mut Report) -> Option<Vec<Found<String>>> {
        let value = self.value(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of texts", "[\"…\", \"…\"]", report);
            return None;
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Found { value: text.to_owned(), span: item.span() }),
                None => self.wrong_type(key, item, "a list of texts", "[\"…\", \"…\"]", report),
            }
        }
        Some(texts)
    }

    /// One text, or a list of them; none is an empty list.
    pub fn text_or_texts(&mut self, key: &'static str, report: &mut Report) -> Vec<Found<String>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::String(_) => self.text(key, report).into_iter().collect(),
            DeValue::Array(_) => self.texts(key, report).unwrap_or_default(),
            _ => {
                self.wrong_type(key, value, "a text or a list of texts", "\"…\"", report);
                Vec::new()
            }
        }
    }

    /// True or false.
    pub fn boolean(&mut self, key: &'static str, report: &mut Report) -> Option<bool> {
        let value = self.value(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            let off = value.get_ref().as_str().is_some_and(|word| OFF.contains(&word));
            self.wrong_type(
                key,
                value,
                "true or false",
                if off { "false" } else { "true" },
                report,
            );
        }
        found
    }

    /// A whole number within `bounds`.
    pub fn integer(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
        report: &mut Report,
    ) -> Option<Found<u64>> {
        let value = self.value(key)?;
        let Some(number) = value.get_ref().as_integer() else {
            let example = meant(value.get_ref(), &bounds).to_string();
            self.wrong_type(key, value, "a whole number", &example, report);
            return None;
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if bounds.contains(&number) => {
                Some(Found { value: number, span: value.span() })
            }
            Ok(_) | Err(_) => {
                let what = format!("{} is out of bounds", number.as_str());
                let fix = format!("give a number from {} to {}", bounds.start(), bounds.end());
                report.error(&value.span(), &self.path(key), what, fix);
                None
            }
        }
    }

    /// One word of a fixed set.
    pub fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        report: &mut Report,
    ) -> Option<T> {
        let found = self.text(key, report)?;
        let hit = words.iter().find(|(word, _)| *word == found.value);
        if hit.is_none() {
            let choice = words.iter().map(|(word, _)| format!("\"{word}\""));
            let fix = format!("use one of {}", choice.collect::<Vec<_>>().join(", "));
            let what = format!("\"{}\" is not known here", found.value);
            report.error(&found.span, &self.path(key), what, fix);
        }
        hit.map(|(_, value)| *value)
    }

    /// Where `key` itself is written.
    pub fn key_span(&self, key: &str) -> Option<Range<usize>> {
        let (name, _) = self.table?.get_key_value(key)?;
        Some(name.span())
    }

    /// Reports every key that was never asked for.
    pub fn finish(&self, report: &mut Report) {
        let Some(table) = self.table else { return };
        for (name, _) in table.iter() {
            let key: &str = name.get_ref();
            if self.known.contains(&key) {
                continue;
            }
            let fix = match nearest(key, &self.known) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("remove it; known here: {}", self.known.join(", ")),
            };
            report.error(&name.span(), &self.path(key), "is not a known key".to_owned(), fix);
        }
    }
}

/// Words for "no", of who puts one where `false` belongs.
const OFF: [&str; 4] = ["false", "no", "off", "0"];

/// The whole number within `bounds` that was meant by a number in quotes or with a point; else the
/// least of them.
fn meant(value: &DeValue<'_>, bounds: &RangeInclusive<u64>) -> u64 {
    let number = match value {
        DeValue::String(text) => text.trim().parse::<u64>().ok(),
        DeValue::Float(float) => float.as_str().parse::<f64>().ok().map(|number| number as u64),
        _ => None,
    };
    number.filter(|number| bounds.contains(number)).unwrap_or(*bounds.start())
}

fn type_words(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// The known word that lies nearest to `word`, when it is near enough to be what was meant: a third
/// of its letters may differ, or it is the beginning of the known word.
fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    if let Some(whole) = known.iter().find(|known| word.len() >= 3 && known.starts_with(word)) {
        return Some(whole);
    }
    let best = known.iter().map(|candidate| (distance(word, candidate), *candidate)).min()?;
    (best.0 <= word.chars().count().div_ceil(3)).then_some(best.1)
}

/// Edit distance (insertions, deletions, changes, and swaps of neighbours count one each).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(64).collect();
    let to: Vec<char> = to.chars().take(64).collect();
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let change = usize::from(from[i - 1] != to[j - 1]);
            let mut best =
                (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            let swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
            if swapped {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[from.len()][to.len()]
}
