//! The form of a snapshot: plain data, versioned.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::output::Hex;

/// What a snapshot's `format` says.
pub(super) const FORMAT: &str = "verikd leaks";
/// The version that this program writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;

/// A number that prints in hexadecimal: `"0xfffffa8005400000"`. JSON's numbers lose bits past 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HexNumber(pub u64);

impl fmt::Display for HexNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for HexNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let digits =
            text.strip_prefix("0x").ok_or_else(|| D::Error::custom("a number that begins with 0x"))?;
        u64::from_str_radix(digits, 16).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for HexNumber {
    fn schema_name() -> Cow<'static, str> {
        Hex::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Hex::json_schema(generator)
    }
}

/// What drivers held at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Always `verikd leaks`.
    pub format: String,
    /// The version of this form: it grows when something goes or changes.
    pub version: u32,
    /// The program that wrote it.
    pub program: String,
    /// When it was made: milliseconds since 1970.
    pub unix_ms: u64,
    /// Which boot of which kernel.
    pub boot: BootIdentity,
    /// Bytes of a pointer in the target.
    pub pointer_size: u32,
    /// The tag that blocks had to have, if any: two snapshots of different tags are not of the same thing.
    pub tag: Option<String>,
    /// Patterns of routines that were taken for the allocator's: with others, paths begin elsewhere.
    pub skip: Vec<String>,
    /// The pool log at that moment; nothing if it was not used.
    pub log: Option<LogState>,
    /// The drivers that were asked about.
    pub drivers: Vec<SavedDriver>,
    /// Blocks that belong together, those that hold the most first.
    pub groups: Vec<SavedGroup>,
    /// What had to be said of it: what is missing, what does not add up.
    pub notes: Vec<String>,
    /// What its blocks are, which pictures say. Files are of what is outstanding.
    #[serde(skip)]
    pub subject: Subject,
}

/// What blocks of a snapshot are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// What drivers hold.
    #[default]
    Outstanding,
    /// Allocations as they happened, freed since or not.
    Allocated,
}

/// Which boot of which kernel it is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BootIdentity {
    /// The Windows build.
    pub build: u32,
    /// Where the kernel is loaded.
    pub kernel_base: HexNumber,
    /// `nt!KeBootTime`, if it could be read: 100 ns since 1601.
    pub boot_time: Option<HexNumber>,
}

/// Where the pool log was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogState {
    /// Entries that it has room for.
    pub length: u64,
    /// `VfPoolTracesIndex`, which counts events.
    pub index: u32,
}

/// What one driver holds and counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SavedDriver {
    /// Its file name.
    pub name: String,
    /// What is listed of it.
    #[serde(flatten)]
    pub held: Held,
}

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// How many blocks.
    pub blocks: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// One group: blocks of one driver by one call path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SavedGroup {
    /// The driver.
    pub driver: String,
    /// What it holds.
    #[serde(flatten)]
    pub held: Held,
    /// Bytes of the smallest block.
    pub smallest: u64,
    /// Bytes of the largest.
    pub largest: u64,
    /// Their tags.
    pub tags: Vec<String>,
    /// Log entries since the newest was allocated, as far as that is known.
    pub newest_age: Option<u64>,
    /// Log entries since the oldest was.
    pub oldest_age: Option<u64>,
    /// Of how many of the blocks the stack was read.
    pub stacks_known: u64,
    /// Of how many it was looked for, and the log holds it no more.
    pub not_in_log: u64,
    /// Return addresses of the allocator's own, innermost first.
    pub allocator: Vec<SavedFrame>,
    /// Those behind, from the caller on; the caller alone where the stack is not known.
    pub path: Vec<SavedFrame>,
    /// Each block.
    pub list: Blocks,
}

/// A return address, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SavedFrame {
    /// The address.
    pub address: HexNumber,
    /// `myfault!MyfaultDeviceControl+0x358`; nothing outside of every module.
    pub symbol: Option<String>,
}

impl SavedFrame {
    /// Its name, or its address: the same in every boot, if it has a name.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        self.symbol.as_deref().map_or_else(|| self.address.to_string().into(), Cow::Borrowed)
    }
}

/// The blocks of a group.
pub type Blocks = Vec<SavedBlock>;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SavedBlock {
    /// Where it is.
    pub address: HexNumber,
    /// Bytes, as tracked.
    pub size: u64,
    /// Its tag.
    pub tag: String,
    /// `VfPoolTracesIndex` when it was allocated, if its entry was found: another number at the same address is another
    /// block.
    pub event: Option<u32>,
    /// The thread that allocated it.
    pub thread: Option<HexNumber>,
}

impl Snapshot {
    /// One of this program, with nothing in it.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: concat!("verikd ", env!("CARGO_PKG_VERSION")).to_owned(),
            unix_ms: 0,
            boot: BootIdentity { build: 0, kernel_base: HexNumber(0), boot_time: None },
            pointer_size: 8,
            tag: None,
            skip: Vec::new(),
            log: None,
            drivers: Vec::new(),
            groups: Vec::new(),
            notes: Vec::new(),
            subject: Subject::default(),
        }
    }

    /// What all its groups hold.
    #[must_use]
    pub fn held(&self) -> Held {
        self.groups.iter().fold(Held::default(), |sum, group| sum.plus(group.held))
    }
}

impl Held {
    /// Both together; a sum of what a file says, which may be any number.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.saturating_add(other.blocks),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}
