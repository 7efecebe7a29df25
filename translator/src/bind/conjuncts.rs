//! Which conditions of a query speak of one reference alone, and may filter it.

use std::sync::Arc;

use serde_json::Value as Json;

use super::Binder;
use super::scope::{FromItem, Origin, PushRule, resolve};
use crate::predicate::Conjunct;
use crate::tree::{array, column_path, fields, is_star, text};

impl Binder<'_> {
    /// Splits a condition by AND and gives each conjunct to the one reference it speaks of. `rule` says what may filter
    /// an item, `accept` which columns the conjunct may name.
    pub(super) fn take_conjuncts(
        &mut self,
        condition: &Json,
        items: &[FromItem],
        rule: &dyn Fn(&FromItem) -> PushRule,
        accept: &dyn Fn(&[&str], Origin) -> bool,
    ) {
        if text(&condition["type"]) == "CONJUNCTION_AND" {
            for child in array(&condition["children"]) {
                self.take_conjuncts(child, items, rule, accept);
            }
            return;
        }
        if !condition.is_object() {
            return;
        }
        let mut paths = Vec::new();
        if !collect_paths(condition, &mut paths) {
            return;
        }
        let mut owner: Option<(&FromItem, Vec<Origin>)> = None;
        for path in &paths {
            let Some((item, origins)) = resolve(path, items) else { return };
            if origins.is_empty() || !origins.iter().all(|origin| accept(path, *origin)) {
                return;
            }
            let mut here = origins.to_vec();
            here.iter_mut().for_each(|origin| origin.push = rule(item).and(origin.push));
            let is_same = |others: &[Origin]| {
                others.len() == here.len() && others.iter().zip(&here).all(|(other, own)| other.index == own.index)
            };
            // One source may hold several references, and one reference stand behind several sources.
            match &mut owner {
                None => owner = Some((item, here)),
                Some((other, first)) if std::ptr::eq(*other, item) && is_same(first) => {
                    first.iter_mut().zip(here).for_each(|(first, own)| first.push = first.push.and(own.push));
                }
                Some(_) => return,
            }
        }
        // A filter above a set operation filters each of its branches.
        for (branch, origin) in owner.into_iter().flat_map(|(_, origins)| origins).enumerate() {
            let entity = Arc::clone(&self.references[origin.index].0.entity);
            let conjunct = Conjunct::read(condition, &entity, &|path| {
                let origin = resolve(path, items)?.1.get(branch).filter(|other| other.index == origin.index)?;
                Some(origin.column)
            });
            self.take_conjunct(origin, conjunct);
        }
    }

    fn take_conjunct(&mut self, Origin { index, push, .. }: Origin, conjunct: Conjunct) {
        let reference = &mut self.references[index].0;
        match (push, &conjunct.predicate) {
            // Without a predicate it filters nothing, and its reason is the better one.
            (PushRule::Always, _) | (PushRule::NullRejecting, Err(_)) => reference.conjuncts.push(conjunct),
            (PushRule::NullRejecting, Ok(predicate)) if predicate.is_null_rejecting() => {
                reference.conjuncts.push(conjunct);
            }
            (PushRule::NullRejecting, Ok(_)) => {
                reference.kept_back.push(format!("{}: an outer join pads this side with NULLs", conjunct.text));
            }
            (PushRule::Never(why), _) => reference.kept_back.push(format!("{}: {why}", conjunct.text)),
        }
    }

    /// Takes conjuncts of HAVING over columns that the SELECT groups by: all rows of a group agree on them.
    pub(super) fn take_having(&mut self, node: &Json, items: &[FromItem]) {
        let [set] = array(&node["group_sets"]) else { return };
        let keys: Vec<(usize, crate::catalog::Column)> = array(set)
            .iter()
            .filter_map(|index| array(&node["group_expressions"]).get(usize::try_from(index.as_u64()?).ok()?))
            .filter_map(|key| Some(resolve(&column_path(key)?, items)?.1))
            .flatten()
            .map(|origin| (origin.index, origin.column))
            .collect();
        // In HAVING and GROUP BY a name may also be that of an expression of the SELECT list.
        let aliases: Vec<&str> = array(&node["select_list"])
            .iter()
            .map(|entry| text(&entry["alias"]))
            .filter(|alias| !alias.is_empty())
            .collect();
        self.take_conjuncts(&node["having"], items, &|item| item.push, &|path, origin| {
            keys.contains(&(origin.index, origin.column))
                && !path.last().is_some_and(|name| aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name)))
        });
    }
}

/// Collects all column paths of an expression; false when it holds a subquery, a star or a reference by position.
fn collect_paths<'j>(node: &'j Json, paths: &mut Vec<Vec<&'j str>>) -> bool {
    match node {
        Json::Array(items) => items.iter().all(|item| collect_paths(item, paths)),
        Json::Object(_) => {
            if matches!(text(&node["class"]), "SUBQUERY" | "POSITIONAL_REFERENCE") || is_star(node) {
                return false;
            }
            if let Some(path) = column_path(node) {
                paths.push(path);
                return true;
            }
            fields(node).all(|(_, value)| collect_paths(value, paths))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => true,
    }
}
