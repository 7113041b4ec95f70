"""Kernels of a selection's structures, made again: from rows, a store, or sets of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from labelwise.errors import ReadError
from labelwise.features.memo import FeatureMemo
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.row_sets import RowScales, RowSets, join_row_sets
from labelwise.features.store import FeatureStore, StoreView, find_common_norms
from labelwise.kernels.base import Kernel, SubsetKernel
from labelwise.kernels.building import collect_rows
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.stored import StoredKernel
from labelwise.potentials.base import Potential
from labelwise.runtime.timing import ProgressCallback
from labelwise.selection.rules import JointPosterior
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.stored import StoreSettings, fill_store

_CACHE_BYTES = 2**29


@dataclass(frozen=True, eq=False)
class KernelView:
    """What the kernel says of a selection.

    Attributes:
        train: The labelled structures, (m,).
        pool: Those of the pool that were not set aside, (n,).
        both: The labelled structures and the picks, (m + k,).
        variances: Posterior variance given ``train``, and given ``both``, (n,) each, where it is
            not the kernel that gives them but the joint posterior; else None.
        n_features: Length of a row.
    """

    train: Kernel
    pool: Kernel
    both: Kernel
    variances: tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]] | None
    n_features: int


def view_rows(
    train: Iterable[Atoms],
    pool: Iterable[Atoms],
    picks: Callable[[], Int64[np.ndarray, " k"]],
    settings: AcquisitionSettings,
    potential: Potential | None,
    *,
    memo: FeatureMemo | None,
    progress: ProgressCallback,
) -> KernelView:
    """Represent structures one row each, in memory.

    Args:
        train: The labelled structures; read once.
        pool: The pool; read once, after ``train``.
        picks: Returns the rows of the picks in the pool, once all has been read.
        settings: Of the selection.
        potential: The model, if the representation needs one.
        memo: Rows that are known already.
        progress: Called with stage, done, total.

    Raises:
        ReadError: Features of a structure are not finite, which they were before.
    """
    known = FeatureMemo(0) if memo is None else memo
    representation = settings.make_representation()
    rows = collect_rows(representation, potential, 1, normalise=settings.resolved_normalise)
    counts = {"train": 0, "pool": 0}
    for role, structures in (("train", train), ("pool", pool)):
        for chunk in known.iter_features(
            structures,
            potential,
            representation,
            settings.options,
            batch_atoms=settings.batch_atoms,
        ):
            _check_finite(rows.add(0, chunk), role)
            counts[role] += len(chunk)
            progress(f"represent {role}", counts[role], None)
    n_features = rows.n_features
    (whole,) = rows.to_kernels()
    m, chosen = counts["train"], picks()
    both = torch.from_numpy(np.concatenate([np.arange(m), m + chosen]))
    return KernelView(
        _part(whole, 0, m),
        _part(whole, m, len(whole)),
        whole.take(both) if isinstance(whole, LinearKernel) else SubsetKernel(whole, both),
        None,
        n_features,
    )


def view_store(
    store: StoreSettings,
    train: tuple[Sequence[str], Int64[np.ndarray, " _"]],
    pool: tuple[Sequence[str], Int64[np.ndarray, " _"]],
    picks: Int64[np.ndarray, " k"],
    settings: AcquisitionSettings,
    potential: Potential,
    *,
    progress: ProgressCallback,
) -> KernelView:
    """Take rows from a feature store; those that are missing are computed into it.

    Args:
        store: Where rows are.
        train: Files of the labelled structures, and the places of those that were not set aside.
        pool: Likewise.
        picks: Rows of the picks among the latter.
        settings: Of the selection.
        potential: The model.
        progress: Called with stage, done, total.

    Raises:
        ReadError: The store or a file cannot be read.
        ArgumentError: The store holds rows of another model or representation.
    """
    keys = []
    for files, places in (train, pool):
        if not files:
            keys.append(np.zeros((0, 16), dtype=np.uint8))
            continue
        features, offered, _ = fill_store(
            files, settings, store, potential=potential, progress=progress
        )
        keys.append(offered.keys[places])
    train_rows, pool_rows = _open_views(features, keys, settings)
    device = potential.device if potential.device.type == "cuda" else torch.device("cpu")
    normalise = settings.resolved_normalise
    labelled = torch.from_numpy(train_rows.read(slice(0, len(train_rows)))).to(device)
    stored = StoredKernel(
        pool_rows, normalise=normalise, cache_bytes=_CACHE_BYTES, device=device, reads_ahead=False
    )
    chosen = stored.rows(torch.from_numpy(picks).to(device))
    return KernelView(
        LinearKernel.from_rows(labelled, normalise),
        stored,
        LinearKernel.from_rows(torch.cat([labelled, chosen]), normalise),
        None,
        stored.width,
    )


def view_row_sets(
    train: Iterable[Atoms],
    pool: Iterable[Atoms],
    chosen: Sequence[Atoms],
    picks: Callable[[], Int64[np.ndarray, " k"]],
    settings: AcquisitionSettings,
    potential: Potential,
    *,
    progress: ProgressCallback,
) -> KernelView:
    """Represent structures as sets of rows, for the joint posterior of energies and forces.

    The kernel is the cosine of the energy rows. Of the pool nothing else is held,
    unless nothing is labelled: then the scale comes from the pool, and all rows are.

    Args:
        train: The labelled structures; read once.
        pool: The pool; read once, after ``train``.
        chosen: The picks.
        picks: Returns the rows of the picks in the pool, once all has been read.
        settings: Of the selection.
        potential: The model.
        progress: Called with stage, done, total.
    """

    def stream(role: str, structures: Iterable[Atoms]) -> Iterator[RowSets]:
        n_done = 0
        for sets in iter_row_sets(
            structures, potential, settings.options, batch_atoms=settings.batch_atoms
        ):
            n_done += len(sets)
            _check_finite(np.array(sets.is_finite()), role)
            progress(f"represent {role}", n_done, None)
            yield sets

    labelled = list(stream("train", train))
    batch = list(stream("batch", chosen))
    dim = batch[0].dim
    raw_train, raw_batch = join_row_sets(labelled, dim), join_row_sets(batch, dim)
    parts: Iterable[RowSets] = stream("pool", pool)
    reference = raw_train
    if len(raw_train) == 0:
        parts = list(parts)
        reference = join_row_sets(parts, dim)
    scales = RowScales.measured(
        reference, normalise=settings.resolved_normalise, energy_weight=settings.energy_weight
    )
    before, after = _posteriors(scales.weigh(raw_train), scales.weigh(raw_batch), settings)
    variances: list[tuple[Tensor, Tensor]] = []
    energies: list[Tensor] = []
    for part in parts:
        weighed = scales.weigh(part)
        size = part.n_atoms.double() if settings.resolved_normalise == "none" else 1.0
        variances.append((before.variances(weighed) / size, after.variances(weighed) / size))
        energies.append(part.rows[part.starts])
    whole = LinearKernel(torch.cat([raw_train.rows[raw_train.starts], *energies]))
    m = len(raw_train)
    both = np.concatenate([np.arange(m), m + picks()])
    return KernelView(
        _part(whole, 0, m),
        _part(whole, m, len(whole)),
        whole.take(torch.from_numpy(both)),
        (
            torch.cat([first for first, _ in variances]).numpy(),
            torch.cat([second for _, second in variances]).numpy(),
        ),
        dim,
    )


def subset(kernel: Kernel, idx: Int64[np.ndarray, " k"]) -> Kernel:
    """Return the kernel of some structures, (k,)."""
    return kernel.take(torch.from_numpy(idx).to(kernel.device))


def _check_finite(finite: np.ndarray, role: str) -> None:
    if not finite.all():
        raise ReadError(
            f"features of a structure of the {role} are not finite, though they were when the "
            "selection was made: the model or the files are not the same; run the selection again"
        )


def _part(whole: Kernel, start: int, stop: int) -> Kernel:
    """Return consecutive structures; features are not copied."""
    if isinstance(whole, LinearKernel):
        return LinearKernel.from_rows(whole.features[start:stop], whole.normalise)
    return SubsetKernel(whole, torch.arange(start, stop))


def _posteriors(
    train: RowSets, batch: RowSets, settings: AcquisitionSettings
) -> tuple[JointPosterior, JointPosterior]:
    """Return the posterior given the labelled structures, and given the batch, too."""
    before = JointPosterior(train, settings.resolved_regularisation)
    after = JointPosterior(train, settings.resolved_regularisation)
    for place in range(len(batch)):
        after.add(batch.take(torch.tensor([place])).rows)
    return before, after


def _open_views(
    features: FeatureStore, keys: Sequence[UInt8[np.ndarray, "_ 16"]], settings: AcquisitionSettings
) -> tuple[StoreView, StoreView]:
    """Return the rows of the labelled structures and of the pool, on a common scale."""
    places = [features.find(each) for each in keys]
    common = None
    if settings.resolved_normalise == "none":
        norms = np.concatenate([features.read_norms(each) for each in places])
        common = find_common_norms(norms)
    views = [
        features.view(each, normalise=settings.resolved_normalise, common_norms=common)
        for each in places
    ]
    return views[0], views[1]
