//! A unified diff of two values' JSON, for errors that must show what changed.
//!
//! Why bounded: the longest-common-subsequence table grows with the product of the two lengths, and
//! its input comes from a client; beyond the bound the middle is shown as replaced.

use crate::object::Value;

/// Cells of the table; larger middles are shown as wholly replaced.
const TABLE_CELLS_MAX: usize = 4_000_000;
/// Unchanged lines around a change.
const CONTEXT_LINES: usize = 3;

/// The hunks that turn `old` into `new`.
pub(super) fn unified(old: &Value, new: &Value) -> String {
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let (old, new) = (text(old), text(new));
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let script = script(&old, &new);
    hunks(&script)
}

/// Lines with ' ', '-' or '+'.
fn script<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - prefix;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest);
    let suffix = tail.take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) =
        (&old[prefix..old.len() - suffix], &new[prefix..new.len() - suffix]);
    let mut out: Vec<(char, &str)> = old[..prefix].iter().map(|line| (' ', *line)).collect();
    let (rows, columns) = (old_middle.len(), new_middle.len());
    if rows * columns > TABLE_CELLS_MAX {
        out.extend(old_middle.iter().map(|line| ('-', *line)));
        out.extend(new_middle.iter().map(|line| ('+', *line)));
    } else {
        let width = columns + 1;
        let mut longest = vec![0_u32; (rows + 1) * width];
        for row in (0..rows).rev() {
            for column in (0..columns).rev() {
                longest[row * width + column] = if old_middle[row] == new_middle[column] {
                    longest[(row + 1) * width + column + 1] + 1
                } else {
                    longest[(row + 1) * width + column].max(longest[row * width + column + 1])
                };
            }
        }
        let (mut row, mut column) = (0, 0);
        while row < rows || column < columns {
            if row < rows && column < columns && old_middle[row] == new_middle[column] {
                out.push((' ', old_middle[row]));
                (row, column) = (row + 1, column + 1);
            } else if column == columns
                || (row < rows
                    && longest[(row + 1) * width + column] >= longest[row * width + column + 1])
            {
                out.push(('-', old_middle[row]));
                row += 1;
            } else {
                out.push(('+', new_middle[column]));
                column += 1;
            }
        }
    }
    out.extend(old[old.len() - suffix..].iter().map(|line| (' ', *line)));
    out
}

fn hunks(script: &[(char, &str)]) -> String {
    let mut out = String::new();
    let changed: Vec<usize> =
        script.iter().enumerate().filter(|(_, line)| line.0 != ' ').map(|(at, _)| at).collect();
    let mut at = 0;
    while let Some(&first) = changed.get(at) {
        let mut last = first;
        while let Some(&next) =
            changed.get(at + 1).filter(|next| **next <= last + 2 * CONTEXT_LINES)
        {
            last = next;
            at += 1;
        }
        at += 1;
        let start = first.saturating_sub(CONTEXT_LINES);
        let end = (last + CONTEXT_LINES + 1).min(script.len());
        let count = |range: &[(char, &str)], without: char| {
            range.iter().filter(|line| line.0 != without).count()
        };
        let (before, hunk) = (&script[..start], &script[start..end]);
        out.push_str(&format!(
            "@@ -{},{} +{},{} @@\n",
            count(before, '+') + 1,
            count(hunk, '+'),
            count(before, '-') + 1,
            count(hunk, '-'),
        ));
        for (sign, line) in hunk {
            out.push(*sign);
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_changed_line_is_shown_with_its_neighbours() {
        let old = json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6});
        let new = json!({"a": 1, "b": 2, "c": 3, "d": 9, "e": 5, "f": 6});
        assert_eq!(
            unified(&old, &new),
            "@@ -2,7 +2,7 @@\n   \"a\": 1,\n   \"b\": 2,\n   \"c\": 3,\n-  \"d\": 4,\n+  \
             \"d\": 9,\n   \
             \"e\": 5,\n   \"f\": 6\n }\n"
        );
        assert_eq!(unified(&old, &old), "");
    }
}
