//! Restart strategies as pure decisions: a failure in, a delay or a refusal out.

use std::{
    collections::{VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    time::Duration,
};

use tidemill_types::config::{Config, RestartStrategyKind, keys};

use crate::clock::millis;

/// What to do about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RestartDecision {
    /// Try again after this many milliseconds.
    After(i64),
    /// Give up; the text says why no further attempt is made.
    GiveUp(String),
}

/// How a job is restarted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RestartStrategy {
    /// Never.
    None,
    /// A number of times (or without end), with a fixed delay.
    FixedDelay {
        /// How often; none: without end.
        attempts: Option<u32>,
        /// The delay.
        delay_ms: i64,
    },
    /// With a delay that grows by each failure and is reset by a quiet time.
    ExponentialDelay {
        /// The first delay.
        initial_ms: i64,
        /// The longest delay.
        max_ms: i64,
        /// By how much the delay grows.
        multiplier: f64,
        /// After so long without failure the delay is the first one again.
        reset_ms: i64,
        /// How much of the delay is random.
        jitter: f64,
        /// How often in a row; none: without end.
        attempts: Option<u32>,
    },
    /// As long as there are few failures in a time.
    FailureRate {
        /// How many are borne within the interval.
        max_failures: u32,
        /// The interval.
        interval_ms: i64,
        /// The delay.
        delay_ms: i64,
    },
}

impl RestartStrategy {
    /// The strategy that a job's settings ask for. Unset: exponential delay for jobs with
    /// checkpoints, none for others.
    pub(crate) fn from_config(config: &Config) -> Self {
        let checkpointing = config.get(&keys::CHECKPOINT_INTERVAL_OPTIONAL).is_some();
        let kind = config
            .get(&keys::RESTART_STRATEGY)
            .unwrap_or(if checkpointing {
                RestartStrategyKind::ExponentialDelay
            } else {
                RestartStrategyKind::None
            });
        match kind {
            RestartStrategyKind::None => Self::None,
            RestartStrategyKind::FixedDelay => Self::FixedDelay {
                attempts: config.get(&keys::RESTART_ATTEMPTS),
                delay_ms: millis(config.get(&keys::RESTART_DELAY)),
            },
            RestartStrategyKind::ExponentialDelay => Self::ExponentialDelay {
                initial_ms: millis(config.get(&keys::RESTART_INITIAL_BACKOFF)),
                max_ms: millis(config.get(&keys::RESTART_MAX_BACKOFF)),
                multiplier: config.get(&keys::RESTART_BACKOFF_MULTIPLIER).max(1.0),
                reset_ms: millis(config.get(&keys::RESTART_RESET_BACKOFF_THRESHOLD)),
                jitter: config.get(&keys::RESTART_JITTER_FACTOR).clamp(0.0, 1.0),
                attempts: config.get(&keys::RESTART_ATTEMPTS_BEFORE_RESET),
            },
            RestartStrategyKind::FailureRate => Self::FailureRate {
                max_failures: config.get(&keys::RESTART_MAX_FAILURES_PER_INTERVAL),
                interval_ms: millis(config.get(&keys::RESTART_FAILURE_RATE_INTERVAL)),
                delay_ms: millis(config.get(&keys::RESTART_FAILURE_RATE_DELAY)),
            },
        }
    }

    /// In words, for the job's configuration page.
    pub(crate) fn describe(&self) -> String {
        let text = |ms: i64| {
            format!(
                "{:?}",
                Duration::from_millis(u64::try_from(ms).unwrap_or(0))
            )
        };
        match self {
            Self::None => "Restart deactivated.".to_owned(),
            Self::FixedDelay { attempts, delay_ms } => {
                let attempts =
                    attempts.map_or_else(|| "without end".into(), |n| format!("{n} times"));
                format!(
                    "Restart with fixed delay ({}), {attempts}.",
                    text(*delay_ms)
                )
            }
            Self::ExponentialDelay {
                initial_ms,
                max_ms,
                multiplier,
                ..
            } => format!(
                "Restart with exponential delay: starting at {}, increasing by {multiplier}, at most {}.",
                text(*initial_ms),
                text(*max_ms)
            ),
            Self::FailureRate {
                max_failures,
                interval_ms,
                delay_ms,
            } => format!(
                "Restart with delay of {}, at most {max_failures} failures in {}.",
                text(*delay_ms),
                text(*interval_ms)
            ),
        }
    }
}

/// A strategy and what it remembers of earlier failures.
#[derive(Debug, Clone)]
pub(crate) struct RestartPolicy {
    strategy: RestartStrategy,
    /// Differs between jobs, so that many jobs that failed together do not restart together.
    seed: u128,
    restarts: u32,
    in_a_row: u32,
    backoff_ms: i64,
    last_failure_ms: Option<i64>,
    recent: VecDeque<i64>,
}

impl RestartPolicy {
    pub(crate) fn new(strategy: RestartStrategy, seed: u128) -> Self {
        Self {
            strategy,
            seed,
            restarts: 0,
            in_a_row: 0,
            backoff_ms: 0,
            last_failure_ms: None,
            recent: VecDeque::new(),
        }
    }

    /// The strategy.
    pub(crate) const fn strategy(&self) -> &RestartStrategy {
        &self.strategy
    }

    /// What to do about a failure at `now_ms`.
    pub(crate) fn on_failure(&mut self, now_ms: i64) -> RestartDecision {
        let decision = match self.strategy.clone() {
            RestartStrategy::None => {
                RestartDecision::GiveUp("no restart strategy is set (restart-strategy.type)".into())
            }
            RestartStrategy::FixedDelay { attempts, delay_ms } => match attempts {
                Some(attempts) if self.restarts >= attempts => RestartDecision::GiveUp(format!(
                    "all {attempts} restarts of the fixed-delay strategy are used up"
                )),
                _ => RestartDecision::After(delay_ms),
            },
            RestartStrategy::ExponentialDelay { .. } => self.exponential(now_ms),
            RestartStrategy::FailureRate {
                max_failures,
                interval_ms,
                delay_ms,
            } => self.failure_rate(now_ms, max_failures, interval_ms, delay_ms),
        };
        if matches!(decision, RestartDecision::After(_)) {
            self.restarts = self.restarts.saturating_add(1);
        }
        decision
    }

    fn exponential(&mut self, now_ms: i64) -> RestartDecision {
        let RestartStrategy::ExponentialDelay {
            initial_ms,
            max_ms,
            multiplier,
            reset_ms,
            jitter,
            attempts,
        } = self.strategy
        else {
            return RestartDecision::After(0);
        };
        let quiet = self.last_failure_ms.is_none_or(|last| {
            now_ms.saturating_sub(last) >= reset_ms.saturating_add(self.backoff_ms)
        });
        self.last_failure_ms = Some(now_ms);
        if quiet {
            self.backoff_ms = initial_ms;
            self.in_a_row = 0;
        } else {
            self.backoff_ms = scale(self.backoff_ms, multiplier).min(max_ms);
        }
        if attempts.is_some_and(|attempts| self.in_a_row >= attempts) {
            return RestartDecision::GiveUp(format!(
                "{} restarts of the exponential-delay strategy in a row did not help",
                self.in_a_row
            ));
        }
        self.in_a_row += 1;
        let spread = jitter * (2.0 * self.fraction() - 1.0);
        RestartDecision::After(scale(self.backoff_ms, 1.0 + spread).min(max_ms))
    }

    fn failure_rate(
        &mut self,
        now_ms: i64,
        max: u32,
        interval_ms: i64,
        delay_ms: i64,
    ) -> RestartDecision {
        self.recent
            .retain(|at| now_ms.saturating_sub(*at) < interval_ms);
        if self.recent.len() >= max as usize {
            return RestartDecision::GiveUp(format!(
                "more than {max} failures within {} s, the limit of the failure-rate strategy",
                interval_ms / 1000
            ));
        }
        self.recent.push_back(now_ms);
        RestartDecision::After(delay_ms)
    }

    /// A number from 0 to 1 that looks random and is the same in every run.
    #[expect(clippy::cast_precision_loss, reason = "16 bits fit")]
    fn fraction(&self) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.restarts).hash(&mut hasher);
        (hasher.finish() & 0xffff) as f64 / 65_535.0
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "delays are far below 2^53 ms, and the cast saturates"
)]
fn scale(ms: i64, factor: f64) -> i64 {
    (ms as f64 * factor).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(pairs: &[(&str, &str)]) -> RestartPolicy {
        let mut config = Config::default();
        for (key, value) in pairs {
            config.set(key, value).unwrap();
        }
        RestartPolicy::new(RestartStrategy::from_config(&config), 7)
    }

    #[test]
    fn without_settings_only_jobs_with_checkpoints_restart() {
        assert!(matches!(
            policy(&[]).on_failure(0),
            RestartDecision::GiveUp(_)
        ));
        let mut with = policy(&[("execution.checkpointing.interval", "1 s")]);
        assert!(matches!(with.on_failure(0), RestartDecision::After(_)));
    }

    #[test]
    fn fixed_delay_gives_up_after_its_attempts() {
        let mut policy = policy(&[
            ("restart-strategy.type", "fixed-delay"),
            ("restart-strategy.fixed-delay.attempts", "2"),
            ("restart-strategy.fixed-delay.delay", "300 ms"),
        ]);
        assert_eq!(policy.on_failure(0), RestartDecision::After(300));
        assert_eq!(policy.on_failure(1), RestartDecision::After(300));
        assert!(matches!(policy.on_failure(2), RestartDecision::GiveUp(_)));
    }

    #[test]
    fn fixed_delay_without_attempts_never_gives_up() {
        let mut policy = policy(&[("restart-strategy.type", "fixed-delay")]);
        for at in 0..1000 {
            assert_eq!(policy.on_failure(at), RestartDecision::After(1000));
        }
    }

    #[test]
    fn exponential_delay_grows_to_its_maximum_and_is_reset_by_quiet() {
        let mut policy = policy(&[
            ("restart-strategy.type", "exponential-delay"),
            ("restart-strategy.exponential-delay.initial-backoff", "1 s"),
            ("restart-strategy.exponential-delay.max-backoff", "5 s"),
            (
                "restart-strategy.exponential-delay.backoff-multiplier",
                "2.0",
            ),
            ("restart-strategy.exponential-delay.jitter-factor", "0"),
            (
                "restart-strategy.exponential-delay.reset-backoff-threshold",
                "1 h",
            ),
        ]);
        let delays: Vec<_> = (0..4).map(|i| policy.on_failure(i * 1000)).collect();
        assert_eq!(delays, [1000, 2000, 4000, 5000].map(RestartDecision::After));
        assert_eq!(
            policy.on_failure(2 * 3_600_000),
            RestartDecision::After(1000)
        );
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let mut policy = policy(&[("execution.checkpointing.interval", "1 s")]);
        let RestartDecision::After(delay) = policy.on_failure(0) else {
            panic!("gave up")
        };
        assert!((900..=1100).contains(&delay), "{delay}");
    }

    #[test]
    fn failure_rate_counts_only_recent_failures() {
        let mut policy = policy(&[
            ("restart-strategy.type", "failure-rate"),
            (
                "restart-strategy.failure-rate.max-failures-per-interval",
                "2",
            ),
            (
                "restart-strategy.failure-rate.failure-rate-interval",
                "10 s",
            ),
            ("restart-strategy.failure-rate.delay", "0 s"),
        ]);
        assert_eq!(policy.on_failure(0), RestartDecision::After(0));
        assert_eq!(policy.on_failure(1), RestartDecision::After(0));
        assert!(matches!(policy.on_failure(2), RestartDecision::GiveUp(_)));
        assert_eq!(policy.on_failure(20_000), RestartDecision::After(0));
    }
}
