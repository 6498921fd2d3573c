//! Start and end: opens the directory, recovers, starts the threads, and joins them.
//!
//! Why threads of our own: they wait for the disk, which a tokio thread never does. Their death is
//! the process's: a store that no longer applies must not go on answering.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use rand::Rng;
use rustix::fs::FlockOperation;
use tokio::sync::oneshot;

use super::apply::{Applier, Work};
use super::config::Config;
use super::disk::{Batch, Disk};
use super::error::Error;
use super::machine::State;
use super::raft::node::{Node, Parts};
use super::raft::storage::{
    FIRST_CUT, Identity, LogStore, add_first_rows, decode_members, encode_members, read_identity,
};
use super::raft::{ConfState, Input};
use super::rows::{self, Loader};
use super::shared::{Leadership, Shared};
use crate::stdx::ids;
use crate::stdx::tasks::{Policy, Tasks};

/// The file whose lock says that a process uses the directory.
const LOCK_FILE: &str = "lock";

/// What the Raft thread tells when it has recovered.
type Recovered = Result<Arc<Shared>, Error>;

/// Starts everything; returns when recovered, and, in a group of one, when this member leads.
pub(super) async fn start(
    config: Config,
    tasks: &Tasks,
) -> Result<(Arc<Shared>, Sender<Input>), Error> {
    let (inputs, from_inputs) = channel();
    let (recovered, recovery) = oneshot::channel();
    let (ended, end) = oneshot::channel::<()>();
    let thread = Thread { config, inputs: inputs.clone(), tasks: tasks.clone() };
    let body = move || {
        let _ended = ended;
        thread.run(&from_inputs, recovered)
    };
    spawn_thread("store-raft", tasks, body)?;
    let shared = recovery.await.map_err(|_| Error::Closed)??;
    let mut end = Some(end);
    let stop_inputs = inputs.clone();
    tasks.spawn("store", Policy::Once, move |stop| {
        let (end, inputs) = (end.take(), stop_inputs.clone());
        async move {
            stop.cancelled().await;
            let _ = inputs.send(Input::Stop);
            if let Some(end) = end {
                // Ends when the thread drops its sender, the directory closed.
                let _ = end.await;
            }
            Ok(())
        }
    });
    let members = decode_members(&shared.state.load().members)?;
    if members.voters.len() == 1 && members.voters_outgoing.is_empty() {
        let mut leadership = shared.leadership.subscribe();
        leadership.wait_for(|known| known.is_self).await.map_err(|_| Error::Closed)?;
    }
    Ok((shared, inputs))
}

/// Runs `body` on a thread of its own; its failure is fatal.
fn spawn_thread(
    name: &str,
    tasks: &Tasks,
    body: impl FnOnce() -> Result<(), Error> + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, Error> {
    let (label, tasks) = (name.to_owned(), tasks.clone());
    let run = move || match std::panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tasks.fail(format!("{label}: {error}")),
        Err(_) => tasks.fail(format!("{label}: panicked")),
    };
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map_err(|error| Error::Disk(format!("thread {name}: {error}")))
}

/// What the Raft thread starts with.
struct Thread {
    config: Config,
    inputs: Sender<Input>,
    tasks: Tasks,
}

impl Thread {
    /// Recovers, tells so, and drives Raft; then ends the apply thread and closes the directory.
    fn run(
        self,
        inputs: &Receiver<Input>,
        recovered: oneshot::Sender<Recovered>,
    ) -> Result<(), Error> {
        let opened = self.open();
        let Opened { _lock, disk, log, shared, state } = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // The caller's to report: a refusal to start is not a crash.
                let _ = recovered.send(Err(error));
                return Ok(());
            }
        };
        let (work, from_work) = channel();
        let applier = Applier {
            disk: disk.clone(),
            shared: shared.clone(),
            inputs: self.inputs.clone(),
            state,
        };
        let apply = spawn_thread("store-apply", &self.tasks, move || applier.run(&from_work))?;
        let parts = Parts {
            config: self.config,
            disk,
            log,
            shared: shared.clone(),
            work: work.clone(),
            inputs: self.inputs,
        };
        let _end = End(shared.clone());
        let end = Node::new(parts).and_then(|node| {
            let _ = recovered.send(Ok(shared.clone()));
            node.run(inputs)
        });
        let _ = work.send(Work::Stop);
        let _ = apply.join();
        match end {
            // The apply thread has said why it ended.
            Err(Error::Closed) => Ok(()),
            other => other,
        }
    }

    fn open(&self) -> Result<Opened, Error> {
        let config = &self.config;
        if config.node_id == 0 {
            return Err(Error::Invalid("member id 0".to_owned()));
        }
        let failed =
            |error: std::io::Error| Error::Disk(format!("{}: {error}", config.dir.display()));
        std::fs::create_dir_all(&config.dir).map_err(failed)?;
        // The directory's own name must survive a power cut as surely as what is written into it.
        for dir in config.dir.ancestors().take(2).filter(|dir| !dir.as_os_str().is_empty()) {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        }
        let lock = lock(&config.dir)?;
        let began = Instant::now();
        let disk = Arc::new(Disk::open(&config.dir)?);
        let opened = began.elapsed();
        let identity = match read_identity(&disk)? {
            Some(found) => check_identity(config, found)?,
            // A state that has moved on without its log is no new directory.
            None if disk.flushed_index()? > FIRST_CUT.0 => {
                return Err(Error::Corrupt("the log is missing".to_owned()));
            }
            None => found_group(config, &disk)?,
        };
        let mut loader = Loader::default();
        disk.load(&mut loader)?;
        let missing = || Error::Corrupt("the state has no position".to_owned());
        let state = loader.finish()?.ok_or_else(missing)?;
        let loaded = began.elapsed();
        let members = decode_members(&state.members)?;
        let log = LogStore::load(disk.clone(), members, (state.index, state.term))?;
        let read = began.elapsed();
        tracing::info!(index = state.index, ?opened, ?loaded, ?read, "store recovered");
        let session = rand::rng().random();
        let shared = Arc::new(Shared::new(session, identity.cluster_id, state.clone()));
        Ok(Opened { _lock: lock, disk, log, shared, state })
    }
}

/// Tells everyone who waits that nothing comes any more, also when the thread panics.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.sole_voter.store(false, Ordering::SeqCst);
        self.0.leadership.send_replace(Leadership::default());
        self.0.fail_waiting(&Error::Unknown);
        self.0.hub.wake_all(true);
    }
}

struct Opened {
    _lock: File,
    disk: Arc<Disk>,
    log: LogStore,
    shared: Arc<Shared>,
    state: State,
}

fn lock(dir: &Path) -> Result<File, Error> {
    let failed = |error: std::io::Error| Error::Disk(format!("{}: {error}", dir.display()));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK_FILE))
        .map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked(dir.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

fn check_identity(config: &Config, found: Identity) -> Result<Identity, Error> {
    let foreign = |what, found: &str, expected: &str| Error::Foreign {
        dir: config.dir.clone(),
        what,
        found: found.to_owned(),
        expected: expected.to_owned(),
    };
    if !config.cluster_id.is_empty() && config.cluster_id != found.cluster_id {
        return Err(foreign("cluster", &found.cluster_id, &config.cluster_id));
    }
    if config.node_id != found.node_id {
        let (found, expected) = (found.node_id.to_string(), config.node_id.to_string());
        return Err(foreign("member", &found, &expected));
    }
    Ok(found)
}

/// Makes a new group. Every first member writes the same rows, so they agree from the start.
fn found_group(config: &Config, disk: &Disk) -> Result<Identity, Error> {
    let cluster_id = match config.cluster_id.is_empty() {
        true => ids::uid(),
        false => config.cluster_id.clone(),
    };
    let identity = Identity { cluster_id, node_id: config.node_id };
    let voters = match config.voters.is_empty() {
        true => vec![config.node_id],
        false => config.voters.clone(),
    };
    let members = ConfState { voters, ..ConfState::default() };
    let (index, term) = FIRST_CUT;
    let members = encode_members(&members).into();
    let state = State { index, term, members, ..State::default() };
    // The identity comes last: without it, the next start does all of this again.
    let mut batch = Batch::default();
    disk.add_clear(&mut batch);
    rows::all(&state, |row| disk.add(&mut batch, row));
    disk.write_state(batch)?;
    disk.flush_state()?;
    let mut batch = Batch::default();
    add_first_rows(disk, &mut batch, &identity);
    disk.write_log(batch, true)?;
    Ok(identity)
}
