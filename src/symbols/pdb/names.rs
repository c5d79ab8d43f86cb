//! Names and addresses of a PDB: publics, globals and procedures, in order of address and by name.

use std::cmp::Reverse;
use std::sync::Arc;

use super::index::{Table, hash};
use super::symbol_records::{scan_for_address, scan_for_name};
use super::tables::Tables;
use crate::symbols::symbol::{Rva, Symbol};

/// Names and addresses, as the tables have them.
#[derive(Debug)]
pub(super) struct Names(pub(super) Arc<Tables>);

impl Names {
    pub(super) fn address_of(&self, name: &str) -> Option<Rva> {
        if let Some(first) = self.0.answer_first(|records| scan_for_name(records, name)) {
            return first;
        }
        let wanted = hash(name.as_bytes());
        let first = self.0.first_from::<2>(Table::Names, wanted);
        let rows = (first..).map_while(|index| self.0.row(Table::Names, index));
        let candidates = rows.take_while(|[hash, _]| *hash == wanted);
        let entries = candidates.filter_map(|[_, index]| self.entry(index as usize));
        // A static function may share its name with others; the public one is the one that is meant.
        let named = entries.filter(|(_, _, found)| found == name.as_bytes());
        named.max_by_key(|(rva, kind, _)| (*kind, Reverse(*rva))).map(|(rva, ..)| rva)
    }

    pub(super) fn nearest(&self, rva: Rva) -> Option<Symbol<'_>> {
        if let Some(first) = self.0.answer_first(|records| scan_for_address(records, rva)) {
            return first;
        }
        let section = self.section_of(rva)?;
        let above = match rva.0.checked_add(1) {
            Some(next) => self.0.first_from::<3>(Table::Entries, next),
            None => self.0.rows(Table::Entries),
        };
        let [below, ..] = self.0.row::<3>(Table::Entries, above.checked_sub(1)?)?;
        let first = self.0.first_from::<3>(Table::Entries, below);
        if below < section { None } else { self.symbol(first) }
    }

    pub(super) fn above(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.symbol(self.0.first_from::<3>(Table::Entries, rva.0.checked_add(1)?))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        let (entries, text) = self.0.all().unwrap_or_default();
        entries.iter().filter_map(|[rva, start, rest]| {
            let name = text.get(*start as usize..)?.get(..usize::from(*rest as u16))?;
            Some(Symbol { name: String::from_utf8_lossy(name), rva: Rva(*rva) })
        })
    }

    /// The start of the section that `rva` lies in.
    fn section_of(&self, rva: Rva) -> Option<u32> {
        let mut sections =
            (0..self.0.rows(Table::Sections)).filter_map(|index| self.0.row(Table::Sections, index));
        sections.find(|[start, size]| rva.0.wrapping_sub(*start) < *size).map(|[start, _]| start)
    }

    fn symbol(&self, index: usize) -> Option<Symbol<'_>> {
        let (rva, _, name) = self.entry(index)?;
        Some(Symbol { name: String::from_utf8_lossy(&name).into_owned().into(), rva })
    }

    /// Address, kind and name.
    fn entry(&self, index: usize) -> Option<(Rva, u32, Vec<u8>)> {
        let [rva, start, rest] = self.0.row(Table::Entries, index)?;
        Some((Rva(rva), rest >> 16, self.0.text(start, rest as u16)?))
    }
}
