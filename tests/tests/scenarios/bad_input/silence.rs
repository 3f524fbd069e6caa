//! Requests that the API and the metrics port cannot serve.
