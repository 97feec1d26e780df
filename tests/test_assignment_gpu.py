"""Rows on a GPU give the bytes of the host, whatever its matrix units lose. Here the host stands in for the GPU."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsprune
from failures import raises
from rsprune import _core, assignment_gpu, embeddings, errors

torch = pytest.importorskip("torch")

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@contextmanager
def on_gpu(**limits):
    """Tensors on the host take the way of those on a GPU; names what is brought to the host nevertheless."""
    host_rows = []

    def host_blocks(part):
        host_rows.append(len(part))
        return embeddings.host_blocks(part)

    tensors = mock.patch.object(embeddings, "_tensor", lambda tensor: tensor.detach())
    with tensors, mock.patch.multiple(assignment_gpu, _KINDS={"cpu"}, host_blocks=host_blocks, **limits):
        yield host_rows


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def assert_same(got, expected):
    assert got[0].tolist() == expected[0].tolist()
    assert got[1].tobytes() == expected[1].tobytes()
    assert (got[0].dtype, got[1].dtype) == (np.int32, np.float32)


def cut(x, bits):
    """Numbers cut to so many significant bits, towards zero."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.trunc(np.ldexp(mantissa, bits)), exponent - bits)


def flushed(x):
    return np.where(np.abs(x) < 2.0**-14, 0, x)


def careless_sums(a, b):
    """The worst sums that the bound allows for: subnormal factors are flushed, bits are cut instead of rounded."""
    a, b = (flushed(m.to(torch.float64).numpy()) for m in (a, b))
    sums = np.zeros((a.shape[0], b.shape[1]))
    with np.errstate(invalid="ignore"):
        for i in range(0, a.shape[1], 4):
            addends = np.concatenate([sums[None], np.einsum("nd,dk->dnk", a[:, i : i + 4], b[i : i + 4])])
            _, exponent = np.frexp(np.abs(addends).max(axis=0))
            last_bit = np.ldexp(1.0, exponent - 24)
            sums = cut((np.trunc(addends / last_bit) * last_bit).sum(axis=0), 24)
    return sums


def careless_product(_torch, a, b):
    return torch.from_numpy(flushed(cut(careless_sums(a, b), 11))).to(torch.float16)


@st.composite
def problems(draw):
    n, dim, k = draw(st.integers(1, 40)), draw(st.integers(1, 90)), draw(st.sampled_from([1, 2, 5, 17, 64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centroids = unit(rng.normal(size=(k, dim)))
    rows = rng.normal(size=(n, dim))
    kind = draw(
        st.sampled_from(["plain", "ties", "near ties", "crowded", "on centroids", "huge and tiny", "subnormal"])
    )
    if kind == "ties":
        rows = rng.integers(-2, 3, (n, dim))
        centroids = unit(rng.integers(0, 2, (k, dim)) + np.eye(k, dim) * 2 + 1)
        centroids = np.concatenate([centroids, centroids[::-1]])
    elif kind == "near ties":
        other = centroids.copy()
        column = rng.integers(0, dim, k)
        other[np.arange(k), column] = np.nextafter(other[np.arange(k), column], np.float32(2))
        centroids = np.concatenate([other, centroids, other])[rng.permutation(3 * k)]
    elif kind == "crowded":
        centroids = unit(centroids[:1] + rng.normal(size=(k, dim)) * 10.0 ** rng.integers(-9, -1))
    elif kind == "on centroids":
        rows = centroids[rng.integers(0, k, n)] * 10.0 ** rng.integers(-3, 3, (n, 1))
    elif kind == "huge and tiny":
        rows = rows * 2.0 ** rng.integers(-320, 320, (n, 1))
    elif kind == "subnormal":
        rows = rows * 2.0 ** -rng.integers(0, 150, (n, dim))
    with np.errstate(over="ignore"):
        rows = torch.from_numpy(rows.astype(np.float64)).to(draw(st.sampled_from(DTYPES)))
    for row in rng.integers(0, n, draw(st.integers(0, 3))):
        rows[row, rng.integers(0, dim) :] = float(rng.choice([0, np.nan, np.inf, -np.inf]))
    if draw(st.booleans()):
        rows = rows.t().contiguous().t()
    return rows, centroids


@given(problems(), st.booleans(), st.sampled_from([1, 20_000, 1 << 30]), st.sampled_from([1, 30, 1 << 20]))
def test_gpu_gives_the_bytes_of_the_host(problem, normalize, block_bytes, pairs):
    rows, centroids = problem
    expected = rsprune.assign(rows, centroids, normalize=normalize)
    with on_gpu(_BLOCK_BYTES=block_bytes, _PAIRS=pairs):
        assert_same(rsprune.assign(rows, centroids, normalize=normalize), expected)


@given(problems())
def test_no_loss_in_the_matrix_units_shows(problem):
    rows, centroids = problem
    expected = rsprune.assign(rows, centroids)
    with on_gpu(_product=careless_product):
        assert_same(rsprune.assign(rows, centroids), expected)


@given(problems(), st.sampled_from([careless_product, assignment_gpu._product]))
def test_scores_keep_to_the_bound(problem, product):
    rows, centroids = problem
    core = _core.Centroids(_core.Rows([centroids]))
    seen = []

    def spy(torch, a, b):
        seen.append((a, product(torch, a, b)))
        return seen[-1][1]

    with on_gpu(_product=spy):
        nearest = assignment_gpu._GpuAssigner(torch, core, rows)
        norms = torch.linalg.vector_norm(rows.to(torch.float64), dim=1)
        covered = nearest._possible(rows, norms).any(dim=1).numpy()
    scaled, scores = (tensor.to(torch.float64).numpy()[covered] for tensor in seen[0])
    exact_rows = rows.to(torch.float64).numpy()[covered]
    # The factors are powers of two: read them off the largest element, which is no subnormal one.
    largest = np.abs(exact_rows).argmax(axis=1)[:, None]
    ratio = np.take_along_axis(scaled, largest, 1) / np.take_along_axis(exact_rows, largest, 1)
    factor = 2.0 ** np.round(np.log2(ratio))
    vectors = core.vectors().astype(np.float64)
    differences = vectors - nearest.vectors.mean(dim=0).numpy()
    scale = assignment_gpu._SCALED_NORM / (np.linalg.norm(differences, axis=1).max() or 1)
    exact = (exact_rows * factor) @ (differences * scale).T
    allowed = nearest.bound * factor * norms.numpy()[covered, None] + assignment_gpu._SCORE_ROUNDING * np.abs(scores)
    assert np.all(np.abs(scores - exact) <= allowed)


def test_long_sums_keep_to_the_bound():
    rng = np.random.default_rng(0)
    dim = assignment_gpu._MAX_DIM
    # Every addend and every sum is positive, so every cut goes the same way.
    row = torch.from_numpy(rng.uniform(1, 2, (1, dim))).to(torch.float16)
    centroid = unit(rng.uniform(1, 2, (1, dim))).astype(np.float64)
    nearest = assignment_gpu._GpuAssigner(
        torch, _core.Centroids(_core.Rows([np.concatenate([centroid, -centroid])])), row
    )
    vectors, wide = nearest.vectors.numpy(), row.to(torch.float64).numpy()
    scale = assignment_gpu._SCALED_NORM / np.linalg.norm(vectors[0])
    error = np.abs(careless_sums(row, nearest.filter.t()) - wide @ vectors.T * scale) / np.linalg.norm(wide)
    assert np.all(error <= nearest.bound)
    # They need its share for sums.
    assert np.all(error > nearest.bound - dim * 2.0**-21 * assignment_gpu._SCALED_NORM)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "dim", "k"), [(300, 1024, 200), (200, 67, 1500), (400, 1, 3), (50, 9, 1)])
def test_few_centroids_are_scored_again(dtype, n, dim, k):
    rng = np.random.default_rng(0)
    rows, centroids = torch.from_numpy(rng.normal(size=(n, dim))).to(dtype), unit(rng.normal(size=(k, dim)))
    expected = rsprune.assign(rows, centroids)
    counts = []
    possible = assignment_gpu._GpuAssigner._possible

    def spy(self, *args):
        counts.append(possible(self, *args).sum().item())
        return possible(self, *args)

    with on_gpu() as host_rows, mock.patch.object(assignment_gpu._GpuAssigner, "_possible", spy):
        assert_same(rsprune.assign(rows, centroids), expected)
    assert not host_rows
    assert n <= sum(counts) < 1.6 * n


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_real_gpu_gives_the_bytes_of_the_host(dtype):
    rng = np.random.default_rng(0)
    rows, centroids = torch.from_numpy(rng.normal(size=(20_000, 1025))).to(dtype), unit(rng.normal(size=(201, 1025)))
    rows[::3] += 5 * torch.from_numpy(centroids[rng.integers(0, 201, len(rows[::3]))]).to(dtype)
    rows[[5, 77]] = torch.nan
    assert_same(rsprune.assign(rows.to("cuda"), centroids), rsprune.assign(rows, centroids))


def test_rows_that_the_bound_does_not_cover_go_to_the_host():
    rows = torch.ones(9, 3, dtype=torch.float64)
    rows[1], rows[2], rows[4], rows[5], rows[8] = 1e300, 1e-30, torch.nan, 0, -5e-324
    centroids = np.eye(3, dtype=np.float32)
    expected = rsprune.assign(rows, centroids)
    with on_gpu() as host_rows:
        assert_same(rsprune.assign(rows, centroids), expected)
    assert host_rows == [5]
    with on_gpu() as host_rows, mock.patch.object(embeddings, "_DEVICE_BLOCK_BYTES", 48):
        assert_same(rsprune.assign(rows, centroids), expected)
    assert host_rows == [2, 2, 1]
    assert expected.labels.tolist() == [0, 0, 0, 0, -1, -1, 0, 0, 0]


def test_equal_centroids_stay_within_the_memory_for_pairs():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 20)).astype(np.float32))
    centroids = np.repeat(unit(np.ones((1, 20))), 500, axis=0)
    largest = []
    best = assignment_gpu._GpuAssigner._best

    def spy(self, rows, possible, first, most):
        largest.append(possible.sum().item())
        return best(self, rows, possible, first, most)

    expected = rsprune.assign(rows, centroids)
    with on_gpu(_PAIRS=1000), mock.patch.object(assignment_gpu._GpuAssigner, "_best", spy):
        assert_same(rsprune.assign(rows, centroids), expected)
    assert max(largest) == 1000
    assert set(expected.labels.tolist()) == {0}


def test_the_first_invalid_row_is_named():
    host, rows = torch.ones(5, 3), torch.ones(50, 3)
    rows[[17, 20, 44]] = torch.nan
    rows[18] = 0
    with on_gpu(_BLOCK_BYTES=8000), raises(errors.InvalidRowError, 22, "NaN"):
        rsprune.assign([host, rows], np.eye(3), on_invalid="raise")
    rows[17] = 1
    with on_gpu(), raises(errors.InvalidRowError, 18):
        rsprune.assign(rows, np.eye(3), on_invalid="raise")


def test_parts_on_the_host_and_on_a_gpu_make_one_matrix():
    rng = np.random.default_rng(0)
    parts, centroids = [rng.normal(size=(n, 11)).astype(np.float32) for n in (7, 5, 8)], unit(rng.normal(size=(6, 11)))
    expected = rsprune.select(np.concatenate(parts), centroids, 9)
    with on_gpu():
        got = rsprune.select([parts[0], torch.from_numpy(parts[1]), parts[2]], centroids, 9)
    assert got.indices.tolist() == expected.indices.tolist()
    assert got.similarity.tobytes() == expected.similarity.tobytes()


def test_bad_input_is_named_as_on_the_host():
    with on_gpu(), raises(errors.ShapeError, 2, "centroids", 3):
        rsprune.assign(torch.eye(2), np.eye(3))


@pytest.mark.parametrize(("shape", "error"), [((0, 3), errors.EmptyInputError), ((3, 0), errors.ShapeError)])
def test_empty_tensors_of_other_devices_are_errors(shape, error):
    with raises(error, 0):
        rsprune.assign(torch.empty(shape, device="meta"), np.eye(3))


def test_other_devices_and_very_long_rows_go_to_the_host():
    core = _core.Centroids(_core.Rows([np.eye(3, dtype=np.float32)]))
    assert not assignment_gpu.supports(torch.ones(2, 3), core)
    assert not assignment_gpu.supports(torch.ones(2, 3, device="meta"), core)
    with on_gpu(_MAX_DIM=3):
        assert assignment_gpu.supports(torch.ones(2, 3), core)
    with on_gpu(_MAX_DIM=2):
        assert not assignment_gpu.supports(torch.ones(2, 3), core)


# --- what the caller has set ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    rows, centroids = torch.from_numpy(rng.normal(size=(200, 40)).astype(np.float32)), unit(rng.normal(size=(30, 40)))
    return rows, centroids, rsprune.assign(rows, centroids)


def test_callers_contexts_do_not_show(problem):
    rows, centroids, expected = problem
    torch.set_default_dtype(torch.float64)
    try:
        with on_gpu(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert_same(rsprune.assign(rows, centroids), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    with on_gpu(), torch.inference_mode():
        assert_same(rsprune.assign(rows.clone(), centroids), expected)
    with on_gpu(), torch.device("meta"):
        assert_same(rsprune.assign(rows, centroids), expected)
    with on_gpu():
        assert_same(rsprune.assign(rows.clone().requires_grad_(), centroids), expected)
    torch.use_deterministic_algorithms(True)
    try:
        with on_gpu():
            assert_same(rsprune.assign(rows, centroids), expected)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("allowed", [True, False, (False, False)])
def test_lower_precision_of_sums_is_off_for_the_product_alone(allowed):
    flags = torch.backends.cuda.matmul
    names = ["allow_fp16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction_split_k"]
    names = [name for name in [*names, "allow_fp16_accumulation"] if hasattr(flags, name)]
    before = [getattr(flags, name) for name in names]
    seen = []

    class Factor:
        def __matmul__(self, other):
            seen.extend(getattr(flags, name) for name in names if not name.endswith("split_k"))
            raise RuntimeError

    try:
        flags.allow_fp16_reduced_precision_reduction = allowed
        flags.allow_fp16_accumulation = bool(allowed)
        expected = [getattr(flags, name) for name in names]
        with pytest.raises(RuntimeError):
            assignment_gpu._product(torch, Factor(), None)
        assert not any(seen)
        assert [getattr(flags, name) for name in names] == expected
    finally:
        flags.allow_fp16_reduced_precision_reduction = before[0]
        flags.allow_fp16_accumulation = before[-1]


def test_nothing_is_compiled_with_the_caller(problem):
    rows, centroids, expected = problem
    operations = []

    def backend(graph, _):
        operations.extend(str(node.target) for node in graph.graph.nodes if node.op.startswith("call"))
        return graph.forward

    with on_gpu():
        got = torch.compile(lambda rows: tuple(rsprune.assign(rows + 0, centroids)), backend=backend)(rows)
    assert_same(got, expected)
    assert operations
    assert not any("mul" in name for name in operations)
