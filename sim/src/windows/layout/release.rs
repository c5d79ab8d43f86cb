//! What is known of a Windows build beside its structures and images.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::error::LayoutError;

/// What is known of a Windows build beside its structures and images: `release.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// What people call it: `Windows 11 24H2 x64`.
    pub title: String,
    /// Build number, `MinorVersion` of GetVersion.
    pub number: u16,
    /// Version as programs see it: major, minor.
    pub version: (u8, u8),
    /// `NtBuildLab`.
    pub lab: String,
    /// `CmNtCSDVersion`: the service pack in the high byte.
    pub service_pack: u16,
    /// True for a server: `NtProductType` 3, not 1.
    pub server: bool,
    /// Size of `KDDEBUGGER_DATA64`.
    pub debugger_data_size: u32,
    /// `MaxManipulate` of GetVersion: one more than the highest manipulate API, less 0x3130.
    pub max_manipulate: u8,
    /// The highest address of user mode: `MmHighestUserAddress`.
    #[serde(deserialize_with = "address")]
    pub highest_user_address: u64,
    /// The lowest address of the kernel: `MmSystemRangeStart`.
    #[serde(deserialize_with = "address")]
    pub system_range_start: u64,
    /// Level that the standard settings of verifier.exe set.
    pub standard_level: u32,
    /// Tables of the tree of verified drivers: `ViTargetDriversAvl.TablesNo`.
    pub driver_tables: u32,
    /// Records of the log of pool allocations, a power of two.
    pub pool_log_length: u32,
}

impl Release {
    /// Parses a `release.toml`.
    ///
    /// # Errors
    /// [`LayoutError::Toml`].
    pub fn parse(text: &str) -> Result<Self, LayoutError> {
        Ok(toml::from_str(text)?)
    }
}

/// Addresses are written as WinDbg does: TOML's own numbers are signed.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    super::address::address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}
