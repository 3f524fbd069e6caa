//! The names of clusters, agents and users: what they may consist of, checked once where they come in.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{0:?} is no DNS label (RFC 1123): 1 to 63 lower-case letters, digits and '-', with no '-' at its ends")]
    Label(String),
    #[error("{0:?} is no user name: 1 to 253 letters, digits, '.', '_', '-' and '@', not beginning with \"system:\"")]
    User(String),
    #[error("{0:?} is no group's name: 1 to 253 printable ASCII characters, with no space at its ends")]
    Group(String),
}

macro_rules! name {
    ($(#[$meta:meta])* $name:ident, $valid:ident, $error:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if $valid(text) { Ok(Self(text.into())) } else { Err(NameError::$error(shown(text))) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().into()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// A cluster's name: a DNS label (RFC 1123), since Open Cluster Management makes a namespace of it.
    ClusterName, is_dns_label, Label
}

name! {
    /// An agent's name, unique in its cluster: a DNS label (RFC 1123).
    AgentName, is_dns_label, Label
}

name! {
    /// A user's name. It holds no ':', which ends the name in Basic authentication (RFC 7617), and is none of
    /// Kubernetes' own (`system:…`).
    UserName, is_user, User
}

name! {
    /// A group of users. What it may be called beyond that is the business of whoever hands it out.
    GroupName, is_group, Group
}

/// Whether `text` is the same text to everybody who is told it in a field of HTTP: something, all of it printable ASCII,
/// with no space at its ends. HTTP/1.1 trims a field's value and HTTP/2 does not (RFC 9110 section 5.5), a line break ends it, and
/// of other bytes nobody says what they mean: who is meant must not depend on the way that a name has come.
pub fn is_field_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim_matches(' ') == text
}

/// Whether `text` is a DNS label (RFC 1123) as Kubernetes writes it: in lower case.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether `text` may be a host's name in DNS, in any case and without the root's dot. The underscore is not of RFC 1123, but names
/// of services use it (RFC 2782), and people dial them.
pub fn is_host_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(inner);
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_user(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(inner)
}

fn is_group(text: &str) -> bool {
    text.len() <= 253 && is_field_text(text)
}

/// Enough of a bad name to recognise it.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{
        Deserialize,
        de::{IntoDeserializer, value},
    };

    use super::*;

    #[test]
    fn labels_are_taken_and_everything_else_is_not() {
        for good in ["a", "c1", "a-b", "1", &"a".repeat(63)] {
            assert_eq!(good.parse::<ClusterName>().unwrap().to_string(), good);
            assert_eq!(good.parse::<AgentName>().unwrap().as_ref(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a b", "a:b", "\u{e9}", "a\n", &"a".repeat(64)] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hosts_are_named_in_any_case_and_with_underscores() {
        for good in ["a", "A-b_c", "_http._tcp.web", "-", &"a".repeat(63), &["a"; 127].join(".")] {
            assert!(is_host_name(good), "{good:?}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a:b", "\u{e9}", &"a".repeat(64), &["a"; 128].join(".")] {
            assert!(!is_host_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn users_are_no_system_names() {
        for good in ["alice", "alice@example.com", "A.b_c-d"] {
            assert_eq!(good.parse::<UserName>().unwrap().as_ref(), good);
        }
        for bad in ["", "system:admin", "a:b", "a b", "a/b", &"a".repeat(254)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_group_is_what_http_carries_unchanged() {
        for good in ["dev", "a b", "system:masters", "cn=ops,ou=groups", "~", &"a".repeat(253)] {
            assert_eq!(good.parse::<GroupName>().unwrap().as_ref(), good);
        }
        for bad in [
            "",
            " ",
            " dev",
            "dev ",
            "\tdev",
            "dev\n",
            "de\rv",
            "de\0v",
            "\u{a0}dev",
            "dev\u{2003}",
            "d\u{e9}v",
            "\u{7f}",
        ] {
            assert!(bad.parse::<GroupName>().is_err() && !is_field_text(bad), "{bad:?}");
        }
        assert!("a".repeat(254).parse::<GroupName>().is_err());
    }

    proptest! {
        #[test]
        fn every_label_is_a_name_and_keeps_its_text(label in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
            prop_assert_eq!(label.parse::<ClusterName>().unwrap().to_string(), &label[..]);
            prop_assert_eq!(label.parse::<AgentName>().unwrap().to_string(), label);
        }

        #[test]
        fn every_user_name_is_one_and_keeps_its_text(user in "[A-Za-z0-9@._-]{1,253}") {
            prop_assert_eq!(user.parse::<UserName>().unwrap().to_string(), user);
        }

        #[test]
        fn what_is_no_label_is_refused_in_text_and_in_serde(text in "\\PC{0,70}|[a-zA-Z0-9.:_-]{0,70}") {
            let bytes = text.as_bytes();
            let label = matches!(text.len(), 1..=63)
                && bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && bytes[0] != b'-'
                && bytes[text.len() - 1] != b'-';
            prop_assert_eq!(text.parse::<ClusterName>().is_ok(), label);
            let deserializer: value::StrDeserializer<'_, value::Error> = text.as_str().into_deserializer();
            prop_assert_eq!(ClusterName::deserialize(deserializer).is_ok(), label);
        }
    }
}
