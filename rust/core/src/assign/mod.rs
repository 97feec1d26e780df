//! Stage II: the nearest centroid of every row.
