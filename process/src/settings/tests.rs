//! Where settings come from, and how what is wrong with them is told.

use std::{fs, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use proptest::{prelude::*, sample::subsequence};

use super::*;

#[derive(Debug, Parser)]
#[command(name = "program")]
struct Table {
    /// A number
    #[arg(long, default_value = "7")]
    size: u8,
    #[arg(long, value_parser = value::span, default_value = "10s")]
    pause: Duration,
    #[arg(long, value_delimiter = ',')]
    list: Vec<u8>,
    #[arg(long)]
    word: Option<Word>,
    #[arg(long)]
    folder: Option<PathBuf>,
    #[arg(long, value_parser = value::secret)]
    token: Option<SecretString>,
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Word {
    On,
    Off,
    NotNow,
}

#[derive(Debug, Parser)]
#[command(name = "program")]
struct Two {
    #[command(subcommand)]
    command: Of,
}

#[derive(Debug, Subcommand)]
enum Of {
    Run(Run),
    Join {
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        run: Run,
    },
}

#[derive(Debug, Args)]
struct Run {
    #[arg(long, default_value = "1")]
    size: u8,
}

fn read_as<T: Parser>(line: &[&str], environment: &[(&str, &str)], file: &str) -> Result<(T, Settings), Stop> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program.toml");
    fs::write(&path, file).unwrap();
    let variable = |name: &str| match name {
        "CLUSTER_PROXY_CONFIG" => Some(path.clone().into()),
        name => environment.iter().find(|(own, _)| *own == name).map(|(_, value)| value.into()),
    };
    read(std::iter::once("program").chain(line.iter().copied()).map(OsString::from), &variable)
}

fn told(line: &[&str], environment: &[(&str, &str)], file: &str) -> (Table, Vec<String>) {
    let (table, settings) = read_as::<Table>(line, environment, file).unwrap();
    let problems = match settings.finish() {
        Ok(()) => Vec::new(),
        Err(Stop::Problems(problems)) => problems,
        Err(other @ (Stop::CommandLine(_) | Stop::Printed(_))) => panic!("{other:?}"),
    };
    (table, problems)
}

fn printed(line: &[&str], environment: &[(&str, &str)], file: &str) -> String {
    let (_, settings) = read_as::<Table>(&[&["--print-config"], line].concat(), environment, file).unwrap();
    match settings.finish() {
        Err(Stop::Printed(text)) => text,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn the_first_source_that_knows_a_setting_wins(sources in subsequence(vec![1, 2, 3], 0..=3)) {
        let line: &[&str] = if sources.contains(&1) { &["--size", "1", "--list=1"] } else { &[] };
        let variables: &[_] = if sources.contains(&2) { &[("CLUSTER_PROXY_SIZE", "2"), ("CLUSTER_PROXY_LIST", "2,2")] } else { &[] };
        let file = if sources.contains(&3) { "size = 3\nlist = [3, \"3\"]" } else { "" };
        let (table, problems) = told(line, variables, file);
        prop_assert_eq!(problems, Vec::<String>::new());
        prop_assert_eq!(table.size, sources.first().copied().unwrap_or(7));
        prop_assert_eq!(table.list.first(), sources.first());
    }

    #[test]
    fn any_text_is_printed_as_it_can_be_read_again(text in "[^,\0]{1,20}", number in any::<u8>()) {
        let line = [format!("--folder={text}"), format!("--size={number}")];
        let first = printed(&[&line[0], &line[1]], &[], "");
        let second = printed(&[], &[], &first);
        let uncommented = |text: &str| text.parse::<toml::Table>().unwrap();
        prop_assert_eq!(uncommented(&first), uncommented(&second), "{}", first);
    }
}

#[test]
fn an_empty_variable_says_nothing_and_an_empty_item_is_none() {
    let (table, problems) =
        told(&[], &[("CLUSTER_PROXY_SIZE", ""), ("CLUSTER_PROXY_LIST", "1, 2,"), ("CLUSTER_PROXY_YES", "true")], "");
    assert_eq!((table.size, table.list, table.yes, problems), (7, vec![1, 2], true, vec![]));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let file = "size = 1.5\nyes = \"perhaps\"\nfolders = \"/x\"\nstray = 1\nword = \"of\"";
    let (table, problems) =
        told(&["--list", "1,x,300", "--pause=-1s", "--token=a", "--token=b"], &[("CLUSTER_PROXY_FOLDER", "/f")], file);
    assert_eq!(
        problems,
        [
            "'size' in the file of --config: write it as a text in quotes, or a list of texts",
            "--pause: \"-1s\" is no length of time; write it like 30s, 10m or 1h30m",
            "--list: \"x\": invalid digit found in string",
            "--list: \"300\": 300 is not in 0..=255",
            "'word' in the file of --config: \"of\": must be on, off or not-now",
            "--token: give it once",
            "'yes' in the file of --config: \"perhaps\": must be true or false",
            "'folders' in the file of --config is no setting of this command; did you mean 'folder'?",
            "'stray' in the file of --config is no setting of this command",
        ]
    );
    assert_eq!((table.size, table.folder, table.list), (7, Some("/f".into()), vec![1]));
}

#[test]
fn what_is_missing_is_told_unless_it_may_be_in_a_file_that_cannot_be_read() {
    let problems = |file: &str, line: &[&str]| {
        let (_, mut settings) = read_as::<Table>(line, &[("CLUSTER_PROXY_SIZE", "x")], file).unwrap();
        settings.demand("folder", "name one");
        settings.demand("size", "it is wrong, and not missing");
        match settings.finish() {
            Err(Stop::Problems(problems)) => problems,
            other => panic!("{other:?}"),
        }
    };
    let wrong = "CLUSTER_PROXY_SIZE: \"x\": invalid digit found in string";
    assert_eq!(problems("", &[]), [wrong, "--folder is missing: name one"]);
    let told = problems("size = 1\nfolder = ", &[]);
    assert!(told[0].starts_with("--config: line 2 of ") && told[1..] == [wrong], "{told:?}");
    let told = problems("", &["--config", "/nowhere/at/all"]);
    assert!(told[0].starts_with("--config: cannot read /nowhere/at/all: ") && told[1..] == [wrong], "{told:?}");
}

#[test]
fn tables_are_read_one_by_one_and_each_mistake_names_its_own() {
    let tables = |file: &str| {
        let (_, mut settings) = read_as::<Table>(&[], &[], file).unwrap();
        let ports = settings.tables("export", |table| {
            table.get("port").and_then(toml::Value::as_integer).ok_or_else(|| "no port".into())
        });
        (ports, settings.problems.clone(), settings.finish().is_ok())
    };
    let file = "[[export]]\nport = 1\n[[export]]\nname = \"b\"\n[[export]]\nx = 1\n[[export]]\nport = 2";
    let (ports, problems, _) = tables(file);
    assert_eq!(ports, [1, 2]);
    let places =
        ["[[export]] 2 (\"b\") in the file of --config: no port", "[[export]] 3 in the file of --config: no port"];
    assert_eq!(problems, places);
    for file in ["export = \"x\"", "export = [1]", "[export]\nport = 1"] {
        assert!(tables(file).1[0].contains("[[export]]"), "{file}");
    }
    assert_eq!(tables(""), (Vec::new(), Vec::new(), true));
}

#[test]
fn help_shows_the_defaults_and_the_words_and_nothing_of_the_environment() {
    for line in [&["--help"][..], &["--size", "1", "--help"]] {
        let variables = [("CLUSTER_PROXY_SIZE", "99"), ("CLUSTER_PROXY_TOKEN", "topsecret")];
        let Err(Stop::CommandLine(help)) = read_as::<Table>(line, &variables, "size = 98") else { panic!("no help") };
        let help = help.to_string();
        for shown in ["[default: 7]", "not-now", "--print-config", "--config <FILE>"] {
            assert!(help.contains(shown), "{shown} in {help}");
        }
        assert!(!help.contains("99") && !help.contains("98") && !help.contains("topsecret"), "{help}");
    }
    let (_, settings) = read_as::<Table>(&[], &[("CLUSTER_PROXY_TOKEN", "topsecret")], "").unwrap();
    assert!(!format!("{settings:?}").contains("topsecret"), "{settings:?}");
    assert!(matches!(read_as::<Table>(&["--sice", "1"], &[], ""), Err(Stop::CommandLine(_))));
}

#[test]
fn what_is_printed_says_where_it_is_from_and_no_secret() {
    let (line, variables) = (["--size=9"], [("CLUSTER_PROXY_TOKEN", "topsecret"), ("CLUSTER_PROXY_LIST", "1,2")]);
    let text = printed(&line, &variables, "word = \"on\"");
    assert_eq!(
        text,
        "size = 9 # --size\npause = \"10s\" # default\nlist = [\"1\", \"2\"] # CLUSTER_PROXY_LIST\n\
         word = \"on\" # the file of --config\n# token: a secret, which is not shown # CLUSTER_PROXY_TOKEN\n\
         yes = false # default\n"
    );
}

#[test]
fn each_subcommand_has_its_own_table_and_shares_what_is_flattened() {
    let file = "size = 5";
    let (two, _) = read_as::<Two>(&["run"], &[("CLUSTER_PROXY_NAME", "x")], file).unwrap();
    assert!(matches!(two.command, Of::Run(Run { size: 5 })));
    let (two, _) = read_as::<Two>(&["join"], &[("CLUSTER_PROXY_NAME", "x")], file).unwrap();
    assert!(matches!(two.command, Of::Join { name: Some(name), run: Run { size: 5 } } if name == "x"));
    let (_, settings) = read_as::<Two>(&["run"], &[], "name = \"x\"").unwrap();
    assert!(matches!(settings.finish(), Err(Stop::Problems(problems)) if problems.len() == 1));
}
