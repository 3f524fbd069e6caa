//! Settings as texts, from the command line, the environment and a TOML file; what is wrong with any of them is
//! collected, to be told all at once.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// First part of a setting's environment variable.
const PREFIX: &str = "CLUSTER_PROXY_";

/// Where a setting may come from. The earlier wins.
#[derive(Debug)]
pub(crate) struct Sources<'s> {
    /// By the name of the flag, without dashes in front.
    pub(crate) flags: BTreeMap<&'static str, Vec<String>>,
    /// Reads an environment variable.
    pub(crate) environment: Environment<'s>,
    /// The file's entries, named like the flags.
    pub(crate) file: toml::Table,
}

/// Reads an environment variable by its name.
pub(crate) struct Environment<'s>(pub(crate) &'s dyn Fn(&str) -> Option<String>);

/// Reads settings by name; remembers what was wrong.
#[derive(Debug)]
pub(crate) struct Settings<'s> {
    sources: Sources<'s>,
    known: Vec<&'static str>,
    errors: Vec<String>,
}

/// Everything that is wrong with the settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is wrong: {}", .0.join("; "))]
pub struct ConfigErrors(pub Vec<String>);

/// Where a value was found, as the operator knows it.
enum Origin {
    Flag,
    Environment,
    File,
}

impl<'s> Settings<'s> {
    pub(crate) fn new(sources: Sources<'s>) -> Self {
        Self { sources, known: Vec::new(), errors: Vec::new() }
    }

    /// The setting's value, if there is one and it can be read.
    pub(crate) fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Option<T> {
        let (origin, mut texts) = self.find(name)?;
        let text = texts.pop()?;
        if !texts.is_empty() {
            self.wrong(&origin, name, "give it once");
        }
        self.parse(&origin, name, &text)
    }

    /// As [`Self::optional`], but there must be one; `hint` says where it comes from.
    pub(crate) fn required<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str, hint: &str) -> Option<T> {
        self.demand(name, hint);
        self.optional(name)
    }

    /// All values of the setting: repeated flags, or one text with commas between the values.
    pub(crate) fn list<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Vec<T> {
        let Some((origin, texts)) = self.find(name) else { return Vec::new() };
        let items: Vec<String> = texts.iter().flat_map(|text| text.split(',')).map(|item| item.trim().into()).collect();
        let filled = items.iter().filter(|item| !item.is_empty());
        filled.filter_map(|item| self.parse(&origin, name, item)).collect()
    }

    /// What `read` makes of each of the tables `[[name]]`, which only the file can have.
    pub(crate) fn tables<T>(&mut self, name: &'static str, read: impl Fn(&toml::Table) -> Result<T, String>) -> Vec<T> {
        self.known.push(name);
        let Some(value) = self.sources.file.get(name).cloned() else { return Vec::new() };
        let tables = value.as_array().and_then(|all| all.iter().map(toml::Value::as_table).collect::<Option<Vec<_>>>());
        let Some(tables) = tables else {
            self.wrong(&Origin::File, name, &format!("write it as tables that begin with [[{name}]]"));
            return Vec::new();
        };
        let mut good = Vec::new();
        for (at, table) in tables.into_iter().enumerate() {
            match read(table) {
                Ok(entry) => good.push(entry),
                Err(error) => {
                    let called = table.get("name").and_then(toml::Value::as_str).map(|name| format!(" ({name:?})"));
                    let place = format!("[[{name}]] {}{}", at + 1, called.unwrap_or_default());
                    self.errors.push(format!("{place} in the file of --config: {error}"));
                }
            }
        }
        good
    }

    /// Notes that there is no value at all.
    pub(crate) fn demand(&mut self, name: &'static str, hint: &str) {
        if self.find(name).is_none() {
            self.errors.push(format!("--{name} is missing: {hint}"));
        }
    }

    /// Notes something that is wrong beyond a single value.
    pub(crate) fn reject(&mut self, text: String) {
        self.errors.push(text);
    }

    /// Ends the reading; entries of the file that nothing has asked for are wrong too.
    pub(crate) fn finish(mut self) -> Result<(), ConfigErrors> {
        for name in self.sources.file.keys() {
            if !self.known.contains(&name.as_str()) {
                self.errors.push(format!("'{name}' in the file of --config is no setting of this command"));
            }
        }
        if self.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(self.errors)) }
    }

    fn find(&mut self, name: &'static str) -> Option<(Origin, Vec<String>)> {
        self.known.push(name);
        if let Some(texts) = self.sources.flags.get(name).filter(|texts| !texts.is_empty()) {
            return Some((Origin::Flag, texts.clone()));
        }
        // An empty variable is how a unit file or a manifest leaves a setting out.
        if let Some(text) = (self.sources.environment.0)(&variable(name)).filter(|text| !text.is_empty()) {
            return Some((Origin::Environment, vec![text]));
        }
        let value = self.sources.file.get(name)?;
        let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
        let texts = values.iter().map(text).collect::<Option<Vec<_>>>();
        if texts.is_none() {
            self.wrong(&Origin::File, name, "write it as a text in quotes, or a list of texts");
        }
        texts.map(|texts| (Origin::File, texts))
    }

    fn parse<T: FromStr<Err: fmt::Display>>(&mut self, origin: &Origin, name: &str, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(origin, name, &error.to_string());
                None
            }
        }
    }

    fn wrong(&mut self, origin: &Origin, name: &str, what: &str) {
        let place = match origin {
            Origin::Flag => format!("--{name}"),
            Origin::Environment => variable(name),
            Origin::File => format!("'{name}' in the file of --config"),
        };
        let line = format!("{place}: {what}");
        if !self.errors.contains(&line) {
            self.errors.push(line);
        }
    }
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// The environment variable of a flag.
pub(crate) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('-', "_").to_uppercase())
}

fn text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(
        flags: &[(&'static str, &[&str])],
        environment: &[(&str, &str)],
        file: &str,
        ask: impl FnOnce(&mut Settings<'_>) -> T,
    ) -> (T, Result<(), ConfigErrors>) {
        let variable =
            |name: &str| environment.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        let flags =
            flags.iter().map(|(name, texts)| (*name, texts.iter().map(|text| (*text).into()).collect())).collect();
        let sources = Sources { flags, environment: Environment(&variable), file: file.parse().unwrap() };
        let mut settings = Settings::new(sources);
        let value = ask(&mut settings);
        (value, settings.finish())
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let flag: (&'static str, &[&str]) = ("max-size", &["1"]);
        let variable = ("CLUSTER_PROXY_MAX_SIZE", "2");
        let ask = |settings: &mut Settings<'_>| settings.optional::<u8>("max-size");
        assert_eq!(read(&[flag], &[variable], "max-size = 3", ask), (Some(1), Ok(())));
        assert_eq!(read(&[], &[variable], "max-size = 3", ask), (Some(2), Ok(())));
        assert_eq!(read(&[], &[], "max-size = 3", ask), (Some(3), Ok(())));
        assert_eq!(read(&[], &[("CLUSTER_PROXY_MAX_SIZE", "")], "", ask), (None, Ok(())));
    }

    #[test]
    fn lists_are_repeated_flags_or_commas_or_arrays() {
        let ask = |settings: &mut Settings<'_>| settings.list::<u8>("n");
        assert_eq!(read(&[("n", &["1", "2,3"])], &[], "", ask).0, [1, 2, 3]);
        assert_eq!(read(&[], &[("CLUSTER_PROXY_N", "1, 2,")], "", ask).0, [1, 2]);
        assert_eq!(read(&[], &[], "n = [\"1\", 2]", ask).0, [1, 2]);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_place() {
        let ask = |settings: &mut Settings<'_>| {
            settings.optional::<u8>("flag");
            settings.optional::<u8>("variable");
            settings.optional::<u8>("entry");
            settings.optional::<u8>("table");
            settings.required::<u8>("absent", "look it up");
        };
        let (_, result) =
            read(&[("flag", &["x"])], &[("CLUSTER_PROXY_VARIABLE", "300")], "entry = \"\"\nstray = 1\ntable = {}", ask);
        let errors = result.unwrap_err().0;
        assert_eq!(errors.len(), 6, "{errors:?}");
        for (at, start) in [
            "--flag: ",
            "CLUSTER_PROXY_VARIABLE: ",
            "'entry' in",
            "'table' in",
            "--absent is missing: look",
            "'stray' in",
        ]
        .into_iter()
        .enumerate()
        {
            assert!(errors[at].starts_with(start), "{errors:?}");
        }
    }

    #[test]
    fn tables_are_read_one_by_one_and_each_mistake_names_its_own() {
        let ask = |settings: &mut Settings<'_>| {
            settings.tables("export", |table| match table.get("port").and_then(toml::Value::as_integer) {
                Some(port) => Ok(port),
                None => Err("no port".into()),
            })
        };
        let file = "[[export]]\nport = 1\n[[export]]\nname = \"b\"\n[[export]]\nx = 1\n[[export]]\nport = 2";
        let (ports, result) = read(&[], &[], file, ask);
        assert_eq!(ports, [1, 2]);
        let places = ["[[export]] 2 (\"b\") in", "[[export]] 3 in"];
        let errors = result.unwrap_err().0;
        assert_eq!(errors.len(), 2);
        assert!(errors.iter().zip(places).all(|(error, place)| error.starts_with(place)), "{errors:?}");
        for file in ["export = \"x\"", "export = [1]", "[export]\nport = 1"] {
            let (_, result) = read(&[], &[], file, ask);
            assert!(result.unwrap_err().0[0].contains("[[export]]"), "{file}");
        }
        assert_eq!(read(&[], &[], "", ask), (Vec::new(), Ok(())));
    }

    #[test]
    fn a_single_setting_given_twice_is_wrong() {
        let (_, result) = read(&[("n", &["1", "2"])], &[], "", |settings| settings.optional::<u8>("n"));
        assert_eq!(result, Err(ConfigErrors(vec!["--n: give it once".into()])));
    }
}
