//! C++ names as a person reads them: `?Dispatch@Device@@SAJXZ` is `Device::Dispatch`.

use std::borrow::Cow;

use msvc_demangler::{DemangleFlags, demangle};

/// Longest name that is undecorated: the reader of decorated names calls itself for each level of a type, and a level
/// takes two characters.
const MAX_LEN: usize = 300;
/// Most digits in such a name. A digit repeats what came before, and what it repeats may have digits too, so that a
/// hostile name could grow beyond all bounds.
const MAX_DIGITS: usize = 40;

/// The name without decoration: scope and name only, as WinDbg shows it. What is not decorated stays as it is.
#[must_use]
pub fn undecorate(name: &str) -> Cow<'_, str> {
    // A kernel has thousands of them; their names say no more.
    if name.starts_with("??_C@_") {
        return "`string'".into();
    }
    let digits = || name.bytes().filter(u8::is_ascii_digit).count();
    if !name.starts_with('?') || name.len() > MAX_LEN || digits() > MAX_DIGITS {
        return name.into();
    }
    demangle(name, DemangleFlags::NAME_ONLY).map_or(Cow::Borrowed(name), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decorated_name_is_read_and_any_other_left_alone() {
        assert_eq!(undecorate("?Dispatch@Device@@SAJXZ"), "Device::Dispatch");
        assert_eq!(undecorate("??0Device@@QEAA@XZ"), "Device::Device");
        assert_eq!(undecorate("?"), "?");
        assert_eq!(undecorate("?Dispatch@Device"), "?Dispatch@Device");
        assert_eq!(undecorate("KeBugCheckEx"), "KeBugCheckEx");
        assert_eq!(undecorate("??_C@_0N@FFJGBINN@AuthenticAMD?$AA@OKHAJAOM@"), "`string'");
    }

    #[test]
    fn a_hostile_name_neither_overflows_nor_hangs() {
        for part in ["PEA", "PA", "?", "??", "?$A@", "P6A", "?A", "V?$", "1?", "??_", "$$A6"] {
            for start in ["?f@@YAX", "?f@@3", "?", "??"] {
                let deep = format!("{start}{}H@Z", part.repeat(MAX_LEN));
                let deep = &deep[..MAX_LEN];
                assert!(!undecorate(deep).is_empty());
            }
        }
        let level = |digit: char| format!("P6AX{}@Z", digit.to_string().repeat(8));
        let wide: String = "0123456789".chars().map(level).collect();
        let wide = format!("?f@@YAXPEAX{wide}@Z");
        assert_eq!(undecorate(&wide), wide, "its digits are too many");
    }
}
