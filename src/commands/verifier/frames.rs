//! Return addresses and what they are called, each looked up once an answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::drivers::Driver;

use crate::output;
use crate::target::{Note, NoteCode, SymbolAt, Target, VirtAddr};

/// Requests that the first name in a module takes at the most: its headers, what says where its symbols are. What is named
/// is the same at every stop.
const NAMING_ONE: u64 = 4;

/// One return address of a stack.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Frame {
    /// The address.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// `nt!IovCallDriver+0xa0`, `<Unloaded_a.sys>+0x10`; nothing outside of every module.
    #[serde(serialize_with = "shared_name")]
    #[schemars(with = "Option<String>")]
    pub symbol: Option<Arc<SymbolAt>>,
}

impl Frame {
    /// An address whose name is not known yet.
    pub(super) const fn nameless(address: VirtAddr) -> Self {
        Self { address, symbol: None }
    }
}

/// The frames of an array of return addresses: it ends at the first empty one.
pub(super) fn stack(bytes: &[u8], pointer_size: usize) -> Vec<Frame> {
    let addresses = bytes.chunks_exact(pointer_size).map(|word| {
        let mut address = [0; 8];
        address[..word.len()].copy_from_slice(word);
        VirtAddr(u64::from_le_bytes(address))
    });
    addresses.take_while(|address| !address.is_null()).map(Frame::nameless).collect()
}

/// Serialises a name that many frames share, as it prints.
///
/// # Errors
/// The serializer's.
pub(super) fn shared_name<S: Serializer>(
    name: &Option<Arc<SymbolAt>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match name {
        Some(name) => serializer.collect_str(name),
        None => serializer.serialize_none(),
    }
}

/// Serialises a stack that many blocks share.
///
/// # Errors
/// The serializer's.
pub(super) fn shared_stack<S: Serializer>(
    stack: &Option<Arc<[Frame]>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    stack.as_deref().serialize(serializer)
}

/// Names of addresses, as far as they were asked for.
pub(super) struct Names<'a> {
    target: &'a Target<'a>,
    known: HashMap<VirtAddr, Option<Arc<SymbolAt>>>,
    /// What is said of a module that has no symbol file.
    missing: BTreeMap<Arc<str>, Note>,
}

impl<'a> Names<'a> {
    pub(super) fn new(target: &'a Target<'_>) -> Self {
        Self { target, known: HashMap::new(), missing: BTreeMap::new() }
    }

    /// Names every frame of some stacks.
    pub(super) fn name_all<'f>(&mut self, frames: impl Iterator<Item = &'f mut Frame>) {
        for frame in frames {
            frame.symbol = self.of(frame.address);
        }
    }

    /// What `address` is called.
    pub(super) fn of(&mut self, address: VirtAddr) -> Option<Arc<SymbolAt>> {
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        self.target.breathe_if_full(NAMING_ONE);
        self.remember(self.target.symbol_at(address))
    }

    /// The same for an address that is probably in the image of `driver`, of which nothing more has to be asked then.
    pub(super) fn of_driver(&mut self, address: VirtAddr, driver: &Driver) -> Option<Arc<SymbolAt>> {
        match driver.module().filter(|module| module.contains(address)) {
            Some(module) if !self.known.contains_key(&address) => {
                self.target.breathe_if_full(NAMING_ONE);
                self.remember(self.target.symbol_in(address, &module))
            }
            _ => self.of(address),
        }
    }

    fn remember(&mut self, at: SymbolAt) -> Option<Arc<SymbolAt>> {
        if let (Some(module), Some(note)) = (&at.module, at.missing_note()) {
            self.missing.entry(Arc::clone(module)).or_insert(note);
        }
        let address = at.address;
        let named = at.is_named().then(|| Arc::new(at));
        self.known.insert(address, named.clone());
        named
    }

    /// Notes what stood in the way of names.
    pub(super) fn tell(self) {
        for note in self.missing.into_values() {
            self.target.note(note);
        }
        let is_missing =
            |(address, name): (&VirtAddr, &Option<_>)| name.is_none() && self.target.is_kernel(*address);
        if self.known.iter().any(is_missing) {
            // Whose list was not asked for yet is asked here: a name that is missing needs its reason.
            let _ = self.target.modules();
            if let Some(trouble) = self.target.module_trouble() {
                let text = format!(
                    "Some addresses have no name, because the list of modules is not whole: {trouble}"
                );
                let note = Note::partial(NoteCode::NamesMissing, text);
                self.target.note(note.broken_off_if(trouble.is_of_link));
            }
        }
    }
}

#[cfg(test)]
impl Frame {
    /// A frame whose address is called `name`: `nt!ExFreePool`, or a module's name alone.
    pub(super) fn called(name: &str) -> Self {
        let (module, symbol) = name.split_once('!').map_or((name, None), |(module, it)| (module, Some(it)));
        let symbol = SymbolAt {
            address: VirtAddr(1),
            module: Some(module.into()),
            symbol: symbol.map(str::to_owned),
            displacement: 0x39,
            missing: None,
            unloaded: None,
            pointer_size: 8,
        };
        Self { address: VirtAddr(1), symbol: Some(Arc::new(symbol)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_ends_at_the_first_empty_address() {
        let words: Vec<u8> =
            [0x8060_ee4f_u32, 0x81b2_619e, 0, 7].iter().flat_map(|it| it.to_le_bytes()).collect();
        let addresses: Vec<_> = stack(&words, 4).iter().map(|frame| frame.address).collect();
        assert_eq!(addresses, [VirtAddr(0x8060_ee4f), VirtAddr(0x81b2_619e)]);
    }

    #[test]
    fn a_name_prints_with_and_without_its_displacement() {
        let Some(name) = Frame::called("MyDriver!Get").symbol else { panic!("it is called so") };
        assert_eq!(
            (name.to_string(), name.start().to_string()),
            ("MyDriver!Get+0x39".into(), "MyDriver!Get".into())
        );
    }
}
