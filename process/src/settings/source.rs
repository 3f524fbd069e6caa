//! Where a setting may come from: a flag, else a variable of the environment, else an entry of the file.

use std::{ffi::OsString, fs::File, io::Read, path::Path};

use super::Environment;

/// First part of a setting's environment variable.
const PREFIX: &str = "CLUSTER_PROXY_";

/// Bytes of a file: more than anybody writes by hand.
const LONGEST: u64 = 1 << 20;

/// Where a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Variable,
    File,
    Default,
}

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Entries {
    table: toml::Table,
    /// There is a file, and it cannot be read.
    are_unknown: bool,
}

impl Origin {
    /// Where the operator finds it.
    pub(super) fn place(self, name: &str) -> String {
        match self {
            Self::Flag => format!("--{name}"),
            Self::Variable => variable_name(name),
            Self::File => format!("'{name}' in the file of --config"),
            Self::Default => "default".into(),
        }
    }

    pub(super) fn problem(self, name: &str, what: &str) -> String {
        format!("{}: {what}", self.place(name))
    }
}

/// What the first source that knows the setting says of it. The error is about the file.
pub(super) fn find(
    name: &str,
    flags: Vec<OsString>,
    environment: Environment<'_>,
    file: &Entries,
) -> Result<(Origin, Vec<OsString>), String> {
    if !flags.is_empty() {
        return Ok((Origin::Flag, flags));
    }
    if let Some(text) = variable(name, environment) {
        return Ok((Origin::Variable, vec![text]));
    }
    let Some(value) = file.table.get(name) else { return Ok((Origin::Default, Vec::new())) };
    let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    match values.iter().map(text).collect() {
        Some(texts) => Ok((Origin::File, texts)),
        None => Err("write it as a text in quotes, or a list of texts".into()),
    }
}

/// A setting's variable. An empty one is how a unit file or a manifest leaves a setting out.
pub(super) fn variable(name: &str, environment: Environment<'_>) -> Option<OsString> {
    environment(&variable_name(name)).filter(|text| !text.is_empty())
}

fn variable_name(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('-', "_").to_uppercase())
}

fn text(value: &toml::Value) -> Option<OsString> {
    match value {
        toml::Value::String(text) => Some(text.into()),
        toml::Value::Integer(number) => Some(number.to_string().into()),
        toml::Value::Boolean(yes) => Some(yes.to_string().into()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

impl Entries {
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
        read.map_err(|error| format!("--config: cannot read {}: {error}; check the path", path.display()))?;
        if text.len() as u64 > LONGEST {
            return Err(format!("--config: {} is longer than {LONGEST} bytes; check the path", path.display()));
        }
        let table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            format!("--config: line {line} of {} is no TOML: {}", path.display(), error.message().replace('\n', ", "))
        })?;
        Ok(Self { table, are_unknown: false })
    }

    /// Of a file that cannot be read.
    pub(super) fn unknown() -> Self {
        Self { table: toml::Table::new(), are_unknown: true }
    }

    pub(super) fn are_known(&self) -> bool {
        !self.are_unknown
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// The tables `[[name]]`.
    pub(super) fn tables(&self, name: &str) -> Result<Vec<toml::Table>, String> {
        let Some(value) = self.table.get(name) else { return Ok(Vec::new()) };
        let tables = value.as_array().and_then(|all| all.iter().map(|one| one.as_table().cloned()).collect());
        tables.ok_or_else(|| format!("write it as tables that begin with [[{name}]]"))
    }

    /// What the file says under that name, as text of a file.
    pub(super) fn printed(&self, name: &str) -> String {
        let entry = self.table.get_key_value(name).map(|(name, value)| (name.clone(), value.clone()));
        toml::to_string(&entry.into_iter().collect::<toml::Table>()).unwrap_or_default()
    }
}
