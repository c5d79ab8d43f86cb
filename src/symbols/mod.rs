//! Names, addresses and types of one module: what its symbol file says.
//!
//! ```text
//!  image in the target          symbol path                     queries
//!  RSDS: name, GUID, age --> store finds the file --> Symbols: name -> RVA, RVA -> name,
//!                              pdb or isf reads it              type -> layout, path -> place
//!  its export table, where there is no file ---------> ExportSymbols: names only
//!  name, timestamp, size --------> store finds the image itself --> ImageFile: bytes of it that the target need not send
//! ```
//! Knows neither the target's memory nor where an image is loaded: every address here is relative to it.

pub mod check;
mod default_store;
mod error;
mod exports;
mod identity;
mod image_file;
mod index;
pub mod isf;
mod layout;
pub mod pdb;
mod rows;
pub mod store;
mod symbol;
pub mod table;
mod undecorate;
mod word;

pub use error::SymbolError;
pub use exports::ExportSymbols;
pub use identity::{Guid, ImageIdentity, NoGuid, PdbIdentity};
pub use image_file::ImageFile;
pub use layout::{BaseKind, Bits, Field, Place, Type, TypeId, TypeLayout};
pub use symbol::{Constant, Rva, Symbol, SymbolKind, Symbols};
pub use undecorate::undecorate;
