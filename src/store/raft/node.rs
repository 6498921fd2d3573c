//! The Raft thread: inputs in, one batch and one sync per round, committed entries out.
//!
//! A round takes everything that has arrived, proposes it in few entries, writes what Raft wants
//! written with one sync, and hands on what is committed. What arrives meanwhile is the next round.
//! Nothing is ever proposed off the leader (raft-rs would forward it by itself, without an id), and
//! a read's context is used once (member, term, counter): late answers cannot confirm a later read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use ::raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot};
use ::raft::{RawNode, Ready, SnapshotStatus, StateRole};
use prost::Message as _;
use tokio::sync::oneshot;

use super::storage::{LogStore, decode_members, encode_members};
use super::{Input, Proposal, logger, snapshot};
use crate::store::apply::{Committed, Work};
use crate::store::codec::{Reader, Writer};
use crate::store::command;
use crate::store::config::Config;
use crate::store::disk::{Batch, Disk};
use crate::store::error::Error;
use crate::store::retention::Retention;
use crate::store::shared::{Leadership, Shared};
use crate::store::space::Space;

/// Bytes of transactions after which a group becomes an entry.
const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Most inputs taken before a round goes on to the disk.
const INPUTS_PER_ROUND_MAX: usize = 4096;
/// Bytes of one message of entries to a peer.
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
/// Messages of entries to a peer under way at once.
const INFLIGHT_MESSAGES_MAX: usize = 256;
/// Bytes of committed entries handed on at once.
const COMMITTED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Entries that stay in the log below the flushed index, for followers a little behind.
const LOG_TAIL_ENTRIES: u64 = 1_000;
/// Ticks that a built snapshot is kept for peers that ask.
const SNAPSHOT_TICKS: u64 = 600;

/// Ticks between looks at the figures while the log is short.
const LOOK_TICKS: u64 = 10;
/// How often to look whether traffic is low.
const CALM_TICKS: u64 = 100;
/// Transactions between two looks that still count as low traffic.
const CALM_TXNS_MAX: u64 = 1_000;
/// Unflushed memory that low traffic may keep.
const CALM_MEMORY_BYTES: u64 = 3 * 1024 * 1024;

type ReadWaiters = Vec<oneshot::Sender<Result<u64, Error>>>;

/// Reads that share a question.
struct PendingRead {
    term: u64,
    asked_tick: u64,
    waiters: ReadWaiters,
}

/// The Raft thread's own things.
pub(in crate::store) struct Node {
    raw: RawNode<LogStore>,
    config: Config,
    disk: Arc<Disk>,
    shared: Arc<Shared>,
    work: Sender<Work>,
    inputs: Sender<Input>,
    space: Space,
    retention: Retention,
    /// The number of the next group.
    next_group: u64,
    /// Proposals of this round.
    proposals: Vec<Proposal>,
    /// Reads of this round.
    reads: ReadWaiters,
    /// Reads under way by counter.
    pending_reads: HashMap<u64, PendingRead>,
    next_read: u64,
    ticks: u64,
    /// Transactions applied when calm was last looked for.
    calm_txns: u64,
    /// A flush that was asked for has moved the flushed index to this or beyond once it is done.
    flush_asked: u64,
    snapshot_tick: u64,
    building_snapshot: bool,
    election_term: u64,
}

/// What a node is made of.
pub(in crate::store) struct Parts {
    pub(in crate::store) config: Config,
    pub(in crate::store) disk: Arc<Disk>,
    pub(in crate::store) log: LogStore,
    pub(in crate::store) shared: Arc<Shared>,
    pub(in crate::store) work: Sender<Work>,
    pub(in crate::store) inputs: Sender<Input>,
}

fn raft_error(error: ::raft::Error) -> Error {
    Error::Corrupt(format!("raft: {error}"))
}

impl Node {
    /// Starts Raft where disk and state stand.
    pub(in crate::store) fn new(parts: Parts) -> Result<Self, Error> {
        let Parts { config, disk, log, shared, work, inputs } = parts;
        let raft = ::raft::Config {
            id: config.node_id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: shared.state.load().index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..::raft::Config::default()
        };
        let raw = RawNode::new(&raft, log, &logger::logger()).map_err(raft_error)?;
        let space = Space::new(&config.dir, config.disk_free_bytes_min, config.ballast_bytes);
        let retention = Retention::new(config.history_age_max, config.history_bytes_max);
        Ok(Self {
            raw,
            config,
            disk,
            shared,
            work,
            inputs,
            space,
            retention,
            next_group: 0,
            proposals: Vec::new(),
            reads: Vec::new(),
            pending_reads: HashMap::new(),
            next_read: 0,
            ticks: 0,
            calm_txns: 0,
            flush_asked: 0,
            snapshot_tick: 0,
            building_snapshot: false,
            election_term: u64::MAX,
        })
    }

    /// Runs until told to stop.
    pub(in crate::store) fn run(mut self, inputs: &Receiver<Input>) -> Result<(), Error> {
        if self.is_sole_voter() {
            // Nobody else can lead: no need to wait for a timeout.
            self.raw.campaign().map_err(raft_error)?;
        }
        let mut next_tick = Instant::now() + self.config.tick;
        loop {
            self.round()?;
            let wait = next_tick.saturating_duration_since(Instant::now());
            let mut input = match inputs.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let mut taken = 0;
            while let Some(next) = input.take() {
                if matches!(next, Input::Stop) {
                    return Ok(());
                }
                self.take(next);
                taken += 1;
                if taken < INPUTS_PER_ROUND_MAX {
                    input = inputs.try_recv().ok();
                }
            }
            if Instant::now() >= next_tick {
                // A thread that was held up (a slow disk, a paused machine) ticks once, not for
                // every tick it missed: it must not call an election for its own delay.
                next_tick = Instant::now() + self.config.tick;
                self.tick()?;
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Propose(proposal) => self.proposals.push(proposal),
            Input::Read(waiter) => self.reads.push(waiter),
            Input::Message(message) => {
                if let Err(error) = self.raw.step(*message) {
                    tracing::debug!("a peer's message was refused: {error}");
                }
            }
            Input::Snapshot(built) => {
                self.building_snapshot = false;
                match built {
                    Ok(snapshot) => {
                        self.snapshot_tick = self.ticks;
                        *self.raw.store().snapshot.borrow_mut() = Some(snapshot);
                    }
                    Err(error) => tracing::error!("a snapshot could not be built: {error}"),
                }
            }
            Input::TermApplied | Input::Stop => {}
        }
    }

    fn round(&mut self) -> Result<(), Error> {
        self.propose()?;
        self.ask_reads();
        while self.raw.has_ready() {
            self.on_ready()?;
        }
        self.raw.advance_apply_to(self.shared.state.load().index);
        self.spread_elections();
        self.build_wanted_snapshot()?;
        self.tell_leadership();
        Ok(())
    }

    fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != ::raft::INVALID_ID)
    }

    fn is_sole_voter(&self) -> bool {
        let members = &self.raw.store().members;
        members.voters == [self.config.node_id] && members.voters_outgoing.is_empty()
    }

    fn propose(&mut self) -> Result<(), Error> {
        if self.proposals.is_empty() {
            return Ok(());
        }
        let mut proposals = std::mem::take(&mut self.proposals);
        if !self.is_leader() || self.raw.raft.lead_transferee.is_some() {
            let leader = self.leader();
            for proposal in proposals {
                let _ = proposal.waiter.reply.send(Err(Error::NotLeader { leader }));
            }
            return Ok(());
        }
        let low = self.space.low();
        self.shared.counters.disk_full.store(low.is_some(), Ordering::Relaxed);
        if let Some(free) = low {
            let needed = self.space.needed();
            let (pass, refuse): (Vec<_>, Vec<_>) =
                proposals.into_iter().partition(|proposal| proposal.only_deletes);
            proposals = pass;
            for proposal in refuse {
                let _ = proposal.waiter.reply.send(Err(Error::DiskFull { free, needed }));
            }
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        for proposal in proposals {
            bytes += proposal.bytes.len();
            group.push(proposal);
            if bytes >= ENTRY_BYTES_MAX {
                self.propose_group(std::mem::take(&mut group))?;
                bytes = 0;
            }
        }
        if !group.is_empty() {
            self.propose_group(group)?;
        }
        Ok(())
    }

    /// Proposes one entry; history that is due to go rides along.
    fn propose_group(&mut self, group: Vec<Proposal>) -> Result<(), Error> {
        let compact = self.retention.due(&self.shared.state.load());
        let txns = group.iter().map(|proposal| &proposal.bytes[..]);
        let data = command::encode(&compact, txns);
        let number = self.next_group;
        self.next_group += 1;
        let mut context = Writer::default();
        context.number(self.shared.session);
        context.number(number);
        let waiters = group.into_iter().map(|proposal| proposal.waiter).collect();
        // Before the proposal: the apply thread may be faster than this one.
        self.shared.waiting.lock().insert(number, waiters);
        match self.raw.propose(context.0, data) {
            Ok(()) => Ok(()),
            Err(::raft::Error::ProposalDropped) => {
                let waiters = self.shared.waiting.lock().remove(&number);
                let leader = self.leader();
                for waiter in waiters.into_iter().flatten() {
                    let _ = waiter.reply.send(Err(Error::NotLeader { leader }));
                }
                Ok(())
            }
            Err(error) => Err(raft_error(error)),
        }
    }

    /// All reads of a round share one question.
    fn ask_reads(&mut self) {
        self.reads.retain(|waiter| !waiter.is_closed());
        if self.reads.is_empty() {
            return;
        }
        if self.leader().is_none() || (self.is_leader() && !self.raw.raft.commit_to_current_term())
        {
            // Raft would drop the question without a word; it is asked once there is an answer.
            return;
        }
        let term = self.raw.raft.term;
        let counter = self.next_read;
        self.next_read += 1;
        let mut context = Writer::default();
        context.number(self.config.node_id);
        context.number(self.shared.session);
        context.number(term);
        context.number(counter);
        let waiters = std::mem::take(&mut self.reads);
        let pending = PendingRead { term, asked_tick: self.ticks, waiters };
        self.pending_reads.insert(counter, pending);
        self.raw.read_index(context.0);
    }

    /// A question can get lost without a word (no leader, nothing committed in its term yet, a
    /// message dropped): after an election timeout its readers ask anew, in a context of its own.
    fn ask_again(&mut self) {
        let (now, patience) = (self.ticks, self.config.election_ticks as u64);
        let reads = &mut self.reads;
        self.pending_reads.retain(|_, pending| {
            let lost = now - pending.asked_tick > patience;
            if lost {
                reads.append(&mut pending.waiters);
            }
            !lost
        });
    }

    fn answer_read(&mut self, context: &[u8], index: u64) {
        let mut reader = Reader(context);
        let mut next = || reader.number().unwrap_or(u64::MAX);
        let ours = (self.config.node_id, self.shared.session) == (next(), next());
        let (term, counter) = (next(), next());
        if !ours || self.pending_reads.get(&counter).is_none_or(|pending| pending.term != term) {
            return;
        }
        let waiters = self.pending_reads.remove(&counter).map(|pending| pending.waiters);
        for waiter in waiters.into_iter().flatten() {
            let _ = waiter.send(Ok(index));
        }
    }

    fn on_ready(&mut self) -> Result<(), Error> {
        let mut ready = self.raw.ready();
        if ready.ss().is_some_and(|soft| soft.raft_state != StateRole::Leader) {
            self.shared.sole_voter.store(false, Ordering::SeqCst);
            self.shared.fail_waiting(&Error::Unknown);
            self.retention.forget_proposed();
        }
        self.send(ready.take_messages());
        for read in ready.take_read_states() {
            self.answer_read(&read.request_ctx, read.index);
        }
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            self.install(&snapshot)?;
        }
        let committed = ready.take_committed_entries();
        self.hand_on(committed)?;
        self.persist(&ready)?;
        self.send(ready.take_persisted_messages());
        let mut light = self.raw.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().hard.commit = commit;
        }
        self.send(light.take_messages());
        let committed = light.take_committed_entries();
        self.hand_on(committed)
    }

    /// One batch; one sync where Raft asks for it.
    fn persist(&mut self, ready: &Ready) -> Result<(), Error> {
        if ready.entries().is_empty() && ready.hs().is_none() {
            return Ok(());
        }
        let store = self.raw.mut_store();
        let mut batch = Batch::default();
        if let Some(hard) = ready.hs() {
            store.hard = hard.clone();
        }
        store.append(&mut batch, ready.entries());
        store.add_hard(&mut batch);
        self.disk.write_log(batch, ready.must_sync())?;
        if ready.must_sync() {
            self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = message.to;
            let bytes = message.encode_to_vec();
            let transport = self.config.transport.as_ref();
            let sent = transport.is_some_and(|transport| transport.send(to, bytes));
            if !sent {
                self.raw.report_unreachable(to);
            }
            if message.get_msg_type() == MessageType::MsgSnapshot {
                let status = if sent { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raw.report_snapshot(to, status);
            }
        }
    }

    fn hand_on(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(()) };
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let members = self.change_members(&entry)?;
            let normal = entry.get_entry_type() == EntryType::EntryNormal;
            let mut context = Reader(&entry.context);
            let origin = (normal && !entry.context.is_empty())
                .then(|| context.number().ok().zip(context.number().ok()))
                .flatten();
            let data = if normal { entry.data } else { Vec::new() };
            let (index, term) = (entry.index, entry.term);
            committed.push(Committed { index, term, origin, data, members });
        }
        self.raw.mut_store().trim_cache(last);
        self.work.send(Work::Entries(committed)).map_err(|_| Error::Closed)
    }

    /// Lets Raft know of new members; the encoded result goes into the state.
    fn change_members(&mut self, entry: &Entry) -> Result<Option<bytes::Bytes>, Error> {
        let unreadable = |error: prost::DecodeError| Error::Corrupt(error.to_string());
        let change = match entry.get_entry_type() {
            EntryType::EntryNormal => return Ok(None),
            EntryType::EntryConfChange => {
                let change = ConfChange::decode(&entry.data[..]).map_err(unreadable)?;
                ::raft::eraftpb::ConfChangeV2 {
                    changes: vec![::raft::eraftpb::ConfChangeSingle {
                        change_type: change.change_type,
                        node_id: change.node_id,
                    }],
                    context: change.context,
                    ..ConfChangeV2::default()
                }
            }
            EntryType::EntryConfChangeV2 => {
                ConfChangeV2::decode(&entry.data[..]).map_err(unreadable)?
            }
        };
        // Before others can vote: from here on a read must ask them.
        self.shared.sole_voter.store(false, Ordering::SeqCst);
        let members = self.raw.apply_conf_change(&change).map_err(raft_error)?;
        let encoded = encode_members(&members);
        self.raw.mut_store().members = members;
        Ok(Some(encoded.into()))
    }

    fn tick(&mut self) -> Result<(), Error> {
        self.ticks += 1;
        self.raw.tick();
        self.ask_again();
        let low = self.space.low();
        self.shared.counters.disk_full.store(low.is_some(), Ordering::Relaxed);
        if self.is_leader() {
            let state = self.shared.state.load_full();
            self.retention.sample(&state);
            if self.retention.is_due(&state) {
                self.propose_group(Vec::new())?;
            }
        }
        self.flush_when_calm()?;
        if self.ticks - self.snapshot_tick > SNAPSHOT_TICKS {
            self.raw.store().snapshot.borrow_mut().take();
        }
        self.cut_log()
    }

    /// Lets go of memtables that little traffic has filled slowly: an idle store stays small, and
    /// its next start reads a short log.
    fn flush_when_calm(&mut self) -> Result<(), Error> {
        if !self.ticks.is_multiple_of(CALM_TICKS) {
            return Ok(());
        }
        let txns = self.shared.counters.txns.load(Ordering::Relaxed);
        let calm = txns - self.calm_txns < CALM_TXNS_MAX;
        self.calm_txns = txns;
        if calm && self.disk.memory_bytes() > CALM_MEMORY_BYTES {
            self.disk.start_state_flush()?;
            self.disk.start_log_flush()?;
        }
        Ok(())
    }

    /// Cuts the log below what is flushed; asks for a flush where too little is.
    fn cut_log(&mut self) -> Result<(), Error> {
        let store = self.raw.store();
        let entries = store.last() + 1 - store.first();
        let long =
            entries > self.config.log_entries_max || store.bytes() > self.config.log_bytes_max;
        if !long && !self.ticks.is_multiple_of(LOOK_TICKS) {
            return Ok(());
        }
        let flushed = self.disk.flushed_index()?;
        let counters = &self.shared.counters;
        counters.flushed_index.store(flushed, Ordering::Relaxed);
        counters.log_first_index.store(store.first(), Ordering::Relaxed);
        counters.log_bytes.store(store.bytes(), Ordering::Relaxed);
        counters.disk_memory_bytes.store(self.disk.memory_bytes(), Ordering::Relaxed);
        if !long {
            return Ok(());
        }
        let tail = LOG_TAIL_ENTRIES.min(self.config.log_entries_max / 2);
        let keep_from = store.tail(tail, self.config.log_bytes_max / 2).min(flushed + 1);
        // Full memtables are flushed by themselves. Many small entries may fill the log before: one
        // flush, and no other until it is done, or small files pile up faster than they merge.
        let far =
            entries > self.config.log_entries_max || store.bytes() > self.config.log_bytes_max * 2;
        let unflushed = store.last().saturating_sub(flushed);
        let due = far && unflushed > entries / 2 && flushed >= self.flush_asked;
        if due && self.disk.start_state_flush()? {
            self.flush_asked = flushed + 1;
        }
        if keep_from > store.first() {
            self.raw.mut_store().cut(keep_from - 1)?;
        }
        Ok(())
    }

    /// Election timeouts from member, term and session instead of raft-rs' thread-local random
    /// source: spread over one to two timeouts, and a simulation that sets the session replays.
    fn spread_elections(&mut self) {
        let term = self.raw.raft.term;
        if term == self.election_term {
            return;
        }
        self.election_term = term;
        let mut seed = Writer::default();
        seed.number(self.config.node_id);
        seed.number(self.shared.session);
        seed.number(term);
        let spread = u64::from(crc32fast::hash(&seed.0)) % self.config.election_ticks as u64;
        let ticks = self.config.election_ticks + spread as usize;
        self.raw.raft.set_randomized_election_timeout(ticks);
    }

    fn tell_leadership(&mut self) {
        let raft = &self.raw.raft;
        let caught_up = self.shared.state.load().term == raft.term;
        let is_self = self.is_leader() && raft.commit_to_current_term() && caught_up;
        let now = Leadership { leader_id: self.leader(), term: raft.term, is_self };
        self.shared.sole_voter.store(is_self && self.is_sole_voter(), Ordering::SeqCst);
        self.shared.leadership.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    }

    fn build_wanted_snapshot(&mut self) -> Result<(), Error> {
        let Some(needed) = self.raw.store().snapshot_wanted.take() else { return Ok(()) };
        let state = self.shared.state.load_full();
        if self.building_snapshot || state.index < needed {
            return Ok(());
        }
        self.building_snapshot = true;
        let inputs = self.inputs.clone();
        let build = move || {
            let _ = inputs.send(Input::Snapshot(snapshot::build(&state)));
        };
        let builder = std::thread::Builder::new().name("store-snapshot".to_owned());
        let started = builder.spawn(build).map_err(|error| Error::Disk(error.to_string()))?;
        drop(started);
        Ok(())
    }

    /// Replaces the state by a leader's snapshot, after everything before it, then the log.
    fn install(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let state = Box::new(snapshot::read(snapshot)?);
        let position = (state.index, state.term);
        let members = decode_members(&state.members)?;
        self.raw.store().announce_install(position)?;
        let (done, installed) = channel();
        self.work.send(Work::Install { state, done }).map_err(|_| Error::Closed)?;
        installed.recv().map_err(|_| Error::Closed)?;
        self.raw.mut_store().restart_behind(position, members)
    }
}
