//! Layer 3: who sends what when.

mod content;

pub use content::Content;
