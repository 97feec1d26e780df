"""The columns of the tables in a run folder."""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "EMBEDDING_SCHEMA",
    "ENTROPY_SCHEMA",
    "QUARANTINE_SCHEMA",
    "SCORE_FIELDS",
    "SELECTION_SCHEMA",
    "manifest_schema",
]

#: What Stage I tells of an image beside its entropy; null where the image was not read.
SCORE_FIELDS = (
    pa.field("image_width", pa.uint32()),
    pa.field("image_height", pa.uint32()),
    pa.field("gray_mean", pa.float32()),  # of the gray levels, as are the next two
    pa.field("gray_std", pa.float32()),
    pa.field("sharpness", pa.float32()),  # the variance of their Laplacian; null of an image too small to have one
    pa.field("jpeg_quality", pa.uint8()),  # null of other images
)
ENTROPY_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("entropy", pa.float64()),  # bits; null where the image was not read
        *SCORE_FIELDS,
        pa.field("kind", pa.string()),  # why not, in one word
        pa.field("message", pa.string()),
    ]
)
EMBEDDING_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the input shard
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int32()),  # nearest centroid; null where there are no centroids, -1 for an invalid row
        pa.field("similarity", pa.float32()),
        pa.field("kind", pa.string()),
        pa.field("message", pa.string()),
    ]
)
SELECTION_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("entropy", pa.float64(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("phase", pa.uint8(), nullable=False),  # 0 quota, 1 fill, 2 preselected
        *SCORE_FIELDS,
    ]
)
EXCLUDED_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # the option that leaves it out
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)


def manifest_schema(fixed: pa.Schema, metadata: pa.Schema) -> pa.Schema:
    """Put the columns of a source's metadata behind the ``fixed`` ones, ``meta_`` before names that are taken."""
    names = list(fixed.names)
    for name in metadata.names:
        while name in names:
            name = f"meta_{name}"
        names.append(name)
    types = map(pa.field, names[len(fixed) :], metadata.types)
    return pa.schema([*fixed, *types])
