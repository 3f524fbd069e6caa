//! An audit event: its fields, whose names are a promise, and its two forms, a line of JSON and a line of text.
//!
//! | field | in | what |
//! |---|---|---|
//! | `version` | all | of these names and their meaning: 1 |
//! | `time` | all | when it ended, RFC 3339 in UTC |
//! | `event` | all | `connection`, `request`, `handshake`, `lost` or `left_out` |
//! | `result` | all but `lost` and `left_out` | `complete`, `ok`, or why not |
//! | `peer`, `frontend` | all but `lost` and `left_out` | from where, and by which way in |
//! | `user`, `groups` | connection, request | who has shown credentials; empty where nobody has |
//! | `impersonated_user`, `impersonated_groups` | connection, request | as whom they asked (`kubectl --as`), if so |
//! | `duration_ms` | connection, request | from the ask to the end |
//! | `cluster`, `target`, `address`, `rule` | connection | what was asked for, what was dialled, what allowed it |
//! | `bytes_to_target`, `bytes_from_target`, `trace_id` | connection | what went through; the agent logs the id, too |
//! | `verb`, `resource`, `namespace`, `name` | request | what was asked of the registry |
//! | `code`, `dry_run` | request | the answer's status (0: there was none, as for a join), and whether nothing was to be stored |
//! | `count` | lost | events that could not be written before this one |
//! | `count` | left_out | events of sources without credentials that were too many since the last one of such |

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use process::write_json;

use crate::outcome::Outcome;

/// Of the fields' names and their meaning.
const VERSION: u64 = 1;

/// Longest text of a peer, in bytes: longer ones are cut, and end in '…'.
const LONGEST: usize = 512;

/// Most groups of one user, and names of one deletion, that are told; the last one then says how many there are.
const MOST: usize = 16;

/// A text for an event, which may be a stranger's: bounded.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Text(String);

/// What has happened.
#[derive(Debug)]
pub(crate) enum Event {
    Connection(Connection),
    Request(Request),
    Handshake(Handshake),
    /// Events that were not written.
    Lost {
        count: u64,
    },
    /// Events of sources without credentials that were too many to be written.
    LeftOut {
        count: u64,
    },
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who {
    pub(crate) user: Text,
    pub(crate) groups: Vec<Text>,
    pub(crate) impersonated_user: Text,
    pub(crate) impersonated_groups: Vec<Text>,
}

/// An ask for a target, from its arrival to its end.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) outcome: Outcome,
    pub(crate) who: Who,
    pub(crate) peer: Text,
    pub(crate) frontend: &'static str,
    pub(crate) cluster: Text,
    pub(crate) target: Text,
    pub(crate) address: Text,
    pub(crate) rule: Text,
    pub(crate) bytes_to_target: u64,
    pub(crate) bytes_from_target: u64,
    pub(crate) duration_ms: u64,
    pub(crate) trace_id: String,
}

/// A request on the registry: every one that would change it, and others when they were refused.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) outcome: Outcome,
    pub(crate) who: Who,
    pub(crate) peer: Text,
    pub(crate) frontend: &'static str,
    pub(crate) verb: Text,
    pub(crate) resource: Text,
    pub(crate) namespace: Text,
    pub(crate) name: Text,
    pub(crate) code: u16,
    pub(crate) dry_run: bool,
    pub(crate) duration_ms: u64,
}

/// A TLS handshake that failed.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) outcome: Outcome,
    pub(crate) peer: Text,
    pub(crate) frontend: &'static str,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Text,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Text(&'a str),
    Texts(&'a [Text]),
    Number(u64),
    Flag(bool),
}

type Fields<'a> = Vec<(&'static str, Value<'a>)>;

impl Event {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Connection(_) => "connection",
            Self::Request(_) => "request",
            Self::Handshake(_) => "handshake",
            Self::Lost { .. } => "lost",
            Self::LeftOut { .. } => "left_out",
        }
    }

    /// Nobody has shown who they are. Joins, which have no answer's status, wait for each other elsewhere.
    pub(crate) fn is_of_a_stranger(&self) -> bool {
        match self {
            Self::Connection(Connection { who, .. }) => who.user.is_empty(),
            Self::Request(Request { who, code, .. }) => who.user.is_empty() && *code != 0,
            Self::Handshake(_) => true,
            Self::Lost { .. } | Self::LeftOut { .. } => false,
        }
    }

    /// Appends the event's line, its end included. Both forms quote every text as JSON does, so that nothing in one can
    /// be taken for a field or a line.
    pub(crate) fn write(&self, form: Form, time: Timestamp, to: &mut String) {
        let time = format!("{time:.6}");
        match form {
            Form::Json => {
                let mut before = '{';
                let head = [
                    ("version", Value::Number(VERSION)),
                    ("time", Value::Text(&time)),
                    ("event", Value::Text(self.kind())),
                ];
                for (name, value) in head.into_iter().chain(self.fields()) {
                    to.push(before);
                    write_json(to, name);
                    to.push(':');
                    value.write(to);
                    before = ',';
                }
                to.push_str("}\n");
            }
            Form::Text => {
                // Writing to a string does not fail.
                let _ = write!(to, "{time}  INFO audit: {}", self.kind());
                for (name, value) in self.fields() {
                    let _ = write!(to, " {name}=");
                    value.write(to);
                }
                to.push('\n');
            }
        }
    }

    fn fields(&self) -> Fields<'_> {
        match self {
            Self::Connection(connection) => connection.fields(),
            Self::Request(request) => request.fields(),
            Self::Handshake(Handshake { outcome, peer, frontend }) => vec![
                ("result", Value::Text(outcome.label())),
                ("peer", Value::Text(&peer.0)),
                ("frontend", Value::Text(frontend)),
            ],
            Self::Lost { count } | Self::LeftOut { count } => vec![("count", Value::Number(*count))],
        }
    }
}

impl Who {
    fn add<'a>(&'a self, fields: &mut Fields<'a>) {
        let Self { user, groups, impersonated_user, impersonated_groups } = self;
        fields.extend([("user", Value::Text(&user.0)), ("groups", Value::Texts(groups))]);
        if !impersonated_user.0.is_empty() || !impersonated_groups.is_empty() {
            fields.push(("impersonated_user", Value::Text(&impersonated_user.0)));
            fields.push(("impersonated_groups", Value::Texts(impersonated_groups)));
        }
    }
}

impl Connection {
    fn fields(&self) -> Fields<'_> {
        let mut fields = vec![("result", Value::Text(self.outcome.label()))];
        self.who.add(&mut fields);
        fields.extend([
            ("peer", Value::Text(&self.peer.0)),
            ("frontend", Value::Text(self.frontend)),
            ("cluster", Value::Text(&self.cluster.0)),
            ("target", Value::Text(&self.target.0)),
            ("address", Value::Text(&self.address.0)),
            ("rule", Value::Text(&self.rule.0)),
            ("bytes_to_target", Value::Number(self.bytes_to_target)),
            ("bytes_from_target", Value::Number(self.bytes_from_target)),
            ("duration_ms", Value::Number(self.duration_ms)),
            ("trace_id", Value::Text(&self.trace_id)),
        ]);
        fields
    }
}

impl Request {
    fn fields(&self) -> Fields<'_> {
        let mut fields = vec![("result", Value::Text(self.outcome.label()))];
        self.who.add(&mut fields);
        fields.extend([
            ("peer", Value::Text(&self.peer.0)),
            ("frontend", Value::Text(self.frontend)),
            ("verb", Value::Text(&self.verb.0)),
            ("resource", Value::Text(&self.resource.0)),
            ("namespace", Value::Text(&self.namespace.0)),
            ("name", Value::Text(&self.name.0)),
            ("code", Value::Number(self.code.into())),
            ("dry_run", Value::Flag(self.dry_run)),
            ("duration_ms", Value::Number(self.duration_ms)),
        ]);
        fields
    }
}

impl Value<'_> {
    fn write(self, to: &mut String) {
        match self {
            Self::Text(text) => write_json(to, text),
            Self::Texts(texts) => {
                to.push('[');
                for (index, text) in texts.iter().enumerate() {
                    if index > 0 {
                        to.push(',');
                    }
                    write_json(to, &text.0);
                }
                to.push(']');
            }
            // Writing to a string does not fail.
            Self::Number(number) => drop(write!(to, "{number}")),
            Self::Flag(flag) => drop(write!(to, "{flag}")),
        }
    }
}

impl Text {
    /// A value as it shows itself.
    pub(crate) fn of(value: impl fmt::Display) -> Self {
        Self::from(value.to_string())
    }

    /// Some of them, if there are too many.
    pub(crate) fn some_of<T: AsRef<str>>(texts: &[T]) -> Vec<Self> {
        let mut some: Vec<_> = texts.iter().take(MOST).map(|text| Self::from(text.as_ref())).collect();
        if texts.len() > MOST {
            some.pop();
            some.push(Self(format!("… {} in all", texts.len())));
        }
        some
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        if text.len() <= LONGEST { Self(text) } else { Self::from(text.as_str()) }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        if text.len() <= LONGEST {
            return Self(text.to_owned());
        }
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        Self(format!("{}…", &text[..end]))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;

    fn written(event: &Event, form: Form) -> String {
        let mut line = String::new();
        event.write(form, Timestamp::UNIX_EPOCH, &mut line);
        line
    }

    fn to(target: &str) -> Event {
        Event::Connection(Connection {
            outcome: Outcome::Ok,
            target: target.into(),
            frontend: "socks5",
            ..Connection::default()
        })
    }

    #[test]
    fn names_and_order_are_a_promise() {
        let request = Event::Request(Request {
            outcome: Outcome::Refused,
            who: Who {
                user: "alice".into(),
                groups: Text::some_of(&["dev"]),
                impersonated_user: "bob".into(),
                impersonated_groups: Vec::new(),
            },
            peer: "[::1]:9".into(),
            verb: "patch".into(),
            resource: "managedclusters.cluster.open-cluster-management.io".into(),
            name: "c1".into(),
            code: 403,
            dry_run: true,
            frontend: "api",
            ..Request::default()
        });
        let json = r#"{"version":1,"time":"1970-01-01T00:00:00.000000Z","event":"request","result":"refused","user":"alice","groups":["dev"],"impersonated_user":"bob","impersonated_groups":[],"peer":"[::1]:9","frontend":"api","verb":"patch","resource":"managedclusters.cluster.open-cluster-management.io","namespace":"","name":"c1","code":403,"dry_run":true,"duration_ms":0}"#;
        assert_eq!(written(&request, Form::Json), format!("{json}\n"));
        let lost = written(&Event::Lost { count: 7 }, Form::Text);
        assert_eq!(lost, "1970-01-01T00:00:00.000000Z  INFO audit: lost count=7\n");
        let handshake = Handshake { outcome: Outcome::Tls, peer: "1.2.3.4:5".into(), frontend: "api" };
        let json = r#"{"version":1,"time":"1970-01-01T00:00:00.000000Z","event":"handshake","result":"tls","peer":"1.2.3.4:5","frontend":"api"}"#;
        assert_eq!(written(&Event::Handshake(handshake), Form::Json), format!("{json}\n"));
    }

    #[test]
    fn long_texts_and_long_lists_are_cut() {
        let line = written(&to(&"é".repeat(100_000)), Form::Json);
        assert!(line.len() < 2 * LONGEST && line.contains("é…\""), "{line}");
        let groups: Vec<String> = (0..1000).map(|group| format!("g{group}")).collect();
        let some = Text::some_of(&groups);
        assert_eq!((some.len(), &*some[MOST - 1].0), (MOST, "… 1000 in all"));
    }

    proptest! {
        #[test]
        fn no_target_makes_a_line_or_a_field(target in "(?s).{0,40}|\\PC{0,20}[\n\r\u{1b}\u{9b}\u{2028}\u{202e}\"\\\\=]{1,5}") {
            let (json, text) = (written(&to(&target), Form::Json), written(&to(&target), Form::Text));
            for line in [&json, &text] {
                prop_assert_eq!(line.find(process::is_hidden), Some(line.len() - 1), "{:?}", line);
            }
            let read: Json = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read["target"], &Json::from(target));
            // Outside of quotes, the text has exactly the fields of an event.
            let mut quoted = false;
            let mut before = ' ';
            let bare: String = text.chars().filter(|letter| {
                let ends = *letter == '"' && before != '\\';
                before = if before == '\\' { ' ' } else { *letter };
                quoted ^= ends;
                !quoted && !ends
            }).collect();
            prop_assert_eq!(bare.matches('=').count(), 13, "{:?}", bare);
        }
    }
}
