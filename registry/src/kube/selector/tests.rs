//! Tests of selectors: the text forms, and both against a naive evaluator.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect()
}

fn chosen(selector: &str, pairs: &[(&str, &str)]) -> bool {
    LabelSelector::parse(selector).unwrap().matches(Some(&labels(pairs)))
}

fn refused(selector: &str) -> String {
    LabelSelector::parse(selector).unwrap_err().to_string()
}

#[test]
fn an_error_is_no_longer_than_what_was_asked() {
    let key = "k".repeat(10_000);
    let object = json!({"matchExpressions": [{"key": key, "operator": "In", "values": vec!["-"; 10_000]}]});
    let error = LabelSelector::from_object(Some(&object)).unwrap_err().to_string();
    assert!(error.len() < 200_000, "{} bytes are told of {}", error.len(), object.to_string().len());
    let text = format!("a in ({})", (0..10_000).map(|at| format!("-{at}")).collect::<Vec<_>>().join(","));
    let error = LabelSelector::parse(&text).unwrap_err().to_string();
    assert!(error.len() < 200_000, "{} bytes are told of {}", error.len(), text.len());
}

#[test]
fn every_operator_chooses_as_documented() {
    for (selector, a_is_b, a_is_empty, no_a) in [
        ("a=b", true, false, false),
        ("a==b", true, false, false),
        ("a!=b", false, true, true),
        ("a in (b, c)", true, false, false),
        ("a notin (b,c)", false, true, true),
        ("a", true, true, false),
        ("!a", false, false, true),
        ("a=", false, true, false),
        ("a in ()", false, true, false),
        ("a in (,x)", false, true, false),
        ("", true, true, true),
        (" a = b , a != c ", true, false, false),
        ("!a=b", true, false, false),
    ] {
        assert_eq!(chosen(selector, &[("a", "b")]), a_is_b, "{selector} of a=b");
        assert_eq!(chosen(selector, &[("a", "")]), a_is_empty, "{selector} of a=");
        assert_eq!(chosen(selector, &[]), no_a, "{selector} of nothing");
    }
}

#[test]
fn numbers_are_compared_as_numbers() {
    assert!(chosen("n>9", &[("n", "10")]) && !chosen("n>9", &[("n", "9")]) && !chosen("n>9", &[("n", "x")]));
    assert!(chosen("n<9", &[("n", "-1")]) && !chosen("n<9", &[]));
}

#[test]
fn in_and_notin_may_be_keys_and_values() {
    assert!(chosen("in in (notin,in)", &[("in", "in")]));
    assert!(chosen("notin=in", &[("notin", "in")]));
}

#[test]
fn what_is_no_label_selector_is_refused_in_kubernetes_words() {
    for (selector, message) in [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        (
            "a=-",
            "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
    ] {
        assert_eq!(refused(selector), message, "{selector}");
    }
    assert!(refused("-a").starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"));
}

#[test]
fn an_absent_object_chooses_nothing_and_an_empty_one_everything() {
    let object = |object: Value| LabelSelector::from_object(Some(&object)).unwrap();
    assert!(!LabelSelector::from_object(None).unwrap().matches(None));
    assert!(!object(Value::Null).matches(None));
    assert!(object(json!({})).is_everything() && object(json!({})).matches(None));
    assert!(!object(json!({"matchLabels": {"a": "b"}})).matches(None));
    let both = object(
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}]}),
    );
    assert!(both.matches(Some(&labels(&[("a", "b")]))));
    assert!(!both.matches(Some(&labels(&[("a", "b"), ("c", "d")]))));
}

#[test]
fn a_wrong_selector_object_is_refused() {
    let refused = |expression: Value| {
        let object = json!({"matchExpressions": [expression]});
        LabelSelector::from_object(Some(&object)).unwrap_err().to_string()
    };
    assert_eq!(refused(json!({"key": "a", "operator": "in"})), "\"in\" is not a valid label selector operator");
    assert_eq!(
        refused(json!({"key": "a", "operator": "In"})),
        "values: Invalid value: []string(nil): for 'in', 'notin' operators, values set can't be empty"
    );
    assert_eq!(
        refused(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
        "values: Invalid value: []string{\"b\"}: values set must be empty for exists and does not exist"
    );
    assert!(refused(json!({"key": "", "operator": "In"})).starts_with("[key: Invalid value: \"\": name part must be"));
    assert!(LabelSelector::from_object(Some(&json!({"matchLabels": {"a": 1}}))).is_err());
    assert!(LabelSelector::from_object(Some(&json!([]))).is_err());
}

#[test]
fn fields_choose_by_name_and_by_what_the_resource_adds() {
    let object = json!({"metadata": {"name": "a"}, "spec": {"signerName": "x,y=z", "on": true}});
    let chosen = |text: &str| FieldSelector::parse(text, &["spec.signerName", "spec.on"]).unwrap().matches(&object);
    assert!(chosen("") && chosen("metadata.name=a") && chosen("metadata.name==a,metadata.namespace="));
    assert!(!chosen("metadata.name!=a") && chosen("metadata.namespace!=b") && chosen("spec.on=true"));
    assert!(chosen(r"spec.signerName=x\,y\=z,metadata.name=a"));
    let selector = FieldSelector::parse("metadata.name=a", &[]).unwrap();
    assert_eq!(selector.required("metadata.name"), Some("a"));
    assert!(FieldSelector::parse("metadata.name!=a", &[]).unwrap().required("metadata.name").is_none());
}

#[test]
fn what_is_no_field_selector_is_refused_in_kubernetes_words() {
    let refused = |text: &str| FieldSelector::parse(text, &[]).unwrap_err().to_string();
    assert_eq!(refused("spec.x=1"), "field label not supported: spec.x");
    assert_eq!(refused("a"), "invalid selector: 'a'; can't understand 'a'");
    assert_eq!(refused(r"metadata.name=\a"), r"invalid field selector: invalid escape sequence: \a");
    assert_eq!(refused("metadata.name=a=b"), "invalid field selector: unescaped character in value: =");
}

/// A requirement as a person reads it: key, operator, values.
type Wish = (String, &'static str, Vec<String>);

fn wish() -> impl Strategy<Value = Wish> {
    let operators = prop::sample::select(vec!["=", "==", "!=", "in", "notin", "", "!"]);
    ("[ab]", operators, prop::collection::vec("[xy]{0,1}", 1..3))
}

fn written((key, operator, values): &Wish) -> String {
    match *operator {
        "" => key.clone(),
        "!" => format!("!{key}"),
        "in" | "notin" => format!("{key} {operator} ({})", values.join(",")),
        operator => format!("{key}{operator}{}", values[0]),
    }
}

fn naively_met((key, operator, values): &Wish, labels: &Map<String, Value>) -> bool {
    let equals_any = |values: &[String]| labels.iter().any(|(k, v)| k == key && values.iter().any(|one| v == one));
    match *operator {
        "" => labels.keys().any(|k| k == key),
        "!" => labels.keys().all(|k| k != key),
        "in" => equals_any(values),
        "notin" => !equals_any(values),
        "!=" => !equals_any(&values[..1]),
        _ => equals_any(&values[..1]),
    }
}

proptest! {
    #[test]
    fn parsed_selectors_choose_what_a_naive_reading_chooses(
        wishes in prop::collection::vec(wish(), 0..4),
        pairs in prop::collection::btree_map("[ab]", "[xy]{0,1}", 0..3),
    ) {
        let labels: Map<String, Value> = pairs.into_iter().map(|(key, value)| (key, json!(value))).collect();
        let text: Vec<String> = wishes.iter().map(written).collect();
        let selector = LabelSelector::parse(&text.join(",")).unwrap();
        prop_assert_eq!(selector.matches(Some(&labels)), wishes.iter().all(|wish| naively_met(wish, &labels)));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in r"(\PC|[a!=<>(), \\]){0,20}") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse(&text, &["a"]);
    }
}
