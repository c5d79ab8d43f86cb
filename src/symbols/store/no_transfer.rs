//! What stands for transfers in a program that was built without servers: none succeeds.

use std::fs::File;
use std::sync::Arc;

use super::error::FetchError;
use super::limits::Limits;
use super::watch::Watch;

/// No transfers.
#[derive(Debug)]
pub(super) struct Transfers;

impl Transfers {
    pub(super) fn new(_limits: Limits) -> Self {
        Self
    }

    pub(super) fn run(&self, _url: &str, _part: File, _watch: &Arc<dyn Watch>) -> Result<(), FetchError> {
        Err(FetchError::NotBuiltIn)
    }
}
