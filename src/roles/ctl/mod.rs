//! `clusterd ctl`: the built-in client; one file a verb, listed once below.
//!
//! Why a client of our own beside kubectl: a host that has clusterd has all that is needed to look
//! after its cluster. It holds no knowledge of kinds: names come from discovery, columns from the
//! server's Tables, merging from server-side apply.

mod apply;
mod errors;
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
mod session;
mod terminal;
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
    /// Bring objects to what a file says (server-side apply)
    Apply(apply::Apply),
    /// Follow, look back at, undo, restart, pause or resume a rollout
    Rollout(rollout::Rollout),
    /// Print what a container wrote
    Logs(logs::Logs),
    /// Run a command in a container
    Exec(exec::Exec),
    /// Wait until objects are in a state
    Wait(wait::Wait),
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
