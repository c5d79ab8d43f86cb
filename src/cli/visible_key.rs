//! A key that others can read.

use std::io::{self, Write};

use verikd::key::{KEY_VARIABLE, KeyOrigin};

/// Says that a key can be read by others, unless nobody else is concerned. `otherwise` is how it is written without that.
pub(super) fn warn_of_visible_key(origin: Option<KeyOrigin>, is_loopback: bool, otherwise: &str) {
    if origin == Some(KeyOrigin::CommandLine) && !is_loopback {
        let _ = writeln!(
            io::stderr(),
            "warning: a key on the command line can be read by every user of this machine; {otherwise} or \
             {KEY_VARIABLE} keeps it"
        );
    }
}
