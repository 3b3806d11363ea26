//! Who gets which part of a checkpoint, and what is refused.

use std::collections::BTreeSet;

use tidemill_types::KeyGroup;

use super::*;
use crate::fixture::{graph, manifest, state};

type Restores = HashMap<(u32, u32), TaskRestore>;

fn restore(
    before: &[u32],
    graph: &JobGraph,
    now: &[u32],
    allow: bool,
) -> Result<Restores, RestoreError> {
    let max = vec![128; now.len()];
    assign_restore(
        &manifest(before),
        "file:///cp/chk-1/",
        graph,
        now,
        &max,
        allow,
    )
}

fn items(restores: &Restores, subtask: u32, name: &str) -> Vec<String> {
    let parts = &restores[&(0, subtask)].operators;
    let items = parts
        .iter()
        .filter(|p| p.state == name)
        .flat_map(|p| &p.items);
    items
        .map(|item| String::from_utf8(item.clone()).unwrap())
        .collect()
}

#[test]
fn at_the_same_parallelism_everyone_gets_their_own_groups_back() {
    let restores = restore(&[2, 2], &graph(), &[2, 2], false).unwrap();
    assert_eq!(restores.len(), 4);
    for subtask in 0..2 {
        let restore = &restores[&(1, subtask)];
        assert_eq!(restore.base, "file:///cp/chk-1");
        let range = KeyGroupRange::of_subtask(subtask, 2, 128);
        assert_eq!(
            restore
                .keyed
                .iter()
                .map(|k| k.key_groups)
                .collect::<Vec<_>>(),
            [range]
        );
        assert_eq!(restore.source, None);
        let splits = restores[&(0, subtask)].source.as_ref().unwrap();
        assert_eq!(splits.len(), 2, "every subtask sees all splits");
    }
}

#[test]
fn rescaled_each_group_item_and_committable_has_one_owner() {
    for before in [1, 2, 3, 8] {
        for now in [1, 2, 3, 5, 8, 128] {
            let restores = restore(&[before, before], &graph(), &[now, now], false).unwrap();
            let mut committables = Vec::new();
            let mut list = Vec::new();
            for subtask in 0..now {
                let counting = &restores[&(1, subtask)];
                let range = KeyGroupRange::of_subtask(subtask, now, 128);
                let covered = (range.start..range.end).map(KeyGroup).all(|group| {
                    counting
                        .keyed
                        .iter()
                        .filter(|h| h.key_groups.contains(group))
                        .count()
                        == 1
                });
                assert!(covered, "{before} -> {now}, subtask {subtask}");
                assert!(counting.keyed.iter().all(|h| h.key_groups.overlaps(range)));
                committables.extend(counting.sinks.iter().flat_map(|s| s.committables.clone()));
                list.extend(items(&restores, subtask, "list"));
                assert_eq!(
                    items(&restores, subtask, "union").len(),
                    2 * before as usize
                );
                assert_eq!(items(&restores, subtask, "rules"), ["same"]);
            }
            assert_eq!(committables.len(), before as usize);
            assert_eq!(
                committables.iter().collect::<BTreeSet<_>>().len(),
                before as usize
            );
            assert_eq!(list.len(), 2 * before as usize);
            assert_eq!(
                list.iter().collect::<BTreeSet<_>>().len(),
                2 * before as usize
            );
        }
    }
}

#[test]
fn a_new_source_starts_afresh() {
    let mut changed = graph();
    changed.vertices[0].source.as_mut().unwrap().uid = "other".into();
    let error = restore(&[1, 1], &changed, &[1, 1], false).unwrap_err();
    assert!(
        error.to_string().contains("source \"clicks\" of \"READ\""),
        "{error}"
    );
    let restores = restore(&[1, 1], &changed, &[1, 1], true).unwrap();
    assert_eq!(restores[&(0, 0)].source, None);
}

#[test]
fn gone_operators_and_states_are_refused_by_name() {
    let mut changed = graph();
    changed.vertices[1].operators[0].uid = "count-op-2".into();
    let error = restore(&[1, 1], &changed, &[1, 1], false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("operator \"count-op\" of \"COUNT\""),
        "{error}"
    );
    assert!(
        restore(&[1, 1], &changed, &[1, 1], true).unwrap()[&(1, 0)]
            .keyed
            .is_empty()
    );

    let mut changed = graph();
    changed.vertices[1].states[0].name = "renamed".into();
    let error = restore(&[1, 1], &changed, &[1, 1], false).unwrap_err();
    assert!(
        matches!(&error, RestoreError::StateGone { state, .. } if state == "counts"),
        "{error}"
    );

    let mut changed = graph();
    changed.vertices[1].sinks.clear();
    let error = restore(&[1, 1], &changed, &[1, 1], false).unwrap_err();
    assert!(
        matches!(&error, RestoreError::Gone { what: "sink", uid, .. } if uid == "out"),
        "{error}"
    );
}

#[test]
fn changed_types_are_refused_even_if_state_may_be_left_behind() {
    let mut changed = graph();
    changed.vertices[1].states[0].value_schema = "\"string\"".into();
    let error = restore(&[1, 1], &changed, &[1, 1], true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "state \"counts\" of operator \"count-op\" has changed its value type from \"long\" to \"string\""
    );
    changed.vertices[1].states[0] = state("counts", StateKind::List);
    let error = restore(&[1, 1], &changed, &[1, 1], true).unwrap_err();
    assert!(matches!(
        error,
        RestoreError::StateChanged { what: "kind", .. }
    ));
}

#[test]
fn the_number_of_key_groups_is_fixed() {
    let error = assign_restore(
        &manifest(&[1, 1]),
        "x",
        &graph(),
        &[1, 1],
        &[128, 256],
        true,
    )
    .unwrap_err();
    assert_eq!(
        error,
        RestoreError::MaxParallelism {
            vertex: "COUNT".into(),
            before: 128,
            now: 256
        }
    );
    // Without keyed state it may change.
    assign_restore(
        &manifest(&[1, 1]),
        "x",
        &graph(),
        &[1, 1],
        &[256, 128],
        true,
    )
    .unwrap();
    let error = assign_restore(
        &manifest(&[1, 1]),
        "x",
        &graph(),
        &[1, 129],
        &[128, 128],
        true,
    );
    assert!(matches!(
        error,
        Err(RestoreError::Parallelism {
            parallelism: 129,
            ..
        })
    ));
}

#[test]
fn an_operator_that_moved_to_another_chain_finds_its_state() {
    let mut changed = graph();
    changed.vertices[1].uid = "another-chain".into();
    let first = changed.vertices[0].operators[0].clone();
    changed.vertices[1].operators.insert(0, first);
    changed.vertices[1].operators[0].uid = "new-op".into();
    changed.vertices[1].states[0].operator = 1;
    let restores = restore(&[1, 2], &changed, &[1, 1], false).unwrap();
    assert_eq!(restores[&(1, 0)].keyed.len(), 2);
}
