//! Free space: refuses writes while something is left, and keeps a ballast to give back.
//!
//! Why: a database that meets ENOSPC in its log must stop, since it cannot know what the disk kept.
//! Refusing proposals above a watermark keeps that from happening; if the disk fills all the same
//! (another program's doing), the ballast is given back so that flushes under way can end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, Mode, OFlags};

/// How often free space is looked at under load.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The file of no use.
const BALLAST_FILE: &str = "ballast";

/// Watches the free space under a directory.
pub(super) struct Space {
    dir: PathBuf,
    /// Bytes below which writes are refused.
    min: u64,
    ballast_bytes: u64,
    ballast: bool,
    looked: Option<Instant>,
    /// Bytes free when writes are refused.
    low: Option<u64>,
}

/// What to do at so many free bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Plan {
    refuse: bool,
    ballast: bool,
}

/// Refuse below the minimum, accept again a quarter above it; give the ballast back below a
/// quarter of the minimum, take it again when both fit.
fn plan(free: u64, min: u64, ballast_bytes: u64, now: Plan) -> Plan {
    let resume = min.saturating_add(min / 4);
    let refuse = free < if now.refuse { resume } else { min };
    let ballast = match now.ballast {
        true => free >= min / 4,
        false => free >= resume.saturating_add(ballast_bytes),
    };
    Plan { refuse, ballast: ballast && ballast_bytes > 0 }
}

impl Space {
    /// Watches `dir`; the ballast is made at the first look that has room for it.
    pub(super) fn new(dir: &Path, min: u64, ballast_bytes: u64) -> Self {
        let ballast = dir.join(BALLAST_FILE).exists();
        Self { dir: dir.to_owned(), min, ballast_bytes, ballast, looked: None, low: None }
    }

    /// The least that must be free.
    pub(super) fn needed(&self) -> u64 {
        self.min
    }

    /// The bytes free if writes must be refused now.
    pub(super) fn low(&mut self) -> Option<u64> {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL) {
            self.looked = Some(Instant::now());
            self.look();
        }
        self.low
    }

    fn look(&mut self) {
        let free = match rustix::fs::statvfs(&self.dir) {
            Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
            Err(error) => {
                tracing::warn!("cannot read the free space of {}: {error}", self.dir.display());
                return;
            }
        };
        let now = Plan { refuse: self.low.is_some(), ballast: self.ballast };
        let next = plan(free, self.min, self.ballast_bytes, now);
        if next.refuse != now.refuse {
            let needed = self.min;
            match next.refuse {
                true => tracing::error!(free, needed, "disk nearly full: writes are refused"),
                false => tracing::info!(free, "the disk has room again: writes are accepted"),
            }
        }
        self.low = next.refuse.then_some(free);
        if next.ballast != now.ballast {
            let changed = if next.ballast { self.take() } else { self.give_back() };
            match changed {
                Ok(()) => self.ballast = next.ballast,
                Err(error) => tracing::warn!("ballast file: {error}"),
            }
        }
    }

    fn take(&self) -> rustix::io::Result<()> {
        let path = self.dir.join(BALLAST_FILE);
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.ballast_bytes) {
            // A file system that cannot reserve: the watermark has to do.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    fn give_back(&self) -> rustix::io::Result<()> {
        match rustix::fs::unlink(self.dir.join(BALLAST_FILE)) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusing_and_ballast_have_a_gap_between_their_edges() {
        let calm = Plan { refuse: false, ballast: true };
        let plan = |free, now| plan(free, 1_000, 500, now);
        assert_eq!(plan(1_000, calm), calm);
        let refusing = Plan { refuse: true, ballast: true };
        assert_eq!(plan(999, calm), refusing);
        assert_eq!(plan(1_249, refusing), refusing);
        assert_eq!(plan(1_250, refusing), calm);
        let bare = Plan { refuse: true, ballast: false };
        assert_eq!(plan(249, refusing), bare);
        assert_eq!(plan(1_249, bare), bare);
        assert_eq!(plan(1_749, bare), Plan { refuse: false, ballast: false });
        assert_eq!(plan(1_750, bare), calm);
    }
}
