//! Questions that tables answer, wherever their rows are: names and addresses, and the types of a name.

use std::cmp::Reverse;

use super::symbol::{Rva, Symbol};
use super::word::Word;

/// A table of the index; its rows are in order of their first number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Start and size of each section.
    Sections,
    /// RVA, start of the name in the text, length of the name and kind. Names are in the entries' order.
    Entries,
    /// Hash of a name whatever its case, and of a decorated one without decoration too, its entry.
    Names,
    /// Where each type record begins: in the PDB, or among the records of an ISF file's index.
    Starts,
    /// Hash of a structure's name, its type index.
    Definitions,
    /// Hash of an enumeration's name, its type index.
    Enumerations,
    /// Start and length of a name without decoration, which are behind all others, and its entry.
    Shown,
}

/// Tables, each in order of the first number of its rows.
pub(super) trait Rows {
    /// How many rows `table` has.
    fn rows(&self, table: Table) -> usize;

    /// A row of `table`, which has `N` numbers.
    fn row<const N: usize>(&self, table: Table, index: usize) -> Option<[u32; N]>;

    /// Bytes of the text.
    fn text(&self, start: u32, len: u16) -> Option<Vec<u8>>;

    /// Every row of [`Table::Entries`], and the text that they refer to; nothing if they cannot be read.
    fn all(&self) -> Option<(&[[u32; 3]], &[u8])>;

    /// The first row of `table` whose first number is not below `least`.
    fn first_from<const N: usize>(&self, table: Table, least: u32) -> usize {
        let (mut low, mut high) = (0, self.rows(table));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.row::<N>(table, middle) {
                Some(row) if row[0] < least => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// Second numbers of the rows of `table`, which have two, that begin with `first`.
    fn with_first(&self, table: Table, first: u32) -> impl Iterator<Item = u32> {
        let rows = (self.first_from::<2>(table, first)..).map_while(move |row| self.row(table, row));
        rows.take_while(move |[number, _]| *number == first).map(|[_, second]| second)
    }

    /// Where the symbol called `name` is.
    fn address_of(&self, name: &str) -> Option<Rva> {
        let candidates = self.with_first(Table::Names, name_hash(name.as_bytes()));
        let entries = candidates.filter_map(|index| self.entry(index as usize));
        // A static function may share its name with others; the public one is the one that is meant.
        let named = entries.filter(|(_, _, found)| found == name.as_bytes());
        named.max_by_key(|(rva, kind, _)| (*kind, Reverse(*rva))).map(|(rva, ..)| rva)
    }

    /// Symbols that may be called `name` in any case, with decoration or without.
    fn may_be_called(&self, name: &str) -> Vec<Symbol<'static>> {
        let rows = self.with_first(Table::Names, name_hash(name.as_bytes()));
        rows.filter_map(|index| self.symbol(index as usize)).collect()
    }

    /// Symbols that have `word` in their name, with decoration or without, in order of address.
    fn with_word(&self, word: &str) -> Vec<Symbol<'_>> {
        let (Some(word), Some((entries, text))) = (Word::new(word), self.all()) else { return Vec::new() };
        let mut found = Vec::new();
        for at in word.places(text) {
            // No two names have a byte in common: what begins in one and ends in another is no word.
            let (at, end) = (at as u32, (at + word.len()) as u32);
            let Some(last) = entries.partition_point(|entry| entry[1] <= at).checked_sub(1) else { continue };
            if end <= entries[last][1].saturating_add(entries[last][2] & 0xffff) {
                found.push(last as u32);
                continue;
            }
            let above = self.first_from::<3>(Table::Shown, at + 1);
            let below = self.row::<3>(Table::Shown, above.wrapping_sub(1));
            let is_in = |[start, len, _]: &[u32; 3]| end <= start.saturating_add(*len);
            let Some([start, len, _]) = below.filter(is_in) else { continue };
            let first = self.first_from::<3>(Table::Shown, start);
            let rows = (first..).map_while(|row| self.row::<3>(Table::Shown, row));
            found.extend(rows.take_while(|row| row[..2] == [start, len]).map(|[_, _, entry]| entry));
        }
        found.sort_unstable();
        found.dedup();
        let symbol = |index: u32| {
            let [rva, start, rest] = entries.get(index as usize)?;
            let name = text.get(*start as usize..)?.get(..usize::from(*rest as u16))?;
            Some(Symbol { name: String::from_utf8_lossy(name), rva: Rva(*rva) })
        };
        found.into_iter().filter_map(symbol).collect()
    }

    /// The symbol at `rva`, or the nearest below it in the same section.
    fn nearest(&self, rva: Rva) -> Option<Symbol<'static>> {
        let mut sections =
            (0..self.rows(Table::Sections)).filter_map(|index| self.row(Table::Sections, index));
        let [section, _] = sections.find(|[start, size]| rva.0.wrapping_sub(*start) < *size)?;
        let above = match rva.0.checked_add(1) {
            Some(next) => self.first_from::<3>(Table::Entries, next),
            None => self.rows(Table::Entries),
        };
        let [below, ..] = self.row::<3>(Table::Entries, above.checked_sub(1)?)?;
        let first = self.first_from::<3>(Table::Entries, below);
        if below < section { None } else { self.symbol(first) }
    }

    /// Every symbol of the address `rva`.
    fn at(&self, rva: Rva) -> Vec<Symbol<'static>> {
        let symbols = (self.first_from::<3>(Table::Entries, rva.0)..).map_while(|index| self.symbol(index));
        symbols.take_while(|symbol| symbol.rva == rva).collect()
    }

    /// The first symbol above `rva`.
    fn above(&self, rva: Rva) -> Option<Symbol<'static>> {
        self.symbol(self.first_from::<3>(Table::Entries, rva.0.checked_add(1)?))
    }

    /// Every symbol in order of address.
    fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> {
        let (entries, text) = self.all().unwrap_or_default();
        entries.iter().filter_map(|[rva, start, rest]| {
            let name = text.get(*start as usize..)?.get(..usize::from(*rest as u16))?;
            Some(Symbol { name: String::from_utf8_lossy(name), rva: Rva(*rva) })
        })
    }

    /// The symbol in a row of [`Table::Entries`].
    fn symbol(&self, index: usize) -> Option<Symbol<'static>> {
        let (rva, _, name) = self.entry(index)?;
        Some(Symbol { name: String::from_utf8_lossy(&name).into_owned().into(), rva })
    }

    /// Address, kind and name in a row of [`Table::Entries`].
    fn entry(&self, index: usize) -> Option<(Rva, u32, Vec<u8>)> {
        let [rva, start, rest] = self.row(Table::Entries, index)?;
        Some((Rva(rva), rest >> 16, self.text(start, rest as u16)?))
    }
}

/// The hash of a type's name: the same in every version of this program and on every machine.
pub(super) fn hash(name: &[u8]) -> u32 {
    crc32fast::hash(name)
}

/// The hash of a symbol's name, in whatever case it is written.
pub(super) fn name_hash(name: &[u8]) -> u32 {
    if name.is_ascii() {
        let mut folded = [0; 64];
        return match folded.get_mut(..name.len()) {
            Some(folded) => {
                folded.copy_from_slice(name);
                folded.make_ascii_lowercase();
                hash(folded)
            }
            None => hash(&name.to_ascii_lowercase()),
        };
    }
    hash(String::from_utf8_lossy(name).to_lowercase().as_bytes())
}
