"""Which weight of energies against forces, and which parameters, tell where a model errs.

A pretrained potential is held against a labelled pool. A few structures count as labelled, the
others are scored by posterior variance, and the scores are compared with the true errors; this
for each block of parameters, each kernel and each weight, with gradients computed once a block.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from labelwise.errors import ArgumentError
from labelwise.features.representations import RepresentationOptions
from labelwise.finetuning.evaluation import evaluate, predict_graphs
from labelwise.finetuning.labelled import LabelledSet, prepare_labelled
from labelwise.finetuning.metrics import root_mean_square, sparsification_area, spearman
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures import DuplicateIndex
from labelwise.structures.atom_energies import count_elements, fit_atom_energies
from labelwise.studies.scorers import BlockRows, Split, compute_block_rows
from labelwise.studies.weights.results import (
    LEAST_SCORED,
    BatchErrors,
    BlockStudy,
    StudyReference,
    StudySets,
    WeightScore,
    WeightStudy,
)
from labelwise.studies.weights.settings import WeightStudySettings
from labelwise.studies.weights.store import StudyStore, describe_inputs

_MEV = 1000.0


def study_weights(
    potential: Potential,
    pool: Sequence[Atoms],
    settings: WeightStudySettings | None = None,
    *,
    train: Sequence[Atoms] = (),
    valid: Sequence[Atoms] = (),
    test: Sequence[Atoms] = (),
    pool_sources: Sequence[object] | None = None,
    folder: Path | None = None,
    force: bool = False,
    batch_atoms: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> WeightStudy:
    """Compare scores with true errors, for all blocks, kernels and weights.

    Args:
        potential: The pretrained MACE potential; it is not modified.
        pool: n labelled structures; not modified.
        settings: What to compare; None for the defaults.
        train: Structures that count as labelled, not in the pool; all of the pool is scored
            then, once. Without them they are drawn from the pool, anew in each repeat.
        valid: Labelled structures that choose a fine-tuning's best epoch; may be empty.
        test: Labelled structures that fine-tunings are measured on; needed for batches.
        pool_sources: Where each pool structure came from, for messages.
        folder: Each block is written there when it is done, and read from there if an
            earlier run with the same settings and inputs did it; None keeps nothing.
        force: Compute anew, in place of raising, where the folder has another study's block.
        batch_atoms: Atoms evaluated at once.
        progress: Called with stage, done, total.

    Returns:
        Scores of each repeat, errors of batches, and what both are held against.

    Raises:
        ArgumentError: A pool too small, batches without a test set, a structure of ``train``
            or ``test`` that is in the pool too, or another study's block in the folder.
        LabelError: A label is missing, not finite or zero in place of a missing one.
        StructureError: The potential cannot take a structure.
        PotentialError: A potential of a family that cannot be evaluated without its
            reference energies.
        ReadError: A block in the folder is damaged.
        WriteError: The folder cannot be written to.
    """
    settings = WeightStudySettings() if settings is None else settings
    sets = StudySets(pool, train, valid, test)
    _check_sizes(settings, sets)
    labelled = _check_labels(potential, settings, sets, pool_sources)
    _check_disjoint(settings, sets)
    store = StudyStore(folder, describe_inputs(potential, settings, sets), force=force)
    store.check(settings.parameters)
    study = _Study(potential, sets, settings, batch_atoms, progress)
    reference = store.read_reference()
    if reference is None:
        reference = study.measure(labelled)
        store.write_reference(reference)
    blocks, resumed = [], []
    for parameters in settings.parameters:
        block = store.read_block(parameters)
        if block is None:
            block = study.run_block(parameters, reference)
            store.write_block(block)
        else:
            resumed.append(parameters)
        blocks.append(block)
    return WeightStudy(settings, reference, tuple(blocks), tuple(resumed))


def draw_splits(settings: WeightStudySettings, n_pool: int, n_given: int) -> list[Split]:
    """Draw the labelled sets.

    Args:
        settings: ``n_train``, ``n_repeats`` and ``seed``.
        n_pool: Structures of the pool, at the places 0 to n_pool − 1.
        n_given: Structures of a given labelled set, at the places behind; 0 draws from the pool.

    Returns:
        ``n_repeats`` splits, or one with a given set. A repeat's does not depend on how many
        there are.
    """
    pool = np.arange(n_pool, dtype=np.int64)
    if n_given:
        return [Split(np.arange(n_pool, n_pool + n_given, dtype=np.int64), pool)]
    splits = []
    for repeat in range(settings.n_repeats):
        rng = np.random.default_rng((settings.seed, repeat))
        drawn = np.sort(rng.choice(pool, settings.n_train, replace=False))
        splits.append(Split(drawn, np.setdiff1d(pool, drawn)))
    return splits


def measure_errors(
    potential: Potential, labelled: LabelledSet, *, batch_atoms: int | None = None
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return the true errors of a potential, structure by structure.

    Labels of another level of theory have other reference energies than the checkpoint, which
    is no error that a label could teach: they are fitted to the whole set first.

    Args:
        potential: A MACE potential.
        labelled: n structures with graphs and labels.
        batch_atoms: Atoms evaluated at once.

    Returns:
        Root mean square error of each structure's force components, (n,) meV/Å, and absolute
        error of each energy, (n,) meV/atom.

    Raises:
        PotentialError: A potential of another family.
    """
    source = require_trainable(potential)
    energies, forces = predict_graphs(
        source.without_references(), labelled.graphs, batch_atoms=batch_atoms
    )
    residuals = labelled.energies - energies
    counts = count_elements([graph.numbers for graph in labelled.graphs], source.elements)
    fit = fit_atom_energies(
        counts,
        residuals,
        prior=source.reference_energies,
        regularisation=Recipe().reference_regularisation,
    )
    left = np.abs(residuals - counts @ fit.energies) / labelled.atom_counts
    of_forces = [
        root_mean_square(force - label)
        for force, label in zip(forces, labelled.forces, strict=True)
    ]
    return np.array(of_forces) * _MEV, left * _MEV


class _Study:
    """What the steps of one study share."""

    def __init__(
        self,
        potential: Potential,
        sets: StudySets,
        settings: WeightStudySettings,
        batch_atoms: int | None,
        progress: ProgressCallback,
    ) -> None:
        self._potential, self._settings = potential, settings
        self._batch_atoms, self._progress = batch_atoms, progress
        self._structures = sets.scored_or_train
        self._splits = draw_splits(settings, len(sets.pool), len(sets.train))
        self._tuner = _Tuner(potential, sets, self._splits[0], settings)

    def measure(self, labelled: LabelledSet) -> StudyReference:
        """Find the true errors, the best that a score could do, and what a random batch does."""
        self._progress("predict", 0, labelled.n_structures)
        forces, energy = measure_errors(self._potential, labelled, batch_atoms=self._batch_atoms)
        self._progress("predict", labelled.n_structures, labelled.n_structures)
        oracle = [
            sparsification_area(forces[split.rest_idx], forces[split.rest_idx])
            for split in self._splits
        ]
        random = None
        if self._settings.batch_size:
            # A stream of its own: the third number tells it from those of the labelled sets.
            rng = np.random.default_rng((self._settings.seed, 0, 1))
            drawn = rng.choice(self._splits[0].rest_idx, self._settings.batch_size, replace=False)
            self._progress("fine-tune random", 0, 1)
            random = self._tuner.fit([int(place) for place in drawn])
            self._progress("fine-tune random", 1, 1)
        return StudyReference(tuple(forces.tolist()), tuple(energy.tolist()), tuple(oracle), random)

    def run_block(self, parameters: str, reference: StudyReference) -> BlockStudy:
        """Score with all kernels and weights of one block."""
        settings = self._settings
        options = RepresentationOptions(
            parameters=parameters,
            sketch_dim=settings.sketch_dim,
            seed=settings.seed,
            n_probes=settings.n_probes,
        )
        n_total = len(self._structures) * (1 + len(settings.reductions))
        stage = f"rows {parameters}"
        begin = time.perf_counter()
        self._progress(stage, 0, n_total)
        rows = compute_block_rows(
            self._structures,
            self._potential,
            options,
            settings.reductions,
            batch_atoms=self._batch_atoms,
            progress=lambda n_done: self._progress(stage, n_done, n_total),
        )
        seconds = time.perf_counter() - begin
        return BlockStudy(
            parameters=parameters,
            n_parameters=self._potential.tangent_size(parameters),
            row_length=next(iter(rows.feature_blocks.values()))[0].size,
            seconds=round(seconds, 2),
            scores=self._score(parameters, rows, reference),
        )

    def _score(
        self, parameters: str, rows: BlockRows, reference: StudyReference
    ) -> tuple[WeightScore, ...]:
        settings = self._settings
        weights = sorted(settings.weights)
        stage = f"score {parameters}" if not settings.batch_size else f"batches {parameters}"
        n_total = rows.n_kernels * len(weights)
        forces = np.array(reference.force_errors)
        energy = np.array(reference.energy_errors)
        found: list[WeightScore] = []
        self._progress(stage, 0, n_total)
        for kernel, weight, scorer in rows.scorers(weights, regularisation=settings.regularisation):
            scores = [scorer.score(split) for split in self._splits]
            idx = [split.rest_idx for split in self._splits]
            item = WeightScore(
                kernel,
                weight,
                tuple(spearman(s, forces[i]) for s, i in zip(scores, idx, strict=True)),
                tuple(spearman(s, energy[i]) for s, i in zip(scores, idx, strict=True)),
                tuple(sparsification_area(s, forces[i]) for s, i in zip(scores, idx, strict=True)),
            )
            if settings.batch_size:
                chosen = scorer.pick(self._splits[0], settings.batch_size)
                item = replace(item, batch=self._tuner.fit(chosen.tolist()))
            found.append(item)
            self._progress(stage, len(found), n_total)
        return tuple(found)


class _Tuner:
    """Fine-tunes on the labelled structures and a batch; equal batches are fitted once."""

    def __init__(
        self, potential: Potential, sets: StudySets, split: Split, settings: WeightStudySettings
    ) -> None:
        self._potential, self._sets, self._settings = potential, sets, settings
        self._structures, self._train = sets.scored_or_train, split.train_idx.tolist()
        self._known: dict[tuple[int, ...], BatchErrors] = {}

    def fit(self, pool_idx: Sequence[int]) -> BatchErrors:
        """Return the errors on the test set after fine-tuning on the labelled and the batch."""
        key = tuple(sorted(pool_idx))
        if key not in self._known:
            self._known[key] = self._fit(key)
        return replace(self._known[key], pool_idx=tuple(pool_idx))

    def _fit(self, batch: tuple[int, ...]) -> BatchErrors:
        settings = self._settings
        fitted = finetune(
            self._potential,
            [self._structures[place] for place in (*self._train, *batch)],
            self._sets.valid,
            Recipe(max_updates=settings.max_updates),
            seed=settings.seed,
            energy_key=settings.energy_key,
            forces_key=settings.forces_key,
        )
        errors = evaluate(
            fitted.potential,
            self._sets.test,
            energy_key=settings.energy_key,
            forces_key=settings.forces_key,
        ).errors
        return BatchErrors(batch, errors.energy_rmse, errors.forces_rmse)


def _check_sizes(settings: WeightStudySettings, sets: StudySets) -> None:
    n_pool = len(sets.pool)
    n_rest = n_pool if sets.train else n_pool - settings.n_train
    if n_rest < LEAST_SCORED:
        raise ArgumentError(
            f"the pool has {n_pool} structures, of which {max(n_rest, 0)} would be scored; at "
            f"least {LEAST_SCORED} are needed: give more, or a smaller n_train "
            f"({settings.n_train})"
        )
    if settings.batch_size > n_rest:
        raise ArgumentError(
            f"batch_size is {settings.batch_size}; at most {n_rest} structures are not labelled"
        )
    if settings.batch_size and not sets.test:
        raise ArgumentError("batches are measured on a test set; give one, or batch_size 0")


def _check_labels(
    potential: Potential,
    settings: WeightStudySettings,
    sets: StudySets,
    pool_sources: Sequence[object] | None,
) -> LabelledSet:
    """Return the pool with its labels; those of the others are checked if they are used."""
    builder = potential.graph_builder
    keys = {"energy_key": settings.energy_key, "forces_key": settings.forces_key}
    if settings.batch_size:
        others = {"training": sets.train, "validation": sets.valid, "test": sets.test}
        for role, structures in others.items():
            prepare_labelled(builder, structures, role=role, **keys)
    return prepare_labelled(builder, sets.pool, role="pool", sources=pool_sources, **keys)


def _check_disjoint(settings: WeightStudySettings, sets: StudySets) -> None:
    """Refuse to score what counts as labelled, and to train on what is measured."""
    index = DuplicateIndex()
    for place, atoms in enumerate(sets.pool):
        index.add(atoms, place)
    used = {"train": sets.train, "test": sets.test if settings.batch_size else ()}
    for role, structures in used.items():
        for place, atoms in enumerate(structures):
            found = index.find(atoms)
            if found is not None:
                raise ArgumentError(
                    f"{role} structure {place} ({atoms.get_chemical_formula()}) is pool "
                    f"structure {found}, too; leave it out of one of them"
                )
