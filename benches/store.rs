//! Store writes per second for 1 to 1,000 clients, beside a bare fdatasync loop on the same disk.
//!
//! Why beside: the disk decides what one client can have, so the ratio says more than the figure.
//! Rows are interleaved, and each value is the median of the rounds. `cargo bench --bench store`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tikv_jemallocator::Jemalloc;

use clusterd::stdx::tasks::Tasks;
use clusterd::store::{Config, Keyspace, Op, Store, Txn};

/// The executable's allocator, so that memory is measured as it will be.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const VALUE_BYTES: usize = 1024;
const ROUND: Duration = Duration::from_secs(1);
const ROUNDS: usize = 3;
/// Long enough for a store to find that traffic is low.
const IDLE: Duration = Duration::from_secs(12);
const KEYS: usize = 10_000;
const CLIENTS: [usize; 4] = [1, 64, 256, 1000];

/// What a row measured: per second, and the 50th and 99th percentile.
type Row = (f64, Duration, Duration);

fn row(mut times: Vec<Duration>, took: Duration) -> Row {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    (times.len() as f64 / took.as_secs_f64(), at(0.5), at(0.99))
}

fn fdatasync(dir: &Path) -> Row {
    let mut file = File::create(dir.join("bare")).expect("file");
    let value = vec![b'x'; VALUE_BYTES];
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < ROUND {
        let began = Instant::now();
        file.write_all(&value).expect("write");
        file.sync_data().expect("sync");
        times.push(began.elapsed());
    }
    row(times, start.elapsed())
}

async fn writes(store: &Store, clients: usize) -> Row {
    let (start, tasks) = (Instant::now(), Tasks::new());
    let (done, mut all) = tokio::sync::mpsc::channel(clients);
    for client in 0..clients {
        let (store, done) = (store.clone(), done.clone());
        tasks.spawn_once("client", async move {
            let mut times = Vec::new();
            while start.elapsed() < ROUND {
                let key = format!("/registry/pods/{:06}", (client * 7919 + times.len()) % KEYS);
                let value = vec![b'x'; VALUE_BYTES];
                let op = Op::Put {
                    key: key.into(),
                    value: value.into(),
                    slot: Some(9),
                    expires_at_ms: None,
                };
                let began = Instant::now();
                store.txn(Txn::new(Keyspace::Kubernetes).then(op)).await.expect("write");
                times.push(began.elapsed());
            }
            let _ = done.send(times).await;
        });
    }
    drop(done);
    let mut times = Vec::new();
    while let Some(more) = all.recv().await {
        times.extend(more);
    }
    row(times, start.elapsed())
}

fn resident_mb() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096 / 1024 / 1024
}

/// Processor time of all threads so far.
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// What an idle store costs: resident memory, and its share of one core.
async fn idle(when: &str) {
    let (began, before) = (Instant::now(), processor_time());
    tokio::time::sleep(IDLE).await;
    let share = (processor_time() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("idle {when}: {} MB resident, {:.2} % of a core", resident_mb(), share * 100.0);
}

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir().expect("dir");
        let tasks = Tasks::new();
        let began = Instant::now();
        let store = Store::open(Config::new(dir.path().join("store")), &tasks).await.expect("open");
        println!("open {:?}", began.elapsed());
        idle("and empty").await;
        let mut rows = vec![Vec::new(); CLIENTS.len() + 1];
        for _ in 0..ROUNDS {
            rows[0].push(fdatasync(dir.path()));
            for (at, clients) in CLIENTS.into_iter().enumerate() {
                rows[at + 1].push(writes(&store, clients).await);
            }
        }
        println!("{:>16} {:>12} {:>12} {:>12}", "", "per second", "p50", "p99");
        let names = ["fdatasync".to_owned()];
        let names = names.into_iter().chain(CLIENTS.map(|clients| format!("{clients} clients")));
        for (name, mut row) in names.zip(rows) {
            row.sort_by(|left, right| left.0.total_cmp(&right.0));
            let (rate, half, most) = row[row.len() / 2];
            println!("{name:>16} {rate:>12.0} {half:>12.1?} {most:>12.1?}");
        }
        println!("{} MB resident, {:?}", resident_mb(), store.stats());
        idle("after load").await;
        let began = Instant::now();
        tasks.shutdown().await;
        drop(store);
        println!("closed in {:?}", began.elapsed());
        let (began, tasks) = (Instant::now(), Tasks::new());
        let store = Store::open(Config::new(dir.path().join("store")), &tasks).await.expect("open");
        println!("open again {:?}, {} keys", began.elapsed(), store.stats().keys);
        idle("when open again").await;
        tasks.shutdown().await;
    });
}
