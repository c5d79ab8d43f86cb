//! The interfaces of a trace, by which its frames are told apart again.

use pcap_parser::Linktype;

pub(super) const OPENED: &[u8] = b"verikd opened";
pub(super) const LINE: &[u8] = b"serial line";
pub(super) const WIRE: &[u8] = b"KDNET";
pub(super) const LINK_TYPE_OF_OPENED: Linktype = Linktype(147);
pub(super) const LINK_TYPE_OF_LINE: Linktype = Linktype(148);
/// `epb_flags` of a frame that came.
pub(super) const INBOUND: u32 = 1;
/// `epb_flags` of a frame that was sent.
pub(super) const OUTBOUND: u32 = 2;
