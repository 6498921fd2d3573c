//! Holds the house rules that no compiler knows: layers, `//!`, banned calls, lengths.
//!
//! Why a test: a rule that nothing checks is true until the first hurried day. Lengths are a
//! ratchet: what `tidy_debt.txt` lists may shrink and never grow, and nothing may be added to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first; a file may use its own folder and lower layers only.
const LAYERS: &[&[&str]] = &[
    &["stdx"],
    &["object"],
    &["store", "client"],
    &["api"],
    &["reconcile"],
    &["controllers", "scheduler", "runtime", "net"],
    &["config", "roles", "main", "lib"],
];

/// Among the components only these may use the store (design: "store knows no kind").
const STORE_USERS: &[&str] = &["store", "api", "roles"];

/// (text, the only files that may hold it, what to use instead)
const OWNED: &[(&str, &[&str], &str)] = &[
    ("bollard", &["runtime/docker"], "the Engine trait"),
    ("rocksdb::", &["store/disk"], "store::disk"),
    ("rtnetlink", &["net/"], "the PodNetwork trait"),
    ("warp::", &["api/server", "runtime/server"], "the route table"),
    ("serde_yaml::", &["object/schema", "config.rs", "roles/"], "object::schema::decode::yaml"),
    ("tokio::spawn(", &["stdx/tasks.rs"], "stdx::tasks::Tasks::spawn"),
    ("std::process::exit", &["main.rs"], "a returned error"),
    ("todo!(", &[], "the real thing"),
    ("unimplemented!(", &[], "the real thing or a refusal in words"),
    ("dbg!(", &[], "tracing"),
];

const LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;
const COMMENT_COLUMNS_MAX: usize = 110;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// (path below src/, text) of every source file.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                into.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.sort();
    let short = |path: &Path| path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (short(path), fs::read_to_string(path).unwrap())).collect()
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn imports_go_downward_only() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let own = path.split(['/', '.']).next().unwrap();
        let Some(own_layer) = layer(own) else {
            faults.push(format!("{path}: {own} is in no layer"));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for used in code.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let Some(used_layer) = layer(used) else { continue };
                let sibling = used_layer == own_layer && used != own && own_layer < 6;
                let store = used == "store" && !STORE_USERS.contains(&own);
                if used_layer > own_layer || sibling || store {
                    faults.push(format!("{path}:{}: {own} may not use {used}", number + 1));
                }
            }
        }
    }
    report(faults);
}

#[test]
fn every_file_says_what_it_does() {
    let untold = |(path, text): (String, String)| (!text.starts_with("//! ")).then_some(path);
    report(sources().into_iter().filter_map(untold).collect());
}

#[test]
fn each_outside_thing_has_one_owner() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for (banned, owners, instead) in OWNED {
                let owned = owners.iter().any(|owner| path.starts_with(owner));
                if code.contains(banned) && !owned {
                    faults.push(format!("{path}:{}: {banned}: use {instead}", number + 1));
                }
            }
            if line.contains(concat!("FIX", "ME")) || line.contains(concat!("XX", "X:")) {
                faults.push(format!("{path}:{}: unfinished business", number + 1));
            }
        }
    }
    report(faults);
}

/// The lengths measured, by what they measure: "path" for files, "path::function" for functions.
fn lengths() -> BTreeMap<String, usize> {
    let mut lengths = BTreeMap::new();
    for (path, text) in sources() {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
        let total = code.lines().count();
        if total > LINES_MAX {
            lengths.insert(path.clone(), total);
        }
        let mut open: Option<(String, usize, String)> = None;
        for (number, line) in code.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if let Some((name, start, close)) = &open {
                if line == close.as_str() {
                    let length = number - start + 1;
                    if length > FUNCTION_LINES_MAX {
                        lengths.insert(format!("{path}::{name}"), length);
                    }
                    open = None;
                }
                continue;
            }
            let mut words = line.split_whitespace().peekable();
            while words
                .next_if(|word| {
                    word.starts_with("pub") || ["async", "const", "unsafe"].contains(word)
                })
                .is_some()
            {}
            if words.next() == Some("fn") && !line.trim_end().ends_with(['}', ';']) {
                let name = words.next().unwrap_or("").split(['(', '<']).next().unwrap_or("");
                open = Some((name.to_owned(), number, format!("{}}}", &line[..indent])));
            }
        }
    }
    lengths
}

#[test]
fn files_and_functions_stay_short() {
    let path = root().join("tests/it/tidy_debt.txt");
    let measured = lengths();
    if std::env::var_os("REWRITE").is_some() {
        let lines = measured.iter().map(|(what, lines)| format!("{lines} {what}\n"));
        fs::write(&path, lines.collect::<String>()).unwrap();
        return;
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let debt: BTreeMap<&str, usize> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(lines, what)| (what, lines.parse().unwrap()))
        .collect();
    let grown = measured
        .iter()
        .filter(|(what, lines)| debt.get(what.as_str()).is_none_or(|allowed| *lines > allowed));
    report(grown.map(|(what, lines)| format!("{what} has {lines} lines")).collect());
}

#[test]
fn lines_fit_a_screen() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let comment = line.trim_start().starts_with("//");
            let max = if comment { COMMENT_COLUMNS_MAX } else { COLUMNS_MAX };
            // A text that must stay greppable may be longer.
            if line.chars().count() > max && !line.contains('"') {
                faults.push(format!("{path}:{}: over {max} columns", number + 1));
            }
        }
    }
    report(faults);
}
