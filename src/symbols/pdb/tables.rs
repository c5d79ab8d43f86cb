//! The tables that answer questions: an index's, or else made from the records when a question needs them.
//!
//! ```text
//!  name or address --> one pass over the symbol records -.
//!  type            --> the PDB's own hash table, or the tables of types  >--> both kinds of tables, then the index (a thread)
//!  once they are there: tables                          -'
//! ```
//! So nobody waits for the index, nor for tables that take longer than another pass: putting thirty thousand names in order
//! takes as long as some ten.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use super::symbol_records::{self, SymbolRecords};
use super::type_records::{Header, index_types};
use crate::symbols::error::SymbolError;
use crate::symbols::index::{self, Index, NameTables, Stamp, TypeTables};
use crate::symbols::rows::{Rows, Table};

/// A smaller PDB is read in less time than it takes to keep an index of it.
const SMALLEST: u64 = 1 << 20;

/// The tables of one PDB.
#[derive(Debug)]
pub(super) enum Tables {
    Index(Index),
    Made(Made),
}

/// Tables that are made when they are needed.
#[derive(Debug)]
pub(super) struct Made {
    records: Arc<Records>,
    /// Makes what no question has needed yet, and writes the index.
    background: Mutex<Option<JoinHandle<()>>>,
}

/// The records of a PDB, and the tables made from them.
#[derive(Debug)]
struct Records {
    symbols: SymbolRecords,
    header: Header,
    /// Where the index is kept; nothing if it would save no time.
    keep: Option<(PathBuf, Stamp)>,
    names: OnceLock<(NameTables, Option<SymbolError>)>,
    types: OnceLock<(TypeTables, Option<SymbolError>)>,
}

impl Records {
    fn names(&self) -> &(NameTables, Option<SymbolError>) {
        self.names.get_or_init(|| symbol_records::tables(&self.symbols))
    }

    fn types(&self) -> &(TypeTables, Option<SymbolError>) {
        self.types.get_or_init(|| index_types(&self.symbols.container, &self.header))
    }
}

impl Made {
    /// Has the other tables made, and the index written, while the program goes on.
    fn go_on(&self) {
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        if self.records.keep.is_none() || background.is_some() {
            return;
        }
        let records = Arc::clone(&self.records);
        let write = move || {
            let ((names, bad_names), (types, bad_types)) = (records.names(), records.types());
            // A damaged PDB has no index, so that the damage is found again.
            if let (Some((path, stamp)), None, None) = (&records.keep, bad_names, bad_types) {
                index::write(path, stamp, &index::encode(names, types, stamp));
            }
        };
        *background = std::thread::Builder::new().name("index".into()).spawn(write).ok();
    }
}

/// A program that ends waits for its index, so that no half of one is left.
impl Drop for Made {
    fn drop(&mut self) {
        let background = self.background.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = background.take() {
            let _ = thread.join();
        }
    }
}

impl Tables {
    pub(super) fn made(symbols: SymbolRecords, header: Header, keep: Option<(PathBuf, Stamp)>) -> Self {
        let keep = keep.filter(|(_, stamp)| stamp.file_len >= SMALLEST);
        let (names, types) = (OnceLock::new(), OnceLock::new());
        Self::Made(Made {
            records: Arc::new(Records { symbols, header, keep, names, types }),
            background: Mutex::default(),
        })
    }

    /// Answers a question for a name or an address from the records themselves, as long as there is no table of names.
    /// Nothing where there is one, or where one is made at once.
    pub(super) fn answer_early<T>(&self, answer: impl FnOnce(&SymbolRecords) -> T) -> Option<T> {
        let Self::Made(made) = self else { return None };
        let records = &*made.records;
        if records.keep.is_none() || records.names.get().is_some() {
            return None;
        }
        let answer = answer(&records.symbols);
        made.go_on();
        Some(answer)
    }

    /// True if a question for a type need not wait for its table: one that answers at once is there, or is not made for one.
    pub(super) fn has_types(&self) -> bool {
        let Self::Made(made) = self else { return true };
        made.records.keep.is_none() || made.records.types.get().is_some()
    }

    /// Has all tables made, and the index written, while the program goes on.
    pub(super) fn go_on(&self) {
        if let Self::Made(made) = self {
            made.go_on();
        }
    }

    /// Makes all tables.
    ///
    /// # Errors
    /// The first damage of the records.
    pub(super) fn complete(&self) -> Result<(), &SymbolError> {
        let Self::Made(made) = self else { return Ok(()) };
        let damages = [&made.records.names().1, &made.records.types().1];
        made.go_on();
        damages.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    /// What is wrong with the records that were read so far.
    pub(super) fn damage(&self) -> Option<&SymbolError> {
        let Self::Made(made) = self else { return None };
        let names = made.records.names.get().and_then(|(_, damage)| damage.as_ref());
        names.or_else(|| made.records.types.get().and_then(|(_, damage)| damage.as_ref()))
    }

    /// Where the last type record ends.
    pub(super) fn types_end(&self) -> u32 {
        match self {
            Self::Index(index) => index.types_end,
            Self::Made(made) => made.types().types_end,
        }
    }
}

impl Rows for Tables {
    fn rows(&self, table: Table) -> usize {
        match self {
            Self::Index(index) => index.rows(table),
            Self::Made(made) => {
                let (numbers, width) = made.numbers(table);
                numbers.len() / width
            }
        }
    }

    fn row<const N: usize>(&self, table: Table, index: usize) -> Option<[u32; N]> {
        match self {
            Self::Index(file) => file.row(table, index),
            Self::Made(made) => {
                let numbers = made.numbers(table).0;
                numbers.get(index.checked_mul(N)?..)?.first_chunk().copied()
            }
        }
    }

    fn all(&self) -> Option<(&[[u32; 3]], &[u8])> {
        match self {
            Self::Index(index) => index.all(),
            Self::Made(made) => {
                let names = made.names();
                Some((&names.entries, &names.text))
            }
        }
    }

    fn text(&self, start: u32, len: u16) -> Option<Vec<u8>> {
        match self {
            Self::Index(index) => index.text(start, len),
            Self::Made(made) => {
                let text = &made.names().text;
                Some(text.get(start as usize..)?.get(..len.into())?.to_vec())
            }
        }
    }
}

impl Made {
    fn names(&self) -> &NameTables {
        let is_there = self.records.names.get().is_some();
        let (names, _) = self.records.names();
        if !is_there {
            self.go_on();
        }
        names
    }

    fn types(&self) -> &TypeTables {
        let is_there = self.records.types.get().is_some();
        let (types, _) = self.records.types();
        if !is_there {
            self.go_on();
        }
        types
    }

    /// The numbers of a table, and how many make a row.
    fn numbers(&self, table: Table) -> (&[u32], usize) {
        match table {
            Table::Sections => (self.names().sections.as_flattened(), 2),
            Table::Entries => (self.names().entries.as_flattened(), 3),
            Table::Names => (self.names().names.as_flattened(), 2),
            Table::Shown => (self.names().shown.as_flattened(), 3),
            Table::Starts => (self.types().starts.as_flattened(), 1),
            Table::Definitions => (self.types().definitions.as_flattened(), 2),
            Table::Enumerations => (self.types().enumerations.as_flattened(), 2),
        }
    }
}
