"""Train on what rsprune selected: a selection is a sequence of row numbers, which PyTorch takes as it is."""

import numpy as np
import torch

import rsprune

# Embeddings of a pool of 1,000 images and of 300 labelled scenes; yours come from an encoder, see `rsprune embed`.
rng = np.random.default_rng(0)
pool = rng.normal(size=(1_000, 64)).astype(np.float32)
scenes = rng.normal(size=(300, 64)).astype(np.float32)

centroids = rsprune.fit_centroids(scenes, k=20)
selection = rsprune.select(pool, centroids, 0.15)
print(selection.summary())

# Any map-style dataset whose i-th item is the image of the i-th embedding.
images = torch.utils.data.TensorDataset(torch.arange(1_000))
kept = torch.utils.data.Subset(images, selection)
loader = torch.utils.data.DataLoader(kept, batch_size=32, shuffle=True)
seen = sorted(int(row) for (batch,) in loader for row in batch)
assert seen == list(selection)
