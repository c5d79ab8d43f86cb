//! The constants of tags in drivers' code: what stands in front of their calls of the pool's allocator and of its free routine.
//!
//! ```text
//!  41 b8 4c 65 61 6b    mov r8d, 'kaeL'       third argument of ExAllocatePoolWithTag
//!  ff 15 rel32          call [import]         the return address of the stacks is behind it
//! ```

use crate::windows::kernel::{Kernel, Site};
use crate::windows::scenario::Scenario;

/// `mov r8d` and `mov edx`, each with a constant behind it.
const THIRD_ARGUMENT: &[u8] = &[0x41, 0xb8];
const SECOND_ARGUMENT: &[u8] = &[0xba];
/// A call through an import: two bytes, and where the import is.
const CALL: &[u8] = &[0xff, 0x15, 0, 0, 0, 0];

/// Return addresses of calls with a tag.
const CALLS: &[(Site, [u8; 4], &[u8])] = &[
    (("myfault", "MyfaultDeviceControl", 0x358), *b"Leak", THIRD_ARGUMENT),
    (("myfault", "MyfaultDeviceControl", 0x1c4), *b"Leak", THIRD_ARGUMENT),
    (("myfault", "MyfaultDeviceControl", 0x2e1), *b"MyfC", THIRD_ARGUMENT),
    (("myfault", "MyfaultUnload", 0x5a), *b"Leak", SECOND_ARGUMENT),
    (("netfilt", "FlowCreate", 0x5c), *b"NfFl", THIRD_ARGUMENT),
    (("storfilt", "StorNameCacheInsert", 0x84), *b"StNm", THIRD_ARGUMENT),
];

/// Writes them into the images that the scenario loads.
pub(in crate::windows) fn carry_tags(kernel: &mut Kernel, scenario: Scenario) {
    for ((module, routine, displacement), tag, load) in CALLS {
        let is_known = kernel.layouts.images.iter().any(|(_, layout)| layout.module == *module);
        if !is_known || !scenario.is_loaded(module) {
            continue;
        }
        let code = [load, &tag[..], CALL].concat();
        let at = kernel.address_in(module, routine, displacement - code.len() as u32);
        kernel.write(at, &code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn calls_lie_in_their_routines() {
        assert_sites_lie_in_their_routines(CALLS.iter().map(|(site, ..)| site));
    }
}
