//! Reference centroids by spherical K-means.
