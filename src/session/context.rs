//! Reading a CPU's `CONTEXT` from a stopped target.

use kd_protocol::kd::{Arm, Manipulate};

/// A piece of a context that every KDNET target gives and takes.
pub(super) const PIECE: usize = 1096;
/// Contexts with extended state are a few kilobytes; more is no context.
const MAX_CONTEXT: usize = 0x1_0000;

/// The context of a CPU, and whether the target gives and takes it in pieces; nothing if it gives none.
///
/// `request` sends one request and returns its reply.
pub(super) fn read<E>(
    processor: u16,
    mut request: impl FnMut(Manipulate) -> Result<Manipulate, E>,
) -> Result<Option<(Vec<u8>, bool)>, E> {
    let mut context = Vec::new();
    loop {
        let offset = context.len() as u32;
        let reply = request(Manipulate::get_context_ex(processor, offset, PIECE as u32))?;
        let Arm::ContextEx(arm) = reply.arm else { return Ok(None) };
        if !reply.return_status.is_success() || reply.data.is_empty() {
            break;
        }
        context.extend_from_slice(&reply.data);
        match arm.byte_count as usize {
            total if total == context.len() => return Ok(Some((context, true))),
            total if total > MAX_CONTEXT || context.len() > total => return Ok(None),
            _ => {}
        }
    }
    // Boot debuggers and old kernels have only the whole context.
    let reply = request(Manipulate::get_context(processor))?;
    Ok(reply.return_status.is_success().then(|| (reply.data.to_vec(), false)))
}
