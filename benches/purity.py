"""How well an encoder's space tells scenes apart: `python -m benches.purity efficientnet-lite0 [--weights FILE]`.

On the labelled scenes of $RSPRUNE_DATA (AID, 30 classes): how often the nearest other image has the same class, and how
pure the clusters are that Stage II would have.
"""

import argparse
import os

import numpy as np

import rsprune
from rsprune.encoders import load_encoder
from rsprune.encoders.loader import embed_items
from rsprune.sources import open_source

KS = (30, 200)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.purity", description=__doc__)
    parser.add_argument("encoder")
    parser.add_argument("--weights")
    options = parser.parse_args()
    source = open_source(f"{os.environ['RSPRUNE_DATA']}/reference_aid_128.tar")
    items = [item for shard in source.shards for item in source.read(shard)]
    encoder = load_encoder(options.encoder, weights=options.weights)
    rows = np.concatenate([batch.embeddings for batch in embed_items(encoder, items)])
    names, classes = np.unique([item.key.split("/")[0] for item in items], return_inverse=True)
    print(f"{options.encoder}: {len(rows):,} images of {len(names)} classes")
    print(f"nearest other image of the same class: {nearest_is_same(rows, classes):.1%}")
    for k in KS:
        labels = rsprune.assign(rows, rsprune.fit_centroids(rows, k)).labels
        table = np.zeros((k, len(names)), int)
        np.add.at(table, (labels, classes), 1)
        print(f"purity of {k} clusters: {table.max(1).sum() / len(rows):.1%}")


def nearest_is_same(rows: np.ndarray, classes: np.ndarray) -> float:
    """The share of images whose nearest other image, by cosine, has their class."""
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    return float((classes[similarity.argmax(1)] == classes).mean())


if __name__ == "__main__":
    main()
