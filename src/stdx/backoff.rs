//! Exponential back-off with a ceiling and jitter.
//!
//! Why jitter: a fleet that retries in step becomes its own outage.

use std::time::Duration;

use rand::Rng;

/// How delays grow.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first delay.
    pub base: Duration,
    /// No delay is longer, jitter aside.
    pub max: Duration,
    /// Up to this fraction is added at random (0.0 for none).
    pub jitter: f64,
}

impl Backoff {
    /// Doubles from `base` to `max`, with a tenth of jitter.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, jitter: 0.1 }
    }

    /// The delay before attempt `failures` (the first failure is 1).
    pub fn delay(&self, failures: u32) -> Duration {
        let plain = self.exact(failures);
        if self.jitter <= 0.0 {
            return plain;
        }
        plain.mul_f64(1.0 + rand::rng().random_range(0.0..self.jitter))
    }

    /// The delay without jitter.
    pub fn exact(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_ceiling() {
        let backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        assert_eq!(backoff.exact(1).as_secs(), 10);
        assert_eq!(backoff.exact(2).as_secs(), 20);
        assert_eq!(backoff.exact(5).as_secs(), 160);
        assert_eq!(backoff.exact(6).as_secs(), 300);
        assert_eq!(backoff.exact(u32::MAX).as_secs(), 300);
        assert!(backoff.delay(1) < Duration::from_millis(11_001));
    }
}
