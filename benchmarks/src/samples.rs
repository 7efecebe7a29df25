//! Measured values of one thing, repeated.

use std::time::Duration;

use serde_json::{Value as Json, json};

/// Values of one series, in the order they were measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    values: Vec<f64>,
}

impl Samples {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        Self { values: values.into_iter().collect() }
    }

    /// Milliseconds.
    pub(crate) fn push(&mut self, elapsed: Duration) {
        self.values.push(elapsed.as_secs_f64() * 1000.0);
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.values.extend(&other.values);
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    /// The value below which this share of the values lies (nearest rank); NaN of nothing.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a short list"
    )]
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    pub(crate) fn to_json(&self) -> Json {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "count": self.values.len(),
            "median": round(self.median()),
            "min": round(self.min()),
            "max": round(self.max()),
            "p99": round(self.percentile(0.99)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let samples = Samples::of([3.0, 1.0, 2.0, 4.0]);
        assert_eq!((samples.median(), samples.min(), samples.max()), (2.0, 1.0, 4.0));
        assert_eq!(samples.percentile(0.99), 4.0);
        assert!(Samples::default().median().is_nan());
    }
}
