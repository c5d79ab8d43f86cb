//! Where symbols are kept if nobody says where.

use std::path::PathBuf;

/// The store that is used where a path names none, as WinDbg's `C:\ProgramData\Dbg\sym`.
///
/// The platform's cache folder: `~/.cache/verikd/symbols`, `~/Library/Caches/verikd/symbols`,
/// `%LOCALAPPDATA%\verikd\cache\symbols`.
#[must_use]
pub fn default_store() -> PathBuf {
    let cache = directories::ProjectDirs::from("", "", "verikd").map(|dirs| dirs.cache_dir().to_owned());
    cache.unwrap_or_else(|| std::env::temp_dir().join("verikd")).join("symbols")
}
