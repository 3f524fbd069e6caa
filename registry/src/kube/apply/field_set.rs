//! A set of fields of an object, and `FieldsV1`, the JSON in which `managedFields` carries it.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

use super::path::{PathElement, PathElementError};
use super::schema::{MAX_DEPTH, Schema};

/// A set of paths. A path's being in it says nothing of the paths that begin or go on like it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct FieldSet {
    /// Whether the path that leads here is in the set; never true at the root of a whole set.
    pub(super) member: bool,
    /// What is in the set below here; no child is without any member.
    pub(super) children: BTreeMap<PathElement, Self>,
}

/// The JSON is not a field set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldSetError {
    #[error("expected an object at every level of a field set")]
    NotAnObject,
    #[error("a field set may be at most {MAX_DEPTH} levels deep")]
    TooDeep,
    #[error("bad field")]
    Element(#[source] PathElementError),
}

impl FieldSet {
    /// Reads `FieldsV1`. Kinds of path elements that are not known are left out.
    ///
    /// # Errors
    /// When it is not an object of objects, too deep, or a name in it is not a path element.
    pub fn parse(json: &Value) -> Result<Self, FieldSetError> {
        let mut set = Self::parse_node(json, 0)?;
        set.member = false;
        Ok(set)
    }

    fn parse_node(json: &Value, depth: usize) -> Result<Self, FieldSetError> {
        let json = json.as_object().ok_or(FieldSetError::NotAnObject)?;
        if depth > MAX_DEPTH {
            return Err(FieldSetError::TooDeep);
        }
        let mut set = Self::default();
        for (name, below) in json {
            if name == "." {
                set.member = true;
                continue;
            }
            match PathElement::parse(name) {
                Ok(element) => {
                    let below = Self::parse_node(below, depth + 1)?;
                    // Two notations may mean one element: `v:1` and `v:1.0`.
                    let child = set.children.entry(element).or_default();
                    *child = child.union(&below);
                }
                Err(PathElementError::Unknown) => {}
                Err(error @ PathElementError::Malformed(_)) => return Err(FieldSetError::Element(error)),
            }
        }
        set.member |= set.children.is_empty();
        Ok(set)
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Whether exactly this path is in the set.
    pub fn contains(&self, path: &[PathElement]) -> bool {
        let node = path.iter().try_fold(self, |node, element| node.children.get(element));
        !path.is_empty() && node.is_some_and(|node| node.member)
    }

    /// Adds exactly this path; the empty path means the whole object and is never in a set.
    pub fn insert(&mut self, path: &[PathElement]) {
        if !path.is_empty() {
            path.iter().fold(self, |node, element| node.children.entry(element.clone()).or_default()).member = true;
        }
    }

    /// The paths in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.member |= other.member;
        for (element, child) in &other.children {
            let merged = all.children.get(element).map_or_else(|| child.clone(), |mine| mine.union(child));
            all.children.insert(element.clone(), merged);
        }
        all
    }

    /// The paths in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.retain(other, |mine, theirs| mine && theirs)
    }

    /// The paths in this set that are not in the other; what is below a path of the other stays.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.retain(other, |mine, theirs| mine && !theirs)
    }

    fn retain(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let nothing = Self::default();
        let mut kept = Self { member: keep(self.member, other.member), children: BTreeMap::new() };
        for (element, child) in &self.children {
            kept.attach(element.clone(), child.retain(other.children.get(element).unwrap_or(&nothing), keep));
        }
        kept
    }

    /// Every path in the set; of one level first the paths that end there, as Kubernetes lists conflicts.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut Vec<PathElement>, paths: &mut Vec<Vec<PathElement>>) {
        for (element, _) in self.children.iter().filter(|(_, child)| child.member) {
            paths.push(prefix.iter().chain([element]).cloned().collect());
        }
        for (element, child) in &self.children {
            prefix.push(element.clone());
            child.collect_paths(prefix, paths);
            prefix.pop();
        }
    }

    /// Puts `child` below `element`, unless there is nothing in it.
    pub(super) fn attach(&mut self, element: PathElement, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    /// The set with every field that the schema names and below which something is in the set.
    ///
    /// A configuration that sets `spec.a` speaks of `spec` too, but does not own it: only removing needs to know.
    #[must_use]
    pub(super) fn with_named_fields(&self, schema: Schema<'_>) -> Self {
        let children = self.children.iter().map(|(element, child)| {
            let mut child = child.with_named_fields(schema.child(element));
            child.member |= matches!(element, PathElement::Field(name) if schema.names(name));
            (element.clone(), child)
        });
        Self { member: self.member, children: children.collect() }
    }
}

impl TryFrom<Value> for FieldSet {
    type Error = FieldSetError;

    fn try_from(json: Value) -> Result<Self, FieldSetError> {
        Self::parse(&json)
    }
}

/// As structured-merge-diff writes it: `.` first, then the elements in their order.
impl Serialize for FieldSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.member && !self.children.is_empty() {
            map.serialize_entry(".", &Map::new())?;
        }
        for (element, child) in &self.children {
            map.serialize_entry(&element.notation(), child)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    type Paths = BTreeSet<Vec<PathElement>>;

    fn elements() -> impl Strategy<Value = PathElement> {
        let texts = ["f:a", "f:b", r#"k:{"k":1}"#, r#"k:{"k":"x"}"#, "v:1", r#"v:"f:a""#, "i:0"];
        proptest::sample::select(texts.map(|text| PathElement::parse(text).unwrap()).to_vec())
    }

    fn paths() -> impl Strategy<Value = Paths> {
        btree_set(vec(elements(), 1..4), 0..8)
    }

    fn set(paths: &Paths) -> FieldSet {
        let mut set = FieldSet::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    }

    proptest! {
        #[test]
        fn a_field_set_is_a_set_of_paths(a in paths(), b in paths()) {
            let (left, right) = (set(&a), set(&b));
            let content = |set: FieldSet| -> Paths { set.paths().into_iter().collect() };
            prop_assert_eq!(content(left.union(&right)), a.union(&b).cloned().collect::<Paths>());
            prop_assert_eq!(content(left.intersection(&right)), a.intersection(&b).cloned().collect::<Paths>());
            prop_assert_eq!(content(left.difference(&right)), a.difference(&b).cloned().collect::<Paths>());
            prop_assert_eq!(left.is_empty(), a.is_empty());
            prop_assert!(b.iter().all(|path| left.contains(path) == a.contains(path)));
            // Equal sets are equal however they came to be.
            prop_assert_eq!(left.difference(&right).union(&left.intersection(&right)), left);
        }

        #[test]
        fn what_is_written_is_read_again(paths in paths()) {
            let set = set(&paths);
            let json = serde_json::to_value(&set).unwrap();
            prop_assert_eq!(FieldSet::parse(&json), Ok(set));
        }
    }

    #[test]
    fn a_set_is_written_in_the_order_of_its_elements() {
        let json = json!({"i:1": {}, "v:10": {}, "v:9": {}, "k:{\"b\":1,\"a\":2}": {"f:x": {}, ".": {}}, "f:b": {}, "f:a": {}});
        let set = FieldSet::parse(&json).unwrap();
        assert_eq!(
            serde_json::to_string(&set).unwrap(),
            r#"{"f:a":{},"f:b":{},"k:{\"a\":2,\"b\":1}":{".":{},"f:x":{}},"v:9":{},"v:10":{},"i:1":{}}"#
        );
        assert_eq!(serde_json::to_string(&FieldSet::default()).unwrap(), "{}");
    }

    #[test]
    fn json_that_is_no_set_is_refused() {
        assert_eq!(FieldSet::parse(&json!([])), Err(FieldSetError::NotAnObject));
        assert_eq!(FieldSet::parse(&json!({"f:a": 1})), Err(FieldSetError::NotAnObject));
        let malformed = PathElementError::Malformed("a".to_owned());
        assert_eq!(FieldSet::parse(&json!({"a": {}})), Err(FieldSetError::Element(malformed)));
        let deep = (0..=MAX_DEPTH).fold(json!({}), |below, _| json!({"f:a": below}));
        assert_eq!(FieldSet::parse(&deep), Err(FieldSetError::TooDeep));
        assert!(FieldSet::parse(&deep["f:a"]).is_ok());
    }

    #[test]
    fn elements_of_later_versions_are_left_out() {
        assert_eq!(FieldSet::parse(&json!({"z:new": 1, "f:a": {}})), FieldSet::parse(&json!({"f:a": {}})));
    }
}
