//! Network namespaces that a test makes: one as the host, one for each pod.
//!
//! Why threads: a namespace lives as long as a thread that is in it, so nothing is left behind when
//! a test fails, and no name is taken on the machine.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::thread::UnshareFlags;

type Job = Box<dyn FnOnce() + Send>;

/// A namespace, and a thread in it that runs what it is given.
pub struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// As in `/proc/PID/task/TID/ns/net`.
    pub path: PathBuf,
}

impl Namespace {
    /// Makes one; `None` (and a word why) when this process may not.
    pub fn new() -> Option<Self> {
        let (jobs, take) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            #[allow(deprecated)] // safe here: no file descriptors or memory are unshared
            let made = rustix::thread::unshare(UnshareFlags::NEWNET);
            let id = rustix::thread::gettid().as_raw_nonzero();
            tell.send(made.map(|()| id)).unwrap();
            while let Ok(job) = take.recv() {
                job();
            }
        });
        match told.recv().unwrap() {
            Ok(id) => {
                let path = format!("/proc/{}/task/{id}/ns/net", std::process::id()).into();
                Some(Self { jobs: Some(jobs), thread: Some(thread), path })
            }
            Err(error) => {
                println!("skipped: this process may not make network namespaces: {error}");
                None
            }
        }
    }

    /// Begins `work` inside; `join` on the answer waits for it and passes a panic on.
    pub fn start<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
        let (tell, told) = mpsc::channel();
        let job = move || {
            let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let _ = tell.send(end);
        };
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        Work { told }
    }

    /// Runs `work` inside and waits for it.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(work).join()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Work that runs in a namespace.
pub struct Work<T> {
    told: mpsc::Receiver<std::thread::Result<T>>,
}

impl<T> Work<T> {
    /// Waits for it.
    pub fn join(self) -> T {
        match self.told.recv().unwrap() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Runs a program that must succeed; its output.
pub fn command(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = std::process::Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
