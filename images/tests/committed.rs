//! The committed images and PDBs are what their layout files say, and what the linker makes of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use object::{Object, ObjectSegment};
use pdb2::{FallibleIterator, PDB, PrimitiveKind, SymbolData, TypeData, TypeFinder, TypeIndex};
use verikd_images::{LINKER_RECORD, LinkError, Linker, build_directory};
use verikd_sim::windows::layout::{BaseType, Field, ImageLayout, Type, Types};
use verikd_sim::windows::{BUILDS, FILTER_DRIVERS};

#[test]
fn committed_files_say_what_their_layout_files_say() {
    for build in BUILDS {
        for image in build.all_images() {
            let layout = image.layout().unwrap();
            let types = (!layout.types.is_empty()).then(|| build.types().unwrap());
            let contents = Contents::read(image.bytes, image.pdb);
            assert_eq!(contents.symbols, wanted_symbols(&layout), "{}", image.pdb_file);
            assert_eq!(
                contents.fields,
                types.as_ref().map(wanted_fields).unwrap_or_default(),
                "{}",
                image.pdb_file
            );
            let file = object::File::parse(image.bytes).unwrap();
            let exports: BTreeMap<_, _> =
                file.exports().unwrap().map(|export| exported(&export.unwrap())).collect();
            let at =
                |name: &String| (name.clone(), layout.preferred_base + u64::from(contents.symbols[name]));
            assert_eq!(exports, layout.exports.iter().map(at).collect(), "exports of {}", image.file);
        }
    }
}

#[test]
fn building_again_gives_the_committed_files() {
    let linker = match Linker::find() {
        Ok(linker) => linker,
        Err(LinkError::NoLinker(path)) => return println!("skipped: {} is not there", path.display()),
        Err(error) => panic!("{error}"),
    };
    let own = BUILDS.iter().map(|build| (build.name, build.images));
    for (name, images) in own.chain([("drivers", FILTER_DRIVERS)]) {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../sim/src/windows").join(name);
        let made_by = fs::read_to_string(directory.join("images").join(LINKER_RECORD)).unwrap();
        let built = build_directory(&linker, &directory).unwrap();
        assert!(!built.is_empty(), "{name} has a kernel of its own, or drivers");
        for built in built {
            let committed = images.iter().find(|image| image.file == built.layout.file).unwrap();
            // Elsewhere than on Unix the linker writes its own path into the PDB.
            if cfg!(unix) && made_by.trim() == linker.version {
                assert!(built.image == committed.bytes, "{} differs from the committed one", committed.file);
                assert!(built.pdb == committed.pdb, "{} differs from the committed one", committed.pdb_file);
            } else {
                println!(
                    "{}: made by {}, this is {}: contents compared",
                    committed.file,
                    made_by.trim(),
                    linker.version
                );
                let [now, then] = [(&*built.image, &*built.pdb), (committed.bytes, committed.pdb)]
                    .map(|(image, pdb)| Contents::read(image, pdb));
                assert_eq!(now, then, "{}", committed.pdb_file);
            }
        }
    }
}

/// What readers look for in an image and its PDB.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    /// Image base and `SizeOfImage`, `TimeDateStamp` of the PE header.
    image: (u64, u64),
    guid: [u8; 16],
    age: u32,
    /// Public symbols: address relative to the image base.
    symbols: BTreeMap<String, u32>,
    /// Fields as `_X.u1.Flags`: offset and type.
    fields: BTreeMap<String, (u64, String)>,
}

impl Contents {
    /// Reads both with parsers that are not ours; panics where they disagree about the identity.
    fn read(image: &[u8], pdb: &[u8]) -> Self {
        let file = object::File::parse(image).unwrap();
        let identity = file.pdb_info().unwrap().expect("the image has an RSDS record");
        let mut pdb = PDB::open(Cursor::new(pdb)).unwrap();
        let guid = pdb.pdb_information().unwrap().guid.to_bytes_le();
        let age = pdb.debug_information().unwrap().age().unwrap();
        assert_eq!((guid, age), (identity.guid(), identity.age()), "image and PDB belong together");
        let size = file.segments().map(|segment| segment.address() + segment.size()).max().unwrap_or(0);
        Self {
            image: (file.relative_address_base(), size),
            guid,
            age,
            symbols: symbols(&mut pdb),
            fields: fields(&mut pdb),
        }
    }
}

fn symbols<'a>(pdb: &mut PDB<'a, Cursor<&'a [u8]>>) -> BTreeMap<String, u32> {
    let addresses = pdb.address_map().unwrap();
    let table = pdb.global_symbols().unwrap();
    let mut symbols = BTreeMap::new();
    let mut iter = table.iter();
    while let Some(symbol) = iter.next().unwrap() {
        if let Ok(SymbolData::Public(public)) = symbol.parse() {
            symbols.insert(public.name.to_string().into_owned(), public.offset.to_rva(&addresses).unwrap().0);
        }
    }
    symbols
}

fn fields<'a>(pdb: &mut PDB<'a, Cursor<&'a [u8]>>) -> BTreeMap<String, (u64, String)> {
    let information = pdb.type_information().unwrap();
    let mut finder = information.finder();
    let mut named = Vec::new();
    let mut iter = information.iter();
    while let Some(item) = iter.next().unwrap() {
        finder.update(&iter);
        let (name, list, size) = match item.parse().unwrap() {
            TypeData::Class(class) => (class.name, class.fields, class.size),
            TypeData::Union(union) => (union.name, Some(union.fields), union.size),
            _ => continue,
        };
        if size > 0 && !name.to_string().starts_with('<') {
            named.push((name.to_string().into_owned(), list.expect("a definition has fields"), size));
        }
    }
    let mut fields = BTreeMap::new();
    for (name, list, size) in named {
        fields.insert(name.clone(), (size, "size".to_owned()));
        members(&finder, list, 0, &name, &mut fields);
    }
    fields
}

fn members(
    finder: &TypeFinder<'_>,
    list: TypeIndex,
    start: u64,
    prefix: &str,
    fields: &mut BTreeMap<String, (u64, String)>,
) {
    let TypeData::FieldList(list) = finder.find(list).unwrap().parse().unwrap() else {
        panic!("not a field list")
    };
    for member in &list.fields {
        let TypeData::Member(member) = member else { panic!("{prefix} has {member:?}") };
        let (offset, name) = (start + member.offset, format!("{prefix}.{}", member.name));
        let unnamed = match finder.find(member.field_type).unwrap().parse().unwrap() {
            TypeData::Class(class) if class.size > 0 => Some((class.fields.unwrap(), "struct", class.size)),
            TypeData::Union(union) if union.size > 0 => Some((union.fields, "union", union.size)),
            _ => None,
        };
        if let Some((list, kind, size)) = unnamed {
            members(finder, list, offset, &name, fields);
            fields.insert(name, (offset, format!("{kind} {size}")));
        } else {
            fields.insert(name, (offset, type_name(finder, member.field_type)));
        }
    }
    if let Some(rest) = list.continuation {
        members(finder, rest, start, prefix, fields);
    }
}

/// A type in the notation of the layout files, but for arrays: those have their bytes in place of their count.
fn type_name(finder: &TypeFinder<'_>, index: TypeIndex) -> String {
    match finder.find(index).unwrap().parse().unwrap() {
        TypeData::Primitive(primitive) => {
            let pointer = if primitive.indirection.is_some() { "*" } else { "" };
            format!("{}{pointer}", primitive_name(primitive.kind))
        }
        TypeData::Pointer(pointer) => format!("{}*", type_name(finder, pointer.underlying_type)),
        TypeData::Array(array) => {
            format!("{}[{} bytes]", type_name(finder, array.element_type), array.dimensions[0])
        }
        TypeData::Bitfield(bits) => {
            format!("{}:{}@{}", type_name(finder, bits.underlying_type), bits.length, bits.position)
        }
        TypeData::Class(class) => class.name.to_string().into_owned(),
        TypeData::Union(union) => union.name.to_string().into_owned(),
        TypeData::Enumeration(enumeration) => enumeration.name.to_string().into_owned(),
        other => panic!("not a type that layouts have: {other:?}"),
    }
}

fn exported(export: &object::Export<'_>) -> (String, u64) {
    let object::NameOrOrdinal::Name(name) = export.name() else { panic!("exported without a name") };
    let object::ExportTarget::Address { address } = export.target() else {
        panic!("not exported from this image")
    };
    (String::from_utf8_lossy(name).into_owned(), address)
}

fn wanted_symbols(layout: &ImageLayout) -> BTreeMap<String, u32> {
    layout.symbols().into_iter().map(|(name, at)| (name.to_owned(), at)).collect()
}

fn wanted_fields(types: &Types) -> BTreeMap<String, (u64, String)> {
    let mut fields = BTreeMap::new();
    for (name, aggregate) in &types.aggregates {
        fields.insert(name.clone(), (aggregate.size.into(), "size".to_owned()));
        for Field { offset, name: field, ty } in &aggregate.fields {
            fields.insert(format!("{name}.{field}"), ((*offset).into(), wanted_type(types, ty)));
        }
    }
    fields
}

fn wanted_type(types: &Types, ty: &Type) -> String {
    match ty {
        Type::Base(base) => base_name(*base).to_owned(),
        Type::Named { name, .. } => name.clone(),
        Type::Pointer(target) => format!("{}*", wanted_type(types, target)),
        Type::Array(element, _) => {
            format!("{}[{} bytes]", wanted_type(types, element), types.size_of(ty).unwrap())
        }
        Type::Bits { base, width, bit } => format!("{}:{width}@{bit}", base_name(*base)),
        Type::Unnamed { union, size } => format!("{} {size}", if *union { "union" } else { "struct" }),
    }
}

/// Which of the PDB's primitive types each C type is.
const PRIMITIVES: &[(PrimitiveKind, BaseType, &str)] = &[
    (PrimitiveKind::Void, BaseType::Void, "void"),
    (PrimitiveKind::RChar, BaseType::Char, "char"),
    (PrimitiveKind::UChar, BaseType::UnsignedChar, "unsigned char"),
    (PrimitiveKind::WChar, BaseType::WideChar, "wchar"),
    (PrimitiveKind::Short, BaseType::Short, "short"),
    (PrimitiveKind::UShort, BaseType::UnsignedShort, "unsigned short"),
    (PrimitiveKind::I32, BaseType::Int, "int"),
    (PrimitiveKind::U32, BaseType::UnsignedInt, "unsigned int"),
    (PrimitiveKind::Long, BaseType::Long, "long"),
    (PrimitiveKind::ULong, BaseType::UnsignedLong, "unsigned long"),
    (PrimitiveKind::Quad, BaseType::LongLong, "long long"),
    (PrimitiveKind::UQuad, BaseType::UnsignedLongLong, "unsigned long long"),
    (PrimitiveKind::F64, BaseType::Double, "double"),
];

fn primitive_name(wanted: PrimitiveKind) -> &'static str {
    PRIMITIVES.iter().find(|(kind, ..)| *kind == wanted).map_or("another primitive", |(.., name)| name)
}

fn base_name(wanted: BaseType) -> &'static str {
    PRIMITIVES.iter().find(|(_, base, _)| *base == wanted).map_or("another base type", |(.., name)| name)
}
