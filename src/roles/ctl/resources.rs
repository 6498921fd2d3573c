//! Which objects an invocation means: `pods,svc`, `deploy/web`, `pod a b`, files, selectors.
//!
//! Why one place: every verb takes the same words.

use clap::Args;

use super::files::{self, Files};
use super::kinds::Kind;
use super::session::Session;
use crate::client::ListOptions;
use crate::object::{Value, meta};

/// Words and flags that choose objects.
#[derive(Args, Clone, Debug, Default)]
pub struct Choice {
    /// TYPE[,TYPE…], TYPE NAME…, or TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]")]
    pub words: Vec<String>,
    /// Only objects with these labels
    #[arg(long, short = 'l', value_name = "LABELS", default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Only objects with these fields
    #[arg(long, value_name = "FIELDS", default_value = "", hide_default_value = true)]
    pub field_selector: String,
}

/// What a part of the words means.
pub enum Part<'s> {
    /// All objects of a kind.
    All(&'s Kind),
    /// One object.
    One(&'s Kind, String),
}

/// An object that was chosen.
#[derive(Clone, Debug)]
pub struct Found<'s> {
    /// Its kind.
    pub kind: &'s Kind,
    /// Its namespace, or "".
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// As it was read, or as the file has it.
    pub object: Value,
    /// The file it comes from, or "".
    pub file: String,
}

impl<'s> Found<'s> {
    fn read(kind: &'s Kind, object: Value) -> Self {
        Self {
            kind,
            namespace: meta::namespace(&object).to_owned(),
            name: meta::name(&object).to_owned(),
            object,
            file: String::new(),
        }
    }

    /// As in "pod/a".
    pub fn named(&self) -> String {
        self.kind.named(&self.name)
    }
}

/// Reads the words.
pub async fn parts<'s>(session: &'s Session, words: &[String]) -> anyhow::Result<Vec<Part<'s>>> {
    let mut parts = Vec::new();
    if words.iter().any(|word| word.contains('/')) {
        for word in words {
            let (kind, name) = word.split_once('/').ok_or_else(|| {
                anyhow::anyhow!(
                    "there is no need to specify a resource type as a separate argument when \
                     passing arguments in resource/name form (here {word:?})"
                )
            })?;
            anyhow::ensure!(
                !kind.is_empty() && !name.is_empty() && !name.contains('/'),
                "arguments in resource/name form must have a single resource and name"
            );
            parts.push(Part::One(session.kind(kind).await?, name.to_owned()));
        }
        return Ok(parts);
    }
    let Some((types, names)) = words.split_first() else { return Ok(parts) };
    let mut chosen = Vec::new();
    for word in types.split(',') {
        let all = session.kinds().await?;
        let of_category = all.iter().filter(|kind| kind.categories.iter().any(|of| of == word));
        let of_category: Vec<&Kind> = of_category.collect();
        match of_category.is_empty() {
            true => chosen.push(session.kind(word).await?),
            false => chosen.extend(of_category),
        }
    }
    for kind in chosen {
        match names {
            [] => parts.push(Part::All(kind)),
            names => parts.extend(names.iter().map(|name| Part::One(kind, name.clone()))),
        }
    }
    Ok(parts)
}

impl Choice {
    /// Whether single objects are named, not only kinds.
    pub fn has_names(&self) -> bool {
        self.words.len() > 1 || self.words.iter().any(|word| word.contains('/'))
    }

    /// The selectors, for a list.
    pub fn options(&self) -> ListOptions {
        ListOptions {
            label_selector: self.selector.clone(),
            field_selector: self.field_selector.clone(),
            ..ListOptions::default()
        }
    }

    /// The objects meant, as they are on the server. Collections count only with a selector or with `all`.
    pub async fn find<'s>(
        &self,
        session: &'s Session,
        files: &Files,
        all: bool,
        all_namespaces: bool,
    ) -> anyhow::Result<Vec<Found<'s>>> {
        if !files.filename.is_empty() {
            anyhow::ensure!(self.words.is_empty(), "name objects or files, not both");
            let mut found = from_files(session, files).await?;
            for one in &mut found {
                let target = session.target(one.kind, &one.namespace, &one.name);
                one.object = session.get(&target).await?;
            }
            return Ok(found);
        }
        anyhow::ensure!(
            !self.words.is_empty(),
            "no objects named: TYPE NAME, TYPE/NAME or -f FILE"
        );
        let selects = all || !self.selector.is_empty() || !self.field_selector.is_empty();
        let namespace = if all_namespaces { "" } else { session.namespace.as_str() };
        let mut found = Vec::new();
        for part in parts(session, &self.words).await? {
            match part {
                Part::One(kind, name) => {
                    anyhow::ensure!(
                        self.selector.is_empty() && !all,
                        "name cannot be provided when a selector or --all is specified"
                    );
                    let object = session.get(&session.target(kind, namespace, &name)).await?;
                    found.push(Found::read(kind, object));
                }
                Part::All(kind) => {
                    anyhow::ensure!(
                        selects,
                        "resource(s) were provided, but no name was specified"
                    );
                    let target = session.target(kind, namespace, "");
                    let (objects, _) = session.list(kind, &target, &self.options()).await?;
                    found.extend(objects.into_iter().map(|object| Found::read(kind, object)));
                }
            }
        }
        Ok(found)
    }
}

/// The objects of files, with the namespace that they will be in.
pub async fn from_files<'s>(session: &'s Session, files: &Files) -> anyhow::Result<Vec<Found<'s>>> {
    let mut found = Vec::new();
    for (file, object) in files::read(files).await? {
        let kind = session.kind_of(&object).await.map_err(|error| {
            let (name, namespace) = (meta::name(&object), meta::namespace(&object));
            anyhow::anyhow!(
                "resource mapping not found for name: {name:?} namespace: {namespace:?} from \
                 {file:?}: {error}\nensure CRDs are installed first"
            )
        })?;
        let mut one = Found { file, ..Found::read(kind, object) };
        if kind.namespaced {
            if one.namespace.is_empty() {
                one.namespace = session.namespace.clone();
            } else if session.namespace_given && one.namespace != session.namespace {
                anyhow::bail!(
                    "the namespace from the provided object {:?} does not match the namespace \
                     {:?}. You must pass '--namespace={}' to perform this operation.",
                    one.namespace,
                    session.namespace,
                    one.namespace
                );
            }
            meta::set(&mut one.object, &["metadata", "namespace"], one.namespace.as_str());
        }
        found.push(one);
    }
    Ok(found)
}
