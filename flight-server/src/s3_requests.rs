//! Counts of HTTP requests to S3, by what they asked and how they ended. Each attempt counts, retries included.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a request asked: names of the label `operation`.
const OPERATIONS: [&str; 6] = ["list", "get", "head", "put", "post", "delete"];
/// How it ended: names of the label `outcome`; `failed`: without an answer, or with one that the client doesn't tell.
const OUTCOMES: [&str; 6] = ["ok", "not_found", "throttled", "client_error", "server_error", "failed"];

/// Requests of one client of S3 since the server started.
#[derive(Debug, Default)]
pub(crate) struct S3Requests([[AtomicU64; OUTCOMES.len()]; OPERATIONS.len()]);

/// A count with its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct S3RequestCount {
    pub(crate) operation: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) count: u64,
}

impl S3Requests {
    /// Counts one attempt; `status` is `None` when no answer is known.
    pub(crate) fn count(&self, method: &str, url: &str, status: Option<u16>) {
        let operation = match method {
            "GET" if url.split_once('?').is_some_and(|(_, query)| query.contains("list-type=")) => 0,
            "GET" => 1,
            "HEAD" => 2,
            "PUT" => 3,
            "POST" => 4,
            "DELETE" => 5,
            // S3 knows no other method.
            _ => return,
        };
        let outcome = match status {
            Some(100..=399) => 0,
            Some(404) => 1,
            Some(429 | 503) => 2,
            Some(400..=499) => 3,
            Some(_) => 4,
            None => 5,
        };
        self.0[operation][outcome].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far; operations and outcomes that never were are left out.
    pub(crate) fn counts(&self) -> Vec<S3RequestCount> {
        let row = |(operation, counts): (&'static str, &[AtomicU64; OUTCOMES.len()])| {
            let counts = OUTCOMES.into_iter().zip(counts).map(|(outcome, count)| S3RequestCount {
                operation,
                outcome,
                count: count.load(Ordering::Relaxed),
            });
            counts.filter(|count| count.count > 0).collect::<Vec<_>>()
        };
        OPERATIONS.into_iter().zip(&self.0).flat_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_by_operation_and_outcome() {
        let requests = S3Requests::default();
        for (method, url, status) in [
            ("GET", "http://h/b?list-type=2&prefix=x", Some(200)),
            ("GET", "http://h/b/k", Some(206)),
            ("GET", "http://h/b/k", Some(206)),
            ("GET", "http://h/b/k", Some(503)),
            ("HEAD", "http://h/b/k", Some(404)),
            ("PUT", "http://h/b/k", None),
        ] {
            requests.count(method, url, status);
        }
        let found: Vec<_> =
            requests.counts().iter().map(|count| (count.operation, count.outcome, count.count)).collect();
        assert_eq!(
            found,
            [
                ("list", "ok", 1),
                ("get", "ok", 2),
                ("get", "throttled", 1),
                ("head", "not_found", 1),
                ("put", "failed", 1)
            ]
        );
    }
}
