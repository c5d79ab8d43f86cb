//! Built-in layouts in place of symbols that lack them, and what an answer has to say of that.

use std::sync::Arc;

use kd_protocol::MachineType;

use super::error::TargetError;
use super::fallback::{PARTIAL, built_in_layouts, stands_in};
use super::record::Layout;
use super::{Target, record};
use crate::memory::VirtAddr;

impl Target<'_> {
    /// The built-in layout of the kernel's structure called `name`, in place of symbols that lack it.
    pub(super) fn built_in(&self, name: &str) -> Option<Layout> {
        if self.kernel().version().machine != MachineType::AMD64 || !stands_in(name) {
            return None;
        }
        let symbols = built_in_layouts();
        let layout = symbols.layout(symbols.find_type(name)?).ok()?;
        self.built_in.borrow_mut().insert(Arc::clone(&layout.name));
        Some(Layout::new(symbols, layout))
    }

    /// What the reader of an answer must know if built-in layouts were used for it.
    #[must_use]
    pub fn built_in_note(&self) -> Option<String> {
        let used = self.built_in.borrow();
        if used.is_empty() {
            return None;
        }
        let names = used.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
        let why = match self.module_symbols("nt") {
            Ok((_, symbols)) => format!("{} has no such types", record::describe(&*symbols)),
            Err(missing) => missing.to_string(),
        };
        Some(format!("Built-in layouts, which every known x64 kernel shares, were used for {names}: {why}"))
    }

    /// Driver Verifier's level and first counters without the kernel's PDB: where they are, and what they look like.
    ///
    /// The address is the debugger data block's.
    ///
    /// # Errors
    /// That of the symbols, `missing`, if the kernel gives no debugger data block; [`TargetError::NoVerifierData`] if its block
    /// does not have the address;
    /// [`TargetError::NotSupported`] if it is no x64 one.
    pub fn verifier_data(&self, missing: TargetError) -> Result<(VirtAddr, Layout), TargetError> {
        if self.kernel().version().machine != MachineType::AMD64 {
            let what = format!(
                "level and counters without the kernel's symbols, because the built-in layout is that of x64 kernels; {missing}"
            );
            return Err(TargetError::NotSupported { machine: self.machine_name(), what });
        }
        let Ok(data) = self.debugger_data() else { return Err(missing) };
        let address = data.mm_verifier_data();
        let address = address.ok_or_else(|| TargetError::NoVerifierData { missing: Arc::new(missing) })?;
        let symbols = built_in_layouts();
        let id = symbols.find_type(PARTIAL).expect("the text above has it");
        let layout = symbols.layout(id)?;
        Ok((address, Layout::new(symbols, layout)))
    }
}
