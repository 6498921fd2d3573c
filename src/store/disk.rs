//! The only file that knows RocksDB: rows in, rows out, one sync per Raft batch.
//!
//! The Raft log is the only write-ahead log. Its rows go through RocksDB's WAL with a sync; rows of
//! the state go without, and reach the disk when a memtable is flushed. All column families flush
//! together (atomic flush), so the state on disk is always the state after *one* log entry, named
//! by its position row; the log may be cut below that entry and nowhere else
//! ([`Disk::flushed_index`]). Why tolerate-corrupted-tail: RocksDB's default recovery stops
//! silently at the first bad record, which would lose acknowledged entries behind it; this mode
//! forgives only a torn end (and rules out recycled log files).

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode,
    FlushOptions, IteratorMode, LogLevel, Options, ReadOptions, ReadTier, WriteBatch, WriteOptions,
};

use super::error::Error;
use super::rows::{Loader, POSITION_KEY, Row, Table, position_index};

/// Memory of one column family's unflushed rows.
const MEMTABLE_BYTES: usize = 8 * 1024 * 1024;
/// Memory of all unflushed rows: all families are flushed at it.
const MEMTABLES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Steps in which a memtable takes memory: small, so an idle store stays small.
const ARENA_BLOCK_BYTES: usize = 128 * 1024;
/// The block cache: reads come from memory of our own, so it serves start-up and compaction only.
const BLOCK_CACHE_BYTES: usize = 1024 * 1024;
/// Bytes of WAL at which everything is flushed.
const WAL_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Files that RocksDB keeps open.
const OPEN_FILES_MAX: i32 = 64;
/// Threads for flush and compaction.
const BACKGROUND_JOBS: i32 = 2;

const LOG: &str = "log";
const STATE: &str = "state";
const HISTORY: &str = "history";
const META: &str = "meta";

/// An open directory.
pub(super) struct Disk {
    db: DB,
    cache: Cache,
}

/// Rows that reach the disk together.
#[derive(Default)]
pub(super) struct Batch(WriteBatch);

fn failed(error: rocksdb::Error) -> Error {
    Error::Disk(error.into_string())
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::State => STATE,
        Table::History => HISTORY,
        Table::Meta => META,
    }
}

impl Disk {
    /// Opens or makes the database in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_atomic_flush(true);
        options.set_db_write_buffer_size(MEMTABLES_BYTES_MAX);
        options.set_paranoid_checks(true);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_max_file_opening_threads(1);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1024 * 1024);
        options.set_skip_stats_update_on_db_open(true);
        options.set_max_manifest_file_size(4 * 1024 * 1024);
        let families = [LOG, STATE, HISTORY, META]
            .map(|name| ColumnFamilyDescriptor::new(name, Self::family_options(&cache)));
        let db = DB::open_cf_descriptors(&options, dir, families).map_err(|error| {
            let text = error.to_string();
            let locked = text.contains("lock hold by") || text.contains("While lock file");
            if locked { Error::Locked(dir.to_owned()) } else { failed(error) }
        })?;
        Ok(Self { db, cache })
    }

    fn family_options(cache: &Cache) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_cache_index_and_filter_blocks(true);
        let mut options = Options::default();
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_arena_block_size(ARENA_BLOCK_BYTES);
        options.set_max_write_buffer_number(3);
        options.set_target_file_size_base(MEMTABLE_BYTES as u64);
        options.set_block_based_table_factory(&table);
        options
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        // Made by `open`; a missing one is a broken build, not a broken disk.
        self.db.cf_handle(name).expect("column family")
    }

    /// Adds a row of the state to a batch.
    pub(super) fn add(&self, batch: &mut Batch, row: Row) {
        match row {
            Row::Put(table, key, value) => {
                batch.0.put_cf(self.family(table_name(table)), key, value);
            }
            Row::Delete(table, key) => batch.0.delete_cf(self.family(table_name(table)), key),
            Row::DeleteRange(table, from, to) => {
                batch.0.delete_range_cf(self.family(table_name(table)), from, to);
            }
        }
    }

    /// Adds the removal of every row of the state.
    pub(super) fn add_clear(&self, batch: &mut Batch) {
        for table in [Table::State, Table::History, Table::Meta] {
            let to = [u8::MAX; 4].to_vec();
            self.add(batch, Row::DeleteRange(table, Vec::new(), to));
        }
    }

    /// Adds a row of the log.
    pub(super) fn add_log(&self, batch: &mut Batch, key: &[u8], value: &[u8]) {
        batch.0.put_cf(self.family(LOG), key, value);
    }

    /// Adds the removal of log rows from one key to before another.
    pub(super) fn cut_log(&self, batch: &mut Batch, from: &[u8], to: &[u8]) {
        batch.0.delete_range_cf(self.family(LOG), from, to);
    }

    /// Writes rows of the state without a WAL: the Raft log is theirs.
    pub(super) fn write_state(&self, batch: Batch) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch.0, &options).map_err(failed)
    }

    /// Writes rows through the WAL; with `sync` they are on disk when this returns. An error here
    /// must end the process: after a failed sync the kernel may have dropped the pages.
    pub(super) fn write_log(&self, batch: Batch, sync: bool) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch.0, &options).map_err(failed)
    }

    /// The last log entry whose effects have been flushed with the state.
    pub(super) fn flushed_index(&self) -> Result<u64, Error> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        let row = self.db.get_pinned_cf_opt(self.family(META), POSITION_KEY, &options);
        row.map_err(failed)?.map_or(Ok(0), |row| position_index(&row))
    }

    /// Flushes everything; without `wait` it goes on in the background.
    pub(super) fn flush(&self, wait: bool) -> Result<(), Error> {
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        let families = [LOG, STATE, HISTORY, META].map(|name| self.family(name));
        self.db
            .flush_cfs_opt(&[&families[0], &families[1], &families[2], &families[3]], &options)
            .map_err(failed)
    }

    /// Reads every row of the state.
    pub(super) fn load(&self, loader: &mut Loader) -> Result<(), Error> {
        for table in [Table::State, Table::History, Table::Meta] {
            self.scan(table_name(table), |key, value| loader.row(table, key, value))?;
        }
        Ok(())
    }

    /// Reads every row of the log.
    pub(super) fn load_log(
        &self,
        row: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.scan(LOG, row)
    }

    fn scan(
        &self,
        name: &str,
        mut row: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for found in self.db.iterator_cf_opt(self.family(name), options, IteratorMode::Start) {
            let (key, value) = found.map_err(failed)?;
            row(&key, &value)?;
        }
        Ok(())
    }

    /// One row of the log.
    pub(super) fn log_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.db.get_cf(self.family(LOG), key).map_err(failed)
    }

    /// Memory that RocksDB holds for unflushed rows and blocks.
    pub(super) fn memory_bytes(&self) -> u64 {
        let memtables = [LOG, STATE, HISTORY, META].iter().filter_map(|name| {
            let family = self.family(name);
            let size = self.db.property_int_value_cf(family, "rocksdb.cur-size-all-mem-tables");
            size.ok().flatten()
        });
        memtables.sum::<u64>() + self.cache.get_usage() as u64
    }
}
