//! `!poolfind` as WinDbg prints it.

use std::fmt::{self, Write};

use super::report::PoolFind;
use crate::commands::answer::Facts;
use crate::commands::context::Context;
use crate::commands::pool::stack::write_trace;
use crate::commands::schema::Schema;

impl Facts for PoolFind {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        for scan in &self.tags {
            for search in &scan.searches {
                let (start, end) = (context.pointer(search.start), context.pointer(search.end));
                let tag = format_args!("tag {:#x} ({})", scan.tag_hex, scan.tag).to_string();
                match search.pool {
                    None => {
                        write!(out, "\nScanning large pool allocation table for {tag} ({start} : {end})\n\n")?
                    }
                    Some(pool) => {
                        let pool = pool.to_string().to_lowercase();
                        write!(out, "\nSearching {pool} ({start} : {end}) for {tag}\n\n")?;
                    }
                }
                for block in &search.blocks {
                    let size = if block.bytes == 0 { "0".to_owned() } else { format!("{:#x}", block.bytes) };
                    let protected = if block.is_protected { " (Protected)" } else { "" };
                    writeln!(
                        out,
                        "{} : tag {}{protected}, size{size:>10}, {}",
                        context.pointer(block.address),
                        scan.tag,
                        block.pool
                    )?;
                    if let Some(trace) = &block.allocation {
                        write_trace(trace, "        ", context, out)?;
                    }
                }
            }
        }
        Ok(())
    }
}
