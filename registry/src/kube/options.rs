//! What a request asks for in its query: the options of reads and writes, as Kubernetes names them.

use std::time::Duration;

use serde_json::Value;

use super::cause::Cause;
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
    /// Whether a watch begins with what there is; `None` leaves that to the revision.
    pub send_initial_events: Option<bool>,
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
    /// Take fields over from other managers. `None` when it is not given, as for everything but an apply it must be.
    pub force: Option<bool>,
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

/// What becomes of the objects that an object owns when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Foreground,
    Background,
    Orphan,
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
                "sendInitialEvents" => options.send_initial_events = Some(boolean(&value)),
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
        let mut causes = Vec::new();
        let mut forbid = |wrong: bool, parameter: &str, why: &str| {
            if wrong {
                causes.push(Cause::forbidden(parameter, why));
            }
        };
        let matched = "resourceVersionMatch";
        let found = self.revision_match;
        if self.watch {
            let initial = self.send_initial_events.is_some();
            let wanted = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            forbid(initial && found != Some(RevisionMatch::NotOlderThan), matched, wanted);
            let without = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            forbid(!initial && found.is_some(), matched, without);
        } else {
            let initial = "sendInitialEvents is forbidden for list";
            forbid(self.send_initial_events.is_some(), "sendInitialEvents", initial);
            let without = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            forbid(found.is_some() && self.revision.is_none(), matched, without);
            let exact = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            forbid(found == Some(RevisionMatch::Exact) && self.revision == Some(0), matched, exact);
        }
        let paged = "resourceVersionMatch is forbidden when continue is provided";
        forbid(found.is_some() && self.continue_token.is_some(), matched, paged);
        if !causes.is_empty() {
            return Err(Status::invalid_options("ListOptions", causes));
        }
        if self.continue_token.is_some() && self.revision.is_some_and(|revision| revision > 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(())
    }
}

impl WriteOptions {
    /// Reads a query string. `kind` is what Kubernetes calls the options of this write: `CreateOptions`.
    pub fn parse(query: &str, kind: &'static str) -> Result<Self, Status> {
        let mut options =
            Self { dry_run: false, field_manager: None, field_validation: FieldValidation::default(), force: None };
        let mut causes = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let read = match &*name {
                "dryRun" => dry_run(&value).map(|dry_run| options.dry_run |= dry_run),
                "fieldManager" => field_manager(&value).map(|manager| options.field_manager = manager),
                "fieldValidation" => field_validation(&value).map(|validation| options.field_validation = validation),
                "force" => {
                    options.force = Some(boolean(&value));
                    Ok(())
                }
                _ => Ok(()),
            };
            causes.extend(read.err());
        }
        if causes.is_empty() { Ok(options) } else { Err(Status::invalid_options(kind, causes)) }
    }

    /// Reads what a DeleteOptions body says about it.
    pub fn set_dry_run(&mut self, stages: &Value) -> Result<(), Status> {
        for stage in stages.as_array().into_iter().flatten() {
            let read = dry_run(stage.as_str().unwrap_or_default());
            self.dry_run |= read.map_err(|cause| Status::invalid_options("DeleteOptions", vec![cause]))?;
        }
        Ok(())
    }
}

impl Propagation {
    /// Reads a `propagationPolicy`; an empty one is none.
    pub fn parse(value: &str) -> Result<Option<Self>, Status> {
        match value {
            "" => Ok(None),
            "Foreground" => Ok(Some(Self::Foreground)),
            "Background" => Ok(Some(Self::Background)),
            "Orphan" => Ok(Some(Self::Orphan)),
            _ => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                let cause = unsupported("propagationPolicy", value, &supported);
                Err(Status::invalid_options("DeleteOptions", vec![cause]))
            }
        }
    }

    /// The one that a query names.
    pub fn of_query(query: &str) -> Result<Option<Self>, Status> {
        let mut named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "propagationPolicy");
        named.next().map_or(Ok(None), |(_, value)| Self::parse(&value))
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
            let cause = unsupported("resourceVersionMatch", value, &["Exact", "NotOlderThan", ""]);
            Err(Status::invalid_options("ListOptions", vec![cause]))
        }
    }
}

fn include_object(value: &str) -> Result<IncludeObject, Status> {
    let unknown = || Status::bad_request(format!("unrecognized includeObject value: {value:?}"));
    IncludeObject::parse(Some(value)).ok_or_else(unknown)
}

fn dry_run(value: &str) -> Result<bool, Cause> {
    match value {
        "" => Ok(false),
        "All" => Ok(true),
        _ => Err(unsupported("dryRun", value, &["All"])),
    }
}

fn field_manager(value: &str) -> Result<Option<String>, Cause> {
    if value.len() > LONGEST_MANAGER {
        return Err(Cause::too_long("fieldManager", LONGEST_MANAGER));
    }
    if value.chars().any(char::is_control) {
        return Err(Cause::invalid("fieldManager", &value.into(), "should only contain printable characters"));
    }
    Ok(some(value))
}

fn field_validation(value: &str) -> Result<FieldValidation, Cause> {
    match value {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        _ => Err(unsupported("fieldValidation", value, &["", "Ignore", "Strict", "Warn"])),
    }
}

fn unsupported(parameter: &str, value: &str, supported: &[&str]) -> Cause {
    Cause::unsupported(parameter, &value.into(), &supported.iter().map(ToString::to_string).collect::<Vec<_>>())
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
        assert_eq!(list.send_initial_events, Some(true));
        let write = WriteOptions::parse(
            "fieldManager=kubectl-edit&fieldValidation=Strict&dryRun=All&force=true",
            "PatchOptions",
        )
        .unwrap();
        assert_eq!(write.field_manager.as_deref(), Some("kubectl-edit"));
        assert_eq!((write.dry_run, write.force, write.field_validation), (true, Some(true), FieldValidation::Strict));
    }

    #[test]
    fn what_cannot_be_read_is_a_bad_request() {
        for query in [
            "limit=x",
            "timeoutSeconds=x",
            "resourceVersion=abc",
            "resourceVersion=-1",
            "includeObject=Some",
            "continue=x&resourceVersion=7",
        ] {
            let error = ReadOptions::parse(query).unwrap_err();
            assert_eq!((error.code, error.reason), (400, "BadRequest"), "{query}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_invalid() {
        for query in [
            "resourceVersionMatch=Newest",
            "sendInitialEvents=true",
            "watch=true&sendInitialEvents=true",
            "watch=true&sendInitialEvents=false",
            "watch=true&resourceVersionMatch=Exact",
            "resourceVersionMatch=Exact",
            "resourceVersionMatch=Exact&resourceVersion=0",
            "resourceVersionMatch=NotOlderThan&resourceVersion=3&continue=x",
        ] {
            let error = ReadOptions::parse(query).unwrap_err();
            assert_eq!((error.code, error.reason), (422, "Invalid"), "{query}");
            assert!(error.message.starts_with("ListOptions.meta.k8s.io \"\" is invalid: "), "{error}");
        }
        let long = format!("fieldManager={}", "x".repeat(LONGEST_MANAGER + 1));
        for query in ["dryRun=Some", "fieldValidation=Sometimes", "fieldManager=a%0Ab", &long] {
            let error = WriteOptions::parse(query, "CreateOptions").unwrap_err();
            assert_eq!((error.code, error.reason), (422, "Invalid"), "{query}");
            assert!(error.message.starts_with("CreateOptions.meta.k8s.io \"\" is invalid: "), "{error}");
        }
        let error = Propagation::of_query("propagationPolicy=Sideways").unwrap_err();
        assert_eq!(
            error.message,
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sideways\": supported \
             values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
        );
    }
}
