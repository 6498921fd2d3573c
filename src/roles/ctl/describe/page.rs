//! Text in columns that tabs separate, and the forms that values take in it.
//!
//! Why elastic columns: labels of any length line up without a second pass in each describer.

use std::io::Write;

use jiff::{Timestamp, tz::TimeZone};
use tabwriter::TabWriter;

use crate::api::kind::human_duration;
use crate::object::{Value, meta, time};

/// Longest annotation that is shown on the line of its name, as kubectl has it.
const ANNOTATION_COLUMNS_MAX: usize = 140;
/// Annotations that repeat the whole object.
const ANNOTATION_HIDDEN: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Lines of text.
#[derive(Default)]
pub struct Page {
    done: String,
    lines: String,
}

impl Page {
    /// One line, indented by `level` times two.
    pub fn put(&mut self, level: usize, line: &str) {
        self.lines.extend(std::iter::repeat_n("  ", level));
        self.lines.push_str(line);
        self.lines.push('\n');
    }

    /// `name:` and a value.
    pub fn field(&mut self, level: usize, name: &str, value: impl std::fmt::Display) {
        self.put(level, &format!("{name}:\t{value}"));
    }

    /// `name:` and a value, if there is one.
    pub fn given(&mut self, level: usize, name: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, name, value);
        }
    }

    /// `title:` and values below each other, or `<none>`.
    pub fn many(&mut self, title: &str, values: &[String]) {
        match values {
            [] => self.put(0, &format!("{title}:\t<none>")),
            [first, rest @ ..] => {
                self.put(0, &format!("{title}:\t{first}"));
                rest.iter().for_each(|value| self.put(0, &format!("\t{value}")));
            }
        }
    }

    /// A map of texts, one entry a line.
    pub fn pairs(&mut self, title: &str, map: Option<&Value>, between: &str) {
        let entries = map.and_then(Value::as_object).into_iter().flatten();
        let lines: Vec<String> = entries
            .map(|(name, value)| format!("{name}{between}{}", value.as_str().unwrap_or("")))
            .collect();
        self.many(title, &lines);
    }

    /// Annotations; long ones below their names.
    pub fn annotations(&mut self, map: Option<&Value>) {
        let entries = map.and_then(Value::as_object).into_iter().flatten();
        let mut lines = Vec::new();
        for (name, value) in entries.filter(|(name, _)| *name != ANNOTATION_HIDDEN) {
            let value = value.as_str().unwrap_or("").trim_end_matches('\n');
            if value.len() + name.len() + 2 <= ANNOTATION_COLUMNS_MAX && !value.contains('\n') {
                lines.push(format!("{name}: {value}"));
                continue;
            }
            lines.push(format!("{name}:"));
            lines.extend(value.lines().map(|line| {
                let short: String = line.chars().take(ANNOTATION_COLUMNS_MAX - 2).collect();
                let cut = if short.len() < line.len() { "..." } else { "" };
                format!("  {short}{cut}")
            }));
        }
        self.many("Annotations", &lines);
    }

    /// What follows has columns of its own.
    pub fn new_columns(&mut self) {
        let mut writer = TabWriter::new(Vec::new()).minwidth(0).padding(2);
        // Writing to memory does not fail.
        let written = writer.write_all(self.lines.as_bytes()).and_then(|()| writer.flush());
        if let (Ok(()), Ok(bytes)) = (written, writer.into_inner()) {
            self.done.push_str(&String::from_utf8_lossy(&bytes));
        }
        self.lines.clear();
    }

    /// All of it.
    pub fn text(mut self) -> String {
        self.new_columns();
        self.done
    }
}

/// A text field.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    meta::text(value, &[field])
}

/// The entries of a list.
pub fn items<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    meta::at(value, path).and_then(Value::as_array).into_iter().flatten()
}

/// The texts of a list.
pub fn texts(value: &Value, path: &[&str]) -> Vec<String> {
    items(value, path).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A number, 0 where there is none.
pub fn number(value: &Value, path: &[&str]) -> i64 {
    meta::at(value, path).and_then(Value::as_i64).unwrap_or(0)
}

/// A text, number or switch as it is read.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `<none>` for nothing.
pub fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// A time as people write it, in the zone of this host.
pub fn when(text: &str) -> String {
    match time::parse(text) {
        Some(time) => {
            time.to_zoned(TimeZone::system()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
        }
        None => "<unset>".to_owned(),
    }
}

/// How long ago a time was.
pub fn since(text: &str) -> String {
    match time::parse(text) {
        Some(time) => human_duration(Timestamp::now().as_second() - time.as_second()),
        None => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_line_up_below_each_other() {
        let mut page = Page::default();
        page.field(0, "Name", "a");
        page.pairs("Labels", Some(&json!({"x": "1", "y": "2"})), "=");
        page.pairs("Node-Selectors", None, "=");
        assert_eq!(
            page.text(),
            "Name:            a\nLabels:          x=1\n                 y=2\n\
             Node-Selectors:  <none>\n"
        );
    }
}
