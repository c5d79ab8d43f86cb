//! A plan as it is written: tables and texts with their places.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) out: Option<PathBuf>,
    #[serde(rename = "for")]
    pub(super) length: Option<Text>,
    pub(super) count: Option<Spanned<u64>>,
    pub(super) freeze_budget: Option<Text>,
    pub(super) total_freeze_budget: Option<Text>,
    pub(super) connect_timeout: Option<Text>,
    pub(super) break_timeout: Option<Text>,
    #[serde(default)]
    pub(super) commands: Vec<Text>,
    #[serde(default)]
    pub(super) target: Vec<Spanned<TargetTable>>,
    #[serde(default)]
    pub(super) on: Vec<Spanned<OnTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetTable {
    pub(super) name: Text,
    pub(super) connection: Text,
    pub(super) symbols: Option<String>,
    #[serde(default)]
    pub(super) on: Vec<Spanned<OnTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnTable {
    pub(super) every: Option<Text>,
    pub(super) print: Option<Text>,
    pub(super) load: Option<Text>,
    pub(super) unload: Option<Text>,
    pub(super) bug_check: Option<Spanned<bool>>,
    pub(super) assertion: Option<Spanned<bool>>,
    pub(super) stop: Option<Spanned<bool>>,
    pub(super) commands: Option<Vec<Text>>,
    pub(super) dump: Option<Text>,
    pub(super) then: Option<Text>,
}
