use std::io::Write;

use super::*;
use crate::symbols::layout::{BaseKind, Bits, Type};

const TEXT: &str = r#"{
  "metadata": {"format": "6.1.0", "windows": {"pdb": {
    "GUID": "339E74133576439CBCDF7E0229DA3773", "age": 31, "database": "x.pdb", "machine_type": 34404}}},
  "base_types": {
    "void": {"kind": "void", "size": 0, "signed": true, "endian": "little"},
    "pointer": {"kind": "int", "size": 8, "signed": false, "endian": "little"},
    "wchar": {"kind": "int", "size": 2, "signed": true, "endian": "little"},
    "unsigned char": {"kind": "char", "size": 1, "signed": false, "endian": "little"},
    "unsigned long": {"kind": "int", "size": 4, "signed": false, "endian": "little"}},
  "enums": {"_POOL_TYPE": {"base": "long", "size": 4, "constants": {"PagedPool": 1, "NonPagedPool": 0}}},
  "user_types": {
    "_INNER": {"kind": "union", "size": 4, "fields": {
      "High": {"offset": 0, "type": {"kind": "bitfield", "bit_position": 4, "bit_length": 28,
        "type": {"kind": "base", "name": "unsigned long"}}},
      "Low": {"offset": 0, "type": {"kind": "bitfield", "bit_position": 0, "bit_length": 4,
        "type": {"kind": "base", "name": "unsigned long"}}}}},
    "_OUTER": {"kind": "struct", "size": 64, "fields": {
      "Text": {"offset": 16, "type": {"kind": "array", "count": 5, "subtype": {"kind": "base", "name": "wchar"}}},
      "Link": {"offset": 8, "type": {"kind": "pointer", "subtype": {"kind": "struct", "name": "_ELSEWHERE"}}},
      "Inner": {"offset": 4, "type": {"kind": "union", "name": "_INNER"}},
      "Pool": {"offset": 0, "type": {"kind": "enum", "name": "_POOL_TYPE"}}}}},
  "symbols": {"late": {"address": 4096}, "b": {"address": 4097}, "a": {"address": 4097}, "typed": {}, "far": {"address": 4294967296}}
}"#;

fn write(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(bytes: &[u8]) -> Result<IsfSymbols, String> {
    IsfSymbols::open(write(bytes).path()).map_err(|error| error.what())
}

#[test]
fn types_fields_and_bits_are_read() {
    let symbols = open(TEXT.as_bytes()).unwrap();
    let layout = symbols.layout(symbols.find_type("_OUTER").unwrap()).unwrap();
    let names: Vec<_> = layout.fields.iter().map(|field| &*field.name).collect();
    assert_eq!((layout.size, names), (64, vec!["Pool", "Inner", "Link", "Text"]));
    let place = symbols.place(&layout, "Inner.High").unwrap().unwrap();
    assert_eq!((place.offset, place.bits), (4, Some(Bits { position: 4, length: 28 })));
    let text = &layout.field("Text").unwrap().ty;
    let element = Box::new(Type::Base { kind: BaseKind::Character, size: 2 });
    assert_eq!(text, &Type::Array { element, count: 5, size: 10 });
    let Type::Pointer { to, size: 8 } = &layout.field("Link").unwrap().ty else { panic!("no pointer") };
    assert!(matches!(&**to, Type::Record { id: None, size: 0, .. }), "declared only");
    assert_eq!(layout.field("Pool").unwrap().ty.size(), 4);
    assert_eq!(
        symbols.constants("_POOL_TYPE").unwrap()[0],
        Constant { name: "NonPagedPool".into(), value: 0 }
    );
    assert_eq!(symbols.types().collect::<Vec<_>>(), ["_INNER", "_OUTER"]);
}

#[test]
fn names_and_addresses_lead_to_each_other() {
    let symbols = open(TEXT.as_bytes()).unwrap();
    assert_eq!(symbols.identity().to_string(), "339E74133576439CBCDF7E0229DA37731F");
    assert_eq!(symbols.address_of("a"), Some(Rva(0x1001)));
    assert_eq!((symbols.address_of("typed"), symbols.address_of("far")), (None, None));
    let nearest = |rva| symbols.nearest(Rva(rva)).map(|found| (found.name.into_owned(), found.rva.0));
    assert_eq!(nearest(0x2000), Some(("a".into(), 0x1001)), "of several names the first");
    assert_eq!(nearest(0x1000), Some(("late".into(), 0x1000)));
    assert_eq!(nearest(0xfff), None);
    assert_eq!(symbols.iter().count(), 3);
}

#[test]
fn an_index_says_what_the_file_says_until_the_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.json");
    let long = TEXT.replace('\n', &format!("\n{}", " ".repeat(1000)));
    assert!(long.len() as u64 > SMALLEST);
    std::fs::write(&path, &long).unwrap();
    assert_eq!(indexed(&path), None);
    let read = IsfSymbols::open(&path).unwrap();
    let modified = path.metadata().unwrap().modified().unwrap();
    // What is in the file now is no JSON: whoever answers has not read it.
    std::fs::write(&path, "x".repeat(long.len())).unwrap();
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert_eq!(indexed(&path).as_ref(), Some(read.identity()));
    let kept = IsfSymbols::open(&path).unwrap();
    assert!(kept.iter().eq(read.iter()));
    assert_eq!(kept.address_of("a"), Some(Rva(0x1001)));
    assert_eq!(kept.named("LATE"), [Symbol { name: "late".into(), rva: Rva(0x1000) }]);
    assert_eq!(kept.at(Rva(0x1001)).len(), 2);
    assert_eq!(kept.type_ids(), read.type_ids());
    for id in read.type_ids() {
        assert_eq!(kept.layout(id).unwrap(), read.layout(id).unwrap());
    }
    assert_eq!(kept.constants("_POOL_TYPE"), read.constants("_POOL_TYPE"));
    assert_eq!((kept.pointer_size(), kept.find_type("_NONE")), (8, None));
    std::fs::write(&path, "x").unwrap();
    assert!(indexed(&path).is_none() && IsfSymbols::open(&path).is_err());
}

#[test]
fn gzip_is_read_and_a_file_that_swells_without_end_is_not() {
    let zip = |bytes: &[u8]| {
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(bytes).unwrap();
        zip.finish().unwrap()
    };
    let whole = zip(TEXT.as_bytes());
    assert_eq!(IsfSymbols::open(write(&whole).path()).unwrap().identity().age, 31);
    assert!(open(&whole[..whole.len() / 2]).unwrap_err().starts_with("damaged: gzip stream"));
    let wide = zip(&vec![b' '; 65 << 20]);
    assert!(open(&[zip(b"{"), wide].concat()).unwrap_err().contains("more than 0x4000000 bytes of text"));
}

#[test]
fn what_is_no_isf_of_a_windows_module_is_named() {
    assert_eq!(open(b"").unwrap_err(), "neither JSON nor compressed with xz or gzip");
    assert_eq!(open(b"Microsoft C/C++").unwrap_err(), "neither JSON nor compressed with xz or gzip");
    assert!(open(b"{}").unwrap_err().starts_with("damaged: JSON: missing field `metadata`"));
    let linux = TEXT.replace("\"windows\"", "\"linux\"");
    assert!(open(linux.as_bytes()).unwrap_err().contains("names no PDB"));
    let no_guid = TEXT.replace("339E7413", "339E741Z");
    assert!(open(no_guid.as_bytes()).unwrap_err().contains("is no GUID"));
    let bottomless = format!("{{\"metadata\":{}", "[".repeat(100_000));
    assert!(open(bottomless.as_bytes()).unwrap_err().contains("damaged: JSON"));
    assert!(IsfSymbols::open(Path::new("/")).unwrap_err().to_string().contains("not a file"));
}

#[test]
fn every_truncation_is_an_error_and_no_changed_byte_a_panic() {
    let file = write(TEXT.as_bytes());
    for len in 0..TEXT.len() {
        file.as_file().set_len(0).unwrap();
        std::fs::write(file.path(), &TEXT[..len]).unwrap();
        assert!(IsfSymbols::open(file.path()).is_err(), "{len}");
    }
    for at in 0..TEXT.len() {
        let mut bytes = TEXT.as_bytes().to_vec();
        bytes[at] ^= 1 << (at % 7);
        std::fs::write(file.path(), &bytes).unwrap();
        if let Ok(symbols) = IsfSymbols::open(file.path()) {
            symbols.nearest(Rva(u32::MAX));
            symbols.find_type("_OUTER").map(|id| symbols.layout(id).unwrap());
        }
    }
}
