//! Tests of bodies: what is read, and what is refused in which words.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn decoded(content_type: &str, body: &str) -> Result<Body, BodyError> {
    decode(Some(content_type), body.as_bytes(), "Namespace", Origin::BuiltIn)
}

fn yaml(text: &str) -> Value {
    yaml::decode(text.as_bytes()).unwrap().0
}

fn messages(body: &Body) -> Vec<String> {
    body.duplicates.messages().collect()
}

#[test]
fn json_is_the_default_and_parameters_of_the_type_do_not_matter() {
    let object = json!({"kind": "Namespace"});
    for content_type in [None, Some(""), Some("application/json"), Some("Application/JSON; charset=utf-8")] {
        let body = decode(content_type, br#"{"kind":"Namespace"}"#, "Namespace", Origin::Custom).unwrap();
        assert_eq!(Value::Object(body.object), object);
        assert!(body.duplicates.is_empty());
    }
}

#[test]
fn fields_named_twice_are_reported_with_their_path() {
    let json = r#"{"spec":{"x":1,"x":2,"list":[{},{"z":1,"z":1,"z":2}]},"spec":{"x":3},"a":1}"#;
    let body = decoded("application/json", json).unwrap();
    let duplicates = ["duplicate field \"spec.x\"", "duplicate field \"spec.list[1].z\"", "duplicate field \"spec\""];
    assert_eq!(messages(&body), duplicates);
    assert_eq!(Value::Object(body.object), json!({"a": 1, "spec": {"x": 3}}));
    let yaml = "spec:\n  x: 1\n  x: 2\n  list: [{}, {z: 1, z: 1, z: 2}]\nspec: {x: 3}\na: 1\n";
    assert_eq!(messages(&decoded("application/yaml", yaml).unwrap()), duplicates);
    assert_eq!(messages(&decode_apply(yaml.as_bytes()).unwrap()), duplicates);
}

#[test]
fn no_more_than_a_hundred_duplicates_are_reported() {
    let fields: Vec<String> = (0..200).map(|n| format!("\"f{n}\":1,\"f{n}\":2")).collect();
    assert_eq!(messages(&decoded("application/json", &format!("{{{}}}", fields.join(","))).unwrap()).len(), 100);
}

#[test]
fn duplicates_below_a_long_path_cost_no_more_than_the_body() {
    let (name, fields) = ("n".repeat(MAX_BODY / 2), "\"a\":1,".repeat(MAX_BODY / 14));
    let json = format!("{{\"{name}\":{{{fields}\"a\":2}}}}");
    let start = std::time::Instant::now();
    for body in [decoded("application/json", &json).unwrap(), decode_apply(json.as_bytes()).unwrap()] {
        assert_eq!(messages(&body), [format!("duplicate field \"{name}.a\"")]);
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn unknown_formats_are_refused_with_what_is_accepted() {
    let refused = |origin| decode(Some("text/plain"), b"{}", "X", origin).unwrap_err();
    let error = refused(Origin::BuiltIn);
    assert_eq!((error.code(), error.reason()), (415, "UnsupportedMediaType"));
    assert_eq!(
        error.to_string(),
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    assert!(refused(Origin::Custom).to_string().ends_with("include: application/json, application/yaml"));
    assert_eq!(decode(Some(PROTOBUF), b"k8s\0", "X", Origin::Custom).unwrap_err(), refused(Origin::Custom));
}

#[test]
fn what_is_no_object_is_refused() {
    let refused = |content_type: &str, body: &str| {
        let error = decoded(content_type, body).unwrap_err();
        assert_eq!((error.code(), error.reason()), (400, "BadRequest"));
        error.to_string()
    };
    let start = "the object provided is unrecognized (must be of type Namespace): ";
    assert_eq!(
        refused("application/json", "[1]"),
        format!(
            "{start}couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type map[string]interface {{}} (5b315d)"
        )
    );
    assert!(refused("application/json", "").ends_with(" (<empty>)"));
    assert!(refused("application/json", "{} {}").starts_with(start));
    assert!(
        refused("application/json", &format!("{{{}", " ".repeat(40))).ends_with(&format!("({{{} ...)", " ".repeat(29)))
    );
    assert!(refused("application/yaml", "a: b\n---\nc: d\n").contains("yaml: more than one document"));
    assert!(refused("application/yaml", "a: [").starts_with(start));
    assert!(refused(PROTOBUF, "{}").contains("does not appear to be a protobuf message"));
    assert!(decode_apply(b"- 1").unwrap_err().to_string().starts_with("error decoding YAML: "));
}

#[test]
fn large_and_deep_bodies_are_refused() {
    let error = decode(None, &vec![b' '; MAX_BODY + 1], "X", Origin::Custom).unwrap_err();
    assert_eq!((error.code(), error.reason()), (413, "RequestEntityTooLarge"));
    assert_eq!(error.to_string(), "Request entity too large: limit is 3145728");
    for content_type in ["application/json", "application/yaml"] {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(decoded(content_type, &nested(126)).is_ok(), "{content_type}");
        assert_eq!(decoded(content_type, &nested(128)).unwrap_err().code(), 400, "{content_type}");
        assert_eq!(decoded(content_type, &nested(100_000)).unwrap_err().code(), 400, "{content_type}");
    }
}

#[test]
fn yaml_scalars_mean_what_they_mean_to_kubernetes() {
    for (text, value) in [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("'yes'", json!("yes")),
        ("~", json!(null)),
        ("", json!(null)),
        ("12", json!(12)),
        ("-12", json!(-12)),
        ("1_000", json!(1000)),
        ("0x1f", json!(31)),
        ("0o17", json!(15)),
        ("017", json!(15)),
        ("0", json!(0)),
        ("18446744073709551615", json!(u64::MAX)),
        ("1.5", json!(1.5)),
        ("1e3", json!(1000.0)),
        ("1.2.3", json!("1.2.3")),
        ("--1", json!("--1")),
        ("0x-1", json!("0x-1")),
        ("2026-01-01", json!("2026-01-01")),
        ("!!str 12", json!("12")),
        ("!!int 12", json!(12)),
        ("|\n  a\n  b\n", json!("a\nb\n")),
    ] {
        assert_eq!(yaml(&format!("a: {text}")), json!({"a": value}), "{text}");
    }
    assert_eq!(yaml("1: a\ntrue: b\n"), json!({"1": "a", "true": "b"}));
    for wrong in ["a: .nan", "a: !!int x", "? [a]\n: b", "~: a"] {
        assert!(yaml::decode(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    assert_eq!(yaml("a: &x {b: 1}\nc: *x\n"), json!({"a": {"b": 1}, "c": {"b": 1}}));
    assert_eq!(
        yaml("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: {c: 3, <<: [*x, {b: 9, f: 4}]}\n"),
        json!({"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": {"b": 1, "c": 3, "f": 4}})
    );
    assert!(yaml::decode(b"a: {<<: 1}").is_err() && yaml::decode(b"a: *x").is_err());
}

#[test]
fn aliases_of_aliases_do_not_explode() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let previous = level - 1;
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{previous}"); 10].join(", "));
    }
    assert!(yaml::decode(bomb.as_bytes()).unwrap_err().to_string().contains("excessive aliasing"));
    let mut tower = "a0: &a0 [x]\n".to_owned();
    for level in 1..300 {
        tower += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(yaml::decode(tower.as_bytes()).unwrap_err().to_string().contains("max depth"));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| json!(f64::from(n))),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"\\\\é]{0,4}", inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_text_becomes_what_serde_json_makes_of_it(value in value()) {
        let (decoded, duplicates) = json::decode(value.to_string().as_bytes()).unwrap();
        prop_assert_eq!(decoded, value);
        prop_assert!(duplicates.is_empty());
    }

    #[test]
    fn json_is_yaml(value in prop::collection::btree_map("[a-z]{1,4}", value(), 0..4)) {
        let value = Value::Object(value.into_iter().collect());
        let text = value.to_string();
        prop_assert_eq!(yaml::decode(text.as_bytes()).unwrap().0, value);
    }

    #[test]
    fn no_text_makes_a_decoder_panic(text in r#"(\PC|[a\-:\[\]{},&*<>|!#'"?% \n\t]){0,40}"#) {
        let _ = yaml::decode(text.as_bytes());
        let _ = json::decode(text.as_bytes());
    }
}
