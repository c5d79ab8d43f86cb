//! `!pooltag`'s own text: WinDbg has no such command.

use std::fmt::{self, Write};

use super::images::TagUse;
use super::report::TagOwner;
use crate::commands::answer::Facts;
use crate::commands::context::Context;
use crate::commands::schema::Schema;
use crate::output::write_columns;

impl Facts for TagOwner {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        match (&self.description, &self.binary) {
            (Some(text), Some(binary)) => writeln!(out, "Pooltag {} : {text}, Binary : {binary}", self.tag)?,
            (Some(text), None) => writeln!(out, "Pooltag {} : {text}", self.tag)?,
            (None, _) => writeln!(out, "Pooltag {} : Unknown (update pooltag.txt)", self.tag)?,
        }
        match &self.verified {
            None => {}
            Some(uses) if uses.is_empty() => writeln!(out, "\nNo verified driver holds blocks of this tag.")?,
            Some(uses) => {
                writeln!(out, "\nVerified drivers that hold blocks of this tag:")?;
                let rows: Vec<[String; 4]> = uses
                    .iter()
                    .map(|of| {
                        let blocks =
                            if of.blocks == 1 { "1 block".into() } else { format!("{} blocks", of.blocks) };
                        [format!("  {}", of.driver), blocks, format!("{} bytes", of.bytes), of.caller.clone()]
                    })
                    .collect();
                let rows: Vec<[&str; 4]> =
                    rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
                write_columns(out, &rows)?;
            }
        }
        let Some(images) = &self.images else { return Ok(()) };
        let (count, ranges) = self.searched.unwrap_or_default();
        let ranges = if ranges == 1 { "1 range".to_owned() } else { format!("{ranges} ranges") };
        writeln!(out, "\nImages that have its four bytes, of {count} searched in {ranges}:")?;
        for image in images {
            writeln!(out, "{}", image.image)?;
            for of in &image.uses {
                write_use(of, context, out)?;
            }
        }
        if images.is_empty() {
            writeln!(out, "  none")?;
        }
        Ok(())
    }
}

fn write_use(of: &TagUse, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let bytes: Vec<u8> = (0..of.bytes.len() / 2)
        .filter_map(|at| u8::from_str_radix(&of.bytes[2 * at..2 * at + 2], 16).ok())
        .collect();
    write!(out, "  {} ", context.address(of.address))?;
    for (index, byte) in bytes.iter().enumerate() {
        write!(out, "{}{byte:02x}", if index == 8 { '-' } else { ' ' })?;
    }
    let shown = bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' });
    writeln!(out, "  {}", shown.collect::<String>())?;
    let symbol = of.symbol.as_deref().unwrap_or("no symbol");
    let section = of.section.as_deref().map_or_else(String::new, |section| format!("  {section}"));
    writeln!(out, "    {symbol}{section}  {}", of.what.told())?;
    match &of.instruction {
        Some(line) => writeln!(out, "    {} {line}", context.address(line.address())),
        None => Ok(()),
    }
}
