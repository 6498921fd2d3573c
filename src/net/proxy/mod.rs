//! The service proxy: Services and EndpointSlices become elements of nftables sets.
//!
//! `plan` says what one Service means, `table` joins all of them, `kernel` writes differences,
//! `layout` is the fixed part with the rules that packets meet, `conntrack` forgets stale UDP flows.

pub mod conntrack;
pub mod kernel;
pub mod layout;
pub mod plan;
pub mod table;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::net::netlink::Result;
use crate::net::podnet::links::Links;
use crate::reconcile::ObjectKey;

use kernel::Kernel;
use layout::Ranges;
use plan::{Elements, Front, NodeInfo, ServiceState};
use table::{Delta, Table};

/// The proxy of this node. Its calls block on the kernel: run them on a blocking thread.
pub struct Proxy {
    node: NodeInfo,
    table: Table,
    kernel: Kernel,
    /// Differences may be applied as they are; otherwise the kernel is read back first.
    trusted: bool,
    /// UDP fronts that changed and whose flows have not been looked through yet.
    unflushed: BTreeSet<Front>,
}

impl Proxy {
    /// Puts the fixed part in place; elements that a former process left keep serving until the
    /// first [`Proxy::sync`].
    pub fn open(ranges: Ranges, node: NodeInfo) -> Result<Self> {
        let kernel = Kernel::open(ranges)?;
        Ok(Self {
            node,
            table: Table::default(),
            kernel,
            trusted: false,
            unflushed: BTreeSet::new(),
        })
    }

    /// The number by which the kernel's notices name our own changes.
    pub fn port(&self) -> Result<u32> {
        self.kernel.port()
    }

    /// The kernel's table may have been changed by somebody: read it back at the next sync.
    pub fn distrust(&mut self) {
        self.trusted = false;
    }

    /// Takes the present state of some Services (`None`: it is gone) and brings the kernel there.
    pub fn sync(&mut self, changed: Vec<(ObjectKey, Option<ServiceState>)>) -> Result<()> {
        let mut delta = Delta::new();
        let services = changed.len();
        for (key, state) in changed {
            let wanted = state.map_or_else(Elements::new, |state| plan::plan(&state, &self.node));
            self.table.set(key, wanted, &mut delta);
        }
        self.unflushed.extend(conntrack::fronts(&delta));
        if self.trusted && delta.is_empty() {
            return Ok(());
        }
        let mut elements = delta.len();
        if self.trusted
            && let Err(error) = self.kernel.apply(&self.table, &delta)
        {
            tracing::warn!("service rules were changed by somebody else: {error}");
            self.trusted = false;
        }
        if !self.trusted {
            elements = self.kernel.resync(&self.table)?;
            self.trusted = true;
        }
        tracing::debug!(services, elements, "service rules changed");
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        if self.unflushed.is_empty() {
            return Ok(());
        }
        let addresses = Links::open()?.addresses()?;
        let local: BTreeSet<Ipv4Addr> = addresses.into_iter().map(|(address, _)| address).collect();
        let flushed = conntrack::flush(&self.unflushed, &self.table, &local)?;
        if flushed > 0 {
            tracing::debug!(flushed, "forgot UDP flows to endpoints that have gone");
        }
        self.unflushed.clear();
        Ok(())
    }
}
