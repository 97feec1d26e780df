"""The options of a run, each written once, and the configuration that its artefacts carry."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rsprune import _core
from rsprune.decoding import score_images
from rsprune.encoders import ZOO, DeviceOptions, Encoder, EncoderOutline, load_encoder
from rsprune.entropy import Gray, mean_band_scores
from rsprune.errors import ArgumentError
from rsprune.options import Options, integers, option, same_option, to_config
from rsprune.quotas import Quotas
from rsprune.runners import Runner, open_runner
from rsprune.runners.parts import check_part, parse_part
from rsprune.select_options import check_together
from rsprune.selection import Fill, SelectOptions, Within, check_min_similarity
from rsprune.sources import Source, SourceLike, open_source
from rsprune.sources.damaged import without_damaged
from rsprune.validation import check_finite_number, check_integer, check_number, check_range

__all__ = [
    "CentroidOptions",
    "ChoiceOptions",
    "DecodeOptions",
    "EmbedOptions",
    "EncoderOptions",
    "EntropyOptions",
    "ExecutionOptions",
    "GrayOptions",
    "PruneOptions",
    "ReferenceOptions",
    "SelectRunOptions",
    "SourceOptions",
    "StrategyOptions",
]


def parse_budget(text: str) -> int | float:
    """Parse a budget: ``1890`` is a number of images, ``0.15`` a fraction."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    message = f"keep is {text!r}; expected a number of images or a fraction"
    raise ArgumentError(message)


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Parse ``k=200``, ``topup=false``, ``within=far``: values are JSON, or else text."""
    settings = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            message = f"setting {word!r}; expected NAME=VALUE"
            raise ArgumentError(message)
        try:
            settings[name] = json.loads(text)
        except (ValueError, RecursionError):
            settings[name] = text
    return settings


def parse_range(text: str) -> tuple[float, float] | Literal["auto"]:
    """Parse a range: ``0,10000``, ``-0.5,1`` or ``auto``."""
    if text == "auto":
        return "auto"
    try:
        lo, hi = (int(part) if part.strip().lstrip("+-").isdecimal() else float(part) for part in text.split(","))
    except ValueError:
        message = f"{text!r}: expected two numbers with a comma between them, or auto"
        raise ValueError(message) from None
    return lo, hi


@dataclass(frozen=True)
class DecodeOptions(Options):
    """How pixels are read; :func:`rsprune.entropy` explains each option."""

    panel: ClassVar[str] = "How pixels are read"

    bands: Sequence[int] | None = option(
        None, help="The bands to read, counted from 0.", metavar="B,B,B", parser=integers
    )
    valid_range: tuple[float, float] | Literal["auto"] | None = option(
        None,
        help="The range of samples of more than 8 bits, such as 0,10000; auto takes the 0.1 and 99.9 percentiles of a "
        "sample of the collection.",
        metavar="LO,HI|auto",
        parser=parse_range,
    )
    max_pixels: int | None = option(None, help="Refuse images of more pixels than this.", minimum=1)
    max_bytes: int | None = option(
        None, help="Do not read encoded images of more bytes than this. Default: 1 GB.", minimum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bands is not None:
            bands = tuple(check_integer("bands", one, minimum=0, maximum=65535) for one in self.bands)
            object.__setattr__(self, "bands", bands)
        if self.bands == ():
            message = "bands is (); expected the numbers of bands, or None for the default"
            raise ArgumentError(message)
        if self.valid_range is not None and self.valid_range != "auto":
            object.__setattr__(self, "valid_range", check_range("valid_range", self.valid_range))

    def settings(self) -> dict[str, Any]:
        """Return the options as the core takes them; a range that is not known yet is none."""
        return {**vars(self), "valid_range": None if self.valid_range == "auto" else self.valid_range}


@dataclass(frozen=True)
class GrayOptions(Options):
    """How the gray levels of Stage I are made of pixels; :func:`rsprune.entropy` explains each option."""

    panel: ClassVar[str] = "Stage I: entropy"

    gray: Gray = option("bt601", help="Grayscale: Pillow's L, a JPEG's own Y (faster), or the mean.")
    nodata: float | None = option(None, help="Leave pixels of this value out of the histogram.")
    entropy_bands: Sequence[int] | Literal["all"] | None = option(
        None,
        help="Take the mean of the entropies of these bands, counted from 0, or of all, instead of that of one gray "
        "image.",
        metavar="all|B,B,B",
        parser=lambda text: text if text == "all" else integers(text),
    )
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entropy_bands is not None and self.entropy_bands != "all":
            bands = tuple(check_integer("entropy_bands", one, minimum=0, maximum=65535) for one in self.entropy_bands)
            object.__setattr__(self, "entropy_bands", bands)
            if not bands:
                message = "entropy_bands is (); expected the numbers of bands, or 'all'"
                raise ArgumentError(message)
        if self.nodata is not None:
            object.__setattr__(self, "nodata", check_finite_number("nodata", self.nodata))
        _core.entropy_images([], threads=1, **self.settings())  # refuses what does not go together

    def measure(self, images: list[Any], threads: int | None) -> tuple[NDArray[np.float64], list[tuple[int, str, str]]]:
        """Return the scores of each image, NaN where it failed, and number, kind and message of each failure.

        Images are as the core takes them; scores are float64 (n, 7), the :data:`~rsprune.entropy.SCORES`.
        """
        settings = self.settings() | {"threads": threads}
        if self.entropy_bands is None:
            return score_images(images, **settings)
        return mean_band_scores(images, self.entropy_bands, **settings)

    def settings(self) -> dict[str, Any]:
        """Return the options side by side, as the core takes them."""
        return {**self.decode.settings(), "gray": self.gray, "nodata": self.nodata}

    def config(self) -> dict[str, Any]:
        """Return the options side by side, as JSON values."""
        config: dict[str, Any] = to_config(self)
        if config["entropy_bands"] is None:
            del config["entropy_bands"]
        return {**config.pop("decode"), **config}


@dataclass(frozen=True)
class EncoderOptions(Options):
    """Which encoder embeds images, and where; :func:`rsprune.encoders.load_encoder` explains each option."""

    panel: ClassVar[str] = "The encoder"

    encoder: str | Encoder = option(
        "git-rsclip",
        help="The encoder: `rsprune encoders list` names them.",
        flags=("--encoder", "-e"),
        metavar="NAME",
        parser=str,
    )
    weights: str | Path | None = option(
        None, help="The encoder's weights, where they are not found by themselves.", metavar="PATH", parser=Path
    )
    where: DeviceOptions = field(default_factory=DeviceOptions)
    batch_size: int | None = option(
        None, help="Images in one forward pass. Default: what the device has room for.", minimum=1
    )

    @cached_property
    def model(self) -> Encoder:
        """The encoder, loaded when it is first asked for, once in each process."""
        if isinstance(self.encoder, Encoder):
            return self.encoder
        return load_encoder(self.encoder, weights=self.weights, options=self.where)

    @property
    def outline(self) -> Encoder:
        """What tells the encoder's sizes: that of the zoo by its name, without weights; any other one is loaded."""
        return EncoderOutline(self.encoder) if isinstance(self.encoder, str) and self.encoder in ZOO else self.model

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}


@dataclass(frozen=True)
class ReferenceOptions(Options):
    """The centroids that are fitted on the reference."""

    panel: ClassVar[str] = "The reference"

    k: int = option(
        200, help="The number of centroids, unless fitted centroids are given.", flags=("--k", "-k"), minimum=1
    )
    reference_max_per_class: int | None = option(
        None, help="Fit the centroids on no more images than this of each class of the reference.", minimum=1
    )
    reference_max_images: int | None = option(
        None,
        help="Fit the centroids on no more reference images than this, balanced over the classes. A set without class "
        "folders is one class.",
        minimum=1,
    )
    reference_weight: Sequence[float] | None = option(
        None,
        help="How much each set of the reference weighs in the K-means, in their order: images are drawn of each in "
        "this ratio, balanced over its classes.",
        flags=("--reference-weight", "--weight"),
        metavar="W",
        parser=lambda words: [float(word) for word in words],
        repeated=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for weight in self.reference_weight or ():
            if check_number("reference_weight", weight) <= 0:
                message = f"reference_weight is {list(self.reference_weight or ())}; expected numbers above 0"
                raise ArgumentError(message)


@dataclass(frozen=True)
class StrategyOptions(Options):
    """How many images are kept, and by which strategy."""

    panel: ClassVar[str] = "Stage II: the choice"

    # Checked by budget_rows, which knows the number of images.
    keep: Any = option(
        0.15,
        help="The budget: a number of images, or a fraction of the whole collection.",
        metavar="N|FRACTION",
        parser=lambda text: None if text == "none" else parse_budget(text),
    )
    strategy: str = option("rsprune", help="How images are chosen: `rsprune strategies` lists all ways.")
    strategy_options: Mapping[str, Any] | None = option(
        None,
        help="Options of a strategy other than rsprune, which has options of its own here.",
        flags=("--strategy-option", "-O"),
        metavar="NAME=VALUE",
        parser=parse_settings,
        repeated=True,
    )
    seed: int = option(0, help="The seed of every random draw.", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "strategy_options", dict(self.strategy_options or {}))


@dataclass(frozen=True, eq=False)
class ChoiceOptions(Options):
    """What Stage II keeps in a run; see :func:`rsprune.select` and :func:`rsprune.strategies.select`."""

    panel: ClassVar[str] = "Stage II: the choice"

    strategy: StrategyOptions = field(default_factory=StrategyOptions)
    fill: Fill = same_option(SelectOptions, "fill")
    within: Within = same_option(SelectOptions, "within")
    min_similarity: float | None = same_option(SelectOptions, "min_similarity")
    groups: Any = same_option(SelectOptions, "groups")
    quotas: Quotas | None = same_option(SelectOptions, "quotas")
    max_per_group: int | None = same_option(SelectOptions, "max_per_group")
    exclude: Any = same_option(SelectOptions, "exclude")
    dedup: float | None = same_option(SelectOptions, "dedup")
    leaks: Any = same_option(SelectOptions, "leaks")
    leak_eps: float | None = same_option(SelectOptions, "leak_eps")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "min_similarity", check_min_similarity(self.min_similarity))
        check_together(self)

    @property
    def shares(self) -> bool:
        """Whether the budget is shared out among groups, or among clusters that are named."""
        return self.quotas is not None or (self.groups is not None and self.max_per_group is None)


@dataclass(frozen=True)
class SelectRunOptions(Options):
    """The options of `rsprune select`."""

    strategy: StrategyOptions = field(default_factory=StrategyOptions)
    select: SelectOptions = field(default_factory=SelectOptions)
    threads: int | None = option(None, help="Threads. Default: all cores.", flags=("--threads", "-j"), minimum=1)


@dataclass(frozen=True)
class ExecutionOptions(Options):
    """How the work is carried out. None of this shows in the result."""

    panel: ClassVar[str] = "How the work is carried out"

    threads: int | None = option(None, help="Threads. Default: all cores.", flags=("--threads", "-j"), minimum=1)
    runner: str = option("local", help="What carries the work out: local (this process), processes, or ray.")
    workers: int | None = option(None, help="Processes of a runner that has several.", minimum=1)
    address: str | None = option(
        None, help="Where the cluster of the runner is: for ray host:port, or auto. Default: the one that it finds."
    )
    part: tuple[int, int] | Literal["slurm"] | None = option(
        None,
        help="Do this part of the shards of a stage, such as 3/16, beside the calls for the other parts; slurm is the "
        "task of an array job.",
        metavar="I/N|slurm",
        parser=parse_part,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "part", check_part(self.part))

    def open_runner(self) -> Runner:
        """Make the runner."""
        return open_runner(self.runner, self.workers, check_part(self.part), self.address)


@dataclass(frozen=True)
class SourceOptions(Options):
    """How a collection is opened. An option of a layout that is not given is left to the layout."""

    panel: ClassVar[str] = "How the collection is read"

    on_damaged_shard: Literal["raise", "skip"] = option(
        "raise",
        help="What to do with shards that are cut short or damaged: end before the work begins, or skip them. Skipped "
        "shards are named in summary.json and in the quarantine.",
    )
    tile: int | None = option(
        None, help="Scenes: the side of the windows that they are cut into, in pixels. Default: 256.", minimum=1
    )
    stride: int | None = option(
        None, help="Scenes: the pixels from one window to the next. Default: the side of a window.", minimum=1
    )
    min_valid: float | None = option(
        None,
        help="Scenes: leave out windows of which less than this fraction holds data. Default: 0.9.",
        minimum=0,
        maximum=1,
    )
    image_column: str | None = option(
        None, help="Tables: the column that holds the images. Default: the only one that may."
    )

    def open(self, source: SourceLike) -> Source:
        """Open a collection."""
        layout = {name: value for name, value in vars(self).items() if name != "on_damaged_shard" and value is not None}
        opened = open_source(source, **layout)
        return without_damaged(opened) if self.on_damaged_shard == "skip" else opened

    def of_reference(self) -> SourceOptions:
        """Return what holds for the reference, too, whose layout is its own: what becomes of damaged shards."""
        return SourceOptions(self.on_damaged_shard)


@dataclass(frozen=True)
class EntropyOptions:
    """The options of `rsprune entropy`."""

    gray: GrayOptions = field(default_factory=GrayOptions)
    source: SourceOptions = field(default_factory=SourceOptions)
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)


@dataclass(frozen=True)
class EmbedOptions:
    """The options of `rsprune embed`."""

    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    source: SourceOptions = field(default_factory=SourceOptions)
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)


@dataclass(frozen=True)
class CentroidOptions(Options):
    """The options of `rsprune centroids`."""

    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    reference: ReferenceOptions = field(default_factory=ReferenceOptions)
    seed: int = option(0, help="Seed for k-means++ and for the draw of reference images.", minimum=0)
    calibrate: bool = option(
        False,
        help="Measure the entropies of the reference images, too, and keep with each centroid the least of its scenes: "
        "for the strategy rsprune_calibrated.",
    )
    source: SourceOptions = field(default_factory=SourceOptions)
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)


@dataclass(frozen=True)
class PruneOptions(Options):
    """The options of `rsprune prune`."""

    choice: ChoiceOptions = field(default_factory=ChoiceOptions)
    entropy_keep: float = option(
        0.30,
        help="The fraction of the collection that Stage I keeps. At least the budget is kept.",
        minimum=0,
        maximum=1,
        panel="Stage I: entropy",
    )
    tau: float | None = option(
        None,
        help="Keep images of this entropy (bits) or more, instead of a fraction.",
        minimum=0,
        maximum=8,
        panel="Stage I: entropy",
    )
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    keep_embeddings: bool = option(
        False,
        help="Keep the embeddings, too (float16, 2 D bytes an image), and not only clusters and similarities: for "
        "choosing again in other ways.",
        panel="Stage II: the choice",
    )
    preselected: bool = option(
        False,
        help="Keep all images that the run in the folder chose before, and top them up to the budget: for a collection "
        "that has grown, or a larger --keep.",
        panel="Stage II: the choice",
    )
    name: str | None = option(
        None,
        help="The name under which the choice is kept in the folder's selections/, beside earlier ones. Default: one "
        "made of the options, such as rsprune-keep0.15.",
        panel="Stage II: the choice",
    )
    coverage_sample: int = option(
        1000, help="Embed so many of the images that Stage I drops, to tell their kinds of scenes. 0: none.", minimum=0
    )
    reference: ReferenceOptions = field(default_factory=ReferenceOptions)
    gray: GrayOptions = field(default_factory=GrayOptions)
    source: SourceOptions = field(default_factory=SourceOptions)
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.entropy_keep:
            message = f"entropy_keep is {self.entropy_keep!r}; expected a fraction above 0"
            raise ArgumentError(message)

    def stage_one(self) -> dict[str, float]:
        """Return the rule of Stage I: a fraction of the collection, or a threshold in bits."""
        return {"keep": float(self.entropy_keep)} if self.tau is None else {"tau": float(self.tau)}
