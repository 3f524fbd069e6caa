//! Why something is allowed: the binding that gives the right, and the way from there to a cluster.

use std::fmt;
use std::sync::Arc;

use super::object::{Binding, Subject, SubjectKind};
use super::quote::Quoted;

/// The right, as a person would look for it; its `Display` is the `rule` of an audit event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub source: Source,
    pub path: Path,
}

/// Who gives the right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The group that may do everything.
    Masters,
    Binding {
        binding: Arc<Binding>,
        /// The subject of the binding that is the user.
        subject: Subject,
    },
}

/// What the right is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// The object itself.
    Direct,
    /// This set, which holds the cluster.
    Set { set: Arc<str> },
    /// This set, which is or holds the object and is bound in the workspace of the binding.
    Workspace { namespace: Arc<str>, set: Arc<str> },
}

impl Grant {
    pub(super) fn direct(source: Source) -> Self {
        Self { source, path: Path::Direct }
    }
}

/// Kubernetes' words, such as `ClusterRoleBinding "b" of ClusterRole "r" to Group "g"`, and the path where there is one.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)?;
        match &self.path {
            Path::Direct => Ok(()),
            Path::Set { set } => write!(f, " through ManagedClusterSet {}", Quoted(set)),
            Path::Workspace { namespace, set } => {
                write!(f, " through ManagedClusterSet {} bound in namespace {}", Quoted(set), Quoted(namespace))
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (binding, subject) = match self {
            Self::Masters => return write!(f, "Group {}", Quoted(super::MASTERS)),
            Self::Binding { binding, subject } => (binding, subject),
        };
        let name = &binding.metadata.name;
        match binding.namespace() {
            None => write!(f, "ClusterRoleBinding {}", Quoted(name))?,
            // Kubernetes writes the name first.
            Some(namespace) => write!(f, "RoleBinding {}", Quoted(&format!("{name}/{namespace}")))?,
        }
        let role = &binding.role_ref;
        write!(f, " of {} {} to {} ", role.kind.as_str(), Quoted(&role.name), subject.kind.as_str())?;
        match subject.kind {
            SubjectKind::User | SubjectKind::Group => Quoted(&subject.name).fmt(f),
            SubjectKind::ServiceAccount => {
                Quoted(&format!("{}/{}", subject.name, binding.namespace_of(subject))).fmt(f)
            }
        }
    }
}
