//! What a request asks for in its query: the options of reads and writes, as Kubernetes names them.

use std::time::Duration;

use super::status::Status;
use super::table::IncludeObject;

/// The query parameters of get, list and watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// Objects in one page; `None` for all.
    pub limit: Option<usize>,
    /// Where the next page begins, from the page before.
    pub continue_token: Option<String>,
    /// `None` for the newest.
    pub revision: Option<u64>,
    pub revision_match: Option<RevisionMatch>,
    pub watch: bool,
    pub bookmarks: bool,
    pub send_initial_events: bool,
    pub timeout: Option<Duration>,
    pub include_object: IncludeObject,
}

/// How `resourceVersion` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevisionMatch {
    NotOlderThan,
    Exact,
}

/// The query parameters of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// Who owns the fields that are set.
    pub field_manager: Option<String>,
    pub field_validation: FieldValidation,
    /// Take fields over from other managers.
    pub force: bool,
}

/// What becomes of fields that are unknown or given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    /// They are left out, and named in `Warning` headers.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// Longest field manager, in bytes.
const LONGEST_MANAGER: usize = 128;

impl ReadOptions {
    /// Reads a query string; parameters that are not known are left alone, as kube-apiserver does.
    pub fn parse(query: &str) -> Result<Self, Status> {
        let mut options = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "labelSelector" => options.label_selector = value.into_owned(),
                "fieldSelector" => options.field_selector = value.into_owned(),
                "limit" => options.limit = number(&name, &value)?.filter(|limit| *limit > 0).map(saturated),
                "continue" => options.continue_token = some(&value),
                "resourceVersion" => options.revision = revision(&value)?,
                "resourceVersionMatch" => options.revision_match = revision_match(&value)?,
                "watch" => options.watch = boolean(&value),
                "allowWatchBookmarks" => options.bookmarks = boolean(&value),
                "sendInitialEvents" => options.send_initial_events = boolean(&value),
                "timeoutSeconds" => {
                    options.timeout = number(&name, &value)?.filter(|seconds| *seconds > 0).map(Duration::from_secs);
                }
                "includeObject" => options.include_object = include_object(&value)?,
                _ => {}
            }
        }
        options.check()?;
        Ok(options)
    }

    /// Parameters that exclude each other (Kubernetes: API concepts, resource versions).
    fn check(&self) -> Result<(), Status> {
        let forbidden = |parameter: &str, why: &str| Err(Status::bad_request(format!("{parameter}: Forbidden: {why}")));
        if self.watch {
            if self.revision_match.is_some() && !self.send_initial_events {
                return forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if self.send_initial_events && self.revision_match != Some(RevisionMatch::NotOlderThan) {
                return forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            return Ok(());
        }
        if self.send_initial_events {
            return forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if self.revision_match.is_some() && self.continue_token.is_some() {
            return forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided");
        }
        match (self.revision_match, self.revision) {
            (Some(_), None) => forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (Some(RevisionMatch::Exact), Some(0)) => forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            _ => Ok(()),
        }
    }
}

impl WriteOptions {
    /// Reads a query string.
    pub fn parse(query: &str) -> Result<Self, Status> {
        let mut options =
            Self { dry_run: false, field_manager: None, field_validation: FieldValidation::default(), force: false };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "dryRun" => options.dry_run = dry_run(&value)?,
                "fieldManager" => options.field_manager = field_manager(&value)?,
                "fieldValidation" => options.field_validation = field_validation(&value)?,
                "force" => options.force = boolean(&value),
                _ => {}
            }
        }
        Ok(options)
    }
}

/// Kubernetes takes everything for true that does not say that it is false.
fn boolean(value: &str) -> bool {
    !matches!(value, "0" | "false" | "False" | "FALSE" | "f" | "F")
}

fn some(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn saturated(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn number(name: &str, value: &str) -> Result<Option<u64>, Status> {
    if value.is_empty() {
        return Ok(None);
    }
    let parsed = value.parse::<i64>();
    let parsed = parsed.map_err(|_| Status::bad_request(format!("invalid {name}: {value:?} is no whole number")))?;
    Ok(u64::try_from(parsed).ok())
}

fn revision(value: &str) -> Result<Option<u64>, Status> {
    if value.is_empty() {
        return Ok(None);
    }
    let invalid = |_| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {value:?}: strconv.ParseUint: parsing {value:?}: invalid syntax"
        ))
    };
    value.parse().map(Some).map_err(invalid)
}

fn revision_match(value: &str) -> Result<Option<RevisionMatch>, Status> {
    match value {
        "" => Ok(None),
        "NotOlderThan" => Ok(Some(RevisionMatch::NotOlderThan)),
        "Exact" => Ok(Some(RevisionMatch::Exact)),
        _ => {
            let message = format!(
                "resourceVersionMatch: Unsupported value: {value:?}: supported values: \"Exact\", \"NotOlderThan\""
            );
            Err(Status::bad_request(message))
        }
    }
}

fn include_object(value: &str) -> Result<IncludeObject, Status> {
    let unknown = || Status::bad_request(format!("unrecognized includeObject value: {value:?}"));
    IncludeObject::parse(Some(value)).ok_or_else(unknown)
}

fn dry_run(value: &str) -> Result<bool, Status> {
    match value {
        "" => Ok(false),
        "All" => Ok(true),
        _ => Err(Status::bad_request(format!("dryRun: Unsupported value: {value:?}: supported values: \"All\""))),
    }
}

fn field_manager(value: &str) -> Result<Option<String>, Status> {
    if value.len() > LONGEST_MANAGER {
        let message = format!("fieldManager: Too long: may not be more than {LONGEST_MANAGER} bytes");
        return Err(Status::bad_request(message));
    }
    if value.chars().any(char::is_control) {
        return Err(Status::bad_request("fieldManager: Invalid value: should only contain printable characters"));
    }
    Ok(some(value))
}

fn field_validation(value: &str) -> Result<FieldValidation, Status> {
    match value {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        _ => {
            let message = format!(
                "fieldValidation: Unsupported value: {value:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            );
            Err(Status::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_queries_are_read() {
        let read = |query| ReadOptions::parse(query).unwrap();
        assert_eq!(read("limit=500").limit, Some(500));
        assert_eq!(read("limit=0&continue=").limit, None);
        let watch = read(
            "allowWatchBookmarks=true&fieldSelector=metadata.name%3Dc1&resourceVersion=7&timeoutSeconds=300&watch=1",
        );
        assert_eq!(watch.field_selector, "metadata.name=c1");
        assert_eq!((watch.watch, watch.bookmarks, watch.revision), (true, true, Some(7)));
        assert_eq!(watch.timeout, Some(Duration::from_secs(300)));
        let list = read("watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=");
        assert!(list.send_initial_events);
        let write =
            WriteOptions::parse("fieldManager=kubectl-edit&fieldValidation=Strict&dryRun=All&force=true").unwrap();
        assert_eq!(write.field_manager.as_deref(), Some("kubectl-edit"));
        assert_eq!((write.dry_run, write.force, write.field_validation), (true, true, FieldValidation::Strict));
    }

    #[test]
    fn nonsense_is_a_bad_request() {
        for query in [
            "limit=x",
            "resourceVersion=abc",
            "resourceVersion=-1",
            "resourceVersionMatch=Newest",
            "includeObject=Some",
            "sendInitialEvents=true",
            "watch=true&sendInitialEvents=true",
            "watch=true&resourceVersionMatch=Exact",
            "resourceVersionMatch=Exact",
            "resourceVersionMatch=Exact&resourceVersion=0",
        ] {
            assert_eq!(ReadOptions::parse(query).unwrap_err().code, 400, "{query}");
        }
        let long = format!("fieldManager={}", "x".repeat(LONGEST_MANAGER + 1));
        for query in ["dryRun=Some", "fieldValidation=Sometimes", "fieldManager=a%0Ab", &long] {
            assert_eq!(WriteOptions::parse(query).unwrap_err().code, 400, "{query}");
        }
    }
}
