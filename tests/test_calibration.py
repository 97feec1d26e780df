"""Entropy cuts that the reference calibrates, against a literal oracle; the choice that is made by them."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
import rsprune
from failures import raises
from oracles import unit
from rsprune import strategies
from rsprune.errors import ArgumentError, EmptyInputError, MissingInputError, ShapeError
from rsprune.runs.folder import RunFolder
from rsprune.runs.reader import RunReader
from rsprune.runs.stages.centroids import centroids_run
from rsprune.sources import Shard, open_source
from small_runs import Colours, picture, small_prune, write_tar

K, DIM = 4, 6


def collection(seed, n=90, m=70):
    """Centroids, reference rows and entropies, rows and entropies; a few of them unknown."""
    rng = np.random.default_rng(seed)
    centroids = unit(rng.normal(size=(K, DIM))).astype(np.float32)
    reference = (centroids[rng.integers(0, K, m)] + 0.4 * rng.normal(size=(m, DIM))).astype(np.float32)
    rows = (centroids[rng.choice(K, n, p=[0.6, 0.25, 0.1, 0.05])] + 0.4 * rng.normal(size=(n, DIM))).astype(np.float32)
    of_reference, entropy = rng.normal(6, 0.8, m), rng.normal(5.5, 1, n)
    of_reference[rng.integers(0, m, 2)] = entropy[rng.integers(0, n, 3)] = np.nan
    rows[rng.integers(n)] = 0
    reference[rng.integers(m)] = np.nan
    return centroids, reference, of_reference, rows, entropy


def literal_calibration(centroids, reference, entropy, neighbors, quantile):
    """For each centroid: sort all reference images by their cosine, take the first, interpolate their entropies."""
    there = [i for i in range(len(reference)) if np.isfinite(reference[i]).all() and not math.isnan(entropy[i])]
    cosine = {i: unit(reference[i : i + 1].astype(np.float64))[0] @ centroids.astype(np.float64).T for i in there}
    tau = []
    for k in range(len(centroids)):
        nearest = sorted(there, key=lambda i: (-np.float32(cosine[i][k]), i))[:neighbors]
        bits = sorted(entropy[i] for i in nearest)
        place = quantile * (len(bits) - 1)
        low = math.floor(place)
        tau.append(bits[low] + (place - low) * (bits[min(low + 1, len(bits) - 1)] - bits[low]))
    counts = [0] * len(centroids)
    for i in there:
        counts[int(np.argmax(cosine[i]))] += 1
    return tau, counts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("neighbors", "quantile"), [(20, 0.1), (1, 0.5), (500, 0.25)])
def test_tau_and_counts_are_those_of_sorting(seed, neighbors, quantile):
    centroids, reference, entropy, *_ = collection(seed)
    got = rsprune.calibrate(centroids, reference, entropy, neighbors=neighbors, quantile=quantile)
    tau, counts = literal_calibration(centroids, reference, entropy, neighbors, quantile)
    assert np.allclose(got.tau, tau, rtol=0, atol=1e-12)
    assert got.reference_counts.tolist() == counts
    assert got.meta["calibration"] == {"neighbors": neighbors, "quantile": quantile, "images": sum(counts)}


@given(
    st.integers(0, 10**6),
    st.integers(1, 80),
    st.sampled_from(["waterfill", "global"]),
    st.sampled_from(["equal", "reference"]),
)
def test_the_choice_is_that_of_the_oracle(seed, budget, fill, quota):
    centroids, reference, of_reference, rows, entropy = collection(seed)
    calibrated = rsprune.calibrate(centroids, reference, of_reference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few rows for the clusters
        got = strategies.select(
            "rsprune_calibrated", rows, budget, centroids=calibrated, entropy=entropy, fill=fill, quota=quota
        )
    labels, similarity = rsprune.assign(rows, centroids)
    labels = np.where(np.isnan(entropy), -1, labels)
    tau = calibrated.tau
    low = [i for i in range(len(rows)) if labels[i] >= 0 and entropy[i] < tau[labels[i]]]
    enough = sum(labels >= 0) - len(low)
    low.sort(key=lambda i: (tau[labels[i]] - entropy[i], i))
    left_out = low[max(0, budget - enough) :]
    weights = calibrated.reference_counts.tolist() if quota == "reference" else None
    want = oracles.select(labels, similarity, budget, K, fill, "nearest", left_out, [], 0, weights)
    assert list(zip(got.indices.tolist(), got.phase.tolist(), strict=True)) == want
    assert len(got) == budget


def test_centroids_keep_what_was_calibrated(tmp_path):
    centroids, reference, entropy, rows, bits = collection(1)
    made = rsprune.calibrate(rsprune.Centroids(centroids, {"encoder": "x"}), reference, entropy)
    made.save(tmp_path / "c.safetensors")
    read = rsprune.Centroids.load(tmp_path / "c.safetensors")
    assert (read.tau.tobytes(), read.reference_counts.tolist()) == (made.tau.tobytes(), made.reference_counts.tolist())
    assert read.meta == made.meta
    assert read.meta["encoder"] == "x"
    first = strategies.select("rsprune_calibrated", rows, 20, centroids=made, entropy=bits)
    again = strategies.select("rsprune_calibrated", rows, 20, centroids=tmp_path / "c.safetensors", entropy=bits)
    assert first.indices.tolist() == again.indices.tolist()


def test_what_is_missing_is_named():
    centroids, reference, entropy, rows, bits = collection(2)
    with raises(ArgumentError, "tau", "rsprune.calibrate()"):
        strategies.select("rsprune_calibrated", rows, 20, centroids=centroids, entropy=bits)
    with raises(MissingInputError, "entropy"):
        strategies.select("rsprune_calibrated", rows, 20, centroids=centroids)
    with raises(ShapeError, "entropy", 69):
        rsprune.calibrate(centroids, reference, entropy[1:])
    with raises(EmptyInputError, 70):
        rsprune.calibrate(centroids, reference, np.full(70, np.nan))
    with raises(ShapeError, "tau", K):
        rsprune.Centroids(centroids, tau=np.zeros(K + 1))


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """40 images in two tars, and 24 reference images, one of them unreadable."""
    folder = tmp_path_factory.mktemp("tars")
    for shard in range(2):
        members = {f"{shard}-{i:02d}.jpg": picture(100 * shard + i) for i in range(20)}
        write_tar(folder / f"pool-{shard}.tar", members)
    write_tar(folder / "ref.tar", {f"r{i:02d}.jpg": picture(500 + i) if i != 7 else b"" for i in range(24)})
    return folder


def test_a_run_chooses_by_the_entropies_of_its_reference(tars, tmp_path):
    options = {"keep": 12, "entropy_keep": 1.0, "k": 3, "strategy": "rsprune_calibrated"}
    run = small_prune(f"{tars}/pool-*.tar", tars / "ref.tar", tmp_path / "run", **options)
    reader = run.reader
    fitted, reference = reader.centroids, RunReader(RunFolder(tmp_path / "run").reference())
    images = [item.data for item in open_source(tars / "ref.tar").read(Shard("ref"))]
    bits = [np.nan if image == b"" else rsprune.entropy([image])[0] for image in images]
    want = rsprune.calibrate(fitted.vectors, reference.embeddings(), np.array(bits))
    assert (fitted.tau.tolist(), fitted.reference_counts.tolist()) == (
        want.tau.tolist(),
        want.reference_counts.tolist(),
    )
    rows, entropy = reader.embeddings(), reader.embedded_entropy()
    chosen = strategies.select("rsprune_calibrated", rows, 12, centroids=fitted, entropy=entropy)
    assert run.indices.tolist() == chosen.indices.tolist()
    # Its centroids serve other runs; the paper's rule then chooses as it does with any.
    given = {"reference": fitted, "out": tmp_path / "given"}
    again = small_prune(f"{tars}/pool-*.tar", **given, **options)
    assert again.keys == run.keys
    shares = small_prune(f"{tars}/pool-*.tar", **given, **options, strategy_options={"quota": "reference"})
    chosen = strategies.select("rsprune_calibrated", rows, 12, centroids=fitted, entropy=entropy, quota="reference")
    assert shares.indices.tolist() == chosen.indices.tolist()
    with raises(ArgumentError, "rsprune centroids --calibrate"):
        bare = rsprune.Centroids(fitted.vectors)
        small_prune(f"{tars}/pool-*.tar", bare, tmp_path / "bare", **options)


def test_the_command_for_centroids_calibrates_them(tars, tmp_path):
    whole = centroids_run(tars / "ref.tar", out=tmp_path / "c", encoder=Colours(), k=3, calibrate=True, progress=False)
    run = small_prune(f"{tars}/pool-*.tar", tars / "ref.tar", tmp_path / "run", k=3, strategy="rsprune_calibrated")
    made, own = rsprune.Centroids.load(whole.path), run.reader.centroids
    assert (made.tau.tolist(), made.reference_counts.tolist()) == (own.tau.tolist(), own.reference_counts.tolist())
    with raises(ArgumentError, "embeddings"):
        centroids_run(np.eye(6, dtype=np.float32), out=tmp_path / "d", k=3, calibrate=True, progress=False)
