//! Exceptions that stop a target, in WinDbg's words.

/// Codes and what WinDbg calls them. Source: Microsoft, "Controlling Exceptions and Events"; the headers' `STATUS_` codes.
const NAMES: [(u32, &str); 26] = [
    (0x4000_001e, "WOW64 single step exception"),
    (0x4000_001f, "WOW64 breakpoint"),
    (0x4008_0201, "Windows Runtime Originate Error"),
    (0x4008_0202, "Windows Runtime Transform Error"),
    (0x406d_1388, "Visual C++ exception"),
    (0x8000_0001, "Guard page violation"),
    (0x8000_0002, "Data misaligned"),
    (0x8000_0003, "Break instruction exception"),
    (0x8000_0004, "Single step exception"),
    (0x8000_0007, "Wake debugger"),
    (0x8000_0421, "Verifier stop"),
    (0xc000_0005, "Access violation"),
    (0xc000_0006, "In-page I/O error"),
    (0xc000_0008, "Invalid handle"),
    (0xc000_001c, "Invalid system call"),
    (0xc000_001d, "Illegal instruction"),
    (0xc000_001e, "Invalid lock sequence"),
    (0xc000_0037, "Port disconnected"),
    (0xc000_0094, "Integer divide-by-zero"),
    (0xc000_0095, "Integer overflow"),
    (0xc000_00fd, "Stack overflow"),
    (0xc000_0409, "Security check failure or stack buffer overrun"),
    (0xc000_0420, "Assertion failure"),
    (0xe043_4352, "CLR exception"),
    (0xe043_4f4d, "CLR exception"),
    (0xe06d_7363, "C++ EH exception"),
];

/// An exception as WinDbg announces it: `Access violation - code c0000005`.
#[must_use]
pub fn exception(code: u32) -> String {
    let name = NAMES.iter().find(|(known, _)| *known == code).map_or("Unknown exception", |(_, name)| name);
    format!("{name} - code {code:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_announced_in_windbgs_words() {
        assert_eq!(exception(0x8000_0003), "Break instruction exception - code 80000003");
        assert_eq!(exception(0xc000_0420), "Assertion failure - code c0000420");
        assert_eq!(exception(0xdead), "Unknown exception - code 0000dead");
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
