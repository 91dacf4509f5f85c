//! The images of a power cut one by one, for campaigns that leave none out.
//!
//! Where [`image`](super::image) draws an image by chance, an [`Images`] numbers them: number `n`
//! of the same disk is always the same image, so a failure is named by a number and found again.
//!
//! 1. Every set of names that can survive is tried: each prefix of the un-synced changes, and each
//!    subset of them, or some where they are many. Sets with the same outcome are one.
//! 2. With each of them, every combination of what can be found of the files that then have a
//!    name. A *slot* is a page or a length that was not synced; a page can be found in any of its
//!    versions. Where there are more combinations than asked for, every subset of {durable,
//!    latest}; where there are more of those too, the subsets of which crashes are made.

use std::collections::BTreeMap;

use super::super::names::Names;
use super::image::{Change, apply, assemble};
use super::page::{Content, Page};
use super::{FileId, SimulatedDisk, State};

/// LIMIT: 2^6 subsets of names; of more than six changes the subsets without one, and with one
/// alone, stand for the rest.
const SUBSETS_OF: usize = 6;

/// What was not synced, and in how many ways it can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// The durable one, and each since.
    versions: usize,
    /// Whether it is the first page of a file, where its header is.
    is_header: bool,
    is_length: bool,
}

/// How the slots are filled, by number.
#[derive(Debug)]
enum Fillings {
    /// Every combination of versions.
    All,
    /// Every subset of the latest versions.
    Subsets,
    /// These.
    Some(Vec<Vec<usize>>),
}

/// The images in which the same names survive.
#[derive(Debug)]
struct Family {
    names: Names<FileId>,
    slots: Vec<Slot>,
    fillings: Fillings,
    count: usize,
}

/// The images of a disk whose power is cut now.
#[derive(Debug)]
pub(crate) struct Images {
    state: State,
    families: Vec<Family>,
    count: usize,
}

impl SimulatedDisk {
    /// All images, or, of each set of names that survives with more than `limit`, some.
    pub(crate) fn images(&self, limit: usize) -> Images {
        let state = self.state.lock().without_history();
        let mut families: Vec<Family> = Vec::new();
        for survivors in survivors(state.journal.pending.len()) {
            let mut names = state.journal.durable.clone();
            let chosen = state.journal.pending.iter().enumerate().filter(|(at, _)| survivors(*at));
            apply(&mut names, chosen.map(|(_, change): (_, &Change<FileId>)| change.clone()));
            if families.iter().all(|family| family.names != names) {
                families.push(Family::new(&state.files, names, limit.max(1)));
            }
        }
        let count = families.iter().map(|family| family.count).sum();
        Images { state, families, count }
    }
}

/// Which of so many changes survive.
fn survivors(changes: usize) -> Vec<Box<dyn Fn(usize) -> bool>> {
    let mut all: Vec<Box<dyn Fn(usize) -> bool>> = Vec::new();
    for prefix in 0..=changes {
        all.push(Box::new(move |at| at < prefix));
    }
    if changes <= SUBSETS_OF {
        for subset in 0..1_usize << changes {
            all.push(Box::new(move |at| subset & (1 << at) != 0));
        }
        return all;
    }
    for one in 0..changes {
        all.push(Box::new(move |at| at == one));
        all.push(Box::new(move |at| at != one));
    }
    all
}

impl Images {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The image with this number.
    pub(crate) fn get(&self, number: usize) -> SimulatedDisk {
        let mut rest = number;
        for family in &self.families {
            match rest.checked_sub(family.count) {
                Some(beyond) => rest = beyond,
                None => return family.image(&self.state, rest),
            }
        }
        panic!("image {number} of {}", self.count);
    }
}

impl Family {
    fn new(files: &BTreeMap<FileId, Content>, names: Names<FileId>, limit: usize) -> Self {
        let mut slots = Vec::new();
        for content in names.files().filter_map(|(_, file)| files.get(file)) {
            if content.length != content.durable_length {
                slots.push(Slot { versions: 2, is_header: false, is_length: true });
            }
            for (number, page) in content.pages.iter().filter(|(_, page)| page.is_dirty()) {
                let versions = page.versions.len() + 1;
                slots.push(Slot { versions, is_header: *number == 0, is_length: false });
            }
        }
        let within = |count: &usize| *count <= limit;
        let product = |each: &dyn Fn(&Slot) -> usize| {
            let product = slots.iter().try_fold(1_usize, |all, slot| all.checked_mul(each(slot)));
            product.filter(within)
        };
        let (fillings, count) = match (product(&|slot| slot.versions), product(&|_| 2)) {
            (Some(all), _) => (Fillings::All, all),
            (None, Some(subsets)) => (Fillings::Subsets, subsets),
            (None, None) => {
                let some = typical(&slots);
                let count = some.len();
                (Fillings::Some(some), count)
            }
        };
        Self { names, slots, fillings, count }
    }

    /// The version of each slot in the image with this number; 0 is the durable one.
    fn filling(&self, number: usize) -> Vec<usize> {
        let mut rest = number;
        let mut digit = |base: usize| {
            let digit = rest % base;
            rest /= base;
            digit
        };
        match &self.fillings {
            Fillings::All => self.slots.iter().map(|slot| digit(slot.versions)).collect(),
            Fillings::Subsets => {
                self.slots.iter().map(|slot| digit(2) * (slot.versions - 1)).collect()
            }
            Fillings::Some(some) => some[number].clone(),
        }
    }

    fn image(&self, state: &State, number: usize) -> SimulatedDisk {
        let mut versions = self.filling(number).into_iter();
        let mut files = BTreeMap::new();
        for (file, content) in
            self.names.files().filter_map(|(_, file)| Some((*file, state.files.get(file)?)))
        {
            let is_longer = content.length != content.durable_length;
            let is_durable = is_longer && versions.next() == Some(0);
            let length = if is_durable { content.durable_length } else { content.length };
            let found = assemble(content, length, |page: &Page| {
                if page.is_dirty() {
                    page.version(versions.next().unwrap_or(0))
                } else {
                    page.version(0)
                }
            });
            files.insert(file, found);
        }
        SimulatedDisk::with_state(state.after_cut(self.names.clone(), files, number as u64))
    }
}

/// The subsets of which crashes are made: nothing, everything, everything but one, one alone,
/// headers or data alone, every second, each prefix and suffix, and older versions.
fn typical(slots: &[Slot]) -> Vec<Vec<usize>> {
    let latest = |slot: &Slot| slot.versions - 1;
    let chosen = |is: &dyn Fn(usize, &Slot) -> bool| {
        let each = slots.iter().enumerate();
        each.map(|(at, slot)| if is(at, slot) { latest(slot) } else { 0 }).collect::<Vec<_>>()
    };
    let mut all = vec![
        chosen(&|_, _| false),
        chosen(&|_, _| true),
        chosen(&|_, slot| slot.is_header || slot.is_length),
        chosen(&|_, slot| !slot.is_header),
        chosen(&|_, slot| !slot.is_length),
        chosen(&|at, _| at % 2 == 0),
        chosen(&|at, _| at % 2 == 1),
        slots.iter().map(|slot| latest(slot).saturating_sub(1)).collect(),
        slots.iter().map(|slot| latest(slot) / 2).collect(),
    ];
    for one in 0..slots.len() {
        all.push(chosen(&|at, _| at != one));
        all.push(chosen(&|at, _| at == one));
        all.push(chosen(&|at, _| at < one));
        all.push(chosen(&|at, _| at > one));
    }
    all.sort();
    all.dedup();
    all
}
