//! Ten thousand clusters: pages, a hundred watchers, and one that does not read.
