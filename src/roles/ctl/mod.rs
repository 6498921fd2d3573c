//! `clusterd ctl`: the built-in client; one file a verb, listed once below.
//!
//! Why a client of our own beside kubectl: a host that has clusterd has all that is needed to look
//! after its cluster. It holds no knowledge of kinds: names come from discovery, columns from the
//! server's Tables, merging from server-side apply.

mod api_resources;
mod apply;
mod create;
mod delete;
mod describe;
mod errors;
mod events;
mod exec;
mod files;
mod follow;
mod get;
mod kinds;
mod logs;
mod output;
mod pods;
mod resources;
mod rollout;
mod scale;
mod session;
mod terminal;
mod version;
mod wait;

use clap::{Args, Subcommand};

use crate::config::LogFormat;
use session::{Global, Session};

/// Options of every verb.
#[derive(Args, Debug)]
pub struct Ctl {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// The verbs: the text of its help, its name, and its options with their `run`.
macro_rules! verbs {
    ($($(#[$help:meta])* $name:ident($options:ty),)*) => {
        #[derive(Debug, Subcommand)]
        enum Verb {
            $($(#[$help])* $name(Box<$options>),)*
        }

        async fn dispatch(verb: Verb, session: &Session) -> anyhow::Result<i32> {
            match verb {
                $(Verb::$name(options) => options.run(session).await,)*
            }
        }
    };
}

verbs! {
    /// Print objects
    Get(get::Get),
    /// Show an object in detail, with its events
    Describe(describe::Describe),
    /// Create objects from a file, or a namespace or deployment from arguments
    Create(create::Create),
    /// Bring objects to what a file says (server-side apply)
    Apply(apply::Apply),
    /// Delete objects
    Delete(delete::Delete),
    /// Set the number of replicas
    Scale(scale::Scale),
    /// Follow, look back at, undo, restart, pause or resume a rollout
    Rollout(rollout::Rollout),
    /// Print what a container wrote
    Logs(logs::Logs),
    /// Run a command in a container
    Exec(exec::Exec),
    /// Print what happened lately
    Events(events::Events),
    /// Wait until objects are in a state
    Wait(wait::Wait),
    /// List the kinds that the server knows
    ApiResources(api_resources::ApiResources),
    /// Print the versions of client and server
    Version(version::Version),
}

/// Runs one verb.
pub async fn run(options: Ctl) -> anyhow::Result<i32> {
    if options.global.verbose > 0 {
        super::start_logging(LogFormat::Text, options.global.verbose);
    }
    let result = match Session::open(&options.global) {
        Ok(session) => dispatch(options.verb, &session).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(code) => Ok(code),
        Err(error) => {
            if let Some(text) = errors::text(&error) {
                eprintln!("{text}");
            }
            Ok(super::EXIT_FAILURE)
        }
    }
}
