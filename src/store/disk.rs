//! The only file that knows RocksDB: rows in, rows out, one sync per Raft batch.
//!
//! Two databases. The *log*'s rows go through a WAL with a sync; they are the only write-ahead log.
//! The *state*'s rows go without one and reach the disk when a memtable is flushed, all column
//! families together (atomic flush), so the state on disk is always the state after *one* log
//! entry, named by its position row; the log may be cut below that entry and nowhere else
//! ([`Disk::flushed_index`]). Why two: writes of one database queue behind its sync, and a flush of
//! the state would write log rows that are about to be cut; in a memtable of their own most die
//! there. Why tolerate-corrupted-tail: RocksDB's default recovery stops silently at the first bad
//! record, which would lose acknowledged entries behind it; this mode forgives only a torn end (and
//! rules out recycled log files).

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode,
    DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, FlushOptions, IteratorMode, LogLevel, Options,
    ReadOptions, ReadTier, WriteBatch, WriteOptions,
};

use super::error::Error;
use super::rows::{Loader, POSITION_KEY, Row, Table, position_index};

/// Memory of the log's unflushed rows: twice the log's usual bound, so that most rows are cut
/// before they would be flushed.
const LOG_MEMTABLE_BYTES: usize = 16 * 1024 * 1024;
/// Memory of one of the state's column families.
const MEMTABLE_BYTES: usize = 8 * 1024 * 1024;
/// Memory of all of the state's unflushed rows: all are flushed at it.
const MEMTABLES_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Steps in which a memtable takes memory: small, so an idle store stays small.
const ARENA_BLOCK_BYTES: usize = 128 * 1024;
/// The block cache: reads come from memory of our own, so it serves start-up and compaction only.
const BLOCK_CACHE_BYTES: usize = 1024 * 1024;
/// Files that RocksDB keeps open, per database.
const OPEN_FILES_MAX: i32 = 32;
/// Threads for flush and compaction, shared by both databases.
const BACKGROUND_JOBS: i32 = 2;

const LOG_DIR: &str = "log";
const STATE_DIR: &str = "state";
const TABLES: [Table; 3] = [Table::State, Table::History, Table::Meta];

/// An open directory.
pub(super) struct Disk {
    log: DB,
    state: DB,
    cache: Cache,
}

/// Rows of one database that reach the disk together.
#[derive(Default)]
pub(super) struct Batch(WriteBatch);

fn failed(error: rocksdb::Error) -> Error {
    Error::Disk(error.into_string())
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::State => "state",
        Table::History => "history",
        Table::Meta => "meta",
    }
}

/// A flush that was asked for at a time when writes are held up anyway is no failure.
fn started(flush: Result<(), rocksdb::Error>) -> Result<bool, Error> {
    match flush {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::TryAgain => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_paranoid_checks(true);
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
    options
}

fn family_options(cache: &Cache, memtable_bytes: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_write_buffer_size(memtable_bytes);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_max_write_buffer_number(3);
    options.set_target_file_size_base(MEMTABLE_BYTES as u64);
    options.set_block_based_table_factory(&table);
    options
}

fn open(
    dir: &Path,
    options: &Options,
    mut families: Vec<ColumnFamilyDescriptor>,
) -> Result<DB, Error> {
    if families.iter().all(|family| family.name() != DEFAULT_COLUMN_FAMILY_NAME) {
        families.push(ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, Options::default()));
    }
    DB::open_cf_descriptors(options, dir, families).map_err(|error| {
        let text = error.to_string();
        let locked = text.contains("lock hold by") || text.contains("While lock file");
        if locked { Error::Locked(dir.to_owned()) } else { failed(error) }
    })
}

fn scan(
    rows: impl Iterator<Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>>,
    mut row: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    for found in rows {
        let (key, value) = found.map_err(failed)?;
        row(&key, &value)?;
    }
    Ok(())
}

/// For reading everything once.
fn bulk() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options
}

impl Disk {
    /// Opens or makes both databases in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let log = family_options(&cache, LOG_MEMTABLE_BYTES);
        let log = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, log);
        let log = open(&dir.join(LOG_DIR), &options(), vec![log])?;
        let mut state = options();
        state.set_atomic_flush(true);
        state.set_db_write_buffer_size(MEMTABLES_BYTES_MAX);
        let families = TABLES.map(|table| {
            let options = family_options(&cache, MEMTABLE_BYTES);
            ColumnFamilyDescriptor::new(table_name(table), options)
        });
        let state = open(&dir.join(STATE_DIR), &state, families.into())?;
        Ok(Self { log, state, cache })
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        // Made by `open`; a missing one is a broken build, not a broken disk.
        self.state.cf_handle(table_name(table)).expect("column family")
    }

    /// Adds a row of the state to a batch.
    pub(super) fn add(&self, batch: &mut Batch, row: Row) {
        match row {
            Row::Put(table, key, value) => batch.0.put_cf(self.family(table), key, value),
            Row::Delete(table, key) => batch.0.delete_cf(self.family(table), key),
            Row::DeleteRange(table, from, to) => {
                batch.0.delete_range_cf(self.family(table), from, to);
            }
        }
    }

    /// Adds the removal of every row of the state.
    pub(super) fn add_clear(&self, batch: &mut Batch) {
        for table in TABLES {
            self.add(batch, Row::DeleteRange(table, Vec::new(), [u8::MAX; 4].to_vec()));
        }
    }

    /// Writes rows of the state; they reach the disk with the next flush.
    pub(super) fn write_state(&self, batch: Batch) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.state.write_opt(batch.0, &options).map_err(failed)
    }

    /// Adds a row of the log.
    pub(super) fn add_log(&self, batch: &mut Batch, key: &[u8], value: &[u8]) {
        batch.0.put(key, value);
    }

    /// Adds the removal of log rows from one key to before another.
    pub(super) fn cut_log(&self, batch: &mut Batch, from: &[u8], to: &[u8]) {
        batch.0.delete_range(from, to);
    }

    /// Writes rows of the log; with `sync` they are on disk when this returns. An error here must
    /// end the process: after a failed sync the kernel may have dropped the pages.
    pub(super) fn write_log(&self, batch: Batch, sync: bool) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.log.write_opt(batch.0, &options).map_err(failed)
    }

    /// The last log entry whose effects have been flushed with the state.
    pub(super) fn flushed_index(&self) -> Result<u64, Error> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        let meta = self.family(Table::Meta);
        let row = self.state.get_pinned_cf_opt(meta, POSITION_KEY, &options);
        row.map_err(failed)?.map_or(Ok(0), |row| position_index(&row))
    }

    /// Flushes the state and waits for it.
    pub(super) fn flush_state(&self) -> Result<(), Error> {
        self.flush_families(true).map_err(failed)
    }

    /// Starts a flush of the state; false where RocksDB is behind with flushes as it is.
    pub(super) fn start_state_flush(&self) -> Result<bool, Error> {
        started(self.flush_families(false))
    }

    fn flush_families(&self, wait: bool) -> Result<(), rocksdb::Error> {
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        let [state, history, meta] = TABLES.map(|table| self.family(table));
        self.state.flush_cfs_opt(&[&state, &history, &meta], &options)
    }

    /// Starts a flush of the log's rows: less memory, a shorter WAL to read at start.
    pub(super) fn start_log_flush(&self) -> Result<bool, Error> {
        let mut options = FlushOptions::default();
        options.set_wait(false);
        started(self.log.flush_opt(&options))
    }

    /// Reads every row of the state.
    pub(super) fn load(&self, loader: &mut Loader) -> Result<(), Error> {
        for table in TABLES {
            let rows = self.state.iterator_cf_opt(self.family(table), bulk(), IteratorMode::Start);
            scan(rows, |key, value| loader.row(table, key, value))?;
        }
        Ok(())
    }

    /// Reads every row of the log.
    pub(super) fn load_log(
        &self,
        row: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        scan(self.log.iterator_opt(IteratorMode::Start, bulk()), row)
    }

    /// One row of the log.
    pub(super) fn log_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.log.get(key).map_err(failed)
    }

    /// Memory that RocksDB holds for unflushed rows and blocks.
    pub(super) fn memory_bytes(&self) -> u64 {
        const MEMTABLES: &str = "rocksdb.cur-size-all-mem-tables";
        let log = self.log.property_int_value(MEMTABLES);
        let state =
            TABLES.map(|table| self.state.property_int_value_cf(self.family(table), MEMTABLES));
        let known = state.into_iter().chain([log]).filter_map(|size| size.ok().flatten());
        known.sum::<u64>() + self.cache.get_usage() as u64
    }
}
