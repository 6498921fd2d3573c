//! Seats: how many requests run at once.
//!
//! Why two kinds: reads must not be starved by writes that wait for the disk, nor the other way
//! round. Long-running requests (watches, streams) take none: they are bounded where they live.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::object::status::{Result, Status};

/// Reads at once (upstream's `--max-requests-inflight`); more is a 429.
pub const READS_MAX: usize = 400;
/// Writes at once (upstream's `--max-mutating-requests-inflight`); more is a 429.
pub const WRITES_MAX: usize = 200;
/// What a client that was turned away is told to wait, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The seats of a server.
pub struct Seats {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Default for Seats {
    fn default() -> Self {
        let seats = |count| Arc::new(Semaphore::new(count));
        Self { reads: seats(READS_MAX), writes: seats(WRITES_MAX) }
    }
}

impl Seats {
    /// Takes a seat for as long as the permit lives, or says 429.
    pub fn take(&self, reads: bool) -> Result<OwnedSemaphorePermit> {
        let seats = if reads { &self.reads } else { &self.writes };
        seats.clone().try_acquire_owned().map_err(|_| {
            Status::too_many_requests(
                "Too many requests, please try again later.",
                RETRY_AFTER_SECONDS,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_says_429_and_a_seat_comes_back() {
        let seats = Seats::default();
        let mut taken: Vec<_> = (0..WRITES_MAX).map(|_| seats.take(false).unwrap()).collect();
        assert_eq!(seats.take(false).unwrap_err().code, 429);
        assert!(seats.take(true).is_ok());
        taken.pop();
        assert!(seats.take(false).is_ok());
    }
}
