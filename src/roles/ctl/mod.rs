//! `clusterd ctl`: the built-in client.

use clap::Args;

/// Options of every verb.
#[derive(Args, Debug)]
pub struct Ctl {}

/// Runs one verb.
pub async fn run(_options: Ctl) -> anyhow::Result<i32> {
    anyhow::bail!("not yet")
}
