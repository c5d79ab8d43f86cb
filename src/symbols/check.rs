//! Reads all of a symbol file: what it has, and whether any of it is damaged.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::error::SymbolError;
use super::identity::PdbIdentity;
use super::isf::{self, IsfSymbols};
use super::layout::TypeId;
use super::pdb::PdbSymbols;
use super::symbol::{SymbolKind, Symbols};

/// How much a symbol file has.
#[derive(Clone, Debug, Serialize)]
pub struct Census {
    /// Which PDB it is, or was made from.
    pub pdb: PdbIdentity,
    /// What it is.
    pub kind: SymbolKind,
    /// Names with an address.
    pub symbols: usize,
    /// Structures and unions that it defines.
    pub types: usize,
    /// Their fields.
    pub fields: usize,
}

/// Opens a PDB or an ISF file, told by its content, and reads every symbol, every type and every field.
///
/// # Errors
/// [`SymbolError`] for the first thing that is wrong.
pub fn census(path: &Path) -> Result<(Census, Arc<dyn Symbols>), SymbolError> {
    let mut head = Vec::new();
    let file = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    file.map_err(|source| SymbolError::Io { file: path.to_owned(), source })?;
    if isf::is_isf(&head) {
        let symbols = IsfSymbols::parse(path)?;
        let counts = (symbols.iter().count(), count(&symbols, symbols.type_ids())?);
        return Ok(with_counts(symbols, counts));
    }
    let symbols = PdbSymbols::open(path)?;
    symbols.check_types()?;
    let counts = (symbols.iter().count(), count(&symbols, symbols.type_ids())?);
    Ok(with_counts(symbols, counts))
}

fn with_counts<S: Symbols + 'static>(
    from: S,
    (symbols, (types, fields)): (usize, (usize, usize)),
) -> (Census, Arc<dyn Symbols>) {
    let census = Census { pdb: from.identity().clone(), kind: from.kind(), symbols, types, fields };
    (census, Arc::new(from))
}

/// How many types there are, and fields in them.
fn count(symbols: &dyn Symbols, ids: Vec<TypeId>) -> Result<(usize, usize), SymbolError> {
    let mut counts = (0, 0);
    for id in ids {
        counts.0 += 1;
        counts.1 += symbols.layout(id)?.fields.len();
    }
    Ok(counts)
}
