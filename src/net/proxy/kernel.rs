//! Brings the table in the kernel to what the plan wants, in one transaction each time.
//!
//! Why a difference also at the start: the rules of a former process keep working until then and
//! connections keep their endpoints (the affinity map is never touched). Only another layout or
//! another range replaces the table, and even then in one transaction.

use std::collections::BTreeSet;

use super::layout::{self, Pick, Ranges, Set};
use super::plan::{Elements, Value};
use super::table::{self, Delta, Table};
use crate::net::netlink::{Result, Socket};
use crate::net::nft::{self, TABLE, Transaction};

/// The kernel's side. It opens its socket in the network namespace of the thread that made it.
pub struct Kernel {
    socket: Socket,
    ranges: Ranges,
    /// The chains that are there.
    picks: BTreeSet<Pick>,
}

impl Kernel {
    /// Makes sure that the fixed part is there, and with it the guards. What elements a former
    /// process left stay.
    pub fn open(ranges: Ranges) -> Result<Self> {
        let mut kernel = Self { socket: Socket::open()?, ranges, picks: BTreeSet::new() };
        if !kernel.read_chains()? {
            kernel.replace()?;
        }
        Ok(kernel)
    }

    /// The number by which notices name our own transactions.
    pub fn port(&self) -> Result<u32> {
        self.socket.port()
    }

    /// Applies a difference. The caller reads back and tries again when this fails: somebody
    /// changed the table.
    pub fn apply(&mut self, table: &Table, delta: &Delta) -> Result<()> {
        let wanted = table.picks();
        let mut transaction = Transaction::on(TABLE);
        for pick in wanted.difference(&self.picks) {
            layout::add_pick(&mut transaction, *pick);
        }
        table::write(&mut transaction, delta);
        for pick in self.picks.difference(&wanted) {
            transaction.delete_chain(&pick.to_string());
        }
        transaction.commit(&mut self.socket, "change service rules")?;
        self.picks = wanted;
        Ok(())
    }

    /// Compares the kernel with the plan in full and mends it; how many elements differed.
    pub fn resync(&mut self, table: &Table) -> Result<usize> {
        if !self.read_chains()? {
            tracing::info!("the table `ip {TABLE}` is missing or of another layout: made anew");
            self.replace()?;
        }
        let delta = table.difference(&self.read_elements()?);
        self.apply(table, &delta)?;
        Ok(delta.len())
    }

    /// All elements that are there.
    pub fn read_elements(&mut self) -> Result<Elements> {
        let mut found = Elements::new();
        for set in Set::ALL {
            for (key, data) in nft::elements(&mut self.socket, TABLE, set.name())? {
                found.insert((set, key), Value::from_data(&data));
            }
        }
        Ok(found)
    }

    /// Notes which chains there are; whether the table is one of ours as it should be.
    fn read_chains(&mut self) -> Result<bool> {
        let chains = nft::chains(&mut self.socket, TABLE)?;
        self.picks = chains.iter().filter_map(|chain| chain.parse().ok()).collect();
        Ok(chains.contains(&self.ranges.layout_chain()))
    }

    fn replace(&mut self) -> Result<()> {
        let mut transaction = Transaction::on(TABLE);
        layout::replace(&mut transaction, &self.ranges);
        transaction.commit(&mut self.socket, "make the table `ip clusterd`")?;
        self.picks.clear();
        Ok(())
    }
}

/// Removes the table; whether there was one.
pub fn remove() -> Result<bool> {
    let mut socket = Socket::open()?;
    if !exists(&mut socket)? {
        return Ok(false);
    }
    let mut transaction = Transaction::on(TABLE);
    transaction.delete_table();
    transaction.commit(&mut socket, "remove the table `ip clusterd`")?;
    Ok(true)
}

/// Whether the table is there.
pub fn exists(socket: &mut Socket) -> Result<bool> {
    Ok(nft::tables(socket)?.iter().any(|table| table == TABLE))
}
