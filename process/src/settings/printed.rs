//! The settings as `--print-config` shows them: a file for `--config`, and where each value came from.

use std::{ffi::OsString, fmt::Write as _};

use super::{Origin, Setting, Settings, Shape};

impl Settings {
    /// Secrets are left out.
    pub(super) fn print(&self) -> String {
        let mut text = String::new();
        for setting in &self.settings {
            let place = match setting.origin {
                Origin::File => "the file of --config".to_owned(),
                origin @ (Origin::Flag | Origin::Variable | Origin::Default) => origin.place(&setting.name),
            };
            let name = &setting.name;
            // Writing to a string does not fail.
            let _ = match self.value(setting) {
                None => Ok(()),
                Some(_) if setting.is_secret => writeln!(text, "# {name}: a secret, which is not shown # {place}"),
                Some(value) => writeln!(text, "{name} = {value} # {place}"),
            };
        }
        for table in &self.tables {
            let tables = self.file.printed(table);
            if !tables.is_empty() {
                let _ = write!(text, "\n{tables}");
            }
        }
        text
    }

    /// What a setting is, if it is anything.
    fn value(&self, setting: &Setting) -> Option<toml::Value> {
        let defaults = || self.defaults(&setting.name);
        let said = if setting.values.is_empty() { defaults() } else { setting.values.clone() };
        let mut said = said.into_iter().map(|text| text.to_string_lossy().into_owned());
        match setting.shape {
            Shape::Switch => Some(toml::Value::Boolean(said.next().is_some_and(|word| word == "true"))),
            Shape::One => said.next().map(number_or_text),
            Shape::List => {
                let items: Vec<_> = said.map(toml::Value::String).collect();
                (!items.is_empty()).then_some(toml::Value::Array(items))
            }
        }
    }

    /// What the table knows a setting to be that nobody has given.
    fn defaults(&self, name: &str) -> Vec<OsString> {
        let command = self.head.iter().skip(1).try_fold(&self.command, |command, name| command.find_subcommand(name));
        let argument = command.and_then(|it| it.get_arguments().find(|argument| argument.get_long() == Some(name)));
        argument.map(|argument| argument.get_default_values().iter().map(OsString::from).collect()).unwrap_or_default()
    }
}

fn number_or_text(text: String) -> toml::Value {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => toml::Value::Integer(number),
        Ok(_) | Err(_) => toml::Value::String(text),
    }
}
