//! The crate `rtnetlink` for code that waits: its connection on a small runtime of its own.
//!
//! Why its own runtime: a socket speaks for the namespace of the thread that opened it, and who
//! asks is a blocking thread, at times one that is in a pod's namespace and ends there. The
//! runtime has no thread but the caller's, and no descriptor of it outlives its owner.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_core::{
    ErrorMessage, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket as _, SocketAddr};
use rtnetlink::{Handle, MulticastGroup};
use tokio::runtime::{Builder, Runtime};

use crate::net::netlink::{DUMP_ATTEMPTS_MAX, Error, HEADER, Result, prepare};
use crate::stdx::tasks::Tasks;

type Heard = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;
type Driver = rtnetlink::proto::Connection<RouteNetlinkMessage>;

/// Requests in the namespace of the thread that opened it. Not for use within an async task: its
/// calls wait.
pub struct Connection {
    handle: Handle,
    /// The driver has ended: what is asked for now is never answered.
    ended: Arc<AtomicBool>,
    runtime: Runtime,
}

impl Connection {
    /// Opens a socket in this thread's network namespace.
    pub fn open() -> Result<Self> {
        let runtime = runtime()?;
        let entered = runtime.enter();
        let (mut driver, handle, _) = rtnetlink::new_connection()?;
        // A dump's end may be what says that the table changed under it.
        driver.set_forward_done(true);
        let ended = drive(driver)?;
        drop(entered);
        Ok(Self { handle, ended, runtime })
    }

    /// The crate's handle, to make a request with.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sends a request and waits for its acknowledgement.
    pub fn run(
        &self,
        doing: &str,
        request: impl Future<Output = std::result::Result<(), rtnetlink::Error>>,
    ) -> Result<()> {
        match self.runtime.block_on(request) {
            // The crate takes an answer that never comes for a good one.
            Ok(()) if self.ended.load(Ordering::Acquire) => Err(closed(doing)),
            Ok(()) => Ok(()),
            Err(rtnetlink::Error::NetlinkError(told)) => Err(refused(doing, &told)),
            Err(other) => Err(io::Error::other(format!("{doing}: {other}")).into()),
        }
    }

    /// Asks for a table. When the kernel says that the table changed meanwhile, which the crate's
    /// own lists do not tell, it is read again from the start.
    pub fn dump(&self, doing: &str, ask: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            if let Some(found) = self.runtime.block_on(self.dump_once(doing, ask.clone()))? {
                return Ok(found);
            }
        }
        Err(Error::Unsteady(doing.to_owned()))
    }

    async fn dump_once(
        &self,
        doing: &str,
        ask: RouteNetlinkMessage,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut ask = NetlinkMessage::from(ask);
        ask.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.clone().request(ask).map_err(|_| closed(doing))?;
        let (mut found, mut steady) = (Vec::new(), true);
        while let Some(answer) = answers.next().await {
            steady &= answer.header.flags & NLM_F_DUMP_INTR == 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(entry) => found.push(entry),
                NetlinkPayload::Error(told) => return Err(refused(doing, &told)),
                NetlinkPayload::Done(end) if end.code < 0 => {
                    return Err(Error::refused(doing, end.code, &[]));
                }
                NetlinkPayload::Done(_) => return Ok(steady.then_some(found)),
                _ => {}
            }
        }
        Err(closed(doing))
    }
}

/// Hears the kernel's notices, in the namespace of the thread that opened it.
pub struct Listener {
    heard: Heard,
    runtime: Runtime,
}

impl Listener {
    /// Listens from now on.
    pub fn open(group: MulticastGroup) -> Result<Self> {
        let runtime = runtime()?;
        let entered = runtime.enter();
        let (driver, _, heard) = rtnetlink::new_multicast_connection(&[group])?;
        drive(driver)?;
        drop(entered);
        Ok(Self { heard, runtime })
    }

    /// Waits for notices until `done` says so; `false` when that takes longer than `patience`
    /// between two of them.
    pub fn wait(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(RouteNetlinkMessage) -> bool,
    ) -> Result<bool> {
        let Self { heard, runtime } = self;
        runtime.block_on(async {
            loop {
                let Ok(next) = tokio::time::timeout(patience, heard.next()).await else {
                    return Ok(false);
                };
                match next.map(|(notice, _)| notice.payload) {
                    Some(NetlinkPayload::InnerMessage(notice)) => {
                        if done(notice) {
                            return Ok(true);
                        }
                    }
                    Some(NetlinkPayload::Overrun(_)) => {
                        return Err(io::Error::from_raw_os_error(libc::ENOBUFS).into());
                    }
                    Some(_) => {}
                    None => return Err(closed("notices")),
                }
            }
        })
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_io().enable_time().build()?)
}

/// Lets the driver run whenever the entered runtime does; the answer becomes true when it ends.
fn drive(mut driver: Driver) -> Result<Arc<AtomicBool>> {
    prepare(driver.socket_mut().socket_mut())?;
    let ended = Arc::new(AtomicBool::new(false));
    let tell = ended.clone();
    Tasks::new().spawn_once("rtnetlink", async move {
        driver.await;
        tell.store(true, Ordering::Release);
    });
    Ok(ended)
}

fn refused(doing: &str, told: &ErrorMessage) -> Error {
    Error::refused(doing, told.raw_code(), told.header.get(HEADER..).unwrap_or(&[]))
}

fn closed(doing: &str) -> Error {
    io::Error::new(io::ErrorKind::BrokenPipe, format!("{doing}: closed")).into()
}
