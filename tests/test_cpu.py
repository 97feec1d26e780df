"""``RSPRUNE_CPU`` reaches every kernel: told by the instances that ran, not by time."""

import json
import os
import subprocess
import sys

import pytest

import rsprune

# What the levels include, highest first: what a kernel is compiled for is taken from the front.
INCLUDES = {
    "scalar": [],
    "neon": [],
    "avx2": ["avx2"],
    "avxvnni": ["avxvnni", "avx2"],
    "avx512": ["avx512", "avx2"],
    "avx512vnni": ["avx512vnni", "avx512", "avx2"],
    "avx512icl": ["avx512icl", "avx512vnni", "avx512", "avx2"],
}
NEEDS = {
    "neon": {"neon"},
    "avx2": {"avx2", "bmi1", "bmi2", "f16c", "fma"},
    "avxvnni": {"avxvnni"},
    "avx512": {"avx512f", "avx512bw", "avx512vl"},
    "avx512vnni": {"avx512vnni"},
    "avx512icl": {"avx512vbmi", "avx512vpopcntdq", "gfni"},
}

# What each kernel is compiled for, beside portable code.
KERNELS = {
    "entropy::histogram::count_many": {"avx512icl"},
    "herding::best": {"avx512", "avx2"},
    "image::gray::bt601": {"avx512icl", "avx2"},
    "image::jpeg::color::levels_from_ycbcr": {"avx2"},
    "image::jpeg::color::rgb_from_ycbcr": {"avx2"},
    "image::jpeg::idct::row_of_blocks": {"avx2"},
    "image::jpeg::scan::read_row": {"avx2"},
    "image::jpeg::upsample::across": {"avx2"},
    "image::jpeg::upsample::both": {"avx2"},
    "image::resize::kernels::horizontal": {"avx512vnni", "avx2"},
    "image::resize::kernels::vertical": {"avx512vnni", "avx2"},
    "image::resize::kernels::pack": {"avx512vnni", "avx2"},
    "linalg::exact_gemm::argmax": {"avx512", "avx2"},
    "linalg::exact_gemm::dot4": {"avx512", "avx2"},
    "linalg::exact_gemm::dots": {"avx512", "avx2"},
    "neighbors::facility_location::gain": {"avx512", "avx2"},
    "rows::convert::from_f16": {"avx512", "avx2"},
}
# These run where there are instructions for them.
INT8 = {
    "linalg::bounded_search::int8_search": {"avx512vnni", "avxvnni"},
    "linalg::bounded_search::pack_int8": {"avx512vnni", "avxvnni"},
    "linalg::nearest::int8_candidates": {"avx512vnni", "avxvnni"},
    "linalg::nearest::pack_int8": {"avx512vnni", "avxvnni"},
    "linalg::quantize::quantize": {"avx512", "avx2"},
}
INT16 = {
    "linalg::bounded_search::int16_search": {"avx512vnni", "avx512", "avxvnni", "avx2"},
    "linalg::bounded_search::pack_int16": {"avx512vnni", "avx512", "avxvnni", "avx2"},
    "linalg::nearest::int16_candidates": {"avx512vnni", "avx512", "avxvnni", "avx2"},
    "linalg::nearest::pack_int16": {"avx512vnni", "avx512", "avxvnni", "avx2"},
    "linalg::quantize::quantize": {"avx512", "avx2"},
}

EVERYTHING = """if True:
    import hashlib, io, json
    import numpy as np
    from PIL import Image
    import rsprune
    from rsprune import _core

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 67)).astype(np.float32)
    centroids = rsprune.fit_centroids(rows, 7).vectors
    results = [centroids]
    for dtype in (np.float16, np.float32, np.float64):
        results += [*rsprune.assign(rows.astype(dtype), centroids)]
    block = _core.Rows([rows])
    order, starts = np.arange(400), np.array([0, 150, 400])
    results += [*_core.knn(block, block, k=3, exclude_self=True, threads=1)]
    results += [*_core.facility_location(block, order, starts, np.array([5, 9]), threads=1)]
    labels = (order % 3).astype(np.int32)
    results += [_core.herd(block, labels, np.array([4, 5, 6]), threads=1)]
    results += [_core.medians(block, labels, k=3, threads=1)]

    pixels = np.clip(np.cumsum(rng.normal(scale=4, size=(90, 131, 3)), axis=1) + 128, 0, 255).astype(np.uint8)
    jpegs = []
    for options in ({"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=80, **options)
        jpegs.append(file.getvalue())
    results += [rsprune.entropy(pixels[None]), rsprune.entropy(np.ascontiguousarray(pixels[None, :, :, 0]))]
    for gray in ("bt601", "luma"):
        results += [_core.entropy_images(jpegs, gray=gray, threads=1)[0]]
    results += _core.decode_images(jpegs, threads=1)[0]
    small = np.zeros((len(jpegs), 32, 32, 3), np.uint8)
    assert _core.preprocess_images(jpegs, small, interpolation="bicubic", threads=1) == []
    results.append(small)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(result).tobytes() for result in results)).hexdigest()
    features = rsprune.cpu_features()
    print(json.dumps([features["level"], features["kernels"], digest]))
"""


def here(level: str) -> bool:
    """Whether this CPU has a level, which needs what it includes."""
    present = {name for name, has in rsprune.cpu_features().items() if has is True}
    return all(NEEDS.get(name, set()) <= present for name in [level, *INCLUDES[level]])


def run(level: str) -> tuple[str, dict[str, str], str]:
    command = [sys.executable, "-c", EVERYTHING]
    env = os.environ | {"RSPRUNE_CPU": level}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    name, kernels, digest = json.loads(output)
    return name, kernels, digest


def test_every_kernel_is_of_the_level_that_was_asked_for():
    digests = set()
    for level in filter(here, INCLUDES):
        name, ran, digest = run(level)
        digests.add(digest)
        assert name == level
        filters = {} if level == "scalar" else INT8 if {"avxvnni", "avx512vnni"} & set(INCLUDES[level]) else INT16
        expected = {
            kernel: next((instance for instance in INCLUDES[level] if instance in instances), "scalar")
            for kernel, instances in (KERNELS | filters).items()
        }
        assert ran == expected, level
        if level == "scalar":
            assert set(ran.values()) == {"scalar"}
    assert len(digests) == 1


def test_nothing_has_run_in_a_fresh_process():
    code = "import rsprune; assert rsprune.cpu_features()['kernels'] == {}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("call", ["entropy(np.zeros((1, 8, 8), np.uint8))", "assign(np.eye(2), np.eye(2, dtype='f'))"])
def test_an_unknown_level_is_an_error_of_every_call(call):
    code = f"import numpy as np, rsprune\ntry: rsprune.{call}\nexcept rsprune.errors.ArgumentError: print('refused')"
    env = os.environ | {"RSPRUNE_CPU": "abacus"}
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert output == "refused\n"
