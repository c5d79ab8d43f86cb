//! The constant of a tag in loaded images: found by the target's own search.
//!
//! ```text
//!  modules by address:  |nt    |hal |      |ndis |myfault|        gaps of up to 64 KiB are searched with them
//!                       `- range 1 -'      `- range 2 ---'        at most 16 MiB a range
//! ```
//! What stands in front of the constant says what the instruction does with it, as far as compilers usually encode it.

use std::ops::Range;

use serde::Serialize;

use crate::commands::pool::tag::PoolTag;
use crate::commands::unassemble::{InstructionLine, instruction_with};
use crate::output::{self, grouped, screened};
use crate::target::{Module, ModuleList, Note, NoteCode, Target, TargetError, VirtAddr};

/// Gaps between images that are searched with them.
const GAP: u64 = 0x1_0000;
/// Longest range.
const LONGEST: u64 = 16 << 20;
/// Most places of one image, and of all.
const MAX_OF_ONE: usize = 64;
const MAX_OF_ALL: usize = 256;
/// Bytes that are read before and after a match.
const AROUND: u64 = 16;
/// Most sections of an image that are looked at.
const MAX_SECTIONS: usize = 96;

/// An image that has a tag's four bytes.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Image {
    /// Its file: `myfault.sys`.
    pub image: String,
    /// Where it is loaded.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub base: VirtAddr,
    /// Where the bytes are, code first.
    pub uses: Vec<TagUse>,
}

/// A place where a tag's four bytes are.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct TagUse {
    /// Where.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// `myfault!MyfaultDeviceControl+0x2db`; nothing where no symbol is near.
    pub symbol: Option<String>,
    /// The section: `.text`.
    pub section: Option<String>,
    /// Code can run there.
    pub is_code: bool,
    /// What is done with it.
    pub what: Use,
    /// The bytes from there on, in hexadecimal.
    pub bytes: String,
    /// The instruction that it is in, if it is in one of a function whose beginning is known.
    pub instruction: Option<InstructionLine>,
}

/// What the instruction around a constant does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// Third argument: that of `ExAllocatePoolWithTag`, `ExAllocatePool2` and `ExAllocatePoolWithQuotaTag`.
    ThirdArgument,
    /// Second argument: that of `ExFreePoolWithTag`.
    SecondArgument,
    /// Fourth argument.
    FourthArgument,
    /// First argument.
    FirstArgument,
    /// An argument on the stack: that of a lookaside list's initialization.
    StackArgument,
    /// It is compared with something.
    Compared,
    /// None of these: data, or code that is not told.
    Data,
}

/// Searches every image for the bytes of a tag.
pub(super) fn search(target: &Target<'_>, tag: PoolTag, list: &ModuleList) -> (Vec<Image>, usize) {
    let modules = list.modules();
    let ranges = ranges(modules);
    let bytes: u64 = ranges.iter().map(|range| range.end.since(range.start)).sum();
    target.announce(&format!(
        "searching {} images for '{tag}', {} MiB in {} ranges, takes a request for each and a few for each match",
        modules.len(),
        grouped(bytes.div_ceil(1 << 20)),
        ranges.len()
    ));
    let mut found = Hits::default();
    for (done, range) in (0..).zip(&ranges) {
        target.advance("ranges", done, ranges.len() as u64);
        if let Err(error) = found.search(target, tag, list, range.clone()) {
            let text = format!("Images were not searched from {} on: {error}", target.shown(range.start));
            target.note(Note::partial(NoteCode::BrokenOff, text));
            break;
        }
        if found.hits.len() >= MAX_OF_ALL {
            let text = format!(
                "Only the first {MAX_OF_ALL} places are told; images from {} on were not searched",
                target.shown(range.end)
            );
            target.note(Note::partial(NoteCode::Limit, text));
            break;
        }
    }
    (found.images(target, list), ranges.len())
}

/// What is searched at once.
fn ranges(modules: &[Module]) -> Vec<Range<VirtAddr>> {
    let mut ranges: Vec<Range<VirtAddr>> = Vec::new();
    for module in modules.iter().filter(|module| module.size > 0 && module.end() > module.base) {
        match ranges.last_mut() {
            Some(last)
                if module.base <= last.end.offset(GAP) && module.end().since(last.start) <= LONGEST =>
            {
                last.end = last.end.max(module.end());
            }
            _ => ranges.push(module.base..module.end()),
        }
    }
    ranges
}

/// Matches so far.
#[derive(Default)]
struct Hits {
    hits: Vec<(VirtAddr, Vec<u8>)>,
    /// It was said why images were read instead of searched.
    is_refusal_told: bool,
}

impl Hits {
    fn search(
        &mut self,
        target: &Target<'_>,
        tag: PoolTag,
        list: &ModuleList,
        range: Range<VirtAddr>,
    ) -> Result<(), TargetError> {
        let mut from = range.start;
        let mut in_module: (VirtAddr, usize) = (VirtAddr(0), 0);
        while from < range.end && self.hits.len() < MAX_OF_ALL {
            let searched = target.search(from..range.end, &tag.bytes());
            let searched = searched.map_err(|error| TargetError::read("loaded images", error))?;
            if let Some(cause) = searched.refusal.filter(|_| !self.is_refusal_told) {
                self.is_refusal_told = true;
                let text = format!("The target did not search its memory ({cause}), so images were read");
                target.note(Note::remark(NoteCode::NotSearched, text));
            }
            if let Some(at) = searched.given_up {
                let text = format!("Images were not searched from {} on", target.shown(at));
                target.note(Note::partial(NoteCode::Limit, text));
            }
            let Some(hit) = searched.found.filter(|hit| *hit >= from && *hit < range.end) else { break };
            from = hit.offset(1);
            let Some(module) = list.containing(hit) else { continue };
            if in_module.0 != module.base {
                in_module = (module.base, 0);
            }
            in_module.1 += 1;
            if in_module.1 > MAX_OF_ONE {
                let text =
                    format!("{}: only the first {MAX_OF_ONE} places are told", screened(&module.image_name));
                target.note(Note::partial(NoteCode::Limit, text));
                from = module.end();
                continue;
            }
            // The page in front of it may not be there: then its own bytes are enough.
            let start = VirtAddr(hit.0 - AROUND.min(hit.since(module.base)));
            let (mut bytes, _) = target.read_some(start, (hit.since(start) + AROUND) as usize);
            if bytes.len() as u64 <= hit.since(start) {
                bytes = vec![0; AROUND as usize];
                bytes.extend(target.read_some(hit, AROUND as usize).0);
            }
            let before = bytes.len().saturating_sub(AROUND as usize);
            self.hits.push((hit, [vec![0; (AROUND as usize).saturating_sub(before)], bytes].concat()));
        }
        Ok(())
    }

    fn images(self, target: &Target<'_>, list: &ModuleList) -> Vec<Image> {
        let mut images: Vec<Image> = Vec::new();
        let mut sections: Vec<Section> = Vec::new();
        for (address, bytes) in self.hits {
            let Some(module) = list.containing(address) else { continue };
            if images.last().is_none_or(|image| image.base != module.base) {
                sections = Section::all(target, module);
                let image = screened(&module.image_name);
                images.push(Image { image, base: module.base, uses: Vec::new() });
            }
            let rva = address.since(module.base);
            let section = sections.iter().find(|section| section.range.contains(&rva));
            let (before, after) = bytes.split_at((AROUND as usize).min(bytes.len()));
            let symbol = Some(target.symbol_in(address, module)).filter(|at| at.is_named());
            let is_code = section.is_some_and(|section| section.is_code);
            let what = if is_code { Use::of(before) } else { Use::Data };
            images.last_mut().expect("pushed above").uses.push(TagUse {
                address,
                symbol: symbol.map(|symbol| symbol.to_string()),
                section: section.map(|section| section.name.clone()),
                is_code,
                what,
                bytes: after.iter().map(|byte| format!("{byte:02x}")).collect(),
                instruction: (what != Use::Data).then(|| instruction_with(target, address)).flatten(),
            });
        }
        for image in &mut images {
            image.uses.sort_by_key(|of| !of.is_code);
        }
        // Drivers with code that allocates first, and the kernel, in which common tags are by chance, in the order of addresses.
        images.sort_by_key(|image| !image.uses.iter().any(|of| of.what != Use::Data));
        images
    }
}

impl Use {
    /// What an instruction does with the constant behind these bytes, as x64 encodes it.
    fn of(before: &[u8]) -> Self {
        match before {
            [.., 0x41, 0xb8] => Self::ThirdArgument,
            [.., 0x41, 0xb9] => Self::FourthArgument,
            [.., 0xc7, 0x44, 0x24, _] => Self::StackArgument,
            [.., 0x81, modrm] if modrm & 0xf8 == 0xf8 => Self::Compared,
            [.., 0x81, 0x38..=0x3b | 0x3e | 0x3f] | [.., 0x81, 0x78..=0x7f, _] => Self::Compared,
            [.., 0x3d] => Self::Compared,
            [.., 0xba] => Self::SecondArgument,
            [.., 0xb9] => Self::FirstArgument,
            _ => Self::Data,
        }
    }

    /// In words, as far as it says anything.
    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::ThirdArgument => "third argument, as ExAllocatePoolWithTag and ExAllocatePool2 have it",
            Self::SecondArgument => "second argument, as ExFreePoolWithTag has it",
            Self::FourthArgument => "fourth argument",
            Self::FirstArgument => "first argument",
            Self::StackArgument => "argument on the stack, as lookaside lists are initialized with",
            Self::Compared => "compared with something",
            Self::Data => "data, or code that is not told",
        }
    }
}

/// A section of an image.
struct Section {
    name: String,
    range: Range<u64>,
    is_code: bool,
}

impl Section {
    /// Those that the headers of an image in memory list; none if they cannot be read.
    fn all(target: &Target<'_>, module: &Module) -> Vec<Self> {
        const EXECUTE: u32 = 0x2000_0000;
        const HEADER: usize = 40;
        let (bytes, _) = target.read_some(module.base, 0x400);
        let word = |at: usize, len: usize| -> Option<usize> {
            let bytes = bytes.get(at..at.checked_add(len)?)?;
            Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
        };
        let pe = || word(0x3c, 4).filter(|pe| bytes.get(*pe..pe + 4) == Some(b"PE\0\0"));
        let Some(pe) = pe() else { return Vec::new() };
        let (count, optional) = (word(pe + 6, 2).unwrap_or(0), word(pe + 20, 2).unwrap_or(0));
        let first = pe + 24 + optional;
        let end = first + count.min(MAX_SECTIONS) * HEADER;
        let (headers, _) = target.read_some(module.base.offset(first as u64), end - first);
        headers
            .chunks_exact(HEADER)
            .map(|header| {
                let number =
                    |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
                let (size, start) = (u64::from(number(8)), u64::from(number(12)));
                let name: Vec<u8> = header[..8].iter().copied().take_while(|byte| *byte != 0).collect();
                Self {
                    name: screened(&String::from_utf8_lossy(&name)),
                    range: start..start + size,
                    is_code: number(36) & EXECUTE != 0,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_a_constant_says_what_is_done_with_it() {
        for (before, what) in [
            (&[0x33, 0xc9, 0x41, 0xb8][..], Use::ThirdArgument),
            (&[0x8b, 0xcb, 0xba], Use::SecondArgument),
            (&[0x41, 0xb9], Use::FourthArgument),
            (&[0xb9], Use::FirstArgument),
            (&[0xc7, 0x44, 0x24, 0x28], Use::StackArgument),
            (&[0x81, 0xfa], Use::Compared),
            (&[0x81, 0x7b, 0x04], Use::Compared),
            (&[0x3d], Use::Compared),
            (&[0x90], Use::Data),
            (&[], Use::Data),
        ] {
            assert_eq!(Use::of(before), what, "{before:x?}");
        }
    }

    #[test]
    fn neighbours_are_searched_as_one_range() {
        let module = |base: u64, size: u32| Module {
            name: "m".into(),
            image_name: "m.sys".into(),
            base: VirtAddr(base),
            size,
        };
        let modules = [
            module(0x10_0000, 0x1000),
            module(0x11_0000, 0x2000),
            module(0x20_0000, 0x100_0000),
            module(0x120_0000, 0x1000),
        ];
        let found = ranges(&modules);
        let expected = [(0x10_0000, 0x11_2000), (0x20_0000, 0x120_0000), (0x120_0000, 0x120_1000)];
        assert_eq!(found, expected.map(|(start, end)| VirtAddr(start)..VirtAddr(end)));
    }
}
