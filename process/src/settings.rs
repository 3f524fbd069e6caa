//! The settings of a program: one table of them, which is its command line, filled from flags, then the environment, then a TOML
//! file; everything that is wrong is told at once.

mod printed;
mod source;
pub mod value;

use std::{
    any::TypeId,
    error::Error,
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    Arg, ArgAction, ArgMatches, Command, Parser, ValueHint,
    builder::ValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use secrecy::SecretString;

use self::source::{Entries, Origin};
use crate::{Escaped, failure::EX_USAGE};

/// Reads an environment variable by its name.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// Where the settings of a program came from, and what is wrong with them.
#[derive(Debug)]
pub struct Settings {
    command: Command,
    /// The program's name and its subcommand: how every command line begins.
    head: Vec<OsString>,
    settings: Vec<Setting>,
    file: Entries,
    /// Tables that only the file can have.
    tables: Vec<&'static str>,
    problems: Vec<String>,
    prints: bool,
}

/// One line of the table.
struct Setting {
    name: String,
    shape: Shape,
    is_secret: bool,
    origin: Origin,
    /// What was said and can be read.
    values: Vec<OsString>,
    /// Whether something was said that cannot.
    is_wrong: bool,
}

/// How often a setting may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Switch,
    One,
    List,
}

/// Why a program does not start.
#[derive(Debug)]
pub enum Stop {
    /// Help, version, or a command line that clap refuses; it says itself what.
    CommandLine(clap::Error),
    /// Everything that is wrong, a sentence each.
    Problems(Vec<String>),
    /// What `--print-config` has asked for.
    Printed(String),
}

/// Reads the table `T`. What is wrong with a value, and was left out, is told by [`Settings::finish`].
pub fn read<T: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
) -> Result<(T, Settings), Stop> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let command = with_file(T::command());
    let told = relaxed(command.clone()).try_get_matches_from(&arguments).map_err(|error| {
        // Relaxed, the command does not know which words a setting may be, and help would not show them.
        let strict = command.clone().try_get_matches_from(&arguments);
        strict.err().filter(|strict| !strict.use_stderr()).unwrap_or(error)
    })?;
    let (head, told, chosen) = chosen(&command, &told);
    let arguments: Vec<_> = chosen.get_arguments().filter(|argument| is_setting(argument)).cloned().collect();
    let mut settings = Settings {
        command: command.clone(),
        head,
        settings: Vec::new(),
        file: Entries::default(),
        tables: Vec::new(),
        problems: Vec::new(),
        prints: told.get_flag("print-config"),
    };
    settings.open(told, environment);
    for argument in &arguments {
        settings.find(argument, told, environment);
    }
    let matches = settings.command.clone().try_get_matches_from(settings.line())?;
    Ok((T::from_arg_matches(&matches)?, settings))
}

/// What every program's table has besides its own lines.
fn with_file(command: Command) -> Command {
    if command.has_subcommands() {
        return command.mut_subcommands(with_file);
    }
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_hint(ValueHint::FilePath)
        .value_parser(ValueParser::path_buf())
        .help("TOML file with the same names as these flags, without the dashes in front");
    let print = Arg::new("print-config").long("print-config").action(ArgAction::SetTrue).help(
        "Print the settings that flags, environment and file make together, as such a file, and where each is from",
    );
    command.arg(config).arg(print)
}

/// The same command, which takes every value, and as often as it is given.
fn relaxed(command: Command) -> Command {
    let relax = |argument: Arg| match argument.get_action().takes_values() {
        true => argument.action(ArgAction::Append).value_parser(ValueParser::os_string()).value_delimiter(None),
        false => argument,
    };
    command.mut_args(relax).mut_subcommands(relaxed)
}

/// The subcommand that was chosen, if there are any: how its command line begins, what was told to it, and what it takes.
fn chosen<'c>(command: &'c Command, told: &'c ArgMatches) -> (Vec<OsString>, &'c ArgMatches, &'c Command) {
    let (mut head, mut told, mut command) = (vec![command.get_name().into()], told, command);
    while let Some((name, below)) = told.subcommand()
        && let Some(subcommand) = command.find_subcommand(name)
    {
        head.push(name.into());
        (told, command) = (below, subcommand);
    }
    (head, told, command)
}

fn is_setting(argument: &Arg) -> bool {
    argument.get_long().is_some_and(|name| !["config", "print-config", "help", "version"].contains(&name))
}

/// What was said of an argument on the command line.
fn flags(told: &ArgMatches, id: &str) -> Vec<OsString> {
    let is_said = told.value_source(id) == Some(ValueSource::CommandLine);
    told.get_raw(id).into_iter().flatten().filter(|_| is_said).map(OsString::from).collect()
}

impl Settings {
    /// Whether the settings are only to be printed: nothing needs to be asked for.
    pub fn prints(&self) -> bool {
        self.prints
    }

    /// Whether somebody has said something about a setting, right or wrong.
    pub fn is_given(&self, name: &str) -> bool {
        self.setting(name).is_some_and(|setting| setting.is_wrong || !setting.values.is_empty())
    }

    /// Whether what was said about a setting cannot be read: what follows from that is not to be told, too.
    pub fn is_wrong(&self, name: &str) -> bool {
        self.setting(name).is_some_and(|setting| setting.is_wrong)
    }

    /// Notes what a setting is that nobody has given, where the table does not know it.
    pub fn assume(&mut self, name: &str, value: impl Into<OsString>) {
        let setting = self.settings.iter_mut().find(|setting| setting.name == name);
        if let Some(setting) = setting.filter(|setting| setting.values.is_empty()) {
            setting.values.push(value.into());
        }
    }

    /// Notes that a setting is missing unless somebody has given it; `hint` says where it comes from.
    pub fn demand(&mut self, name: &str, hint: &str) {
        // It may be in a file that cannot be read.
        if !self.is_given(name) && self.file.are_known() {
            self.reject(format!("--{name} is missing: {hint}"));
        }
    }

    /// The state folder: the one that is named, or where it is when nobody says so.
    pub fn state(&mut self, named: Option<PathBuf>, usual: Option<PathBuf>) -> PathBuf {
        match &usual {
            Some(usual) => self.assume("state", usual),
            None => self.demand("state", "neither XDG_STATE_HOME nor HOME is set to choose one; name a folder"),
        }
        named.or(usual).unwrap_or_default()
    }

    /// Notes something that is wrong beyond a single value.
    pub fn reject(&mut self, problem: impl Into<String>) {
        let problem = problem.into();
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// What `read` makes of each of the tables `[[name]]`, which only the file can have.
    pub fn tables<T>(&mut self, name: &'static str, read: impl Fn(&toml::Table) -> Result<T, String>) -> Vec<T> {
        self.tables.push(name);
        let mut good = Vec::new();
        let tables = match self.file.tables(name) {
            Ok(tables) => tables,
            Err(problem) => {
                self.problems.push(Origin::File.problem(name, &problem));
                return good;
            }
        };
        for (at, table) in tables.iter().enumerate() {
            match read(table) {
                Ok(entry) => good.push(entry),
                Err(error) => {
                    let called = table.get("name").and_then(toml::Value::as_str).map(|name| format!(" ({name:?})"));
                    let place = format!("[[{name}]] {}{}", at + 1, called.unwrap_or_default());
                    self.problems.push(format!("{place} in the file of --config: {error}"));
                }
            }
        }
        good
    }

    /// Ends the reading: entries of the file that nothing has asked for are wrong, too.
    pub fn finish(mut self) -> Result<(), Stop> {
        for name in self.file.names() {
            if self.setting(&name).is_none() && !self.tables.contains(&&*name) {
                let meant = self.suggestion(&name).map(|meant| format!("; did you mean '{meant}'?"));
                let text = format!("'{name}' in the file of --config is no setting of this command");
                self.problems.push(text + &meant.unwrap_or_default());
            }
        }
        match (self.problems.is_empty(), self.prints) {
            (false, _) => Err(Stop::Problems(self.problems)),
            (true, true) => Err(Stop::Printed(self.print())),
            (true, false) => Ok(()),
        }
    }

    fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// Reads the file of `--config`.
    fn open(&mut self, told: &ArgMatches, environment: Environment<'_>) {
        let mut files = flags(told, "config");
        if files.is_empty() {
            files.extend(source::variable("config", environment));
        }
        let Some(file) = files.pop() else { return };
        if !files.is_empty() {
            self.problems.push("--config: give it once".into());
        }
        match Entries::load(file.as_ref()) {
            Ok(entries) => self.file = entries,
            Err(problem) => {
                self.file = Entries::unknown();
                self.problems.push(problem);
            }
        }
    }

    /// Finds what the first source that knows the setting says of it, and whether that can be read.
    fn find(&mut self, argument: &Arg, told: &ArgMatches, environment: Environment<'_>) {
        let name = argument.get_long().unwrap_or_default().to_owned();
        let action = argument.get_action();
        let is_list = matches!(action, ArgAction::Append);
        let shape = if is_list {
            Shape::List
        } else if action.takes_values() {
            Shape::One
        } else {
            Shape::Switch
        };
        let is_secret = argument.get_value_parser().type_id() == TypeId::of::<SecretString>();
        let said = flags(told, argument.get_id().as_str());
        let (origin, said) = match source::find(&name, said, environment, &self.file) {
            Ok(found) => found,
            Err(problem) => {
                self.problems.push(Origin::File.problem(&name, &problem));
                self.settings.push(Setting { is_wrong: true, ..Setting::new(name, shape, is_secret) });
                return;
            }
        };
        let said = if shape == Shape::List { items(said, argument.get_value_delimiter()) } else { said };
        let mut setting = Setting { origin, ..Setting::new(name, shape, is_secret) };
        let mut problems = Vec::new();
        if said.len() > 1 && shape != Shape::List {
            problems.push("give it once".into());
        }
        for value in said {
            match self.check(&setting, &value) {
                Ok(()) => setting.values.push(value),
                Err(problem) => problems.push(problem),
            }
        }
        setting.is_wrong = !problems.is_empty();
        for problem in problems {
            self.reject(origin.problem(&setting.name, &problem));
        }
        if setting.is_wrong && shape != Shape::List {
            setting.values.clear();
        }
        if setting.values.is_empty() {
            setting.origin = Origin::Default;
        }
        self.settings.push(setting);
    }

    /// Whether the table can read a value, which is asked of it alone.
    fn check(&self, setting: &Setting, value: &OsStr) -> Result<(), String> {
        let said = setting.said(value);
        if setting.shape == Shape::Switch {
            let is_word = [OsStr::new("true"), OsStr::new("false")].contains(&value);
            return if is_word { Ok(()) } else { Err(format!("{value:?}: must be true or false")) };
        }
        let line = self.head.iter().cloned().chain(said);
        let Err(error) = self.command.clone().try_get_matches_from(line) else { return Ok(()) };
        let (problem, shown) = (reason(&error), format!("{:?}", value.to_string_lossy()));
        if setting.is_secret || problem.contains(&shown) { Err(problem) } else { Err(format!("{shown}: {problem}")) }
    }

    /// The command line that says all that was found.
    fn line(&self) -> impl Iterator<Item = OsString> {
        let said =
            self.settings.iter().flat_map(|setting| setting.values.iter().filter_map(|value| setting.said(value)));
        self.head.iter().cloned().chain(said)
    }

    /// The setting that somebody may have meant by a name that there is not.
    fn suggestion(&self, name: &str) -> Option<String> {
        let line = self.head.iter().cloned().chain([format!("--{name}").into()]);
        let error = self.command.clone().try_get_matches_from(line).err()?;
        let meant = match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(meant)) => meant.trim_start_matches('-'),
            _ => return None,
        };
        self.setting(meant).map(|setting| setting.name.clone())
    }
}

/// The values of a list.
fn items(said: Vec<OsString>, delimiter: Option<char>) -> Vec<OsString> {
    let split = |text: OsString| match (text.into_string(), delimiter) {
        (Ok(text), Some(delimiter)) => text.split(delimiter).map(|item| item.trim().into()).collect(),
        (Ok(text), None) => vec![text.into()],
        (Err(text), _) => vec![text],
    };
    said.into_iter().flat_map(split).filter(|item: &OsString| !item.is_empty()).collect()
}

/// What is wrong with a value.
fn reason(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) if !words.is_empty() => match words.split_last() {
            Some((last, others)) if !others.is_empty() => format!("must be {} or {last}", others.join(", ")),
            _ => format!("must be {}", words.concat()),
        },
        _ if error.kind() == ErrorKind::InvalidValue => "is empty; say a value, or leave it out".into(),
        _ => error.kind().to_string(),
    }
}

/// Without the values: one may be a secret.
impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("name", &self.name).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Setting {
    fn new(name: String, shape: Shape, is_secret: bool) -> Self {
        Self { name, shape, is_secret, origin: Origin::Default, values: Vec::new(), is_wrong: false }
    }

    /// A value as the command line says it.
    fn said(&self, value: &OsStr) -> Option<OsString> {
        let mut said = OsString::from(format!("--{}", self.name));
        if self.shape == Shape::Switch {
            return (value == "true").then_some(said);
        }
        said.push("=");
        said.push(value);
        Some(said)
    }
}

impl From<clap::Error> for Stop {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(error)
    }
}

impl Stop {
    /// Prints what it says and gives the process' exit code. A closed pipe is its reader's choice.
    pub fn tell(self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                let _ = error.print();
                if error.use_stderr() { EX_USAGE.into() } else { ExitCode::SUCCESS }
            }
            Self::Problems(problems) => {
                for problem in problems {
                    eprintln!("error: {}", Escaped(problem));
                }
                EX_USAGE.into()
            }
            Self::Printed(text) => {
                let _ = io::stdout().write_all(text.as_bytes());
                ExitCode::SUCCESS
            }
        }
    }
}

#[cfg(test)]
mod tests;
