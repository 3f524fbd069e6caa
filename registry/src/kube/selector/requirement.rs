//! One requirement of a label selector: a key, an operator and values.

use serde_json::Value;

use super::SelectorError;
use crate::kube::label;

/// Most errors that one requirement is told: each repeats the key, so that all of them could be a thousand times the request.
const MOST_ERRORS: usize = 10;

/// A label must meet this. `=` and `==` are `In` with one value, `!=` is `NotIn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// What a requirement asks of the label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    In,
    NotIn,
    /// `=`, `==`: as `In`, with exactly one value.
    Equals,
    /// `!=`: as `NotIn`, with exactly one value.
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl Requirement {
    /// Checks and builds a requirement. What is wrong is reported at once, as Kubernetes aggregates it, up to a bound.
    pub(super) fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        let mut errors = Vec::new();
        let key_errors = label::key_errors(key);
        if !key_errors.is_empty() {
            errors.push(format!("key: Invalid value: {key:?}: {}", key_errors.join("; ")));
        }
        if let Some(problem) = count_problem(operator, values.len()) {
            errors.push(format!("values: Invalid value: {}: {problem}", in_go_syntax(&values)));
        }
        let test = match operator {
            Operator::GreaterThan | Operator::LessThan => {
                let mut bound = 0;
                for (index, value) in values.iter().enumerate() {
                    match value.parse() {
                        Ok(number) => bound = number,
                        Err(_) if errors.len() >= MOST_ERRORS => break,
                        Err(_) => errors.push(format!(
                            "values[{index}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an \
                             integer"
                        )),
                    }
                }
                if operator == Operator::GreaterThan { Test::GreaterThan(bound) } else { Test::LessThan(bound) }
            }
            Operator::In | Operator::Equals => Test::In(values.clone()),
            Operator::NotIn | Operator::NotEquals => Test::NotIn(values.clone()),
            Operator::Exists => Test::Exists,
            Operator::DoesNotExist => Test::DoesNotExist,
        };
        for (index, value) in values.iter().enumerate() {
            if errors.len() >= MOST_ERRORS {
                break;
            }
            let value_errors = label::value_errors(value);
            if !value_errors.is_empty() {
                errors.push(format!("values[{index}][{key}]: Invalid value: {value:?}: {}", value_errors.join("; ")));
            }
        }
        match errors.as_slice() {
            [] => Ok(Self { key: key.to_owned(), test }),
            [error] => Err(SelectorError::Requirement(error.clone())),
            errors => Err(SelectorError::Requirement(format!("[{}]", errors.join(", ")))),
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Whether an object whose label of this key has that value (`None`: no such label) meets the requirement.
    pub(super) fn is_met(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        let is_one_of = |values: &[String]| value.is_some_and(|value| values.iter().any(|one| one == value));
        match &self.test {
            Test::In(values) => is_one_of(values),
            Test::NotIn(values) => !is_one_of(values),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Test::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// The requirements of a `metav1.LabelSelector` object.
pub(super) fn from_object(selector: &Value) -> Result<Vec<Requirement>, SelectorError> {
    let malformed = |what: &str| SelectorError::Syntax(format!("invalid label selector: {what}"));
    let selector = selector.as_object().ok_or_else(|| malformed("it must be an object"))?;
    let mut requirements = Vec::new();
    match selector.get("matchLabels") {
        None | Some(Value::Null) => {}
        Some(Value::Object(labels)) => {
            for (key, value) in labels {
                let value = value.as_str().ok_or_else(|| malformed("matchLabels must map strings to strings"))?;
                requirements.push(Requirement::new(key, Operator::Equals, vec![value.to_owned()])?);
            }
        }
        Some(_) => return Err(malformed("matchLabels must be an object")),
    }
    let expressions = match selector.get("matchExpressions") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(expressions)) => expressions,
        Some(_) => return Err(malformed("matchExpressions must be a list")),
    };
    for expression in expressions {
        let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
        let operator = match text("operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => {
                return Err(SelectorError::Requirement(format!("{other:?} is not a valid label selector operator")));
            }
        };
        let values = match expression.get("values") {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(values) => values
                .as_array()
                .and_then(|values| values.iter().map(|value| value.as_str().map(str::to_owned)).collect()),
        };
        let values = values.ok_or_else(|| malformed("values must be a list of strings"))?;
        requirements.push(Requirement::new(text("key"), operator, values)?);
    }
    Ok(requirements)
}

fn count_problem(operator: Operator, count: usize) -> Option<&'static str> {
    match operator {
        Operator::In | Operator::NotIn if count == 0 => Some("for 'in', 'notin' operators, values set can't be empty"),
        Operator::Equals | Operator::NotEquals if count != 1 => {
            Some("exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist if count != 0 => {
            Some("values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan if count != 1 => {
            Some("for 'Gt', 'Lt' operators, exactly one value is required")
        }
        Operator::In
        | Operator::NotIn
        | Operator::Equals
        | Operator::NotEquals
        | Operator::Exists
        | Operator::DoesNotExist
        | Operator::GreaterThan
        | Operator::LessThan => None,
    }
}

/// A list of strings as Go's `%#v` shows it, which is what Kubernetes puts into such messages.
fn in_go_syntax(values: &[String]) -> String {
    if values.is_empty() {
        return "[]string(nil)".to_owned();
    }
    let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[]string{{{}}}", values.join(", "))
}
