//! The structures of a text in the language of `symbols::table`, as a PDB of a 32-bit kernel: what a linker makes of them.

use std::fmt::Write;
use std::path::Path;

use verikd::symbols::pdb::PdbSymbols;
use verikd_images::{LinkError, Linker, build_pdb};
use verikd_sim::windows::layout::{ImageLayout, Types};

/// Opens such a file, which has these symbols too; nothing where the toolchain has no linker.
pub(super) fn symbols(name: &str, types: &str, symbols: &[(String, u32)]) -> Option<PdbSymbols> {
    let linker = match Linker::find() {
        Ok(linker) => linker,
        Err(LinkError::NoLinker(path)) => {
            println!("skipped: {} is not there", path.display());
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let types = Types::parse(&[&types_file(types)]).unwrap();
    let layout = ImageLayout::parse(&[&image_file(symbols)]).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("published").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(&layout.pdb);
    std::fs::write(&path, build_pdb(&linker, &layout, &types).unwrap()).unwrap();
    Some(PdbSymbols::open(&path).unwrap())
}

fn image_file(symbols: &[(String, u32)]) -> String {
    let mut text = "file = 'ntkrnlpa.exe'\nmodule = 'nt'\npdb = 'ntkrpamp.pdb'\ntypes = ['types.toml']\n\
                    loaded_at = '82800000'\npreferred_base = 0x400000\ntimestamp = 0x4ce78a09\n\
                    entry = 'KiSystemStartup'\nexports = []\n[[section]]\nname = '.text'\nat = 0x1000\n\
                    size = 0x600000\nkind = 'code'\nsymbols = [[0x1800, 'KiSystemStartup']"
        .to_owned();
    for (name, rva) in symbols {
        write!(text, ", [{rva}, '{name}']").unwrap();
    }
    text + "]\n"
}

fn types_file(types: &str) -> String {
    let mut text = "unnamed = '<unnamed-tag>'\npointer_size = 4\n".to_owned();
    let mut close = "";
    for line in types.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            let [field, offset, ty] = words[..] else { panic!("{line}") };
            write!(text, "[0x{offset}, '{field}', '{}'],", field_type(ty)).unwrap();
        } else {
            let [name, size] = words[..] else { panic!("{line}") };
            write!(text, "{close}[struct.{name}]\nsize = 0x{size}\nfields = [").unwrap();
            close = "]\n";
        }
    }
    text + "]\n"
}

fn field_type(text: &str) -> String {
    if let Some((element, count)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        return format!("{}[{}]", field_type(element), u32::from_str_radix(count, 16).unwrap());
    }
    match text {
        "ptr" => "void*",
        "u8" => "unsigned char",
        "u16" => "unsigned short",
        "u32" => "unsigned long",
        "u64" => "unsigned long long",
        "i8" => "char",
        structure => structure,
    }
    .to_owned()
}
