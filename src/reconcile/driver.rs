//! Runs a controller: wakes it on changes and on a period, one key at a time, with back-off.
//!
//! Why both wake-ups: events make it fast, the period makes it right; a key refused at the queue's
//! bound or a notice lost to a bug costs a delay, never a divergence. A pass never sleeps: it ends
//! with what should happen next.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::ObjectKey;
use super::change::{Executor, Pass};
use super::informer::{Followed, Subscription};
use super::queue::Queue;
use crate::object::status::Result;
use crate::stdx::tasks::{RESTART, Tasks};

/// Keys that a controller works at once, unless it says otherwise (upstream's default).
const WORKERS: usize = 5;
/// How often a controller is given all its keys, unless it says otherwise.
const PERIOD: Duration = Duration::from_secs(10 * 60);

/// What should happen to a key after a pass that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Await,
    /// It should be looked at again after this time.
    After(Duration),
}

/// A loop over keys. Its state is in the API; its memory may be lost at any time.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Its name, as upstream names it.
    fn name(&self) -> &'static str;

    /// How many keys are worked at once.
    fn workers(&self) -> usize {
        WORKERS
    }

    /// How often all keys are looked at without a reason.
    fn period(&self) -> Duration {
        PERIOD
    }

    /// The informers it reads; it starts when all have synced.
    fn reads(&self) -> Vec<Arc<dyn Followed>>;

    /// Subscribes to changes and puts the keys they concern into the queue.
    fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription>;

    /// All keys there are.
    fn keys(&self) -> Vec<ObjectKey>;

    /// Makes the world a little more as the object of `key` wants it.
    async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action>;
}

/// Runs a controller under `tasks` until they stop; after a panic it starts afresh.
pub fn start(tasks: &Tasks, controller: Arc<dyn Controller>, executor: Executor) {
    let name = format!("controller {}", controller.name());
    tasks.spawn(name, RESTART, move |stop| {
        let (controller, executor) = (controller.clone(), executor.clone());
        async move {
            tokio::select! {
                () = run(&*controller, &executor) => {}
                () = stopped(&stop) => {}
            }
            Ok(())
        }
    });
}

async fn stopped(stop: &CancellationToken) {
    stop.cancelled().await;
}

async fn run(controller: &dyn Controller, executor: &Executor) {
    for informer in controller.reads() {
        informer.synced().await;
    }
    let queue = Queue::new();
    let _subscriptions = controller.watch(&queue);
    let workers = (0..controller.workers()).map(|_| work(controller, executor, &queue));
    let periodic = async {
        let mut ticks = tokio::time::interval(controller.period());
        loop {
            ticks.tick().await;
            for key in controller.keys() {
                queue.add(key);
            }
        }
    };
    tokio::select! {
        _ = join_all(workers) => {}
        () = periodic => {}
    }
}

async fn work(controller: &dyn Controller, executor: &Executor, queue: &Queue<ObjectKey>) {
    loop {
        let key = queue.next().await;
        let pass = executor.pass();
        let end = controller.reconcile(&key, &pass).await;
        pass.settle().await;
        match end {
            Ok(Action::Await) => queue.forget(&key),
            Ok(Action::After(delay)) => {
                queue.forget(&key);
                queue.add_after(key.clone(), delay);
            }
            Err(status) => {
                let delay = queue.retry(key.clone());
                let name = controller.name();
                if status.is_conflict() {
                    tracing::debug!(controller = name, %key, ?delay, "will be retried: {status}");
                } else {
                    tracing::warn!(controller = name, %key, ?delay, "will be retried: {status}");
                }
            }
        }
        queue.done(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::FakeServer;
    use crate::client::{Target, WriteOptions};
    use crate::object::Status;
    use crate::reconcile::{Change, Informer, Informers, Object, Recorder};
    use crate::stdx::clock::SystemClock;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use parking_lot::Mutex;
    use serde_json::json;

    /// Makes a Secret for each ConfigMap, with a generated name: a pass that does not see what the
    /// one before wrote would make a second.
    struct Mirror {
        maps: Informer<ConfigMap>,
        secrets: Informer<Secret>,
        fail: Mutex<u32>,
    }

    #[async_trait]
    impl Controller for Mirror {
        fn name(&self) -> &'static str {
            "mirror"
        }
        fn reads(&self) -> Vec<Arc<dyn Followed>> {
            vec![Arc::new(self.maps.clone()), Arc::new(self.secrets.clone())]
        }
        fn watch(&self, queue: &Queue<ObjectKey>) -> Vec<Subscription> {
            let queue = queue.clone();
            vec![self.maps.subscribe(move |notice| {
                queue.add(notice.newest().map(|map| map.key()).unwrap_or_default());
            })]
        }
        fn keys(&self) -> Vec<ObjectKey> {
            self.maps.keys()
        }
        async fn reconcile(&self, key: &ObjectKey, pass: &Pass) -> Result<Action> {
            if *self.fail.lock() > 0 {
                *self.fail.lock() -= 1;
                return Err(Status::unavailable("not yet"));
            }
            let Some(map) = self.maps.at(key) else { return Ok(Action::Await) };
            if self.secrets.owned_by(map.uid()).is_empty() {
                let mut secret = Secret::default();
                secret.metadata.generate_name = Some("s-".to_owned());
                secret.metadata.namespace = Some(key.namespace.clone());
                secret.metadata.owner_references = Some(vec![map.owner_reference()]);
                pass.apply(Change::create(&secret)).await?;
            }
            Ok(Action::After(Duration::from_secs(1)))
        }
        fn workers(&self) -> usize {
            2
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_sees_what_the_one_before_wrote_and_failures_come_back() {
        let clock = SystemClock::shared();
        let server = FakeServer::new(clock.clone());
        let tasks = Tasks::new();
        let informers = Informers::new(server.client(), &tasks);
        let recorder = Recorder::new(server.client(), clock, &tasks, "mirror", "");
        let mirror = Mirror { maps: informers.of(), secrets: informers.of(), fail: Mutex::new(3) };
        let executor = Executor::new(server.client(), informers.clone(), recorder);
        let group = tasks.child();
        start(&group, Arc::new(mirror), executor);
        for name in ["a", "b"] {
            let target = Target::all(&ConfigMap::gvr(), "default");
            let body = json!({"metadata": {"name": name}});
            server.client().create(&target, body, &WriteOptions::default()).await.unwrap();
        }
        // Virtual time: several passes of each key, and the retries before them.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(server.all(&Secret::gvr()).len(), 2);
        group.shutdown().await;
        tasks.shutdown().await;
    }
}
