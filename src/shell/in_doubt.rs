//! Machines of which it was said that they may still stand still.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where they are.
#[derive(Clone, Debug, Default)]
pub(super) struct InDoubt(Arc<Mutex<Vec<String>>>);

impl InDoubt {
    pub(super) fn places(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
