//! Measures a running clusterd from outside; `scripts/bench` starts what is measured.
//!
//! Why one program: every figure comes from the same clock, the same client and the same way of
//! reading `/proc`, for clusterd and for what stands beside it.
//!
//! `create KUBECONFIG PID ETCD_URL ETCD_PID`, `list` (the same), `deploy KUBECONFIG COUNT`,
//! `ready KUBECONFIG PROGRAM ARGUMENTS…`, `pods KUBECONFIG`.

mod etcd;
mod load;
mod meter;
mod pods;
mod ready;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clusterd::client::http::Http;
use clusterd::client::kubeconfig;
use clusterd::stdx::tasks::Tasks;

/// One user's connection to the server: requests of one `Http` that do not overlap share it.
fn connect(kubeconfig: &str, tasks: &Tasks) -> anyhow::Result<Arc<Http>> {
    let access = kubeconfig::load(Path::new(kubeconfig), None)?;
    Ok(Arc::new(Http::new(&access, "bench", tasks.clone())?))
}

async fn run(arguments: Vec<String>) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match all[..] {
        ["create", config, pid, url, etcd] => {
            load::create(&load::Sides::new(config, pid, url, etcd, &tasks)?).await
        }
        ["list", config, pid, url, etcd] => {
            load::list(&load::Sides::new(config, pid, url, etcd, &tasks)?).await
        }
        ["deploy", config, count] => {
            pods::deploy(&*connect(config, &tasks)?, count.parse().context("COUNT")?).await
        }
        ["ready", config, program, ref rest @ ..] => ready::run(config, program, rest).await,
        ["pods", config] => pods::run(connect(config, &tasks)?, &tasks).await,
        // What `cargo test --benches` and `cargo bench` without a command do: nothing to measure.
        _ => {
            println!("this needs a running server: use scripts/bench");
            Ok(())
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(arguments))
}
