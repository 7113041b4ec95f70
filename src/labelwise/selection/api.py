"""The main functions from Python: structures in memory, or paths."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Float32

from labelwise.errors import ArgumentError
from labelwise.features import representations
from labelwise.features.representations import RepresentationOptions
from labelwise.potentials import Potential, as_potential
from labelwise.runtime.engines import ProcessEngine
from labelwise.runtime.memory import parse_bytes
from labelwise.runtime.timing import ProgressCallback, open_progress
from labelwise.selection.acquire import acquire
from labelwise.selection.options import SelectionOptions
from labelwise.selection.picks import Pick
from labelwise.selection.results import Acquisition
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import Screened
from labelwise.structures.given import Structures, atoms_of, frames_of, paths_in


@dataclass(frozen=True, repr=False)
class SelectedBatch:
    """The structures worth labelling, in order of choice.

    Attributes:
        structures: Copies with ``labelwise_*`` info keys.
        acquisition: What was set aside, seconds by stage and the rest.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> pool = [molecule(name) for name in ("C2H6", "H2O", "CH4")]
        >>> batch = lw.select(pool, 1, potential="demo")
        >>> batch.structures[0].info["labelwise_pool_index"] == batch.picks[0].pool_index
        True
    """

    structures: tuple[Atoms, ...]
    acquisition: Acquisition

    def __repr__(self) -> str:
        """Say in a line how many were chosen of how many."""
        return f"SelectedBatch({self.acquisition.describe()})"

    def _repr_html_(self) -> str:
        """Return the first picks as a table, for notebooks."""
        return self.acquisition.to_html()

    @property
    def picks(self) -> tuple[Pick, ...]:
        """Source, score and nearest labelled structure of each."""
        return self.acquisition.picks

    @property
    def pool_idx(self) -> list[int]:
        """Places in the pool, in order of choice."""
        return [pick.pool_index for pick in self.picks]

    @property
    def screened(self) -> tuple[Screened, ...]:
        """Structures that were set aside, with the reason."""
        return self.acquisition.screened


def select(
    pool: Structures,
    n_select: int,
    *,
    train: Structures = (),
    potential: Potential | str | PathLike[str] | None = None,
    target: Structures | None = None,
    representation: str = SelectionOptions.representation,
    parameters: str = SelectionOptions.parameters,
    sketch_dim: int | None = SelectionOptions.sketch_dim,
    reduction: str = SelectionOptions.reduction,
    n_probes: int | None = SelectionOptions.n_probes,
    energy_weight: float = SelectionOptions.energy_weight,
    normalise: str | None = SelectionOptions.normalise,
    rule: str = SelectionOptions.rule,
    shortlist: int | None = SelectionOptions.shortlist,
    regularisation: float | None = SelectionOptions.regularisation,
    seed: int = SelectionOptions.seed,
    batch_atoms: int | None = SelectionOptions.batch_atoms,
    strict: bool = False,
    store: str | PathLike[str] | None = None,
    memory: str | None = None,
    workers: int | None = None,
    progress: ProgressCallback | bool = False,
) -> SelectedBatch:
    """Choose the structures of a pool that are most worth labelling.

    Args:
        pool: Unlabelled structures: a list or another iterable of ``ase.Atoms``, a path such as
            ``"pool.extxyz@::10"``, or a list of paths; not modified.
        n_select: How many to choose.
        train: Structures that are labelled already, likewise.
        potential: The pretrained model, from ``load_potential``, or what that takes: ``"demo"``.
        target: The structures that matter, likewise, labelled or not, for ``rule="target"``; None
            for the pool.
        representation: ``ntk-e``, ``ntk-f``, ``ntk-ef``, ``activation``, ``ntk-random``,
            ``activation-random``, ``soap``, ``morgan`` or ``random``; the last three need no
            model.
        parameters: Block of the tangent kernels: ``embedding``, ``readout``, ``products``
            or ``all``.
        sketch_dim: Length of the sketch of the larger blocks.
        reduction: How ``ntk-f`` and ``ntk-ef`` make one row of a structure's force tangents:
            ``rms``, ``element-rms``, ``force-norm``, ``fields`` or ``moments``.
        n_probes: Random probes in place of all 3N force tangents; None for all, which is
            exact.
        energy_weight: Part of the energy in the kernel of ``ntk-ef``, 0 to 1.
        normalise: ``cosine`` divides each structure's features by their own norm, ``none`` by
            one number, so that their length counts; by default ``none`` for ``joint-pv``, else
            ``cosine``.
        rule: ``pv``, ``lcmd``, ``k-center``, ``top``, ``target``, ``joint-pv`` or ``random``.
        shortlist: First keep the K structures of highest posterior variance.
        regularisation: λ of the posterior variance, dimensionless; by default 0.3 for
            ``joint-pv``, else 1e-3.
        seed: Seeds sketches, probes, random weights and the random rule.
        batch_atoms: Atoms evaluated at once.
        strict: Raise when a structure would be set aside.
        store: A folder in which rows of features are kept and from which they are chosen, so
            that a pool may have more of them than there is memory for; made if it is not there.
            Paths whose rows are there are not read again, and only the chosen structures of them
            are held.
        memory: With a store, what the process may occupy: ``"4GB"``.
        workers: Processes that compute, this one among them; None for as many as there are cores,
            started when they pay.
        progress: Called with stage, done, total; or True for bars, in a terminal or notebook.

    Returns:
        The batch, in order of choice.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> pool = [molecule(name) for name in ("C2H6", "H2O", "CH4", "CH3OH")]
        >>> batch = lw.select(pool, 2, train=[molecule("C2H6")], potential="demo")
        >>> batch
        SelectedBatch(2 of 4 structures, 1 labelled already; set aside: 1 duplicate-of-train)
        >>> [atoms.info["labelwise_rank"] for atoms in batch.structures]
        [0, 1]

        Of many structures, from files and by way of a folder::

            lw.select("pool.extxyz", 100, potential="model.model", store="rows", memory="8GB")

    Raises:
        ArgumentError: A setting is unknown or out of range, a model is needed, or pool, train or
            potential is something else.
        ReadError: A path cannot be read.
        SelectionError: More structures are asked for than the pool holds.
        ScreeningError: ``strict``, and a structure had to be set aside; or one of the target
            cannot be represented.
        PotentialError: The model fails on a structure.
    """
    settings = AcquisitionSettings(
        n_select=n_select,
        representation=representation,
        parameters=parameters,
        sketch_dim=sketch_dim,
        reduction=reduction,
        n_probes=n_probes,
        energy_weight=energy_weight,
        normalise=normalise,
        rule=rule,
        shortlist=shortlist,
        regularisation=regularisation,
        seed=seed,
        batch_atoms=batch_atoms,
        strict=strict,
    )
    settings.check()
    limit = None if memory is None else parse_bytes(memory)
    if memory is not None and store is None:
        raise ArgumentError("memory needs a folder for features: give store")
    files = [] if store is None else paths_in(pool)
    offered, labelled = [] if files else frames_of(pool, "pool"), frames_of(train, "train")
    model = None if potential is None else as_potential(potential)
    rows = None if store is None else open_store(Path(store), settings, model)
    with (
        ProcessEngine(workers, memory_bytes=limit) as engine,
        open_progress(progress) as report,
    ):
        acquisition = acquire(
            files or offered,
            labelled,
            settings,
            potential=model,
            target=None if target is None else frames_of(target, "target"),
            rows=rows,
            memory_bytes=limit,
            engine=engine,
            progress=report,
        )
    if files:
        chosen = acquisition.read_again()
    else:
        chosen = [offered[pick.pool_index].atoms for pick in acquisition.picks]
    return SelectedBatch(tuple(acquisition.annotate(chosen)), acquisition)


def represent(
    structures: Structures,
    potential: Potential | str | PathLike[str] | None = None,
    representation: str = SelectionOptions.representation,
    *,
    parameters: str = SelectionOptions.parameters,
    sketch_dim: int | None = SelectionOptions.sketch_dim,
    reduction: str = SelectionOptions.reduction,
    n_probes: int | None = SelectionOptions.n_probes,
    energy_weight: float = SelectionOptions.energy_weight,
    seed: int = SelectionOptions.seed,
    batch_atoms: int | None = SelectionOptions.batch_atoms,
    workers: int | None = None,
) -> Float32[np.ndarray, "n d"]:
    """Compute one feature row for each structure.

    Args:
        structures: At least one, as the pool of ``select``; not modified. Structures that the
            model cannot take raise here: ``select`` screens, this does not.
        potential: The pretrained model, its name or path; None if the representation needs none.
        representation: ``ntk-e``, ``ntk-f``, ``ntk-ef``, ``activation``, ``ntk-random``,
            ``activation-random``, ``soap``, ``morgan`` or ``random``; the last three need no
            model.
        parameters: Block of the tangent kernels.
        sketch_dim: Length of the sketch of the larger blocks.
        reduction: How ``ntk-f`` and ``ntk-ef`` make one row of a structure's force tangents.
        n_probes: Random probes in place of all 3N force tangents; None for all.
        energy_weight: Checked for ``ntk-ef``, whose rows do not depend on it: it weights the
            kernel.
        seed: Seeds sketches, probes and random weights.
        batch_atoms: Atoms evaluated at once.
        workers: Processes that compute, this one among them; None for as many as there are cores,
            started when they pay.

    Returns:
        (n, d) float32, not normalised. Of ``ntk-e`` and ``ntk-random`` in eV per unit of weight,
        of ``ntk-f`` in the unit of the reduction, else dimensionless. Of ``soap`` the columns of
        the pairs of elements that these structures hold.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> lw.represent([molecule("H2O"), molecule("CH4")], "demo", "activation").shape
        (2, 128)

    Raises:
        ArgumentError: No structures, an unknown name, or a model is needed.
        StructureError: The model cannot take a structure.
        PotentialError: The model fails.
    """
    options = RepresentationOptions(
        parameters=parameters,
        sketch_dim=sketch_dim,
        seed=seed,
        reduction=reduction,
        n_probes=n_probes,
        energy_weight=energy_weight,
    )
    with ProcessEngine(workers) as engine:
        return representations.represent(
            atoms_of(structures, "structures"),
            None if potential is None else as_potential(potential),
            representation,
            options=options,
            batch_atoms=batch_atoms,
            engine=engine,
        )
