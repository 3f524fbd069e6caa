//! The Accept header: which of the forms the server has for an answer the client likes best.

/// A media range of the header, in lower case but for parameter values.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaRange {
    /// As `application/json`, `application/*` or `*/*`.
    pub kind: String,
    /// Without `q`.
    pub parameters: Vec<(String, String)>,
    /// From 0 to 1.
    quality: f32,
}

/// What an answer about objects may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object or list itself.
    Object,
    Table(MetaVersion),
    /// PartialObjectMetadata, or the list of it.
    Metadata(MetaVersion),
}

/// The version of the group `meta.k8s.io` that a Table or PartialObjectMetadata is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    V1,
    V1Beta1,
}

/// The media ranges, the most wanted first; those of equal quality keep their order. Unreadable ones are left out.
pub fn parse(header: &str) -> Vec<MediaRange> {
    let mut ranges: Vec<_> = header.split(',').filter_map(MediaRange::parse).collect();
    ranges.retain(|range| range.quality > 0.0);
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

/// The form of an answer about objects, always as JSON. `None` when the client accepts nothing that the server has: a
/// 406. An empty header accepts everything.
pub fn form(header: &str) -> Option<Form> {
    if header.trim().is_empty() {
        return Some(Form::Object);
    }
    parse(header).iter().filter(|range| range.allows_json()).find_map(|range| {
        let meta = range.parameter("g") == Some("meta.k8s.io");
        let version = match range.parameter("v") {
            Some("v1") => Some(MetaVersion::V1),
            Some("v1beta1") => Some(MetaVersion::V1Beta1),
            Some(_) | None => None,
        };
        match (range.parameter("as"), version) {
            (None, _) => Some(Form::Object),
            (Some("Table"), Some(version)) if meta => Some(Form::Table(version)),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some(version)) if meta => {
                Some(Form::Metadata(version))
            }
            (Some(_), _) => None,
        }
    })
}

impl MetaVersion {
    /// The `apiVersion` of what is in this version.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

impl Form {
    /// What the 406 offers when [`form`] finds none.
    pub const OFFERED: &'static str = "application/json, application/json;as=Table;v=v1;g=meta.k8s.io, \
                                       application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
}

impl MediaRange {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().filter(|kind| kind.contains('/'))?.to_ascii_lowercase();
        let mut range = Self { kind, parameters: Vec::new(), quality: 1.0 };
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => range.quality = value.parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?,
                name => range.parameters.push((name.to_owned(), value.to_owned())),
            }
        }
        Some(range)
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn allows_json(&self) -> bool {
        matches!(self.kind.as_str(), "application/json" | "application/*" | "*/*")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kubectl_get_is_shown_a_table() {
        let header = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                      application/json";
        assert_eq!(form(header), Some(Form::Table(MetaVersion::V1)));
        assert_eq!(form("application/json;as=Table;g=meta.k8s.io;v=v1beta1"), Some(Form::Table(MetaVersion::V1Beta1)));
    }

    #[test]
    fn a_go_client_that_prefers_protobuf_gets_json() {
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json"), Some(Form::Object));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                        application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(form(metadata), Some(Form::Metadata(MetaVersion::V1)));
    }

    #[test]
    fn the_quality_decides_before_the_order() {
        let header = "application/json;q=0.5, application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9";
        assert_eq!(form(header), Some(Form::Table(MetaVersion::V1)));
    }

    #[test]
    fn what_is_not_there_is_not_acceptable() {
        assert_eq!(form("text/html"), None);
        assert_eq!(form("application/json;as=Table;v=v2;g=meta.k8s.io"), None);
        assert_eq!(form("application/json;q=0"), None);
        assert_eq!(form(""), Some(Form::Object));
        assert_eq!(form("*/*"), Some(Form::Object));
    }

    proptest! {
        #[test]
        fn no_header_panics(header in "[-a-z*/;=,. \"q0-9]{0,40}") {
            form(&header);
        }
    }
}
