"""Stage I on 16-bit, four-band images, which Pillow would clip, or read as RGB with transparency."""

import numpy as np

import rsprune

# Eight images of 64 x 64 pixels: red, green, blue and near infrared, reflectances of 0 to 10,000, with a nodata border.
rng = np.random.default_rng(0)
images = rng.integers(500, 9_000, (8, 64, 64, 4)).astype(np.uint16)
images[:, :8] = 0

rgb = rsprune.entropy(images, nodata=0, valid_range=(0, 10_000))
false_colour = rsprune.entropy(images, bands=(3, 0, 1), nodata=0, valid_range=(0, 10_000))
every_band = rsprune.entropy(images, bands=(0, 1, 2, 3), gray="mean", nodata=0, valid_range=(0, 10_000))
print(np.column_stack([rgb, false_colour, every_band]).round(3))
