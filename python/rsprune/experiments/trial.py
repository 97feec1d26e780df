"""A trial of an experiment: select images, train on them, sample from the model, and compare the samples."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rsprune import strategies
from rsprune.centroids import Centroids, fit_centroids
from rsprune.encoders import load_encoder
from rsprune.encoders.checkpoints import weights_provenance
from rsprune.errors import BudgetError, MissingInputError
from rsprune.evaluation import EncoderExtractor, Extractor, Inception, open_images
from rsprune.evaluation.evaluate import EvaluationOptions, compare_features
from rsprune.experiments.pool import EmbeddedPool, EmbeddedSet, known_to
from rsprune.experiments.presets import Scale
from rsprune.experiments.tables_and_figures import POOL, THIRD, Arm
from rsprune.io import digest, provenance_header, verified_record, write_npy, write_record
from rsprune.runners import NoProgress
from rsprune.selection import Selection, budget_rows
from rsprune.training.autoencoder import load_autoencoder
from rsprune.training.config import ModelConfig, OptimizerConfig, TrainConfig
from rsprune.training.distributed import join_processes
from rsprune.training.latent_cache import LatentCache
from rsprune.training.pretrain import train_on
from rsprune.training.sample import sample_run

__all__ = ["SPLIT", "TrialRunner"]

#: Seed of the held-out reference images: all trials share one target.
SPLIT = 0

#: Fields of a scale that do not affect the result of a trial, except for rounding.
NOT_IN_TRIAL_KEY = ("seeds", "keeps", "micro_batch")

#: Number and size of the subsets of the kernel distance.
SUBSETS, SUBSET = 20, 250


@dataclass(frozen=True)
class TrialRunner:
    """Runs the trials of an experiment; every process reads what they share from the experiment's folder.

    ``weights``, ``inception`` and ``threads`` are those of :class:`~rsprune.experiments.presets.TrialOptions`.
    """

    root: Path  # the folder of the experiment
    scale: Scale  # with an autoencoder set
    sets: tuple[str, ...]  # the names of the reference sets
    weights: str | Path | None
    inception: str | Path | None
    device: str | None  # None for a GPU if there is one, or else the CPU
    threads: int

    def folder(self, arm: Arm, seed: int) -> Path:
        """Return the folder of a trial, which experiments of the same settings share."""
        settings = {key: value for key, value in asdict(self.scale).items() if key not in NOT_IN_TRIAL_KEY}
        made = {key: value for key, value in asdict(arm).items() if key not in ("name", "at", "paper")}
        inception = None if self.inception is None else weights_provenance(Path(self.inception))
        of = {"arm": made, "scale": settings, "seed": seed, "inception": inception, "threads": self.threads}
        words = re.sub(r"[^0-9A-Za-z.]+", "-", arm.name)
        return self.root / "trials" / f"{words}-seed{seed}-{digest(of)[:12]}"

    def done(self, arm: Arm, seed: int) -> dict[str, Any] | None:
        """Return the result of :meth:`run` if the trial is finished."""
        return verified_record(self.folder(arm, seed) / "metrics.json")

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Run a trial, or resume it.

        Returns ``metrics`` (number of images, seconds of the selection, loss, and each metric by the set of real
        images) or ``failure`` (why the method could not select so many).
        """
        folder = self.folder(arm, seed)
        torch.set_num_threads(self.threads)
        _ = self.known, self.pool.embeds, self.pool.entropy  # reading them is not part of the selection
        begun = time.perf_counter()
        try:
            chosen = self.choose(arm, seed)
        except (BudgetError, MissingInputError) as error:
            found: dict[str, Any] = {"metrics": {}, "failure": str(error)}
        else:
            seconds = time.perf_counter() - begun
            write_npy(folder / "rows.npy", chosen.indices)
            numbers = self.numbers[chosen.indices]
            numbers = numbers[numbers >= 0]  # an image that has entropy and embedding may yet have no latents
            found = {"failure": None, **self.train_and_evaluate(folder, numbers, seed)}
            found["metrics"] |= {"rows": len(numbers), "seconds": seconds}
        found |= {**provenance_header(), "arm": asdict(arm), "seed": seed}
        write_record(folder / "metrics.json", found, [] if found["failure"] else [folder / "rows.npy"])
        return found

    # --- selection ----------------------------------------------------------------------------------------------------

    def choose(self, arm: Arm, seed: int) -> Selection:
        """Select rows of the pool."""
        has_budget = strategies.get(arm.strategy).budget != "none"
        budget = budget_rows(arm.keep, self.pool.total) if has_budget else None
        prior = np.concatenate(list(self.known.values()))
        known = known_to(self.pool, arm.strategy, prior, lambda: self.centroids(arm, seed))
        return strategies.select_from(arm.strategy, known, budget, seed=seed, threads=self.threads, **arm.options)

    def centroids(self, arm: Arm, seed: int) -> Centroids:
        """Fit the reference centroids of an arm."""
        rows: Any
        if arm.centroids == POOL:
            budget = budget_rows(arm.options["entropy_keep"], self.pool.total)
            survivors = strategies.select("entropy", budget=budget, entropy=self.pool.entropy)
            rows = self.pool.embeds.take(survivors.indices)
        elif arm.centroids == THIRD:
            (only,) = self.references.values()
            rows = only.embeds.take(only.of_classes(only.split(SPLIT)[0], 3))
        else:
            rows = np.concatenate([rows for name, rows in self.known.items() if arm.centroids in (None, name)])
        return fit_centroids(rows, min(arm.k or self.scale.k, len(rows)), seed=seed, threads=self.threads)

    # --- the training -------------------------------------------------------------------------------------------------

    def train_and_evaluate(self, folder: Path, numbers: NDArray[np.int64], seed: int) -> dict[str, Any]:
        """Train on images of the latent cache, sample from the model, and compare the samples with real images."""
        scale = self.scale
        assert scale.autoencoder is not None
        codec = load_autoencoder(scale.autoencoder)
        steps = scale.iterations
        optimizer = OptimizerConfig(scale.batch, scale.lr, ema=scale.ema, seed=seed)
        schedule = TrainConfig(steps, scale.micro_batch, min(max(steps // 4, 1), 2500), steps, steps)
        model, training = ModelConfig(scale.model), folder / "training"
        with join_processes(self.device) as dist:
            trained = train_on(self.latents, codec, dist, NoProgress(), training, model, optimizer, schedule, numbers)
        sampled = sample_run(
            trained.checkpoint,
            out=folder / "samples",
            images=scale.images,
            autoencoder=scale.autoencoder,
            sampler=scale.sampler,
            steps=scale.steps,
            batch=100,
            seed=seed,
            device=self.device,
            progress=NoProgress(),
        )
        metrics: dict[str, Any] = {"loss": trained.metrics["loss"]}
        made = open_images(sampled.path / "samples.npz")
        features = self.extractor.features(made.read(np.arange(len(made))))
        short = {self.extractor.frechet: "frechet", self.extractor.kernel: "kernel"}
        real = self.root / "real"
        options = EvaluationOptions(subsets=SUBSETS, subset_size=SUBSET, cache=real / "features")
        details = []
        for name in ("target", "pool"):
            for one in compare_features(features, open_images(real / f"{name}.npy"), self.extractor, options):
                metrics[f"{name}_{short.get(one.metric, one.metric)}"] = one.value
                details.append({"real": name, **asdict(one)})
        return {"metrics": metrics, "details": details}

    # --- what is shared -----------------------------------------------------------------------------------------------

    @cached_property
    def pool(self) -> EmbeddedPool:
        """The pool with its embeddings."""
        return EmbeddedPool.open(self.root / "pool")

    @cached_property
    def references(self) -> Mapping[str, EmbeddedSet]:
        """The reference sets with their embeddings."""
        return {name: EmbeddedSet.open(self.root / "references" / name) for name in self.sets}

    @cached_property
    def known(self) -> Mapping[str, NDArray[Any]]:
        """The rows of each reference set that methods may see; the others are the target."""
        return {name: one.embeds.take(one.split(SPLIT)[0]) for name, one in self.references.items()}

    @cached_property
    def latents(self) -> LatentCache:
        """The latents of the whole collection."""
        return LatentCache(self.root / "latents")

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """int64 (N,): the position of each row of the pool in the latent cache, -1 where it has none."""
        places = {key: number for number, key in enumerate(self.latents.keys)}
        return np.array([places.get(key, -1) for key in self.pool.keys], np.int64)

    @cached_property
    def extractor(self) -> Extractor:
        """The feature extractor."""
        if self.inception is not None:
            return Inception(self.inception, device=self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return EncoderExtractor(load_encoder(self.scale.encoder, weights=self.weights, device=self.device))
