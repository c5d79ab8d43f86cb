//! A symbol file from a server or a colleague: whatever is in it, reading it ends in an error or in answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use verikd::symbols::Rva;
use verikd::symbols::check::census;

fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().expect("the machine has room for temporary files");
    std::fs::write(file.path(), bytes).expect("as above");
    let Ok((census, symbols)) = census(file.path()) else { return };
    assert_eq!(symbols.identity(), &census.pdb);
    for rva in [0, 0x1000, u32::MAX] {
        assert!(symbols.nearest(Rva(rva)).is_none_or(|found| found.rva <= Rva(rva)));
    }
    if let Some(Ok(layout)) = symbols.find_type("_VF_POOL_TRACE").map(|id| symbols.layout(id)) {
        for path in ["Address", "StackTrace.x.y", "Tree.Base.p"] {
            symbols.place(&layout, path).ok();
        }
    }
});
