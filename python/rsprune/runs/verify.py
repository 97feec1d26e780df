"""Verifying a run: whether the files of a run are as they were written, and say what they must say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsprune import strategies
from rsprune.encoders import Encoder, load_encoder
from rsprune.encoders.loader import embed_items
from rsprune.errors import ArgumentError, RspruneError
from rsprune.io import read_record
from rsprune.runners import NoProgress
from rsprune.runs.config import DecodeOptions, GrayOptions
from rsprune.runs.context import source_config
from rsprune.runs.folder import RunFolder
from rsprune.runs.moves import Choice
from rsprune.runs.reader import RunReader, positions_of
from rsprune.runs.reference import check_same_provenance
from rsprune.runs.selections import selection_names
from rsprune.runs.stages.entropy import EntropyRanking, cut_entropies
from rsprune.runs.summary import ENTROPY_BINS, ShardSummary, entropy_bin
from rsprune.selection import FILL, QUOTA, select_assigned
from rsprune.sources import Item, Shard, Source, SourceLike
from rsprune.sources.key_lines import line_of_key
from rsprune.sources.keys import read_known

__all__ = ["Finding", "Verification", "verify_run"]

#: Images that are read again, over all shards.
SAMPLE = 64
#: How far a similarity may be from the one of an embedding that is made again, on another device perhaps.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run: which file, and what."""

    file: str
    problem: str


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what is wrong with it."""

    path: Path
    files: int
    images: int
    read_again: int
    embedded_again: int
    findings: list[Finding]

    def describe(self) -> str:
        """Say in a line that all is well, or list the findings."""
        if self.findings:
            width = max(len(one.file) for one in self.findings)
            lines = [f"{one.file:<{width}}  {one.problem}" for one in self.findings]
            return "\n".join([f"{self.path}: {len(lines)} findings", *lines])
        again = f", {self.read_again} images read and {self.embedded_again} embedded again" if self.read_again else ""
        return f"{self.path} is whole: {self.files:,} files, {self.images:,} images{again}"


def verify_run(
    run: str | Path,
    *,
    source: SourceLike | None = None,
    deep: bool = False,
    encoder: Encoder | None = None,
    seed: int = 0,
) -> Verification:
    """Compare every file of a run with its digest, and what it says with what it must say.

    Whatever the run has come to is looked at: the tables of its shards, the centroids, and of a finished run the
    selection, whose budget, order, phases and cut-offs are made again from the tables.

    Parameters
    ----------
    run
        The folder.
    source
        Its collection, which must still be the same.
    deep
        Read some images again, drawn by ``seed``, and compare their entropies; and embed them where the ``encoder``, or
        the one that the run names, is at hand.

    Raises
    ------
    FileNotFoundError
        It is no run folder.
    ArgumentError
        ``deep`` without a ``source``.
    """
    if deep and source is None:
        message = "deep reads images again: give the collection as source (--source)"
        raise ArgumentError(message)
    return _Verifier(RunFolder(run)).verify(source, deep, encoder, seed)


class _Verifier:
    """Collects what is wrong with a run."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.findings: list[Finding] = []
        self.files: set[Path] = set()

    def found(self, path: Path, problem: object) -> None:
        """Note a finding; the path of the folder is not said again."""
        name = path.relative_to(self.folder.path).as_posix()
        finding = Finding(name, str(problem).replace(f"{self.folder.path}/", ""))
        if finding not in self.findings:
            self.findings.append(finding)

    def guard(self, path: Path, check: Any, *args: Any) -> Any:
        """Make a check, and note what it raises; None then."""
        try:
            return check(*args)
        except (RspruneError, OSError) as error:
            self.found(path, error)
            return None

    def verify(self, source: SourceLike | None, deep: bool, encoder: Encoder | None, seed: int) -> Verification:
        folder, images, again, embedded = self.folder, 0, 0, 0
        if not folder.config.is_file():
            folder.read_config()  # says that this is no run folder
        reader = self.guard(folder.config, RunReader, folder)
        if reader is not None:
            inner = (one for one in (folder.reference(), folder.dropped()) if one.config.is_file())
            for one in (folder, *inner, *(RunFolder(folder.selections / name) for name in selection_names(folder))):
                self._records(one)
            images = sum(self._shard(reader, shard) for shard in reader.shards)
            if folder.record(folder.centroids).is_file():
                self.guard(folder.centroids, lambda: reader.centroids)
            # The tables hold what Stage I keeps for the newest choice.
            if not self.findings and (folder.choice == folder.path or reader.holds_survivors):
                self.guard(folder.path, self._as_a_whole, reader)
            if source is not None and not self.findings:
                opened = self.guard(folder.path, reader.open_source, source)
                if opened is not None and self._source(reader, opened) and deep:
                    again, embedded = self.guard(folder.path, self._again, reader, opened, encoder, seed) or (0, 0)
        return Verification(folder.path, len(self.files), images, again, embedded, self.findings)

    def _records(self, folder: RunFolder) -> None:
        """Compare every file with the digest in its record."""
        if self.guard(folder.config, folder.read_config) is None:
            return
        rooms = [folder.choice]
        if folder.choice == folder.path:
            rooms += [folder.path / "entropy", folder.path / "embeddings"]
        records = [one for room in rooms for one in sorted(room.glob("*.json"))]
        for record in (one for one in records if one != folder.config):
            content = self.guard(record, read_record, record)
            for path in [] if content is None else [record.parent / name for name in content["files"]]:
                self.files.add(path)
                self.guard(path, folder.verify, path)

    def _shard(self, reader: RunReader, shard: str) -> int:
        """Look at the tables of a shard, and return the number of its images."""
        folder, images = self.folder, 0
        entropy, table = folder.entropy(shard), folder.assignments(shard)
        if folder.record(entropy).is_file():
            read = self.guard(entropy, reader.table, entropy)
            images = 0 if read is None else len(read)
            if read is not None and pc.any(pc.equal(read["entropy"].is_null(), read["kind"].is_null())).as_py():
                self.found(entropy, "an image has neither an entropy nor a cause, or both")
        if not folder.record(table).is_file():
            return images
        rows = self.guard(table, reader.assignments, shard)
        if rows is not None and images and len(rows) and rows["row"].to_numpy()[-1] >= images:
            self.found(table, f"it has rows behind the {images} of the shard")
        embeddings = folder.embeddings(shard)
        if rows is not None and reader.config.get("keep_embeddings"):
            array = self.guard(embeddings, lambda: np.load(folder.verify(embeddings), mmap_mode="r"))
            if array is not None and (array.ndim != 2 or len(array) != len(rows)):
                self.found(embeddings, f"it is of the shape {array.shape}, its table has {len(rows)} rows")
        return images or (0 if rows is None else len(rows))

    def _as_a_whole(self, reader: RunReader) -> None:
        """Look at what the tables say together, and at the selection of a finished run."""
        folder, config = self.folder, reader.config
        there = config.get("source", {}).get("images")
        if there is not None and there < (total := sum(map(self._count, reader.shards))):
            self.found(folder.config, f"the collection has {there} images, the tables {total}")
        if "selection" not in config or not folder.summary.is_file():
            return
        summary, budget = RunReader(folder, finished=True).summary, config["selection"]["budget"]
        histogram = np.zeros(ENTROPY_BINS, np.int64)
        failed = 0
        for shard in reader.shards:
            entropy = reader.entropy(shard)
            histogram += np.bincount(entropy_bin(entropy[~np.isnan(entropy)]), minlength=ENTROPY_BINS)
            failed += int(np.isnan(entropy).sum()) + reader.assignments(shard, ["kind"])["kind"].drop_null().length()
        rule = {name: config["entropy"][name] for name in ("keep", "tau") if name in config["entropy"]}
        cut = cut_entropies(EntropyRanking(reader, ShardSummary(entropy=histogram)), budget, NoProgress(), **rule)
        if (kept := Choice.read_preselected(folder)) is not None:
            cut = cut.keeping(kept.rows)
        for shard in reader.shards:
            rows = reader.assignments(shard, ["row"])["row"].to_numpy()
            if not np.array_equal(rows, cut.rows(Shard(shard))):
                self.found(folder.assignments(shard), f"its rows are not those of {cut.tau:.4f} bits or more")
        known: dict[str, Any] = {
            "images": len(reader.index),
            "survivors": cut.total,
            "tau": cut.tau,
            "quarantined": failed,
        }
        known |= {"budget": budget, "strategy": reader.strategy}
        for name, value in known.items():
            if summary[name] != value:
                self.found(folder.summary, f"{name} is {summary[name]}, the tables say {value}")
        lost = int(histogram.sum()) - cut.total
        if (coverage := summary.get("coverage")) and coverage["dropped"] != lost:
            self.found(folder.summary, f"its coverage has {coverage['dropped']} dropped images, the tables {lost}")
        if (told := sum(one["images"] for one in summary.get("causes", []))) != failed:
            self.found(folder.summary, f"its causes are those of {told} images, the tables have {failed} failures")
        quarantined = int(np.count_nonzero(reader.quarantine(["row"])["row"].to_numpy() >= 0))
        if quarantined != failed:
            self.found(folder.quarantine, f"it has {quarantined} images, the tables of the shards {failed} failures")
        self._selection(reader, summary, budget)

    def _count(self, shard: str) -> int:
        record = self.folder.entropy(shard)
        return len(RunReader(self.folder).entropy(shard)) if record.is_file() else 0

    def _selection(self, reader: RunReader, summary: dict[str, Any], budget: int) -> None:
        """Compare the manifest with the tables of the shards, and with the choice made again."""
        folder = self.folder
        table = reader.selected()
        phase, cluster, similarity = (table[name].to_numpy() for name in ("phase", "cluster", "similarity"))
        expected: dict[str, Any] = {"selected": len(table), "phases": dict(summary["phases"])}
        expected["phases"] |= {"quota": int((phase == QUOTA).sum()), "fill": int((phase == FILL).sum())}
        for name, value in expected.items():
            if summary[name] != value:
                self.found(folder.summary, f"{name} is {summary[name]}, selection.parquet says {value}")
        if len(table) > budget or (len(table) < budget and not summary["outside"]):
            self.found(folder.selection, f"it has {len(table)} rows, the budget is {budget}")
        places = list(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True))
        if places != sorted(set(places)):
            self.found(folder.selection, "its rows are not in order, or not distinct")
        if folder.selected.read_text(encoding="utf-8").splitlines() != [*map(line_of_key, table["key"].to_pylist())]:
            self.found(folder.selected, "its keys are not those of selection.parquet")
        for shard, at in positions_of(table["shard"]):
            rows, one = table["row"].to_numpy()[at], reader.assignments(shard)
            there = np.searchsorted(one["row"].to_numpy(), rows)
            if (there >= len(one)).any() or (one["row"].to_numpy()[there] != rows).any():
                self.found(folder.selection, f"it holds images of {shard} that Stage I dropped")
                continue
            label, close = one["label"].fill_null(-1).to_numpy()[there], one["similarity"].to_numpy()[there]
            same = {
                "cluster": np.array_equal(cluster[at], label),
                "similarity": np.array_equal(similarity[at], close.astype(np.float32)),
                "entropy": np.array_equal(table["entropy"].to_numpy()[at], reader.entropy(shard)[rows]),
                "key": table["key"].take(at).to_pylist() == reader.keys(shard).take(rows).to_pylist(),
            }
            for name in (name for name, equal in same.items() if not equal):
                self.found(folder.selection, f"{name} differs from the tables of {shard}")
        rule = reader.config["selection"]
        if strategies.get(reader.strategy).quotas:
            self._cut_offs(summary, phase, cluster, similarity)
        reasons = Counter(reason for _, found in reader.excluded.values() for reason in found.tolist())
        if dict(reasons) != summary.get("excluded", {}):
            self.found(folder.summary, f"excluded is {summary.get('excluded')}, excluded.parquet says {dict(reasons)}")
        left_out = reader.excluded_numbers(*reasons)
        shared = rule.get("quotas") is not None or (rule.get("groups") and not rule.get("max_per_group"))
        if reader.strategy == "rsprune" and reader.within == "nearest" and not rule.get("preselected") and not shared:
            labels, close = reader.embedded("label", "similarity")
            k, least = len(summary["clusters"]["pool"]), rule.get("min_similarity")
            never = np.isin(reader.embedded_numbers(), left_out)
            options = {"fill": reader.fill, "min_similarity": least, "strict": least is None}
            again = select_assigned(labels, close, budget, k=k, seed=rule["seed"], exclude=never, **options)
            chosen = [
                (shard, row)
                for shard, at, _ in reader.embedded_index.locate(again.indices)
                for row in reader.assignments(shard, ["row"])["row"].to_numpy()[at].tolist()
            ]
            if chosen != places or not np.array_equal(again.phase, phase):
                self.found(folder.selection, "the choice made again from the tables is another one")

    def _cut_offs(
        self,
        summary: dict[str, Any],
        phase: NDArray[np.uint8],
        cluster: NDArray[np.int32],
        similarity: NDArray[np.float32],
    ) -> None:
        """Compare where quotas and the fill end."""
        ends = np.full(len(summary["clusters"]["pool"]), np.inf)
        np.minimum.at(ends, cluster[phase == QUOTA], similarity[phase == QUOTA])
        cuts = [None if np.isinf(end) else float(end) for end in ends]
        last = float(similarity[phase == FILL].min()) if (phase == FILL).any() else None
        for name, value, there in (
            ("quota_cut", cuts, summary["clusters"]["quota_cut"]),
            ("fill_cut", last, summary["fill_cut"]),
        ):
            if value != there:
                self.found(self.folder.summary, f"{name} is not where the images of selection.parquet end")

    def _source(self, reader: RunReader, source: Source) -> bool:
        """Compare the collection with that of the run."""
        before = len(self.findings)
        self.guard(self.folder.path, reader.check_source, source)
        now, then = source_config(source), reader.config.get("source", {})
        for name in ("kind", "images", "digest"):
            if name in then and now[name] != then[name]:
                self.found(self.folder.config, f"the collection is another one now: {name} is {now[name]}")
        return len(self.findings) == before

    def _again(self, reader: RunReader, source: Source, encoder: Encoder | None, seed: int) -> tuple[int, int]:
        """Read some images again; return how many were read, and how many were embedded."""
        rng, read, embedded = np.random.default_rng(seed), 0, 0
        shards = [source.shards[at] for at in np.sort(rng.permutation(len(source.shards))[:SAMPLE])]
        each = -(-SAMPLE // len(shards))
        for shard in shards:
            images = np.sort(rng.permutation(source.count(shard))[:each])
            if self.folder.record(self.folder.entropy(shard.name)).is_file():
                read += self._entropies(reader, source, shard, images)
            if self.folder.record(self.folder.assignments(shard.name)).is_file() and reader.config.get("centroids"):
                embedded += self._embeddings(reader, source, shard, rng.permutation(SAMPLE)[:each], encoder)
        return max(read, embedded), embedded

    def _entropies(self, reader: RunReader, source: Source, shard: Shard, rows: NDArray[np.int64]) -> int:
        known, keys = reader.entropy(shard.name)[rows], reader.names(shard.name).take(rows).to_pylist()
        items = list(read_known(source, shard, rows.tolist(), keys, self.folder.path))
        values = gray_of(reader.config["entropy"]).measure([item.data for item in items], None)[0][:, 0]
        for row, value, before in zip(rows.tolist(), values.tolist(), known.tolist(), strict=True):
            repeated = np.isnan(before) and not np.isnan(value) and self._repeats(reader, shard.name, row)
            if value != before and not (np.isnan(value) and np.isnan(before)) and not repeated:
                path = self.folder.entropy(shard.name)
                self.found(path, f"row {row} has {before:.6f} bits, and {value:.6f} when it is read again")
        return len(rows)

    def _repeats(self, reader: RunReader, shard: str, row: int) -> bool:
        return bool(reader.table(self.folder.entropy(shard), ["kind"])["kind"][row].as_py() == "duplicate")

    def _embeddings(
        self, reader: RunReader, source: Source, shard: Shard, drawn: NDArray[np.int64], encoder: Encoder | None
    ) -> int:
        model = self._model(reader, encoder)
        table = reader.assignments(shard.name)
        table = table.filter(table["kind"].is_null())
        if model is None or not len(table):
            return 0
        table = table.take(np.unique(drawn % len(table)))
        rows, keys = table["row"].to_pylist(), table["key"].to_pylist()
        items: list[Item] = list(read_known(source, shard, rows, keys, self.folder.path))
        options = decode_of(reader.config.get("pixels") or reader.config.get("entropy") or {}).settings()
        vectors = reader.centroids.vectors.astype(np.float64)
        label, known = table["label"].to_numpy(), table["similarity"].to_numpy()
        for block in embed_items(model, iter(items), batch_size=len(items), **options):
            at = block.positions
            unit = block.embeddings.astype(np.float64)
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            similarity = np.einsum("nd,nd->n", unit, vectors[label[at]])
            for number in np.flatnonzero(np.abs(similarity - known[at]) > TOLERANCE).tolist():
                path, row = self.folder.assignments(shard.name), rows[at[number]]
                told = f"{known[at[number]]:.4f}, and {similarity[number]:.4f} when it is embedded again"
                self.found(path, f"row {row} has the similarity {told}")
        return len(items)

    def _model(self, reader: RunReader, encoder: Encoder | None) -> Encoder | None:
        """Return the encoder of the run; None if it is not at hand."""
        known = reader.config["encoder"]
        if encoder is None:
            try:
                encoder = load_encoder(known["name"])
            except (RspruneError, OSError, ImportError):
                return None
        check_same_provenance(known, encoder.provenance(), f"the embeddings in {self.folder.path}")
        return encoder


def decode_of(config: dict[str, Any]) -> DecodeOptions:
    """Return how pixels were read, as a configuration names it."""
    given = {one.name: config.get(one.name) for one in fields(DecodeOptions)}
    decode: DecodeOptions = replace(DecodeOptions(), **given)
    return decode


def gray_of(config: dict[str, Any]) -> GrayOptions:
    """Return the options of Stage I, as a configuration names them."""
    own = {name: config[name] for name in ("gray", "nodata", "entropy_bands") if config.get(name) is not None}
    return replace(GrayOptions(**own), decode=decode_of(config))
