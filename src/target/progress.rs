//! How far a long read has come, told to whoever waits for it.

/// Is told how far a query has come that may take long. What it does with it is its own affair; a query only tells.
pub trait Progress {
    /// `done` of `total` elements are read; `what` says which: `log entries`.
    fn advance(&self, what: &'static str, done: u64, total: u64);

    /// What a long read will cost, before it begins.
    fn announce(&self, _text: &str) {}
}
