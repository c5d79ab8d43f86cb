//! `!pool` as WinDbg prints it.

use std::fmt::{self, Write};

use super::report::{BlockRow, Place, PoolBlock};
use crate::commands::answer::Facts;
use crate::commands::context::Context;
use crate::commands::pool::stack::write_trace;
use crate::commands::schema::Schema;

impl Facts for PoolBlock {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        let region = match self.place {
            Some(Place::Special) => "Special pool".to_owned(),
            _ => self.pool.to_string(),
        };
        writeln!(out, "Pool page {} region is {region}", context.pointer(self.address))?;
        for block in &self.blocks {
            self.write_block(block, context, out)?;
            if block.is_asked && !self.bare && block.is_allocated {
                self.write_owner(block, out)?;
            }
        }
        if let Some(tracker) = &self.tracker {
            let caller = tracker.caller_symbol.clone();
            let caller = caller.unwrap_or_else(|| context.pointer(tracker.caller).to_string());
            writeln!(
                out,
                "\t\tDriver Verifier tracker {} : size {:#x}, caller {caller}",
                context.pointer(tracker.address),
                tracker.size
            )?;
        }
        if let Some(trace) = &self.allocation {
            write_trace(trace, "\t\t", context, out)?;
        }
        self.write_contents(context, out)
    }
}

impl PoolBlock {
    fn write_block(&self, block: &BlockRow, context: &Context, out: &mut dyn Write) -> fmt::Result {
        let mark = if block.is_asked { '*' } else { ' ' };
        let BlockRow { size, previous_size, tag, .. } = block;
        let at = context.pointer(block.address);
        if self.place == Some(Place::Large) {
            let protected = if block.is_protected { " (Protected)" } else { "" };
            return writeln!(
                out,
                "{mark}{at} : large page allocation, tag is {tag}{protected}, size is {size:#x} bytes"
            );
        }
        let state = if block.is_allocated { "(Allocated)" } else { "(Free)" };
        write!(out, "{mark}{at} size:{size:>5x} previous size:{previous_size:>5x}  {state:<11} {mark}{tag}")?;
        if block.is_protected {
            out.write_str(" (Protected)")?;
        }
        if let Some(process) = block.process {
            write!(out, " Process: {}", context.pointer(process))?;
        }
        writeln!(out)
    }

    fn write_owner(&self, block: &BlockRow, out: &mut dyn Write) -> fmt::Result {
        match (&self.description, &self.binary) {
            (Some(text), Some(binary)) => {
                writeln!(out, "\t\tPooltag {} : {text}, Binary : {binary}", block.tag)
            }
            (Some(text), None) => writeln!(out, "\t\tPooltag {} : {text}", block.tag),
            (None, _) => writeln!(out, "\t\tOwning component : Unknown (update pooltag.txt)"),
        }
    }

    /// The first bytes as `dd` prints them.
    fn write_contents(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        let body = self.blocks.iter().find(|block| block.is_asked).map(|block| block.body);
        let Some((contents, body)) = self.contents.as_ref().zip(body) else { return Ok(()) };
        writeln!(out)?;
        let bytes: Vec<&str> = (0..contents.len() / 2).map(|at| &contents[2 * at..2 * at + 2]).collect();
        for (line, at) in bytes.chunks(16).zip((0..).step_by(16)) {
            write!(out, "        {} ", context.address(body.offset(at)))?;
            for word in line.chunks(4) {
                out.write_char(' ')?;
                word.iter().rev().try_for_each(|byte| out.write_str(byte))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
