//! From exec to the first 200 of `/readyz`, on a new and on a warm data directory.
//!
//! Why by polling: no event says it to a stranger. The kubeconfig, which is removed before each
//! start, tells whom to ask; a question every two milliseconds costs next to nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clusterd::client::http::Http;
use clusterd::stdx::tasks::Tasks;
use http::Request;
use http_body_util::Full;

use crate::{connect, meter};

const ROUNDS: usize = 5;
const POLL: Duration = Duration::from_millis(2);
/// A server that takes longer is broken, not slow.
const PATIENCE: Duration = Duration::from_secs(60);

async fn answers(http: &Http) -> bool {
    let Ok(request) = Request::get("/readyz").body(Full::default()) else { return false };
    http.call(request).await.is_ok()
}

async fn until_ready(config: &str, child: &mut Child, began: Instant) -> anyhow::Result<Duration> {
    let tasks = Tasks::new();
    while began.elapsed() < PATIENCE {
        if let Some(code) = child.try_wait()? {
            anyhow::bail!("the server ended with {code}");
        }
        if Path::new(config).exists() {
            // Half a file, or one from a moment too early, is asked again.
            if let Ok(http) = connect(config, &tasks)
                && answers(&http).await
            {
                return Ok(began.elapsed());
            }
        }
        tokio::time::sleep(POLL).await;
    }
    anyhow::bail!("not ready after {PATIENCE:?}")
}

fn stop(mut child: Child) -> anyhow::Result<()> {
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
    child.wait()?;
    Ok(())
}

/// `rest` are the server's arguments, with its data directory at `--data-dir`.
pub async fn run(config: &str, program: &str, rest: &[&str]) -> anyhow::Result<()> {
    let at = rest.iter().position(|argument| *argument == "--data-dir");
    let dir = at.and_then(|at| rest.get(at + 1)).context("--data-dir is missing")?;
    let (mut new, mut warm) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        if Path::new(dir).exists() {
            std::fs::remove_dir_all(dir)?;
        }
        for times in [&mut new, &mut warm] {
            if Path::new(config).exists() {
                std::fs::remove_file(config)?;
            }
            let began = Instant::now();
            let mut child = Command::new(program).args(rest).stderr(Stdio::null()).spawn()?;
            let took = until_ready(config, &mut child, began).await;
            stop(child)?;
            times.push(took?.as_secs_f64() * 1000.0);
        }
        let (new, warm) = (new[round - 1], warm[round - 1]);
        let load = meter::load_averages();
        println!("round {round}: new {new:.0} ms, warm {warm:.0} ms  load {load}");
    }
    println!("RESULT exec to /readyz, new directory: {} ms", meter::spread(&new, 0));
    println!("RESULT exec to /readyz, warm directory: {} ms", meter::spread(&warm, 0));
    Ok(())
}
