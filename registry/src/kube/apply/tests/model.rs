//! A second, naive implementation on flat paths, and random histories on which both must agree.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::{bool, option};

use super::*;

/// What a schema may say of a value.
#[derive(Clone, Debug)]
enum Type {
    Number,
    Atomic,
    Unknown,
    Set,
    Struct(Vec<(&'static str, Self)>),
    Map(Box<Self>),
    /// A list whose items are such structs; `k` is the key.
    Keyed(Vec<(&'static str, Self)>),
}

fn types() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![Just(Type::Number), Just(Type::Atomic), Just(Type::Unknown), Just(Type::Set)];
    leaf.prop_recursive(3, 12, 3, |part| {
        prop_oneof![
            fields(part.clone()).prop_map(Type::Struct),
            part.clone().prop_map(|part| Type::Map(Box::new(part))),
            fields(part).prop_map(|fields| Type::Keyed([vec![("k", Type::Number)], fields].concat())),
        ]
    })
}

fn fields(part: impl Strategy<Value = Type>) -> impl Strategy<Value = Vec<(&'static str, Type)>> {
    vec(part, 1..4).prop_map(|parts| ["a", "b", "c"].into_iter().zip(parts).collect())
}

impl Type {
    fn schema(&self) -> Value {
        match self {
            Self::Number => json!({"type": "integer"}),
            Self::Atomic => json!({"x-kubernetes-map-type": "atomic"}),
            Self::Unknown => json!({"x-kubernetes-preserve-unknown-fields": true}),
            Self::Set => json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}),
            Self::Map(part) => json!({"type": "object", "additionalProperties": part.schema()}),
            Self::Struct(fields) => {
                let properties: Map<_, _> =
                    fields.iter().map(|(name, part)| ((*name).to_owned(), part.schema())).collect();
                json!({"type": "object", "properties": properties})
            }
            Self::Keyed(fields) => json!({
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": Self::Struct(fields.clone()).schema()
            }),
        }
    }

    /// Values of this type, from so few that managers often meet.
    fn values(&self) -> BoxedStrategy<Value> {
        let number = (0..3).prop_map(Value::from);
        let object = |fields: &[(&'static str, Self)]| {
            let fields: Vec<_> = fields.iter().map(|(name, part)| (Just(*name), option::of(part.values()))).collect();
            fields.prop_map(|fields| {
                let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
                Value::Object(present.collect())
            })
        };
        match self {
            Self::Number => number.boxed(),
            Self::Atomic => prop_oneof![
                vec(number.clone(), 0..3).prop_map(Value::from),
                btree_map("[xy]", number, 0..3).prop_map(|map| json!(map))
            ]
            .boxed(),
            Self::Unknown => prop_oneof![number.clone(), vec(number, 0..3).prop_map(Value::from)]
                .prop_recursive(3, 6, 2, |part| btree_map("[xy]", part, 0..3).prop_map(|map| json!(map)))
                .boxed(),
            Self::Set => subsequence(vec![0, 1, 2], 0..=3).prop_shuffle().prop_map(|items| json!(items)).boxed(),
            Self::Map(part) => btree_map("[xy]", part.values(), 0..3).prop_map(|map| json!(map)).boxed(),
            Self::Struct(fields) => object(fields).boxed(),
            Self::Keyed(fields) => subsequence(vec![0, 1, 2], 0..=3)
                .prop_shuffle()
                .prop_flat_map({
                    let item = object(fields).boxed();
                    move |keys| keys.into_iter().map(|key| (Just(key), item.clone())).collect::<Vec<_>>()
                })
                .prop_map(|items| {
                    let keyed = items.into_iter().map(|(key, mut item)| {
                        item["k"] = json!(key);
                        item
                    });
                    keyed.collect()
                })
                .boxed(),
        }
    }
}

/// A path in the notation of `FieldsV1`, step by step.
type Path = Vec<String>;

/// A part of an object.
#[derive(Clone, Debug)]
struct Node {
    /// What it is when it has no parts of its own.
    leaf: Option<Value>,
    is_list: bool,
    /// A field that the schema names.
    is_named: bool,
}

type Nodes = BTreeMap<Path, Node>;

/// All parts of an object of this type.
fn nodes(part: &Type, value: &Value, path: &Path, is_named: bool, all: &mut Nodes) {
    let step = |step: String| [path.clone(), vec![step]].concat();
    let is_list = matches!(part, Type::Keyed(_) | Type::Set);
    let mut node = Node { leaf: None, is_list, is_named };
    match (part, value) {
        (Type::Struct(fields), Value::Object(map)) => {
            for (name, part) in fields.iter().filter(|(name, _)| map.contains_key(*name)) {
                nodes(part, &map[*name], &step(format!("f:{name}")), true, all);
            }
        }
        (Type::Map(_) | Type::Unknown, Value::Object(map)) => {
            let part = if let Type::Map(part) = part { part } else { part };
            for (name, value) in map {
                nodes(part, value, &step(format!("f:{name}")), false, all);
            }
        }
        (Type::Keyed(fields), Value::Array(items)) => {
            for item in items {
                let key = step(format!("k:{{\"k\":{}}}", item["k"]));
                nodes(&Type::Struct(fields.clone()), item, &key, false, all);
            }
        }
        (Type::Set, Value::Array(items)) => {
            for item in items {
                nodes(&Type::Number, item, &step(format!("v:{item}")), false, all);
            }
        }
        _ => node.leaf = Some(value.clone()),
    }
    all.insert(path.clone(), node);
}

/// What a configuration that has these parts owns.
fn fields_of_configuration(object: &Nodes) -> BTreeSet<Path> {
    let has_parts = |path: &Path| object.keys().any(|other| other.len() > path.len() && other.starts_with(path));
    let owned = |path: &Path, node: &Node| node.leaf.is_some() || !node.is_named || (!node.is_list && !has_parts(path));
    object.iter().filter(|(path, node)| owned(path, node)).map(|(path, _)| path.clone()).collect()
}

/// The paths, and the named fields they lead through.
fn with_named(paths: &BTreeSet<Path>, object: &Nodes) -> BTreeSet<Path> {
    let leads_through = |field: &Path| paths.iter().any(|path| path.starts_with(field));
    let named = object.iter().filter(|(field, node)| node.is_named && leads_through(field));
    named.map(|(field, _)| field.clone()).chain(paths.iter().cloned()).collect()
}

fn without(object: &Nodes, gone: &BTreeSet<Path>) -> Nodes {
    let stays = |path: &Path| !gone.iter().any(|gone| path.starts_with(gone));
    object.iter().filter(|(path, _)| stays(path)).map(|(path, node)| (path.clone(), node.clone())).collect()
}

/// What was set, and what went.
fn changes(before: &Nodes, after: &Nodes) -> (BTreeSet<Path>, BTreeSet<Path>) {
    let set = after.iter().filter(|(path, node)| before.get(*path).is_none_or(|before| before.leaf != node.leaf));
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    (set.map(|(path, _)| path.clone()).collect(), gone.cloned().collect())
}

type Owner = (String, Operation);

#[derive(Clone, Debug, Default)]
struct Model {
    object: Option<Nodes>,
    owners: BTreeMap<Owner, BTreeSet<Path>>,
}

impl Model {
    fn update(&mut self, manager: &str, after: Nodes) {
        if self.object.is_none() || !self.owners.is_empty() {
            let (set, gone) = changes(&self.object.clone().unwrap_or_default(), &after);
            self.disown(&set, &gone, Some(&(manager.to_owned(), Operation::Update)));
        }
        self.object = Some(after);
    }

    /// Takes what changed from all; what was set is then the given owner's.
    fn disown(&mut self, set: &BTreeSet<Path>, gone: &BTreeSet<Path>, to: Option<&Owner>) {
        for paths in self.owners.values_mut() {
            paths.retain(|path| !set.contains(path) && !gone.contains(path));
        }
        // The writer loses only what went.
        if let Some(to) = to {
            self.owners.entry(to.clone()).or_default().extend(set.iter().cloned());
        }
        self.owners.retain(|_, paths| !paths.is_empty());
    }

    fn apply(&mut self, manager: &str, patch: &Nodes, force: bool) -> Result<(), BTreeSet<(Owner, Path)>> {
        let mut next = self.clone();
        let live = self.object.clone().unwrap_or_default();
        if next.owners.is_empty() && !live.is_empty() {
            next.owners.insert(("before-first-apply".to_owned(), Operation::Update), live.keys().cloned().collect());
        }
        let me = (manager.to_owned(), Operation::Apply);
        let last = next.owners.remove(&me).unwrap_or_default();
        let mine = fields_of_configuration(patch);

        let mut merged = live.clone();
        for (path, node) in patch {
            if node.leaf.is_some() {
                merged.retain(|other, _| !other.starts_with(path));
            }
            merged.insert(path.clone(), node.clone());
        }

        // What the manager named before, and nobody does now, goes with all that is in it.
        let named_now = with_named(&next.owners.values().flatten().cloned().collect(), &merged);
        let mut gone = with_named(&last, &merged);
        gone.retain(|path| !named_now.contains(path) && !patch.contains_key(path));
        let object = without(&merged, &gone);

        let (set, gone) = changes(&live, &object);
        let conflicts: BTreeSet<_> = next
            .owners
            .iter()
            .flat_map(|(owner, paths)| paths.intersection(&set).map(|path| (owner.clone(), path.clone())))
            .collect();
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        next.disown(&set, &gone, None);
        if !mine.is_empty() {
            next.owners.insert(me, mine);
        }
        next.object = Some(object);
        *self = next;
        Ok(())
    }
}

/// One request with its `spec`.
#[derive(Clone, Debug)]
struct Step {
    manager: &'static str,
    apply: bool,
    force: bool,
    spec: Option<Value>,
}

impl Step {
    fn body(&self) -> Value {
        self.spec.as_ref().map_or_else(|| json!({}), |spec| json!({"spec": spec}))
    }
}

fn histories() -> impl Strategy<Value = (Type, Vec<Step>)> {
    fields(types()).prop_map(Type::Struct).prop_flat_map(|spec| {
        let managers = prop_oneof![Just("m"), Just("n"), Just("o")];
        let steps = (managers, bool::weighted(0.7), bool::weighted(0.4), option::weighted(0.95, spec.values()))
            .prop_map(|(manager, apply, force, spec)| Step { manager, apply, force, spec });
        (Just(spec), vec(steps, 1..10))
    })
}

fn notation(path: &[PathElement]) -> Path {
    path.iter().map(PathElement::notation).collect()
}

fn spec_nodes(spec: &Type, object: &Value) -> Nodes {
    let mut all = Nodes::new();
    if let Some(value) = object.get("spec") {
        nodes(spec, value, &vec!["f:spec".to_owned()], true, &mut all);
    }
    all
}

fn owners(object: &Value) -> BTreeMap<Owner, BTreeSet<Path>> {
    let managed = ManagedFields::read(object).unwrap();
    let paths = |ownership: Ownership| ownership.fields.paths().iter().map(|path| notation(path)).collect();
    managed.0.into_iter().map(|(manager, owned)| ((manager.name, manager.operation), paths(owned))).collect()
}

fn leaves(object: &Nodes) -> Vec<(&Path, &Option<Value>)> {
    object.iter().map(|(path, node)| (path, &node.leaf)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_as_in_the_model((spec, steps) in histories()) {
        let mut stored = Stored::new();
        stored.schema = json!({"properties": {"spec": spec.schema()}});
        let mut model = Model::default();
        for step in steps {
            let parts = spec_nodes(&spec, &step.body());
            if step.apply {
                let real = stored.try_apply(step.manager, step.body(), step.force).map_err(|error| {
                    let ApplyError::Conflict(conflicts) = error else { panic!("{error}") };
                    let owner = |conflict: &Conflict| (conflict.manager.name.clone(), conflict.manager.operation);
                    conflicts.iter().map(|conflict| (owner(conflict), notation(&conflict.path))).collect()
                });
                prop_assert_eq!(&real, &model.apply(step.manager, &parts, step.force));
                // A configuration of empty lists owns nothing: applied again, it meets an object without managers.
                if real.is_ok() && !model.owners.is_empty() {
                    let applied = stored.object.clone();
                    stored.apply(step.manager, step.body());
                    prop_assert_eq!(&stored.object, &applied, "applied again at another time");
                }
            } else {
                stored.update(step.manager, step.body());
                model.update(step.manager, parts);
            }
            if let Some(object) = &stored.object {
                let (real, expected) = (spec_nodes(&spec, object), model.object.clone().unwrap_or_default());
                prop_assert_eq!(leaves(&real), leaves(&expected), "{:?}", object);
                prop_assert_eq!(owners(object), model.owners.clone(), "{:?}", object);
            }
        }
    }
}
