//! Objects from files, directories and standard input.
//!
//! Why read whole before anything is sent: a broken document at the end must not leave the first
//! half applied.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::object::schema::decode;
use crate::object::{Value, meta};

/// Flags that name files.
#[derive(Args, Clone, Debug, Default)]
pub struct Files {
    /// A file, a directory, or - for standard input; may be repeated
    #[arg(long, short = 'f', value_name = "FILE|DIR|-")]
    pub filename: Vec<String>,
    /// Take directories below a directory too
    #[arg(long, short = 'R')]
    pub recursive: bool,
}

/// All objects with the name of the file each is from; the items of a `List` one by one.
pub async fn read(files: &Files) -> anyhow::Result<Vec<(String, Value)>> {
    let mut objects = Vec::new();
    for name in &files.filename {
        anyhow::ensure!(
            !name.starts_with("http://") && !name.starts_with("https://"),
            "{name}: URLs are not supported; fetch it and pass it with -f -"
        );
        if name == "-" {
            let body = tokio::task::spawn_blocking(|| {
                let mut body = Vec::new();
                std::io::stdin().read_to_end(&mut body).map(|_| body)
            });
            add("STDIN", &body.await??, &mut objects)?;
            continue;
        }
        for path in paths(Path::new(name), files.recursive)? {
            let body = std::fs::read(&path)
                .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
            add(&path.display().to_string(), &body, &mut objects)?;
        }
    }
    anyhow::ensure!(!objects.is_empty(), "no objects passed");
    Ok(objects)
}

fn paths(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    let metadata = std::fs::metadata(path)
        .map_err(|_| anyhow::anyhow!("the path {:?} does not exist", path.display().to_string()))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let ending = entry.extension().and_then(|ending| ending.to_str());
        if entry.is_dir() {
            if recursive {
                found.extend(paths(&entry, true)?);
            }
        } else if matches!(ending, Some("json" | "yaml" | "yml")) {
            found.push(entry);
        }
    }
    Ok(found)
}

fn add(name: &str, body: &[u8], objects: &mut Vec<(String, Value)>) -> anyhow::Result<()> {
    let documents = decode::yaml_documents(body)
        .map_err(|error| anyhow::anyhow!("error parsing {name}: {error}"))?;
    for mut document in documents {
        let is_list = meta::text(&document, &["kind"]).ends_with("List");
        match document.get_mut("items") {
            Some(Value::Array(items)) if is_list => {
                let items = std::mem::take(items).into_iter();
                objects.extend(items.map(|item| (name.to_owned(), item)));
            }
            _ => objects.push((name.to_owned(), document)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_become_single_objects() {
        let text = b"kind: A\n---\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n";
        let mut objects = Vec::new();
        add("x", text, &mut objects).unwrap();
        let kinds: Vec<_> = objects.iter().map(|(_, object)| object["kind"].clone()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
    }
}
