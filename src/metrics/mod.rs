//! Figures of a watch, served to Prometheus.
//!
//! ```text
//!   verikd watch --look--> Figures --text--> Endpoint <--GET /metrics-- Prometheus, as often as it likes
//! ```
//! A scrape gets the text of the last look: it asks no target anything, and breaks into no machine.
//!
//! What each figure means: leaks.md 7.

mod endpoint;
mod figures;

pub use endpoint::{Endpoint, EndpointError};
pub use figures::{Figures, MOST_GROUPS};
