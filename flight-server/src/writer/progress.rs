//! Progress on standard error: a bar on a terminal, elsewhere a line now and then.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

/// The pause between lines where no option sets it.
const EVERY: Duration = Duration::from_secs(10);

/// The progress of one piece of work.
#[derive(Debug)]
pub(super) struct Progress {
    what: String,
    bar: ProgressBar,
    /// Bytes, or else rows.
    counts_bytes: bool,
    every: Duration,
}

impl Progress {
    pub(super) fn of_rows(what: &str, every: Duration) -> Self {
        Self::new(what, "{msg} {wide_bar} {human_pos}/{human_len} rows, {eta} left", false, every)
    }

    pub(super) fn of_bytes(what: &str) -> Self {
        Self::new(what, "{msg} {wide_bar} {bytes}/{total_bytes}, {eta} left", true, EVERY)
    }

    fn new(what: &str, template: &str, counts_bytes: bool, every: Duration) -> Self {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style).with_message(what.to_owned());
        Self { what: what.to_owned(), bar, counts_bytes, every: every.max(Duration::from_millis(10)) }
    }

    /// Where work says how far it is.
    pub(super) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Shows progress until the work has ended.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let told = async {
            if std::io::stderr().is_terminal() {
                return std::future::pending::<Infallible>().await;
            }
            loop {
                tokio::time::sleep(self.every).await;
                if self.bar.position() > 0 {
                    // Without standard error there is nobody to tell.
                    let _unheard = writeln!(std::io::stderr(), "{}", self.line());
                }
            }
        };
        let done = tokio::select! {
            done = work => done,
            never = told => match never {},
        };
        self.bar.finish_and_clear();
        done
    }

    fn line(&self) -> String {
        let (position, length) = (self.bar.position(), self.bar.length().unwrap_or(0));
        if self.counts_bytes {
            format!("{} {} of {}", self.what, HumanBytes(position), HumanBytes(length))
        } else {
            format!("{} {} of {} rows", self.what, HumanCount(position), HumanCount(length))
        }
    }
}
