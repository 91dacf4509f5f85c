//! Which topics there are, rule by rule.

use super::*;
use crate::config::Cleanup;
use crate::partition::state_log::entries::RecordedAt;

const A: TopicId = TopicId([1; 16]);
const B: TopicId = TopicId([2; 16]);
const C: TopicId = TopicId([3; 16]);

fn config() -> TopicConfig {
    TopicConfig::new(2).cleanup(Cleanup::Compact)
}

fn catalog(topics: &[(&str, TopicId, Stage)]) -> CatalogState {
    let mut catalog = CatalogState::default();
    for (name, id, stage) in topics {
        let entry = TopicEntry { name: (*name).into(), id: *id, config: config() };
        catalog.topics.insert(*id, (entry, *stage), RecordedAt::default());
    }
    catalog
}

/// A topic's id, and in which partitions it has segments.
type Partitions<'a> = (TopicId, &'a [u32]);

/// Name, id, count of partitions, whether the settings are lost.
type Chosen = (String, TopicId, u32, bool);

/// Directories, each with ids that have segments in these partitions.
fn found(dirs: &[(&str, &[Partitions<'_>])]) -> Found {
    let holdings = |ids: &[Partitions<'_>]| -> Holdings {
        let partitions = |numbers: &[u32]| numbers.iter().map(|number| (*number, 1)).collect();
        ids.iter().map(|(id, numbers)| (*id, partitions(numbers))).collect()
    };
    dirs.iter().map(|(name, ids)| ((*name).to_owned(), holdings(ids))).collect()
}

/// The topics, and the strangers.
fn chosen(catalog: &CatalogState, is_whole: bool, found: &Found) -> (Vec<Chosen>, Vec<String>) {
    let (choices, unknown) = choose(catalog, is_whole, found);
    let of = |it: Choice| {
        (it.entry.name.to_string(), it.entry.id, it.entry.config.partitions, it.config_lost)
    };
    (choices.into_iter().map(of).collect(), unknown)
}

#[test]
fn the_catalog_says_what_is_a_topic() {
    let catalog = catalog(&[("a", A, Stage::Live), ("b", B, Stage::Deleting)]);
    let dirs = found(&[("a", &[(A, &[0, 1])]), ("b", &[(B, &[0])]), ("notes", &[])]);
    let a = ("a".to_owned(), A, 2, false);
    assert_eq!(chosen(&catalog, true, &dirs), (vec![a], vec!["notes".to_owned()]));
    // A missing directory is reported by its partitions.
    let a = ("a".to_owned(), A, 2, false);
    assert_eq!(chosen(&catalog, true, &Found::new()).0, [a]);
}

#[test]
fn a_topic_being_created_counts_if_its_completion_may_be_lost() {
    let catalog = catalog(&[("a", A, Stage::Creating)]);
    let dirs = found(&[("a", &[(A, &[0, 1])])]);
    assert_eq!(chosen(&catalog, true, &dirs), (vec![], vec!["a".to_owned()]));
    assert_eq!(chosen(&catalog, false, &dirs).0, [("a".to_owned(), A, 2, false)]);
}

#[test]
fn a_topic_without_an_entry_is_what_its_directory_holds() {
    let dirs = found(&[("a", &[(A, &[0, 3])]), ("bad name", &[(B, &[0])])]);
    let (choices, unknown) = choose(&CatalogState::default(), false, &dirs);
    assert_eq!(unknown, ["bad name"]);
    assert_eq!(choices.len(), 1);
    let expected = TopicConfig::new(4).retention(std::time::Duration::MAX);
    assert_eq!((&choices[0].entry.config, choices[0].config_lost), (&expected, true));
}

#[test]
fn of_several_for_one_name_the_one_whose_segments_are_there_is_taken() {
    // Its deletion is lost, and so is the creation of the one that is there.
    let stale = catalog(&[("a", A, Stage::Live)]);
    let dirs = found(&[("a", &[(B, &[0, 1])])]);
    assert_eq!(chosen(&stale, false, &dirs).0, [("a".to_owned(), B, 2, true)]);
    // Both are there: the one that the catalog knows.
    let both = found(&[("a", &[(A, &[0]), (B, &[0, 1])])]);
    assert_eq!(chosen(&stale, false, &both).0, [("a".to_owned(), A, 2, false)]);
    // Names that differ only in case cannot both be topics.
    let cases = found(&[("Logs", &[(B, &[0])]), ("logs", &[(C, &[0, 1])])]);
    let (choices, unknown) = chosen(&CatalogState::default(), false, &cases);
    assert_eq!(choices, [("logs".to_owned(), C, 2, true)]);
    assert_eq!(unknown, ["Logs"]);
    // A copy of a topic's directory under another name is none.
    let copied = found(&[("a", &[(A, &[0])]), ("a.bak", &[(A, &[0])])]);
    assert_eq!(chosen(&stale, true, &copied).1, ["a.bak"]);
}

#[test]
fn partitions_whose_growth_may_be_lost_are_kept_and_those_being_made_are_named() {
    let dirs = found(&[("a", &[(A, &[0, 1, 2])])]);
    let live = catalog(&[("a", A, Stage::Live)]);
    assert_eq!(chosen(&live, false, &dirs).0, [("a".to_owned(), A, 3, false)]);
    let growing = catalog(&[("a", A, Stage::Growing(3))]);
    let before = ("a".to_owned(), A, 2, false);
    assert_eq!(chosen(&growing, true, &dirs), (vec![before], vec!["a/2".to_owned()]));
    let grown = ("a".to_owned(), A, 3, false);
    assert_eq!(chosen(&growing, false, &dirs), (vec![grown], vec![]));
}

#[test]
fn settings_that_cannot_work_are_lost() {
    let mut catalog = catalog(&[("a", A, Stage::Live)]);
    let mut entry = catalog.topics.remove(&A).unwrap().0;
    entry.config.segment_bytes = 1;
    catalog.topics.insert(A, (entry, Stage::Live), RecordedAt::default());
    let dirs = found(&[("a", &[(A, &[0, 1])])]);
    assert_eq!(chosen(&catalog, true, &dirs).0, [("a".to_owned(), A, 2, true)]);
}
