//! What `!pooltag` finds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::images::{self, Image};
use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::commands::pool::tag::PoolTag;
use crate::commands::pool::tag_file::{TagText, TagTexts};
use crate::commands::schema::Schema;
use crate::commands::verifier::{VerifierQuery, verified_images};
use crate::output::{self, grouped};
use crate::target::{Note, NoteCode, NoteKind, Target};

const NAME: &str = "!pooltag";
/// List drivers, and their allocations.
const FLAGS: u64 = 3;

/// Asks which driver allocates with a tag.
#[derive(Clone, Debug)]
pub struct OwnerQuery {
    /// The tag.
    pub tag: PoolTag,
    /// Search the loaded images for it too.
    pub images: bool,
    /// The `pooltag.txt` that is to be used from here on, if not the one that is found.
    pub file: Option<PathBuf>,
}

/// Which driver allocates with a tag, as far as three witnesses say.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct TagOwner {
    /// Four characters; what is not printable shows as a dot.
    pub tag: PoolTag,
    /// The same as the number that it is.
    #[serde(serialize_with = "output::hex")]
    #[schemars(with = "output::Hex")]
    pub tag_hex: u32,
    /// The `pooltag.txt` that was asked, if there is one.
    pub tag_file: Option<String>,
    /// What it says of the tag.
    pub description: Option<String>,
    /// Whose it is by that file.
    pub binary: Option<String>,
    /// Verified drivers that hold blocks of it; nothing if Driver Verifier is off, or its trackers cannot be read.
    pub verified: Option<Vec<TrackedUse>>,
    /// Images that have its four bytes; nothing if they were not searched.
    pub images: Option<Vec<Image>>,
    /// Images that were searched, and in how many ranges.
    pub searched: Option<(usize, usize)>,
}

/// What a verified driver holds of a tag from one place in its code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct TrackedUse {
    /// `myfault.sys`.
    pub driver: String,
    /// Where it calls from: `myfault!MyfaultDeviceControl+0x2e1`, or an address.
    pub caller: String,
    /// Blocks.
    pub blocks: u64,
    /// Their bytes, as tracked.
    pub bytes: u64,
}

impl Query for OwnerQuery {
    type Facts = TagOwner;

    fn run(&self, target: &Target<'_>) -> Result<TagOwner, QueryError> {
        let tag = self.tag;
        let texts = self.texts(target)?;
        let text = texts.find(tag).cloned();
        let (description, binary) = text.map(|TagText { description, binary }| (description, binary)).unzip();
        let mut facts = TagOwner {
            tag,
            tag_hex: tag.0,
            tag_file: texts.path().map(|path| path.display().to_string()),
            description,
            binary: binary.flatten(),
            verified: self.verified(target),
            images: None,
            searched: None,
        };
        if self.images && target.over().is_none() {
            let list = target.modules().map_err(|source| QueryError::Target { command: NAME, source })?;
            if !list.end().is_complete() {
                let text = format!(
                    "The list of modules is not whole ({}): images that it lacks were not searched",
                    list.end()
                );
                target.note(Note::partial(NoteCode::ModulesBreakOff, text));
            }
            let (images, ranges) = images::search(target, tag, &list);
            let count = list.modules().len();
            let is_whole = target.over().is_none() && target.notes().worst() <= Some(NoteKind::Remark);
            if images.is_empty() && is_whole {
                let text = format!(
                    "The constant '{tag}' was found in none of {count} images. Paged-out code is not searched, and a tag may be made up at \
                     run time."
                );
                target.note(Note::remark(NoteCode::NotFound, text));
            }
            facts.searched = Some((count, ranges));
            facts.images = Some(images);
        }
        Ok(facts)
    }
}

impl OwnerQuery {
    /// What the user's file says of tags.
    fn texts(&self, target: &Target<'_>) -> Result<Arc<TagTexts>, QueryError> {
        let Some(path) = &self.file else { return Ok(TagTexts::of(target)) };
        let texts = TagTexts::take(target, path).map_err(|why| QueryError::NoData {
            command: NAME,
            reason: format!("cannot read {}: {why}", path.display()),
        })?;
        if texts.skipped() > 0 {
            let text = format!(
                "{}: {} lines are not of the form `TAG - BINARY - DESCRIPTION` and were passed over",
                path.display(),
                grouped(texts.skipped() as u64)
            );
            target.note(Note::remark(NoteCode::Damaged, text));
        }
        Ok(texts)
    }

    /// What Driver Verifier has of the tag.
    fn verified(&self, target: &Target<'_>) -> Option<Vec<TrackedUse>> {
        // That it is off is no trouble here: it is what this command is for.
        if verified_images(target).is_empty() {
            return None;
        }
        let report = VerifierQuery { flags: FLAGS, driver: None }.run(target).ok()?;
        let mut uses: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for driver in report.drivers? {
            let name = driver.driver.shown_name();
            let blocks = driver.allocations.iter().flat_map(|allocations| &allocations.blocks);
            for block in blocks.filter(|block| block.tag_number & PoolTag::bits_of(target) == self.tag.0) {
                let caller = block.caller_symbol.as_ref().map(ToString::to_string);
                let caller = caller.unwrap_or_else(|| target.shown(block.caller).to_string());
                let sum = uses.entry((name.clone(), caller)).or_default();
                *sum = (sum.0 + 1, sum.1.saturating_add(block.size));
            }
        }
        let mut uses: Vec<TrackedUse> = uses
            .into_iter()
            .map(|((driver, caller), (blocks, bytes))| TrackedUse { driver, caller, blocks, bytes })
            .collect();
        uses.sort_by_key(|of| std::cmp::Reverse(of.bytes));
        Some(uses)
    }
}

impl TagOwner {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("tag_owner");
}
