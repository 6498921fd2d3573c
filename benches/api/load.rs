//! Typed creates and whole LISTs beside etcd's puts and ranges of the same bytes.
//!
//! Why interleaved: the disk and the neighbours of a shared machine change from second to second;
//! a ratio of two figures taken one after the other, several times, survives that.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clusterd::client::http::Http;
use clusterd::client::kubeconfig::{self, Access};
use clusterd::stdx::tasks::Tasks;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

use crate::etcd::Etcd;
use crate::meter;

const CLIENTS: usize = 64;
const READERS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
/// Bytes of a ConfigMap's one value.
const PAYLOAD_BYTES: usize = 1024;
const LISTED: usize = 20_000;

/// What is measured, and what beside it.
pub struct Sides {
    access: Access,
    clusterd: u32,
    url: String,
    etcd: u32,
    tasks: Tasks,
}

/// What a client's requests took and what went over the wire, or why it stopped.
type Done = anyhow::Result<(Vec<Duration>, usize)>;

/// One side's figures of one round.
struct Figures {
    per_second: f64,
    p50: f64,
    p99: f64,
    per_cpu_second: f64,
    bytes: usize,
}

impl Sides {
    pub fn new(
        config: &str,
        clusterd: &str,
        url: &str,
        etcd: &str,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            access: kubeconfig::load(Path::new(config), None)?,
            clusterd: clusterd.parse().context("clusterd's process id")?,
            url: url.to_owned(),
            etcd: etcd.parse().context("etcd's process id")?,
            tasks: tasks.clone(),
        })
    }

    fn http(&self) -> anyhow::Result<Arc<Http>> {
        Ok(Arc::new(Http::new(&self.access, "bench", self.tasks.clone())?))
    }

    async fn https(&self, count: usize) -> anyhow::Result<Vec<Arc<Http>>> {
        let made: Vec<_> = (0..count).map(|_| self.http()).collect::<anyhow::Result<_>>()?;
        for http in &made {
            // Connected before the clock runs, as etcd's clients are.
            http.call(Request::get("/version").body(Full::default())?).await?;
        }
        Ok(made)
    }

    async fn etcds(&self, count: usize) -> anyhow::Result<Vec<Etcd>> {
        let mut made = Vec::new();
        for _ in 0..count {
            made.push(Etcd::connect(&self.url, &self.access, &self.tasks).await?);
        }
        Ok(made)
    }

    /// Runs one future for each client and adds up what they did.
    async fn measure<F>(&self, pid: u32, clients: Vec<F>) -> anyhow::Result<Figures>
    where
        F: Future<Output = Done> + Send + 'static,
    {
        let (began, processor) = (Instant::now(), meter::processor_seconds(pid));
        let (done, mut all) = mpsc::channel(clients.len());
        for client in clients {
            let done = done.clone();
            self.tasks.spawn_once("client", async move {
                let _ = done.send(client.await).await;
            });
        }
        drop(done);
        let (mut times, mut bytes) = (Vec::new(), 0);
        while let Some(result) = all.recv().await {
            let (more, read) = result?;
            times.extend(more);
            bytes += read;
        }
        let count = times.len() as f64;
        Ok(Figures {
            per_second: count / began.elapsed().as_secs_f64(),
            p50: meter::percentile(&mut times, 0.5),
            p99: meter::percentile(&mut times, 0.99),
            per_cpu_second: count / (meter::processor_seconds(pid) - processor),
            bytes,
        })
    }
}

fn config_map(name: &str) -> Bytes {
    let text = "x".repeat(PAYLOAD_BYTES);
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name}, "data": {"value": text},
    });
    Bytes::from(object.to_string())
}

async fn post(http: &Http, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(body))?;
    http.call(request).await.map_err(|status| anyhow::anyhow!("{}", status.message))
}

/// A namespace of its own for what is created; one from an earlier run does as well.
async fn namespace(http: &Http, name: &str) -> anyhow::Result<String> {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
    });
    post(http, "/api/v1/namespaces", Bytes::from(object.to_string())).await?;
    Ok(format!("/api/v1/namespaces/{name}/configmaps"))
}

/// Creates until the round ends, or as many as are wanted.
async fn creates(http: Arc<Http>, path: String, prefix: String, wanted: Option<usize>) -> Done {
    let (began, mut times, mut bytes) = (Instant::now(), Vec::new(), 0);
    while wanted.map_or(began.elapsed() < ROUND, |wanted| times.len() < wanted) {
        let body = config_map(&format!("{prefix}-{}", times.len()));
        let start = Instant::now();
        bytes += post(&http, &path, body).await?.len();
        times.push(start.elapsed());
    }
    Ok((times, bytes))
}

async fn puts(mut etcd: Etcd, prefix: String, value: Bytes, wanted: Option<usize>) -> Done {
    let (began, mut times, mut bytes) = (Instant::now(), Vec::new(), 0);
    while wanted.map_or(began.elapsed() < ROUND, |wanted| times.len() < wanted) {
        let key = format!("{prefix}-{}", times.len());
        let start = Instant::now();
        bytes += etcd.put(&key, &value).await?;
        times.push(start.elapsed());
    }
    Ok((times, bytes))
}

fn print(side: &str, figures: &Figures, pid: u32) {
    println!(
        "  {side:<8} {:>8.0}/s  p50 {:>7.2} ms  p99 {:>7.2} ms  {:>7.0} per CPU-second  \
         {:>4.0} MB resident  load {}",
        figures.per_second,
        figures.p50,
        figures.p99,
        figures.per_cpu_second,
        meter::resident_mb(pid),
        meter::load_averages()
    );
}

/// Ratios of clusterd's figures to etcd's, one for each round.
#[derive(Default)]
struct Ratios {
    rate: Vec<f64>,
    p99: Vec<f64>,
    per_cpu: Vec<f64>,
    own_rate: Vec<f64>,
    etcd_rate: Vec<f64>,
}

impl Ratios {
    fn add(&mut self, own: &Figures, etcd: &Figures) {
        self.rate.push(own.per_second / etcd.per_second);
        self.p99.push(own.p99 / etcd.p99);
        self.per_cpu.push(own.per_cpu_second / etcd.per_cpu_second);
        self.own_rate.push(own.per_second);
        self.etcd_rate.push(etcd.per_second);
    }
}

/// Creates per second of ConfigMaps beside puts of the bytes that are stored for one.
pub async fn create(sides: &Sides) -> anyhow::Result<()> {
    let https = sides.https(CLIENTS).await?;
    let etcds = sides.etcds(CLIENTS).await?;
    let path = namespace(&https[0], "creates").await?;
    let stored = post(&https[0], &path, config_map("stored")).await?;
    println!("create: {CLIENTS} clients, {} bytes stored an object", stored.len());
    let mut ratios = Ratios::default();
    // Round 0 warms both sides up and is not counted.
    for round in 0..=ROUNDS {
        let prefix = |client: usize| format!("r{round}-c{client}");
        let clients = https.iter().enumerate();
        let clients =
            clients.map(|(at, http)| creates(http.clone(), path.clone(), prefix(at), None));
        let own = sides.measure(sides.clusterd, clients.collect()).await?;
        let clients = etcds.iter().enumerate().map(|(at, etcd)| {
            let prefix = format!("/registry/configmaps/creates/{}", prefix(at));
            puts(etcd.clone(), prefix, stored.clone(), None)
        });
        let etcd = sides.measure(sides.etcd, clients.collect()).await?;
        println!("round {round}{}", if round == 0 { " (not counted)" } else { "" });
        print("clusterd", &own, sides.clusterd);
        print("etcd", &etcd, sides.etcd);
        if round > 0 {
            ratios.add(&own, &etcd);
        }
    }
    println!("RESULT creates/s: clusterd {}", meter::spread(&ratios.own_rate, 0));
    println!("RESULT puts/s: etcd {}", meter::spread(&ratios.etcd_rate, 0));
    println!("RESULT creates : puts, rate {}", meter::spread(&ratios.rate, 2));
    println!("RESULT creates : puts, p99 {}", meter::spread(&ratios.p99, 2));
    println!("RESULT creates : puts, per CPU-second {}", meter::spread(&ratios.per_cpu, 2));
    Ok(())
}

/// Reads a whole LIST and drops it frame by frame, so that the client stays small.
async fn lists(http: Arc<Http>, path: String) -> Done {
    let start = Instant::now();
    let request = Request::get(&path).header(header::ACCEPT, "application/json");
    let answer = http.send(request.body(Full::default())?).await;
    let answer = answer.map_err(|status| anyhow::anyhow!("{}", status.message))?;
    anyhow::ensure!(answer.status().is_success(), "LIST answered {}", answer.status());
    let (mut body, mut bytes) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok((vec![start.elapsed()], bytes))
}

async fn ranges(mut etcd: Etcd) -> Done {
    let start = Instant::now();
    let prefix = "/registry/configmaps/listed";
    let bytes = etcd.range(&format!("{prefix}/"), &format!("{prefix}0")).await?;
    Ok((vec![start.elapsed()], bytes))
}

/// Fills both sides with the same objects.
async fn fill(sides: &Sides, path: &str) -> anyhow::Result<()> {
    let (https, etcds) = (sides.https(CLIENTS).await?, sides.etcds(CLIENTS).await?);
    let stored = post(&https[0], path, config_map("stored")).await?;
    let wanted = |client: usize| Some(LISTED / CLIENTS + usize::from(client < LISTED % CLIENTS));
    let clients = https.into_iter().enumerate();
    let clients =
        clients.map(|(at, http)| creates(http, path.to_owned(), format!("c{at}"), wanted(at)));
    sides.measure(sides.clusterd, clients.collect()).await?;
    let clients = etcds.into_iter().enumerate().map(|(at, etcd)| {
        let prefix = format!("/registry/configmaps/listed/c{at}");
        puts(etcd, prefix, stored.clone(), wanted(at))
    });
    sides.measure(sides.etcd, clients.collect()).await?;
    Ok(())
}

/// LIST of 20,000 objects to 16 clients at once: how long, and what memory it adds.
pub async fn list(sides: &Sides) -> anyhow::Result<()> {
    let path = namespace(&*sides.http()?, "listed").await?;
    fill(sides, &path).await?;
    let (https, etcds) = (sides.https(READERS).await?, sides.etcds(READERS).await?);
    println!("list: {LISTED} objects to {READERS} clients at once");
    let (mut times, mut etcd_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut added, mut etcd_added, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let clients = https.iter().map(|http| lists(http.clone(), path.clone())).collect();
        let (own, more) = with_peak(sides, sides.clusterd, clients).await?;
        let clients = etcds.iter().map(|etcd| ranges(etcd.clone())).collect();
        let (etcd, etcd_more) = with_peak(sides, sides.etcd, clients).await?;
        let answered = own.bytes as f64 / 1024.0 / 1024.0;
        println!(
            "round {round}: {answered:.0} MB answered, {more:.0} MB added (etcd {etcd_more:.0})"
        );
        print("clusterd", &own, sides.clusterd);
        print("etcd", &etcd, sides.etcd);
        times.push(own.p99);
        etcd_times.push(etcd.p99);
        ratios.push(own.p99 / etcd.p99);
        added.push(more);
        etcd_added.push(etcd_more);
        shares.push(more / answered);
    }
    println!("RESULT list, slowest of {READERS}: clusterd {} ms", meter::spread(&times, 0));
    println!("RESULT range, slowest of {READERS}: etcd {} ms", meter::spread(&etcd_times, 0));
    println!("RESULT list : range, time {}", meter::spread(&ratios, 2));
    println!("RESULT added memory: clusterd {} MB", meter::spread(&added, 0));
    println!("RESULT added memory: etcd {} MB", meter::spread(&etcd_added, 0));
    println!("RESULT added memory / bytes answered {}", meter::spread(&shares, 3));
    Ok(())
}

/// Also gives the memory that was added at the peak, in MB.
async fn with_peak<F>(sides: &Sides, pid: u32, clients: Vec<F>) -> anyhow::Result<(Figures, f64)>
where
    F: Future<Output = Done> + Send + 'static,
{
    meter::forget_peak(pid)?;
    let before = meter::resident_mb(pid);
    let figures = sides.measure(pid, clients).await?;
    Ok((figures, meter::peak_mb(pid) - before))
}
