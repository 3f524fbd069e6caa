//! What a YAML scalar means: YAML 1.1 as the Go library of Kubernetes reads it.

use saphyr_parser::Tag;
use serde_json::{Number, Value};

/// The JSON value of a scalar, or what cannot be decoded. `is_plain` is false for quoted and block scalars.
pub(super) fn resolve(text: &str, is_plain: bool, tag: Option<&Tag>) -> Result<Value, String> {
    let string = || Value::String(text.to_owned());
    let of_type = |value: Value, is_right: fn(&Value) -> bool, tag: &Tag| {
        if is_right(&value) { Ok(value) } else { Err(format!("!!str `{text}` as a !!{}", tag.suffix)) }
    };
    match tag {
        Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
            "null" => of_type(plain(text)?, Value::is_null, tag),
            "bool" => of_type(plain(text)?, Value::is_boolean, tag),
            "int" => of_type(plain(text)?, |value| value.is_i64() || value.is_u64(), tag),
            "float" => of_type(plain(text)?, Value::is_number, tag),
            "binary" => Err("!!binary; write base64 as a string".to_owned()),
            _ => Ok(string()),
        },
        None if is_plain => plain(text),
        // `! text` is a string, and a tag of one's own says nothing to JSON.
        Some(_) | None => Ok(string()),
    }
}

fn plain(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return Err(format!("`{text}`: JSON has no such number")),
        _ if !text.starts_with(['+', '-', '.']) && !text.starts_with(|c: char| c.is_ascii_digit()) => text.into(),
        _ => match integer(text).or_else(|| float(text)) {
            Some(number) => Value::Number(number),
            None => text.into(),
        },
    })
}

/// `12`, `-12`, `1_000`, `0x1f`, `0b11`, `0o17`, `017`.
fn integer(text: &str) -> Option<Number> {
    let digits = text.replace('_', "");
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    // A second sign would be taken by the parser of the digits.
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some(_) if digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    if negative { 0_i64.checked_sub_unsigned(size).map(Number::from) } else { Some(size.into()) }
}

/// `1.5`, `.5`, `1.`, `1e3`.
fn float(text: &str) -> Option<Number> {
    let is_float = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if is_float { text.parse().ok().and_then(Number::from_f64) } else { None }
}
