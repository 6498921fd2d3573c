//! `ctl get`.
//!
//! Why Tables: the server knows each kind's columns; the same rows come from a list and a watch.

use bytes::Bytes;
use clap::Args;
use futures::StreamExt;
use http::{Request, header};
use http_body_util::Full;

use super::follow::{Follow, Seen};
use super::kinds::Kind;
use super::output::{self, Columns, Form, Header, Show};
use super::resources::{self, Choice, Part};
use super::session::Session;
use super::{errors, files::Files};
use crate::client::http::{list_path, path};
use crate::client::{ListOptions, Target};
use crate::object::status::{Result, Status};
use crate::object::{Value, meta};

/// What is asked for to get a Table.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Print objects
#[derive(Args, Clone, Debug)]
pub struct Get {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    files: Files,
    /// wide, json, yaml or name
    #[arg(long, short = 'o', value_name = "FORM", default_value = "", hide_default_value = true)]
    output: Form,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Go on printing changes
    #[arg(long, short = 'w')]
    watch: bool,
    /// Print changes only
    #[arg(long)]
    watch_only: bool,
    /// Print the labels too
    #[arg(long)]
    show_labels: bool,
    /// Leave the heading out
    #[arg(long)]
    no_headers: bool,
    /// A missing object is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Print the bare answer of a path of the API, as in /readyz
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
}

/// A kind with what is wanted of it: all (`None`), or names.
struct Wanted<'s> {
    kind: &'s Kind,
    names: Option<Vec<String>>,
}

impl Get {
    /// Runs the verb.
    pub async fn run(&self, session: &Session) -> anyhow::Result<i32> {
        if let Some(path) = &self.raw {
            anyhow::ensure!(path.starts_with('/'), "--raw wants a path, as in /api/v1/nodes");
            let bytes = session.bytes(path, "application/json, */*").await?;
            output::print(&String::from_utf8_lossy(&bytes))?;
            return Ok(0);
        }
        let wanted = self.wanted(session).await?;
        if self.watch || self.watch_only {
            let [only] = wanted.as_slice() else {
                anyhow::bail!("you may only specify a single resource type with --watch");
            };
            return self.follow(session, only).await;
        }
        match self.output {
            Form::Table | Form::Wide => self.tables(session, &wanted).await,
            form => self.objects(session, &wanted, form).await,
        }
    }

    async fn wanted<'s>(&self, session: &'s Session) -> anyhow::Result<Vec<Wanted<'s>>> {
        let parts = if self.files.filename.is_empty() {
            anyhow::ensure!(
                !self.choice.words.is_empty(),
                "you must specify the type of resource to get; `clusterd ctl api-resources` lists \
                 them"
            );
            resources::parts(session, &self.choice.words).await?
        } else {
            let found = resources::from_files(session, &self.files).await?;
            found.into_iter().map(|one| Part::One(one.kind, one.name)).collect()
        };
        let mut wanted: Vec<Wanted> = Vec::new();
        for part in parts {
            match part {
                Part::All(kind) => wanted.push(Wanted { kind, names: None }),
                Part::One(kind, name) => {
                    anyhow::ensure!(
                        !self.all_namespaces,
                        "a resource cannot be retrieved by name across all namespaces"
                    );
                    match wanted.iter_mut().find(|one| one.kind == kind) {
                        Some(Wanted { names: Some(names), .. }) => names.push(name),
                        _ => wanted.push(Wanted { kind, names: Some(vec![name]) }),
                    }
                }
            }
        }
        Ok(wanted)
    }

    fn target(&self, session: &Session, kind: &Kind, name: &str) -> Target {
        let namespace = if self.all_namespaces { "" } else { session.namespace.as_str() };
        session.target(kind, namespace, name)
    }

    /// The answers for one kind, in the form that `accept` names; missing ones are reported.
    async fn answers(
        &self,
        session: &Session,
        wanted: &Wanted<'_>,
        accept: &str,
        code: &mut i32,
    ) -> Vec<Value> {
        let mut answers = Vec::new();
        let mut note = |error: Status| {
            if !(self.ignore_not_found && error.is_not_found()) {
                eprintln!("{}", errors::of_status(&error, &error.message));
                *code = super::super::EXIT_FAILURE;
            }
        };
        match &wanted.names {
            Some(names) => {
                for name in names {
                    let target = self.target(session, wanted.kind, name);
                    match session.json(&path(&target), accept).await {
                        Ok(answer) => answers.push(answer),
                        Err(error) => note(error),
                    }
                }
            }
            None => {
                let target = self.target(session, wanted.kind, "");
                match session.pages(&target, &self.choice.options(), accept).await {
                    Ok(pages) => answers = pages,
                    Err(error) => note(error),
                }
            }
        }
        answers
    }

    fn show(&self, kind: &Kind, kinds: usize) -> Show {
        Show {
            wide: self.output == Form::Wide,
            namespace: self.all_namespaces && kind.namespaced,
            labels: self.show_labels,
            kind: kinds > 1,
        }
    }

    async fn tables(&self, session: &Session, wanted: &[Wanted<'_>]) -> anyhow::Result<i32> {
        let mut code = 0;
        let mut printed = 0;
        for one in wanted {
            let show = self.show(one.kind, wanted.len());
            let tables = self.answers(session, one, TABLE, &mut code).await;
            let Some(header) = tables.iter().find_map(|table| Header::of(table, show)) else {
                continue;
            };
            let rows = tables.iter().flat_map(|table| header.rows(table, one.kind, show));
            let mut lines: Vec<Vec<String>> = rows.collect();
            if lines.is_empty() {
                continue;
            }
            if !self.no_headers {
                lines.insert(0, header.cells(show));
                if printed > 0 {
                    output::print("\n")?;
                }
            }
            output::print(&Columns::default().lines(&lines))?;
            printed += 1;
        }
        if printed == 0 && code == 0 && !self.ignore_not_found {
            let namespaced = wanted.iter().any(|one| one.kind.namespaced);
            match namespaced && !self.all_namespaces {
                true => eprintln!("No resources found in {} namespace.", session.namespace),
                false => eprintln!("No resources found"),
            }
        }
        Ok(code)
    }

    async fn objects(
        &self,
        session: &Session,
        wanted: &[Wanted<'_>],
        form: Form,
    ) -> anyhow::Result<i32> {
        let mut code = 0;
        let mut objects = Vec::new();
        for one in wanted {
            for mut answer in self.answers(session, one, "application/json", &mut code).await {
                match (&one.names, answer.get_mut("items").map(Value::take)) {
                    (None, Some(Value::Array(items))) => {
                        let items = items.into_iter().map(|item| one.kind.typed(item));
                        objects.extend(items.map(|item| (one.kind, item)));
                    }
                    _ => objects.push((one.kind, answer)),
                }
            }
        }
        if form == Form::Name {
            let names = objects.iter().map(|(kind, object)| kind.named(meta::name(object)) + "\n");
            output::print(&names.collect::<String>())?;
            return Ok(code);
        }
        let single =
            wanted.len() == 1 && wanted[0].names.as_ref().is_some_and(|names| names.len() == 1);
        let mut objects: Vec<Value> = objects.into_iter().map(|(_, object)| object).collect();
        match (single, objects.pop()) {
            (true, None) => {}
            (true, Some(only)) => output::print(&output::object(&only, form)?)?,
            (false, last) => {
                objects.extend(last);
                output::print(&output::object(&output::list(objects), form)?)?;
            }
        }
        Ok(code)
    }

    async fn follow(&self, session: &Session, wanted: &Wanted<'_>) -> anyhow::Result<i32> {
        let kind = wanted.kind;
        let mut options = self.choice.options();
        match wanted.names.as_deref() {
            None => {}
            Some([name]) => options.field_selector = format!("metadata.name={name}"),
            Some(_) => anyhow::bail!("--watch takes one name or none"),
        }
        let target = self.target(session, kind, "");
        if matches!(self.output, Form::Table | Form::Wide) {
            return self.follow_table(session, kind, &target, options).await;
        }
        let follow = Follow { session, kind, target, options };
        let mut listed = false;
        let print = |seen: Seen| {
            match seen {
                Seen::Listed => listed = true,
                Seen::Is(_) if !listed && self.watch_only => {}
                Seen::Is(object) | Seen::Gone(object) if self.output == Form::Name => {
                    output::print(&(kind.named(meta::name(&object)) + "\n"))?;
                }
                Seen::Is(object) | Seen::Gone(object) => {
                    let begin = if self.output == Form::Yaml { "---\n" } else { "" };
                    output::print(&(begin.to_owned() + &output::object(&object, self.output)?))?;
                }
            }
            Ok(std::ops::ControlFlow::<i32>::Continue(()))
        };
        follow.run(print).await
    }

    async fn follow_table(
        &self,
        session: &Session,
        kind: &Kind,
        target: &Target,
        mut options: ListOptions,
    ) -> anyhow::Result<i32> {
        let show = self.show(kind, 1);
        let pages = session.pages(target, &options, TABLE).await?;
        let mut columns = Columns::default();
        let mut header = pages.iter().find_map(|page| Header::of(page, show)).unwrap_or_default();
        options.resource_version =
            pages.last().map(meta::resource_version).unwrap_or("").to_owned();
        let mut headed = self.no_headers;
        let mut print = |header: &Header, table: &Value| -> anyhow::Result<()> {
            let mut lines = header.rows(table, kind, show);
            if !headed && !lines.is_empty() {
                lines.insert(0, header.cells(show));
                headed = true;
            }
            output::print(&columns.lines(&lines))
        };
        if !self.watch_only {
            for page in &pages {
                print(&header, page)?;
            }
        }
        loop {
            let mut events = watch_table(session, target, &options).await?;
            while let Some(event) = events.next().await {
                let event: Value = serde_json::from_slice(&event?)?;
                let table = &event["object"];
                if meta::text(&event, &["type"]) == "ERROR" {
                    let status: Status = serde_json::from_value(table.clone())?;
                    return Err(status.into());
                }
                header = Header::of(table, show).unwrap_or(header);
                let last = table["rows"].as_array().and_then(|rows| rows.last());
                let revision = last.map_or("", |row| meta::resource_version(&row["object"]));
                if !revision.is_empty() {
                    options.resource_version = revision.to_owned();
                }
                if meta::text(&event, &["type"]) != "BOOKMARK" {
                    print(&header, table)?;
                }
            }
        }
    }
}

async fn watch_table(
    session: &Session,
    target: &Target,
    options: &ListOptions,
) -> Result<futures::stream::BoxStream<'static, Result<Bytes>>> {
    let request = Request::builder()
        .uri(list_path(target, options, true))
        .header(header::ACCEPT, TABLE)
        .body(Full::default())
        .map_err(Status::internal)?;
    Ok(session.http.lines(request).await?.boxed())
}
