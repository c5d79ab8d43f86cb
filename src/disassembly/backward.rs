//! The instruction before an address, where nothing says at which byte it begins.
//!
//! ```text
//!  .. 48 8b c1 48 0f ba f0 07 | 0f 22 e0      from each of the bytes before it a row of instructions is followed
//!     `------' `------------'                 rows that begin in the middle of one soon fall in with the right ones
//! ```
//! The one that most rows go through is the likeliest. It is never certain: data and padding stand between code.

use super::instruction::length;

/// Bytes before an address that are enough for rows to fall in with each other.
pub const WINDOW: usize = 0x80;

/// How long the likeliest instruction is that ends where `bytes` end; nothing if none does.
#[must_use]
pub fn last_length(pointer_size: usize, bytes: &[u8]) -> Option<usize> {
    let end = bytes.len();
    let mut rows = vec![0_u32; end + 1];
    let mut likeliest = None;
    for at in 0..end {
        // One begins here too.
        rows[at] += 1;
        let Some(len) = length(pointer_size, &bytes[at..]) else { continue };
        rows[at + len] += rows[at];
        if at + len == end && likeliest.is_none_or(|(most, _)| rows[at] > most) {
            likeliest = Some((rows[at], len));
        }
    }
    likeliest.map(|(_, len)| len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a published function of a kernel of 2017, `nt!KiFlushCurrentTbWorker`, and its instructions' lengths.
    const CODE: &[(usize, &[u8])] = &[
        (3, &[0x0f, 0x20, 0xe1]),
        (2, &[0x84, 0xc9]),
        (2, &[0x79, 0x0f]),
        (3, &[0x48, 0x8b, 0xc1]),
        (5, &[0x48, 0x0f, 0xba, 0xf0, 0x07]),
        (3, &[0x0f, 0x22, 0xe0]),
        (3, &[0x0f, 0x22, 0xe1]),
        (1, &[0xc3]),
        (3, &[0x0f, 0x20, 0xd8]),
        (3, &[0x0f, 0x22, 0xd8]),
        (1, &[0xc3]),
    ];

    #[test]
    fn instructions_are_found_from_behind_whatever_stands_before_them() {
        let code: Vec<u8> = CODE.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let mut noise = 18_u64;
        let mut byte = move || {
            noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            noise.to_be_bytes()[0]
        };
        for _ in 0..200 {
            let mut bytes: Vec<u8> = (0..0x20).map(|_| byte()).collect();
            bytes.extend(&code);
            // The first ones may be taken for the end of one that noise began.
            for (len, _) in CODE.iter().skip(4).rev() {
                assert_eq!(last_length(8, &bytes), Some(*len), "{bytes:02x?}");
                bytes.truncate(bytes.len() - len);
            }
        }
    }

    #[test]
    fn padding_is_taken_byte_by_byte_and_nothing_has_no_instruction() {
        assert_eq!(last_length(8, &[0xc3, 0xcc, 0xcc]), Some(1));
        assert_eq!(last_length(8, &[]), None);
        assert_eq!(last_length(8, &[0x06, 0x06]), None, "no instruction of x64");
        assert_eq!(last_length(4, &[0x06]), Some(1), "push es");
    }
}
