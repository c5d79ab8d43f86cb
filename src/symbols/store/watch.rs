//! Whoever watches a search for symbols.

/// Is told how a search goes: what a terminal shows, and when the user has had enough.
pub trait Watch: Send + Sync {
    /// A server is about to be asked for `url`.
    fn begins(&self, url: &str) {
        let _ = url;
    }

    /// `received` bytes of `url` are there, of `total` if the server said how many there are.
    fn received(&self, url: &str, received: u64, total: Option<u64>) {
        let _ = (url, received, total);
    }

    /// Nothing more comes from `url`, whether the file is whole or not.
    fn ended(&self, url: &str) {
        let _ = url;
    }

    /// One step of the search, in noisy mode.
    fn step(&self, line: &str) {
        let _ = line;
    }

    /// True if the user wants the transfer to end.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}
