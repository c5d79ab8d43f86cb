//! The DBI stream: what it says of the image, and where the other streams are.

use ms_pdb::dbi::DbiStream;
use ms_pdb::dbi::optional_dbg::OptionalDebugHeaderStream;

use super::container::{Container, DBI_STREAM};
use crate::symbols::error::SymbolError;

pub(super) const IMAGE_FILE_MACHINE_I386: u16 = 0x14c;

/// What the DBI stream says of the other streams.
#[derive(Debug)]
pub(super) struct Dbi {
    /// Its image is for x86, where public names are decorated.
    pub(super) is_x86: bool,
    pub(super) symbol_records: Option<u32>,
    pub(super) section_headers: Option<u32>,
    /// Stream and length of the symbols of each module, in the modules' order.
    pub(super) modules: Vec<Option<(u32, u32)>>,
}

impl Dbi {
    pub(super) fn read(container: &Container) -> Result<Self, SymbolError> {
        const READING: &str = "DBI stream";
        let damaged = |wrong: String| container.damaged(READING, wrong);
        let bytes = container.stream(DBI_STREAM, READING)?;
        let stream = DbiStream::parse(bytes).map_err(|error| damaged(format!("{error:#}")))?;
        let header = stream.header().map_err(|error| damaged(format!("{error:#}")))?;
        let debug = stream.optional_debug_header().map_err(|error| damaged(format!("{error:#}")))?;
        let remapped = debug.stream(OptionalDebugHeaderStream::omap_from_src_data);
        if remapped.is_some_and(|stream| container.stream_len(stream) > 0) {
            return Err(damaged(
                "its addresses are remapped (OMAP), as before Windows Vista; not supported".to_owned(),
            ));
        }
        let modules = stream.iter_modules().map(|module| Some((module.stream()?, module.sym_size())));
        Ok(Self {
            is_x86: header.machine.get() == IMAGE_FILE_MACHINE_I386,
            symbol_records: header.global_symbol_stream.get(),
            section_headers: debug.stream(OptionalDebugHeaderStream::section_header_data),
            modules: modules.collect(),
        })
    }
}
