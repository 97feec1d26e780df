"""A finished run made of random numbers: the real schemas, and the method written out the slow way."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from rsprune.centroids import Centroids
from rsprune.io import write_table, write_text
from rsprune.runs.folder import RunFolder
from rsprune.runs.schema import EMBEDDING_SCHEMA, ENTROPY_SCHEMA, QUARANTINE_SCHEMA, SCORE_FIELDS, SELECTION_SCHEMA
from rsprune.sources import Item, Shard, Source


@dataclass
class Row:
    """One image, with what the method says of it."""

    key: str
    shard: str
    row: int
    entropy: float | None
    cluster: int
    similarity: np.float32
    refused: tuple[str, str, str] | None = None  # stage, kind, message
    survived: bool = False
    phase: int | None = None


def make_rows(shards, k, seed=0, refused=(), failed=(), key=lambda shard, row: f"{shard}/{row:05d}.png"):
    """Random images: ``shards`` maps names to sizes. Entropies and similarities have ties on purpose."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(k, 0.7))
    rows = []
    for shard in sorted(shards):
        for row in range(shards[shard]):
            number = len(rows)
            entropy = round(8 * float(rng.beta(8, 2)), 2)
            cluster = int(rng.choice(k, p=weights))
            similarity = np.float32(round(float(rng.normal(0.7 + 0.1 * np.sin(cluster), 0.08)), 2))
            rows.append(Row(key(shard, row), shard, row, entropy, cluster, np.clip(similarity, -1, 1)))
            if number in refused:
                rows[-1].entropy = None
                rows[-1].refused = ("entropy", "truncated", "the data ends before the image does")
            if number in failed:
                rows[-1].cluster = -1
                rows[-1].refused = ("embed", "corrupt", "the encoder gave a row without a direction")
    return rows


def rank(rows):
    """The rows that Stage I can rank, in its order."""
    valid = [i for i, r in enumerate(rows) if r.entropy is not None and not (r.refused and r.refused[0] == "entropy")]
    return sorted(valid, key=lambda i: (-rows[i].entropy, i))


def prune(rows, k, budget, keep=0.3):
    """Stage I and Stage II on the rows, in place; returns the summary."""
    ranked = rank(rows)
    survivors = ranked[: max(int(keep * len(rows)), 1)]
    for i in survivors:
        rows[i].survived = True
    for r in rows:
        if not r.survived and r.refused and r.refused[0] == "embed":
            r.refused = None
    valid = [i for i in survivors if rows[i].cluster >= 0]
    budget = min(budget, len(valid))
    nearest = sorted(valid, key=lambda i: (-rows[i].similarity, i))
    quota, taken = budget // k, [0] * k
    for i in nearest:
        if taken[rows[i].cluster] < quota:
            taken[rows[i].cluster] += 1
            rows[i].phase = 0
    fill = [i for i in nearest if rows[i].phase is None][: budget - sum(taken)]
    for i in fill:
        rows[i].phase = 1

    def per_cluster(phase=None):
        return [sum(rows[i].cluster == c and phase in (None, rows[i].phase) for i in valid) for c in range(k)]

    def lowest(chosen):
        return min((float(rows[i].similarity) for i in chosen), default=None)

    return {
        "images": len(rows),
        "quarantined": sum(r.refused is not None for r in rows),
        "causes": causes(rows),
        "survivors": len(survivors),
        "tau": min((rows[i].entropy for i in survivors), default=None),
        "budget": budget,
        "selected": budget,
        "quota": quota,
        "phases": {"quota": sum(taken), "fill": len(fill)},
        "fill_cut": lowest(fill),
        "clusters": {
            "pool": per_cluster(),
            "quota": per_cluster(0),
            "fill": per_cluster(1),
            "quota_cut": [lowest(i for i in valid if rows[i].cluster == c and rows[i].phase == 0) for c in range(k)],
        },
    }


def causes(rows):
    """What kept images from being read: the most frequent cause first."""
    found = {}
    for r in rows:
        if r.refused:
            stage, kind, message = r.refused
            one = {"stage": stage, "kind": kind, "images": 0, "key": r.key, "message": message}
            found.setdefault((stage, kind), one)["images"] += 1
    return sorted(found.values(), key=lambda one: (-one["images"], one["stage"], one["kind"]))


def write_run(path, rows, k, budget, keep=0.3, encoder="made-up", **options):
    """Write a run folder, and return it with its summary."""
    summary = prune(rows, k, budget, keep)
    folder = RunFolder(path)
    folder.start(
        {
            "rsprune": "0.1.0",
            "decoder": "rsprune-core 0.1.0",
            "source": {"kind": "folder"},
            "entropy": {"gray": "bt601", "bands": [0, 1, 2], "valid_range": None, "max_pixels": 10**8, "keep": keep},
            "encoder": {
                "name": encoder,
                "dim": 8,
                "weights": {"file": "w.pth", "sha256": "ab" * 32},
                "preprocessing": {"side": 224},
            },
            "centroids": {"k": k, "seed": 7},
            "selection": {
                "images": len(rows),
                "budget": budget,
                "fill": "global",
                "within": "nearest",
                "seed": 0,
                **options,
            },
        }
    )
    vectors = np.random.default_rng(k).normal(size=(k, 8)).astype(np.float32)
    Centroids(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).save(folder.centroids)
    folder.complete(folder.record(folder.centroids), [folder.centroids])
    for shard in sorted({r.shard for r in rows}):
        mine = [r for r in rows if r.shard == shard]
        tables = {
            folder.entropy(shard): entropy_table(mine),
            folder.assignments(shard): embedding_table([r for r in mine if r.survived]),
        }
        for path, made in tables.items():
            write_table(path, made, {})
            folder.complete(folder.record(path), [path])
    chosen = [r for r in rows if r.phase is not None]
    columns = ("key", "shard", "row", "entropy", "cluster", "similarity", "phase")
    write_table(
        folder.selection,
        table(SELECTION_SCHEMA, ([*(getattr(r, c) for c in columns), *[None] * len(SCORE_FIELDS)] for r in chosen)),
        {},
    )
    refused = ([r.key, r.shard, r.row, *r.refused] for r in rows if r.refused)
    write_table(folder.quarantine, table(QUARANTINE_SCHEMA, refused), {})
    write_text(folder.selected, "".join(f"{r.key}\n" for r in chosen))
    folder.complete(folder.summary, [folder.selected, folder.quarantine, folder.selection], summary)
    return folder, summary


def entropy_table(rows):
    cause = [r.refused[1:] if r.refused and r.entropy is None else (None, None) for r in rows]
    scores = [None] * len(SCORE_FIELDS)
    return table(ENTROPY_SCHEMA, ([r.key, r.entropy, *scores, *c] for r, c in zip(rows, cause, strict=True)))


def embedding_table(rows):
    cause = [r.refused[1:] if r.refused else (None, None) for r in rows]
    similarity = [None if r.cluster < 0 else r.similarity for r in rows]
    return table(
        EMBEDDING_SCHEMA,
        ([r.row, r.key, r.cluster, s, *c] for r, s, c in zip(rows, similarity, cause, strict=True)),
    )


def table(schema, rows):
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


class FakeSource(Source):
    """Yields a small PNG for every row, one colour each; remembers what was read."""

    def __init__(self, rows):
        self.keys = {}
        for r in rows:
            self.keys.setdefault(r.shard, []).append(r.key)
        self.reads = []

    @property
    def shards(self):
        return tuple(Shard(name) for name in sorted(self.keys))

    def count(self, shard):
        return len(self.keys[shard.name])

    def size(self, shard):
        return 0

    def read(self, shard, rows=None):
        keys = self.keys[shard.name]
        for row in range(len(keys)) if rows is None else rows:
            self.reads.append((shard.name, row))
            yield Item(keys[row], png(row))

    def fingerprint(self):
        return {}


def png(number):
    """A small PNG whose colour tells its number."""
    image = Image.new("RGB", (240, 120), (number % 256, number // 256 % 256, 128))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
