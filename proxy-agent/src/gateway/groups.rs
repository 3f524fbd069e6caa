//! Which groups of the hub's users the spoke believes.

use std::str::FromStr;

/// Groups and users of which Kubernetes itself says who is meant.
const RESERVED: &str = "system:";

/// A group that Kubernetes gives to everybody it has authenticated, and the hub to all of its users.
const EVERYBODY: &str = "system:authenticated";

/// A group's name, or the beginning of one before a `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPattern {
    name: String,
    begins: bool,
}

/// Why a text is no pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no group; write a group's name, or its beginning and a '*' at the end")]
pub struct GroupPatternError(String);

impl FromStr for GroupPattern {
    type Err = GroupPatternError;

    fn from_str(text: &str) -> Result<Self, GroupPatternError> {
        let (name, begins) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        if name.contains('*') || text.is_empty() {
            return Err(GroupPatternError(text.to_owned()));
        }
        Ok(Self { name: name.to_owned(), begins })
    }
}

impl GroupPattern {
    fn matches(&self, group: &str) -> bool {
        if self.begins { group.starts_with(&self.name) } else { group == self.name }
    }
}

/// Whether Kubernetes, or a proxy before it that is less exact, may take `name` for one of its own: also in other letters,
/// and behind a comma, where a list of fields is joined to one (RFC 9110 section 5.3).
pub(super) fn is_reserved(name: &str) -> bool {
    let begins = |name: &str| name.get(..RESERVED.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(RESERVED));
    name.split(',').any(|part| begins(part.trim_start()))
}

/// Whether nobody asks for `group`: it is in the hub's list of everybody's, and Kubernetes adds it again.
pub(super) fn is_everybodys(group: &str) -> bool {
    group == EVERYBODY
}

/// Whether `group` is handed on. A reserved one must be named by a pattern that is itself reserved: `*` is no leave for
/// `system:masters`.
pub(super) fn is_believed(group: &str, allowed: &[GroupPattern]) -> bool {
    if is_reserved(group) {
        return allowed.iter().any(|pattern| pattern.name.starts_with(RESERVED) && pattern.matches(group));
    }
    allowed.is_empty() || allowed.iter().any(|pattern| pattern.matches(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<GroupPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn reserved_groups_must_be_named() {
        for (allowed, group, believed) in [
            (&[][..], "dev", true),
            (&[], "system:masters", false),
            (&["*"], "dev", true),
            (&["*"], "system:masters", false),
            (&["dev"], "dev", true),
            (&["dev"], "devs", false),
            (&["dev*"], "devs", true),
            (&["dev"], "ops", false),
            (&["system:masters"], "system:masters", true),
            (&["system:masters"], "ops", false),
            (&["system:*"], "system:nodes", true),
            (&["sys*"], "system:masters", false),
            (&[], "System:Masters", false),
            (&[], "dev,system:masters", false),
            (&["dev*"], "dev, system:masters", false),
            (&[], "cn=ops,ou=systems", true),
        ] {
            assert_eq!(is_believed(group, &patterns(allowed)), believed, "{allowed:?} {group}");
        }
        for text in ["", "a*b", "**"] {
            assert!(text.parse::<GroupPattern>().is_err(), "{text:?}");
        }
    }
}
