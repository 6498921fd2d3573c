//! Writes YAML as kubectl prints it.
//!
//! Why by hand: readers of YAML 1.1 (kubectl is one) take `yes`, `0644` or a time for something
//! else than a text unless it is quoted, and serde_yaml quotes by YAML 1.2.

use crate::object::Value;

/// The value as one document, lists at the indent of their key.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut out),
        scalar => {
            inline(scalar, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

/// A map or list that is not empty; the first line is indented by whoever called.
fn block(value: &Value, indent: usize, out: &mut String) {
    let mut first = true;
    let mut begin = |out: &mut String| {
        if !std::mem::take(&mut first) {
            out.extend(std::iter::repeat_n(' ', indent));
        }
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                begin(out);
                match name.contains('\n') {
                    true => out.push_str(&quoted(name)),
                    false => text(name, 0, out),
                }
                out.push(':');
                match value {
                    Value::Object(map) if !map.is_empty() => nested(value, indent + 2, out),
                    Value::Array(items) if !items.is_empty() => nested(value, indent, out),
                    scalar => {
                        out.push(' ');
                        inline(scalar, indent + 2, out);
                        out.push('\n');
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                begin(out);
                out.push_str("- ");
                match item {
                    Value::Object(map) if !map.is_empty() => block(item, indent + 2, out),
                    Value::Array(items) if !items.is_empty() => block(item, indent + 2, out),
                    scalar => {
                        inline(scalar, indent + 2, out);
                        out.push('\n');
                    }
                }
            }
        }
        _ => {}
    }
}

fn nested(value: &Value, indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
    block(value, indent, out);
}

fn inline(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(value) => text(value, indent, out),
        other => out.push_str(&other.to_string()),
    }
}

/// In double quotes, with all that a YAML reader would stumble over escaped.
fn quoted(value: &str) -> String {
    let json = Value::from(value).to_string();
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        match is_unprintable(letter) {
            true => out.push_str(&format!("\\u{:04x}", letter as u32)),
            false => out.push(letter),
        }
    }
    out
}

/// Control characters, line breaks other than `\n`, and what is no character at all.
fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn text(value: &str, indent: usize, out: &mut String) {
    let odd = odd_spaces(value) || value.chars().any(|c| is_unprintable(c) && c != '\n');
    if value.contains('\n') && !odd {
        return literal(value, indent, out);
    }
    if odd || value.is_empty() || is_ambiguous(value) {
        out.push_str(&quoted(value));
    } else if needs_quotes(value) {
        out.push('\'');
        out.push_str(&value.replace('\'', "''"));
        out.push('\'');
    } else {
        out.push_str(value);
    }
}

/// Spaces that a literal block would not keep.
fn odd_spaces(value: &str) -> bool {
    value.contains('\n') && (value.starts_with([' ', '\n', '\t']) || value.contains(" \n"))
}

fn literal(value: &str, indent: usize, out: &mut String) {
    let body = value.strip_suffix('\n');
    out.push_str(match body {
        None => "|-",
        Some(body) if body.ends_with('\n') => "|+",
        Some(_) => "|",
    });
    for line in body.unwrap_or(value).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent.max(2)));
            out.push_str(line);
        }
    }
}

/// Whether YAML's syntax would see more than a text.
fn needs_quotes(value: &str) -> bool {
    const INDICATORS: &str = "?:,[]{}#&*!|>'\"%@`=";
    value.starts_with(|first: char| INDICATORS.contains(first))
        || value == "-"
        || value.starts_with("- ")
        || value.starts_with("-\t")
        || value.starts_with("---")
        || value.starts_with([' ', '\t'])
        || value.ends_with([' ', '\t', ':'])
        || value.contains(": ")
        || value.contains(":\t")
        || value.contains(" #")
        || value.contains("\t#")
        || value.starts_with("...")
}

/// Whether a reader of YAML 1.1 or 1.2 would see a number, boolean, null, time or merge key.
fn is_ambiguous(value: &str) -> bool {
    const WORDS: [&str; 14] = [
        "null", "~", "true", "false", "yes", "no", "on", "off", "y", "n", "<<", ".inf", "-.inf",
        ".nan",
    ];
    if WORDS.iter().any(|word| value.eq_ignore_ascii_case(word)) {
        return true;
    }
    let rest = value.trim_start_matches(['+', '-']);
    if !rest.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return false;
    }
    let plain = rest.replace('_', "");
    let based = plain.len() > 2
        && plain.starts_with('0')
        && plain[1..].starts_with(['x', 'X', 'o', 'O', 'b', 'B'])
        && plain[2..].bytes().all(|byte| byte.is_ascii_hexdigit());
    let sixty = plain.contains(':')
        && plain.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'));
    let bytes = value.as_bytes();
    let date = bytes.len() >= 8 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-';
    plain.eq_ignore_ascii_case(".inf") || plain.parse::<f64>().is_ok() || based || sixty || date
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::schema::decode::yaml_documents;
    use serde_json::json;

    #[test]
    fn it_reads_as_kubectl_prints() {
        let value = json!({"apiVersion": "v1", "data": {"a": "one\ntwo\n", "b": "x: y", "c": "yes",
                "d": "", "e": "0644", "f": "10Gi", "g": "it's", "h": "--flag=1", "i": "a\n\n\nb"},
            "items": [], "list": [{"args": ["-c", "sleep 1"], "n": 1}, [[1], {}]],
            "time": "2026-01-01T00:00:00Z", "zero": null});
        let text = "\
apiVersion: v1
data:
  a: |
    one
    two
  b: 'x: y'
  c: \"yes\"
  d: \"\"
  e: \"0644\"
  f: 10Gi
  g: it's
  h: --flag=1
  i: |-
    a


    b
items: []
list:
- args:
  - -c
  - sleep 1
  \"n\": 1
- - - 1
  - {}
time: \"2026-01-01T00:00:00Z\"
zero: null
";
        assert_eq!(write(&value), text);
    }

    proptest::proptest! {
        #[test]
        fn every_text_survives(
            any: String,
            odd in "[-+0-9a-fxobynesNU.:_ #'\"\\[\\]{}&*!|>%@`=,~?\n\t<]{0,12}",
        ) {
            // serde_yaml does not tell a quoted `<<` from a merge key.
            for text in [any, odd].into_iter().filter(|text| text != "<<") {
                let value = json!({text.as_str(): [text.as_str(), [text.as_str()]], "k": text});
                let written = write(&value);
                let read = yaml_documents(written.as_bytes());
                proptest::prop_assert_eq!(read, Ok(vec![value]), "{}", written);
            }
        }
    }
}
