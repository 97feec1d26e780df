//! Embeddings where they lie.
