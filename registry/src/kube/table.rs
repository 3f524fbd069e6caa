//! The Table: objects as rows of text, as `kubectl get` shows them; and their metadata alone.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::accept::MetaVersion;
use super::resource::Resource;

/// What a row carries of its object beside the cells: the query parameter `includeObject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// How the objects of one request are shown.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    pub resource: &'a Resource,
    pub version: MetaVersion,
    pub include: IncludeObject,
}

impl IncludeObject {
    /// Reads the query parameter; absent or empty is [`IncludeObject::Metadata`]. `None` for an unknown value: a 400.
    pub fn parse(parameter: Option<&str>) -> Option<Self> {
        match parameter.unwrap_or_default() {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

impl Table<'_> {
    /// The Table of a list; `metadata` is the list's own.
    pub fn list(&self, metadata: &Value, items: &[Value], now: Timestamp) -> Value {
        self.table(metadata.clone(), items, true, now)
    }

    /// The Table of one object: the answer to a get, or one event of a watch. Only a watch's first event has the column
    /// definitions.
    pub fn single(&self, object: &Value, columns: bool, now: Timestamp) -> Value {
        let mut metadata = Map::new();
        if let Some(version) = object["metadata"].get("resourceVersion") {
            metadata.insert("resourceVersion".to_owned(), version.clone());
        }
        self.table(Value::Object(metadata), std::slice::from_ref(object), columns, now)
    }

    fn table(&self, metadata: Value, items: &[Value], columns: bool, now: Timestamp) -> Value {
        let definitions: Vec<_> = if columns { self.definitions() } else { Vec::new() };
        let rows: Vec<_> = items.iter().map(|object| self.row(object, now)).collect();
        json!({
            "kind": "Table",
            "apiVersion": self.version.api_version(),
            "metadata": metadata,
            "columnDefinitions": definitions,
            "rows": rows,
        })
    }

    fn definitions(&self) -> Vec<Value> {
        let definition = |column: &super::column::Column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        };
        self.resource.columns.iter().map(definition).collect()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Value {
        let cells: Vec<_> = self.resource.columns.iter().map(|column| (column.cell)(object, now)).collect();
        match self.include {
            IncludeObject::None => json!({"cells": cells, "object": null}),
            IncludeObject::Metadata => json!({"cells": cells, "object": metadata(object, self.version)}),
            IncludeObject::Object => json!({"cells": cells, "object": object}),
        }
    }
}

/// The PartialObjectMetadata of an object.
pub fn metadata(object: &Value, version: MetaVersion) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": object["metadata"]})
}

/// The PartialObjectMetadataList of a list; `list_metadata` is the list's own.
pub fn metadata_list(list_metadata: &Value, items: &[Value], version: MetaVersion) -> Value {
    let items: Vec<_> = items.iter().map(|object| metadata(object, version)).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": version.api_version(),
        "metadata": list_metadata,
        "items": items,
    })
}
