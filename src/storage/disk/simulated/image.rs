//! What may be found after a power cut: a choice of names, lengths and page versions.
//!
//! Pure: values and random numbers in, an image out. Must not know faults, handles or counters.
//!
//! 1. A name operation that was synced is in every image; of the others a prefix survives
//!    ([`Metadata::Ordered`]) or any set that a file system could apply ([`Metadata::Hostile`]).
//! 2. A page is found as it was at the last sync or as any store since left it, or, torn, as a
//!    mixture of two such versions in units of 512 bytes.
//! 3. A length is found between the durable and the current one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::names::{Names, Node};
use super::page::{Bytes, Content, PAGE, Page};

/// LIMIT: what drives promise to write whole.
const SECTOR: usize = 512;

/// Which of the un-synced name operations survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// A prefix of them, as a journal keeps it.
    Ordered,
    /// Any of them, as far as they can be applied: even a synced file may have no name.
    Hostile,
    All,
    None,
}

/// Which of the un-synced pages survive, counted over all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Each in any version.
    Random,
    None,
    All,
    AllButOne,
    OnlyFirst,
    OnlyLast,
    /// The first of each file, where its header is.
    OnlyHeaders,
    AllButHeaders,
    EverySecond,
    Prefix,
    Suffix,
    /// Each in a version that is not the last.
    Older,
}

/// How the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PowerCut {
    pub(crate) metadata: Metadata,
    pub(crate) pages: Pages,
    /// Whether pages are torn at 512 bytes.
    pub(crate) tear: bool,
}

impl PowerCut {
    /// Everything that was not synced is lost.
    pub(crate) const WORST: Self =
        Self { metadata: Metadata::None, pages: Pages::None, tear: false };

    /// One of all kinds, by chance.
    pub(crate) fn any(random: &mut impl FnMut() -> u64) -> Self {
        let metadata = match random() % 4 {
            0 | 1 => Metadata::Ordered,
            2 => Metadata::Hostile,
            _ => Metadata::All,
        };
        let pages = Self::PAGES.get(below(random, 15)).copied().unwrap_or(Pages::Random);
        Self { metadata, pages, tear: random().is_multiple_of(3) }
    }

    /// The `number`-th of a round in which each kind of pages meets each kind of metadata, torn
    /// and whole.
    #[cfg(test)]
    pub(crate) fn in_turn(number: usize) -> Self {
        const METADATA: [Metadata; 4] =
            [Metadata::Ordered, Metadata::Hostile, Metadata::All, Metadata::None];
        let (pages, rest) = (number % Self::PAGES.len(), number / Self::PAGES.len());
        let metadata = METADATA[rest % METADATA.len()];
        Self { metadata, pages: Self::PAGES[pages], tear: number % 3 == 2 }
    }

    const PAGES: [Pages; 12] = [
        Pages::None,
        Pages::All,
        Pages::AllButOne,
        Pages::OnlyFirst,
        Pages::OnlyLast,
        Pages::OnlyHeaders,
        Pages::AllButHeaders,
        Pages::EverySecond,
        Pages::Prefix,
        Pages::Suffix,
        Pages::Older,
        Pages::Random,
    ];
}

/// A change of names that was made and not yet synced.
#[derive(Debug, Clone)]
pub(super) enum Change<F> {
    CreateDir(PathBuf),
    RemoveDir(PathBuf),
    Create { path: PathBuf, file: F },
    Rename { from: PathBuf, to: PathBuf, file: F },
    Remove { path: PathBuf, file: F },
}

impl<F> Change<F> {
    /// The directory whose sync makes this durable.
    pub(super) fn dir(&self) -> Option<&Path> {
        match self {
            Self::CreateDir(path)
            | Self::RemoveDir(path)
            | Self::Create { path, .. }
            | Self::Rename { from: path, .. }
            | Self::Remove { path, .. } => path.parent(),
        }
    }
}

/// Applies what can be applied. A change whose ground is missing (the directory, the create
/// before a rename, the removal before a second create) is left out: it did not survive either.
pub(super) fn apply<F: Clone + PartialEq>(
    names: &mut Names<F>,
    changes: impl IntoIterator<Item = Change<F>>,
) {
    for change in changes {
        let _left_out = match change {
            Change::CreateDir(path) => names.insert(&path, Node::Directory),
            Change::RemoveDir(path) => names.remove_dir(&path),
            Change::Create { path, file } => names.insert(&path, Node::File(file)),
            Change::Rename { from, to, file } => match names.file(&from) {
                Ok(found) if *found == file => names.rename(&from, &to),
                _ => continue,
            },
            Change::Remove { path, file } => match names.file(&path) {
                Ok(found) if *found == file => names.remove_file(&path).map(|_| ()),
                _ => continue,
            },
        };
    }
}

/// The names after a cut.
pub(super) fn names<F: Clone + PartialEq>(
    durable: &Names<F>,
    pending: &[Change<F>],
    random: &mut impl FnMut() -> u64,
    how: PowerCut,
) -> Names<F> {
    let mut names = durable.clone();
    let prefix = match how.metadata {
        Metadata::None => 0,
        Metadata::Ordered => below(random, pending.len() + 1),
        Metadata::All | Metadata::Hostile => pending.len(),
    };
    let survivors = pending.iter().take(prefix);
    let hostile = how.metadata == Metadata::Hostile;
    apply(&mut names, survivors.filter(|_| !hostile || random().is_multiple_of(2)).cloned());
    names
}

/// The files that still have a name after a cut.
pub(super) fn files<F: Copy + Ord>(
    files: &BTreeMap<F, Content>,
    names: &Names<F>,
    random: &mut impl FnMut() -> u64,
    how: PowerCut,
) -> BTreeMap<F, Content> {
    let survivors: Vec<(F, &Content)> =
        names.files().filter_map(|(_, file)| Some((*file, files.get(file)?))).collect();
    let pages = survivors.iter().flat_map(|(_, content)| content.pages.values());
    let mut choice = Choice::new(how, pages.filter(|page| page.is_dirty()).count(), random);
    let mut after = BTreeMap::new();
    for (file, content) in survivors {
        let length = length(content, random, how.pages);
        choice.is_header = true;
        after.insert(file, assemble(content, length, |page| choice.page(page, random)));
    }
    after
}

/// A file as it is found: so long, and each of its pages as `choose` says.
pub(super) fn assemble(
    content: &Content,
    length: u64,
    mut choose: impl FnMut(&Page) -> Bytes,
) -> Content {
    let mut found = Content { pages: BTreeMap::new(), length, durable_length: length };
    for (number, page) in &content.pages {
        let bytes = choose(page);
        if number * (PAGE as u64) < length {
            found.pages.insert(*number, Page::synced(bytes));
        }
    }
    // What lay beyond the end is not there when the file grows again.
    if let Some(last) = found.pages.get_mut(&(length / PAGE as u64)) {
        let within = usize::try_from(length % PAGE as u64).unwrap_or_default();
        let mut bytes = *last.durable;
        bytes.get_mut(within..).unwrap_or_default().fill(0);
        *last = Page::synced(Arc::new(bytes));
    }
    found
}

fn length(content: &Content, random: &mut impl FnMut() -> u64, pages: Pages) -> u64 {
    let (durable, current) = (content.durable_length, content.length);
    match (pages, random() % 4) {
        (Pages::None, _) => durable,
        (Pages::All, _) | (_, 0 | 1) => current,
        (_, 2) => durable,
        _ => durable.min(current) + random() % (durable.abs_diff(current) + 1),
    }
}

/// Walks over the dirty pages of all files and says how each is found.
struct Choice {
    how: PowerCut,
    count: usize,
    /// The page, or the border, that the kind of choice turns on.
    pivot: usize,
    index: usize,
    /// Whether the next page is the first that is there of its file.
    is_header: bool,
}

impl Choice {
    fn new(how: PowerCut, count: usize, random: &mut impl FnMut() -> u64) -> Self {
        Self { how, count, pivot: below(random, count.max(1)), index: 0, is_header: true }
    }

    fn page(&mut self, page: &Page, random: &mut impl FnMut() -> u64) -> Bytes {
        let is_header = std::mem::replace(&mut self.is_header, false);
        if !page.is_dirty() {
            return page.version(0);
        }
        let (index, pivot) = (self.index, self.pivot);
        self.index += 1;
        let last = page.versions.len();
        let is_chosen = match self.how.pages {
            Pages::Random => return self.tear(page, below(random, last + 1), random),
            Pages::Older => return self.tear(page, below(random, last), random),
            Pages::AllButOne if index == pivot => {
                return self.tear(page, below(random, last), random);
            }
            Pages::None => false,
            Pages::All | Pages::AllButOne => true,
            Pages::OnlyFirst => index == 0,
            Pages::OnlyLast => index + 1 == self.count,
            Pages::OnlyHeaders => is_header,
            Pages::AllButHeaders => !is_header,
            Pages::EverySecond => index % 2 == pivot % 2,
            Pages::Prefix => index < pivot,
            Pages::Suffix => index >= pivot,
        };
        self.tear(page, if is_chosen { last } else { 0 }, random)
    }

    /// The version, or, where pages are torn, some of its sectors among those of another.
    fn tear(&self, page: &Page, chosen: usize, random: &mut impl FnMut() -> u64) -> Bytes {
        let found = page.version(chosen);
        if !self.how.tear || random().is_multiple_of(2) {
            return found;
        }
        let other = page.version(below(random, page.versions.len() + 1));
        let mut torn = *found;
        for (target, source) in torn.chunks_mut(SECTOR).zip(other.chunks(SECTOR)) {
            if random().is_multiple_of(2) {
                target.copy_from_slice(source);
            }
        }
        Arc::new(torn)
    }
}

fn below(random: &mut impl FnMut() -> u64, bound: usize) -> usize {
    usize::try_from(random() % (bound.max(1) as u64)).unwrap_or_default()
}
