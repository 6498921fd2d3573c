//! How objects and tables are printed.
//!
//! Why columns are padded here and chosen by the server: `get -w` prints a row when it comes, so
//! widths must be remembered between rows; what the cells are is the server's knowledge alone.

use std::io::Write;

use serde::Serialize;

use super::kinds::Kind;
use crate::object::schema::encode;
use crate::object::{Value, meta};

/// Spaces between columns, and the least width of one with them, as kubectl has them.
const PADDING: usize = 3;
const COLUMN_WIDTH_MIN: usize = 6;

/// Writes to standard output at once. `println!` would panic on a closed pipe.
pub fn print(text: &str) -> anyhow::Result<()> {
    bytes(text.as_bytes())
}

/// The same for what may not be text.
pub fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// The forms of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The columns for every day.
    #[default]
    Table,
    /// All columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `kind/name`.
    Name,
}

impl std::str::FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            other => Err(format!(
                "{other} is not supported here; use wide, json, yaml or name (kubectl has \
                 jsonpath, go-template and custom-columns)"
            )),
        }
    }
}

/// An object as text, without the bookkeeping of managedFields.
pub fn object(object: &Value, form: Form) -> anyhow::Result<String> {
    let mut object = object.clone();
    let hide = |object: &mut Value| {
        meta::remove(object, &["metadata", "managedFields"]);
    };
    hide(&mut object);
    if let Some(Value::Array(items)) = object.get_mut("items") {
        items.iter_mut().for_each(hide);
    }
    if form == Form::Yaml {
        return Ok(encode::yaml(&object));
    }
    let mut bytes = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    object.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, style))?;
    bytes.push(b'\n');
    Ok(String::from_utf8(bytes)?)
}

/// Several objects as one `List`.
pub fn list(items: Vec<Value>) -> Value {
    serde_json::json!({
        "apiVersion": "v1",
        "items": items,
        "kind": "List",
        "metadata": {"resourceVersion": ""},
    })
}

/// Padded columns that remember how wide they were.
#[derive(Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Makes room for the cells of all `rows`.
    pub fn fit(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }

    /// One row; the last cell is not padded.
    pub fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if at + 1 < row.len() {
                let width = (self.widths[at] + PADDING).max(COLUMN_WIDTH_MIN);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        line.push('\n');
        line
    }

    /// Rows below each other.
    pub fn lines(&mut self, rows: &[Vec<String>]) -> String {
        self.fit(rows);
        rows.iter().map(|row| self.line(row)).collect()
    }
}

/// What of a table is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Show {
    /// Columns that are not for every day.
    pub wide: bool,
    /// A first column with the namespace.
    pub namespace: bool,
    /// A last column with all labels.
    pub labels: bool,
    /// Names with their kind before them.
    pub kind: bool,
}

/// The columns of a server's Table.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// (name, whether it is shown)
    columns: Vec<(String, bool)>,
}

impl Header {
    /// From a Table; events after the first carry none.
    pub fn of(table: &Value, show: Show) -> Option<Self> {
        let columns = table.get("columnDefinitions").and_then(Value::as_array)?;
        let columns = columns.iter().map(|column| {
            let everyday = column.get("priority").and_then(Value::as_i64).unwrap_or(0) == 0;
            (meta::text(column, &["name"]).to_uppercase(), everyday || show.wide)
        });
        let columns: Vec<_> = columns.collect();
        (!columns.is_empty()).then_some(Self { columns })
    }

    /// The heading.
    pub fn cells(&self, show: Show) -> Vec<String> {
        let namespace = show.namespace.then(|| "NAMESPACE".to_owned());
        let shown = self.columns.iter().filter(|(_, shown)| *shown);
        let labels = show.labels.then(|| "LABELS".to_owned());
        namespace.into_iter().chain(shown.map(|(name, _)| name.clone())).chain(labels).collect()
    }

    /// The rows of a Table.
    pub fn rows(&self, table: &Value, kind: &Kind, show: Show) -> Vec<Vec<String>> {
        let rows = table.get("rows").and_then(Value::as_array);
        rows.into_iter().flatten().map(|row| self.row(row, kind, show)).collect()
    }

    fn row(&self, row: &Value, kind: &Kind, show: Show) -> Vec<String> {
        let object = row.get("object").unwrap_or(&Value::Null);
        let mut cells = Vec::new();
        if show.namespace {
            cells.push(meta::namespace(object).to_owned());
        }
        let values = row.get("cells").and_then(Value::as_array).into_iter().flatten();
        for (at, (value, (_, shown))) in values.zip(&self.columns).enumerate() {
            let text = cell(value);
            match (shown, at == 0 && show.kind) {
                (false, _) => {}
                (true, true) => cells.push(kind.named(&text)),
                (true, false) => cells.push(text),
            }
        }
        if show.labels {
            cells.push(pairs(meta::at(object, &["metadata", "labels"])));
        }
        cells
    }
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.split_once(['\n', '\r']) {
        Some((first, _)) => format!("{first}..."),
        None => text,
    }
}

/// `a=1,b=2`, or `<none>`.
pub fn pairs(labels: Option<&Value>) -> String {
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    let labels: Vec<String> =
        labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or(""))).collect();
    if labels.is_empty() { "<none>".to_owned() } else { labels.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Gvr;
    use serde_json::json;

    fn pods() -> Kind {
        Kind {
            gvr: Gvr::new("", "v1", "pods"),
            kind: "Pod".into(),
            singular: "pod".into(),
            short: Vec::new(),
            categories: Vec::new(),
            verbs: Vec::new(),
            namespaced: true,
            subresources: Vec::new(),
        }
    }

    #[test]
    fn a_table_shows_what_is_asked_for() {
        let table = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Node", "priority": 1}],
            "rows": [{"cells": ["a", "n"],
                      "object": {"metadata": {"namespace": "x", "labels": {"k": "v"}}}}],
        });
        let everyday = Show { kind: true, ..Show::default() };
        let header = Header::of(&table, everyday).unwrap();
        assert_eq!(header.cells(everyday), ["NAME"]);
        assert_eq!(header.rows(&table, &pods(), everyday), [["pod/a"]]);
        let all = Show { wide: true, namespace: true, labels: true, kind: false };
        let header = Header::of(&table, all).unwrap();
        assert_eq!(header.cells(all), ["NAMESPACE", "NAME", "NODE", "LABELS"]);
        assert_eq!(header.rows(&table, &pods(), all), [["x", "a", "n", "k=v"]]);
    }

    #[test]
    fn columns_are_as_wide_as_kubectls() {
        let rows = [["NAME".to_owned(), "AGE".to_owned()], ["a".to_owned(), "1s".to_owned()]];
        let text = Columns::default().lines(&rows.map(|row| row.to_vec()));
        assert_eq!(text, "NAME   AGE\na      1s\n");
    }
}
