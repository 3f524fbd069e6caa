//! The caps on connections, as flags and file say them.

use super::{Caps, Problems, Settings, parsed};

/// What the flags say, else the file, else the default. Where something is wrong it is told, and there is no configuration.
pub(super) fn resolve(flags: &Settings, file: &Settings, problems: &mut Problems) -> Caps {
    let default = Caps::default();
    let mut cap = |name: &str, said: fn(&Settings) -> &Option<String>, default: usize| {
        let text = said(flags).as_ref().or_else(|| said(file).as_ref()).cloned();
        let value = problems.value(name, text.unwrap_or_else(|| default.to_string()), |text| match parsed(text)? {
            0 => Err("must be at least 1".to_owned()),
            cap => Ok(cap),
        });
        value.unwrap_or(default)
    };
    Caps {
        connections_per_cluster: cap(
            "max-connections-per-cluster",
            |said| &said.max_connections_per_cluster,
            default.connections_per_cluster,
        ),
        pending_per_cluster: cap(
            "max-pending-per-cluster",
            |said| &said.max_pending_per_cluster,
            default.pending_per_cluster,
        ),
        connections_per_user: cap(
            "max-connections-per-user",
            |said| &said.max_connections_per_user,
            default.connections_per_user,
        ),
        pending_per_user: cap("max-pending-per-user", |said| &said.max_pending_per_user, default.pending_per_user),
        connections_per_user_per_cluster: cap(
            "max-connections-per-user-per-cluster",
            |said| &said.max_connections_per_user_per_cluster,
            default.connections_per_user_per_cluster,
        ),
        pending_per_user_per_cluster: cap(
            "max-pending-per-user-per-cluster",
            |said| &said.max_pending_per_user_per_cluster,
            default.pending_per_user_per_cluster,
        ),
    }
}
