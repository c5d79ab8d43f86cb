//! The COFF object that the linker turns into an image and a PDB.
//!
//! It has every section of the image, zero-filled and of the right size, every symbol at its place in them, the types as
//! `.debug$T`, the tables for unwinding at the start of the linker's section, and the exports as linker directives.

use object::pe;
use object::write::{Object, SectionId, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};
use verikd_sim::windows::layout::{ImageLayout, Section, SectionKind as Kind, Types};

use crate::codeview;

/// The object file of an image. `linker_fill` is put into the section that the linker fills, so that it reaches its size
/// together with what the linker puts there.
pub(crate) fn object_file(
    image: &ImageLayout,
    types: Option<&Types>,
    linker_fill: &[u8],
) -> Result<Vec<u8>, object::write::Error> {
    let debug = pe::IMAGE_SCN_CNT_INITIALIZED_DATA | pe::IMAGE_SCN_MEM_DISCARDABLE | pe::IMAGE_SCN_MEM_READ;
    let directives = pe::IMAGE_SCN_LNK_INFO | pe::IMAGE_SCN_LNK_REMOVE;
    // For x86 it puts the underscore of cdecl in front of every symbol.
    let is_32_bit = types.is_some_and(|types| types.pointer_size == 4);
    let architecture = if is_32_bit { Architecture::I386 } else { Architecture::X86_64 };
    let mut object = Object::new(BinaryFormat::Coff, architecture, Endianness::Little);
    for section in &image.sections {
        let zeros = vec![0; section.size as usize];
        let data = if section.kind == Kind::Linker { linker_fill } else { &zeros };
        let id = add(&mut object, &section.name, characteristics(section), data, 16);
        for (at, name) in &section.symbols {
            object.add_symbol(symbol(section, id, *at, name));
        }
    }
    if let Some(types) = types {
        add(&mut object, ".debug$T", debug, &codeview::type_section(types), 4);
    }
    // No records, but without this section the linker takes the object for one that has no debug information.
    add(&mut object, ".debug$S", debug, &CODEVIEW_SIGNATURE.to_le_bytes(), 4);
    let exports: String = image.exports.iter().map(|name| format!("/EXPORT:{name} ")).collect();
    if !exports.is_empty() {
        add(&mut object, ".drectve", directives, exports.as_bytes(), 1);
    }
    object.write()
}

const CODEVIEW_SIGNATURE: u32 = 4;

fn add(object: &mut Object<'_>, name: &str, flags: pe::SectionFlags, data: &[u8], align: u64) -> SectionId {
    let id = object.add_section(Vec::new(), name.into(), SectionKind::Data);
    object.append_section_data(id, data, align);
    object.section_mut(id).flags = SectionFlags::Coff { characteristics: flags };
    id
}

fn symbol(section: &Section, id: SectionId, at: u32, name: &str) -> Symbol {
    Symbol {
        name: name.into(),
        value: (at - section.at).into(),
        size: 0,
        kind: if section.kind == Kind::Data { SymbolKind::Data } else { SymbolKind::Text },
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(id),
        flags: SymbolFlags::None,
    }
}

fn characteristics(section: &Section) -> pe::SectionFlags {
    let code = pe::IMAGE_SCN_CNT_CODE | pe::IMAGE_SCN_MEM_EXECUTE | pe::IMAGE_SCN_MEM_READ;
    let data = pe::IMAGE_SCN_CNT_INITIALIZED_DATA | pe::IMAGE_SCN_MEM_READ;
    match section.kind {
        Kind::Code => code,
        Kind::DiscardableCode => code | pe::IMAGE_SCN_MEM_DISCARDABLE,
        Kind::Data => data | pe::IMAGE_SCN_MEM_WRITE,
        Kind::Linker => data,
    }
}
