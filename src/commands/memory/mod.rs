//! `d` and `s`: memory as bytes, words, pointers or text, and where in it a pattern lies.
//!
//! ```text
//!  db dw dd dq dc     bytes, words of 2, 4 and 8 bytes, 4 bytes with characters
//!  dp dps dqs dds     pointers; one a line with what they point to; the same in 8 and 4 bytes
//!  da du              text of one or two bytes a character, up to its 0
//!  ds dS              the text of a _STRING, of a _UNICODE_STRING
//!  dpp dpa dpu        pointers with the word or the text there; dd. and dq. for four and eight bytes
//!  dl dlb             the entries of a list
//!  d                  as the d command before
//! ```
//! ```text
//! 0: kd> db poi(nt!VfPoolTraces) L20
//! fffffa80`02400000  70 ce 23 03 80 fa ff ff-40 06 00 00 00 00 00 00  p.#.....@.......
//! fffffa80`02400010  60 7b 3a 04 80 fa ff ff-ec 6e 5e 01 00 f8 ff ff  `{:......n^.....
//! 0: kd> da nt!NtBuildLab
//! fffff800`01425150  "7601.24540.amd64fre.win7sp1_simu"
//! fffff800`01425170  "lated.200101-0000"
//! ```
//! Without an address, goes on where the last one ended. A range is one read; a byte that cannot be read is `??`.

mod characters;
mod display;
mod format;
mod links;
mod referenced;
mod search;
mod text;

pub(super) use display::{D, DA, DB, DC, DD, DDS, DP, DPS, DQ, DQS, DS_ANSI, DS_UNICODE, DU, DW};
pub(super) use links::{DL, DLB};
pub(super) use referenced::{DDA, DDP, DDU, DPA, DPP, DPU, DQA, DQP, DQU};
pub(super) use search::S;
