//! What readers hold: one keyspace as it was after one revision, unchanging and shared.
//!
//! Why not read from RocksDB: a view is two pointers into the applied state, so a list, a watch's
//! first page and a controller's cache all look at the same memory, without a lock.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::txn::{Entry, KeyRange};

/// A keyspace at one revision. Clones are cheap.
#[derive(Clone)]
pub struct View {
    pub(super) revision: u64,
    pub(super) map: OrdMap<Bytes, Arc<Entry>>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.map.len();
        f.debug_struct("View").field("revision", &self.revision).field("keys", &keys).finish()
    }
}

impl View {
    /// The revision that this is the state of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One key.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.map.get(key).cloned()
    }

    /// Entries in key order; those after `start_after` where a page goes on.
    pub fn range<'a>(
        &'a self,
        range: &'a KeyRange,
        start_after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = Arc<Entry>> + 'a {
        self.entries(range, start_after).cloned()
    }

    /// How many keys the range holds.
    pub fn count(&self, range: &KeyRange, start_after: Option<&[u8]>) -> usize {
        let everything = range.start.is_empty() && range.end.is_none() && start_after.is_none();
        if everything { self.map.len() } else { self.entries(range, start_after).count() }
    }

    fn entries<'a>(
        &'a self,
        range: &'a KeyRange,
        start_after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let (mut lower, upper) = range.bounds();
        if let Some(after) = start_after.filter(|after| *after >= &range.start[..]) {
            lower = Bound::Excluded(after);
        }
        // The map's range panics on bounds that cross; a page token may well lie behind the end.
        let crossed = range.is_empty()
            || matches!((lower, upper), (Bound::Excluded(from), Bound::Excluded(to)) if from >= to);
        let found = (!crossed).then(|| self.map.range::<_, [u8]>((lower, upper)));
        found.into_iter().flatten().map(|(_, entry)| entry)
    }
}
