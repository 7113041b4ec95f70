"""Each reduction against the full force Jacobian, which is made another way."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from torch.autograd.functional import jacobian

from labelwise.features.representations import (
    FeatureBlock,
    ModelRepresentation,
    RepresentationOptions,
    make_representation,
    reductions,
)
from labelwise.features.representations.probes import rademacher_directions, radial_fields
from labelwise.features.representations.reductions import N_FIELDS, REDUCTIONS
from labelwise.features.representations.sketch import PROBES, CountSketch, derive_seed
from labelwise.potentials import Batch, Potential
from labelwise.potentials.base import Linearisation
from labelwise.potentials.mace.loading import make_potential
from labelwise.testing.potentials import sample_structures
from tests.potentials.models import VARIANTS, make_mace


def assert_same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Compare to 1e-9 of the largest entry."""
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= 1e-9 * float(wanted.abs().max())


@cache
def make_model() -> Any:
    return make_potential(make_mace(**VARIANTS["vectors"]), name="vectors")


@pytest.fixture
def potential() -> Any:
    return make_model()


@cache
def samples() -> tuple[Atoms, ...]:
    """Two molecules, a crystal and a slab."""
    structures = sample_structures(make_model())
    return tuple(structures[which] for which in (0, 1, 4, 5))


def batch_of(potential: Potential, structures: Any) -> Batch:
    return potential.collate([potential.prepare(atoms) for atoms in structures])


@cache
def force_jacobian(which: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return J_F (3N, p) and the forces (3N,), by ``torch.autograd.functional``."""
    model = make_model()
    batch = batch_of(model, [samples()[which]])

    def forces(h: torch.Tensor) -> torch.Tensor:
        positions = batch.positions.clone().requires_grad_()
        energies = model.energies(batch, positions=positions, embedding=h)
        return -torch.autograd.grad(energies.sum(), positions, create_graph=True)[0]

    embedding = model.node_embedding(batch)
    whole = jacobian(forces, embedding).reshape(-1, *embedding.shape)
    rows = torch.cat([model.embedding_pullback(batch, each) for each in whole])
    return rows, forces(embedding).detach().reshape(-1)


def by_element(jac: torch.Tensor, numbers: np.ndarray, elements: tuple[int, ...]) -> torch.Tensor:
    """Return the root mean squares of the rows of each element's atoms, one after another."""
    of_row = torch.from_numpy(numbers).repeat_interleave(3)
    pieces = [jac[of_row == z] for z in elements]
    zero = jac.new_zeros(jac.shape[1])
    return torch.cat([p.square().mean(dim=0).sqrt() if len(p) else zero for p in pieces])


def triangle(moments: torch.Tensor) -> torch.Tensor:
    """Return the upper triangle of a symmetric matrix in an isometric way."""
    s = len(moments)
    return torch.stack(
        [moments[a, b] * (1.0 if a == b else 2**0.5) for a in range(s) for b in range(a, s)]
    )


def expected(
    reduction: str, which: int, potential: Potential, sketch: CountSketch | None = None
) -> torch.Tensor:
    """Return the row of a structure from its whole Jacobian."""
    jac, forces = force_jacobian(which)
    if sketch is not None:
        jac = sketch(jac)
    atoms = samples()[which]
    match reduction:
        case "rms":
            return jac.square().mean(dim=0).sqrt()
        case "element-rms":
            return by_element(jac, atoms.numbers, potential.elements)
        case "force-norm":
            return forces @ jac / len(jac)
        case "fields":
            fields = radial_fields(batch_of(potential, [atoms]), 8, cutoff=potential.cutoff)
            return torch.cat([field.reshape(-1) @ jac / len(jac) for field in fields])
        case _:
            return triangle(jac.T @ jac / len(jac))


def compute(
    potential: Potential, structures: Any = None, name: str = "ntk-f", **options: Any
) -> torch.Tensor:
    representation = make_representation(
        name, RepresentationOptions(**{"n_probes": None, **options})
    )
    assert isinstance(representation, ModelRepresentation)
    batch = batch_of(potential, samples() if structures is None else structures)
    rows = representation.compute(potential, batch)
    assert rows.shape == (batch.n_structures, representation.size(potential))
    assert rows.dtype == potential.dtype and not rows.requires_grad
    return rows


class KnownJacobian(Linearisation):
    """The Jacobian of one structure as a matrix, so that thousands of passes cost nothing."""

    def __init__(self, potential: Potential, which: int) -> None:
        self.batch = batch_of(potential, [samples()[which]])
        self._matrix, _ = force_jacobian(which)

    def force_rows(self, directions: torch.Tensor) -> torch.Tensor:
        return directions.reshape(1, -1) @ self._matrix


def test_the_rows_of_the_jacobian_sum_to_zero_over_the_atoms() -> None:
    for which in range(len(samples())):
        jac, _ = force_jacobian(which)
        total = jac.reshape(-1, 3, jac.shape[1]).sum(dim=0)
        assert float(total.abs().max()) < 1e-10 * float(jac.abs().max())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_are_those_of_the_whole_jacobian(reduction: str, potential: Potential) -> None:
    rows = compute(potential, reduction=reduction)
    wanted = [expected(reduction, which, potential) for which in range(len(rows))]
    assert_same(rows, torch.stack(wanted))


def test_force_norm_is_the_slope_of_half_the_mean_square_force(
    potential: Potential,
) -> None:
    """By differentiating the mean itself in the initial node features."""
    batch = batch_of(potential, samples())
    positions = batch.positions.clone().requires_grad_()
    embedding = potential.node_embedding(batch).requires_grad_()
    energies = potential.energies(batch, positions=positions, embedding=embedding)
    (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=True)
    sums = (
        torch.zeros(batch.n_structures)
        .double()
        .index_add_(0, batch.structure_idx, gradient.square().mean(1))
    )
    means = sums / torch.tensor(batch.atom_counts)
    (slope,) = torch.autograd.grad(0.5 * means.sum(), embedding)
    wanted = potential.embedding_pullback(batch, slope)
    assert_same(compute(potential, reduction="force-norm"), wanted)


def test_moments_multiply_to_the_overlap_of_the_jacobians(potential: Potential) -> None:
    rows = compute(potential, reduction="moments")
    for a in range(len(rows)):
        for b in range(len(rows)):
            one, two = force_jacobian(a)[0], force_jacobian(b)[0]
            overlap = (one @ two.T).square().sum() / (len(one) * len(two))
            assert float(rows[a] @ rows[b]) == pytest.approx(float(overlap), rel=1e-9)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_act_on_the_sketched_weights(reduction: str, potential: Potential) -> None:
    """With a sketch of the weights to 10, and of rows of several parts to 10 once more."""
    rows = compute(potential, reduction=reduction, sketch_dim=10, seed=4)
    sketch = CountSketch(potential.tangent_size(), 10, seed=4)
    wanted = torch.stack([expected(reduction, i, potential, sketch) for i in range(len(rows))])
    if reduction in ("element-rms", "fields"):
        wanted = reductions._row_sketch(wanted.shape[1], 10, 4)(wanted)
    assert_same(rows, wanted)


@pytest.mark.parametrize("reduction", ["element-rms", "fields"])
def test_long_rows_are_sketched(
    reduction: str, potential: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reductions, "MAX_ROW", 50)
    monkeypatch.setattr(reductions, "DEFAULT_SKETCH_DIM", 30)
    rows = compute(potential, reduction=reduction)
    wanted = torch.stack([expected(reduction, i, potential) for i in range(len(rows))])
    assert_same(rows, reductions._row_sketch(wanted.shape[1], 30, 0)(wanted))


def test_lengths_of_rows(potential: Potential) -> None:
    def size(reduction: str, **options: Any) -> int:
        chosen = RepresentationOptions(reduction=reduction, **{"n_probes": None, **options})
        representation = make_representation("ntk-f", chosen)
        assert isinstance(representation, ModelRepresentation)
        return representation.size(potential)

    n_weights, n_all = potential.tangent_size(), potential.tangent_size("all")
    assert size("rms") == size("force-norm") == n_weights
    assert size("element-rms") == len(potential.elements) * n_weights
    assert size("fields") == N_FIELDS * n_weights
    assert size("moments") == n_weights * (n_weights + 1) // 2
    assert n_all > 2048 and size("rms", parameters="all") == 2048
    assert size("rms", parameters="all", sketch_dim=10**9) == n_all
    assert size("element-rms", parameters="all") == 3 * 2048 < 8192
    assert 8 * 2048 > 8192 and size("fields", parameters="all") == 2048
    assert size("moments", parameters="all") == 64 * 65 // 2
    assert size("moments", parameters="all", sketch_dim=20) == 20 * 21 // 2
    assert size("fields", parameters="all", sketch_dim=100) == 100


def test_moments_of_many_weights_are_those_of_sketched_rows(potential: Potential) -> None:
    structures = samples()[:2]
    short = compute(potential, structures, reduction="moments", parameters="readout", sketch_dim=9)
    size = potential.tangent_size("readout")
    whole = compute(potential, structures, reduction="moments", parameters="readout")
    assert size <= reductions.MOMENT_DIM  # so that whole moments can be sketched from both sides
    matrix = CountSketch(size, 9)(torch.eye(size, dtype=potential.dtype))
    for row, got in zip(whole, short, strict=True):
        moments = torch.zeros(size, size, dtype=potential.dtype)
        upper = torch.triu_indices(size, size).unbind()
        moments[upper] = row
        moments = (moments.triu(1) + moments.triu(1).T) / 2**0.5 + moments.diag().diag()
        assert_same(got, triangle(matrix.T @ moments @ matrix))


@pytest.mark.parametrize("reduction", ["rms", "element-rms", "moments"])
def test_probed_reductions_are_those_of_the_probes(reduction: str, potential: Potential) -> None:
    n_probes = 3
    rows = compute(potential, reduction=reduction, n_probes=n_probes, seed=5)
    seed = derive_seed(5, PROBES)
    for which, atoms in enumerate(samples()):
        jac, _ = force_jacobian(which)
        batch = batch_of(potential, [atoms])
        probes = torch.stack(list(rademacher_directions(batch, n_probes, seed=seed)))
        if reduction == "element-rms":
            masks = [torch.from_numpy(atoms.numbers == z) for z in potential.elements]
            pieces = []
            for mask in masks:
                seen = (probes * mask[:, None]).reshape(n_probes, -1) @ jac
                n_rows = max(3 * int(mask.sum()), 1)
                pieces.append((seen.square().mean(dim=0) / n_rows).sqrt())
            wanted = torch.cat(pieces)
        else:
            seen = probes.reshape(n_probes, -1) @ jac / len(jac) ** 0.5
            moments = seen.T @ seen / n_probes
            wanted = moments.diag().sqrt() if reduction == "rms" else triangle(moments)
        assert_same(rows[which], wanted)


@pytest.mark.parametrize("reduction", ["rms", "element-rms", "moments"])
def test_probes_are_unbiased_and_converge_at_the_rate_of_monte_carlo(
    reduction: str, potential: Potential
) -> None:
    """Squared rows (moments as they are) over 200 seeds: 16 probes have 1/16 of the variance."""
    n_seeds, power = 200, 1 if reduction == "moments" else 2
    n_weights = potential.tangent_size()

    def reduce(**options: Any) -> torch.Tensor:
        chosen = RepresentationOptions(reduction=reduction, **{"n_probes": None, **options})
        made = REDUCTIONS[reduction](chosen, potential, n_weights)
        return made(KnownJacobian(potential, 1))[0] ** power

    exact = reduce()
    errors = {
        k: torch.stack([reduce(n_probes=k, seed=seed) for seed in range(n_seeds)]) - exact
        for k in (1, 16)
    }
    spread = errors[1].square().mean() / errors[16].square().mean()
    assert 16 / 1.5 < float(spread) < 16 * 1.5
    standard_error = errors[16].std(dim=0) / n_seeds**0.5
    limit = 5 * standard_error + 1e-12 * float(exact.abs().max())
    assert bool((errors[16].mean(dim=0).abs() <= limit).all())


@pytest.mark.parametrize("seed", [0, 7])
def test_signs_of_probes_and_sketches_are_not_the_same_numbers(
    seed: int, potential: Potential
) -> None:
    """All come from one hash of seed and place; equal signs would bias what is sketched."""
    batch = batch_of(potential, [sample_structures(potential)[3]] * 20)
    probe = next(iter(rademacher_directions(batch, 1, seed=derive_seed(seed, PROBES))))
    signs = probe[: batch.atom_counts[0]].reshape(-1)
    n = len(signs)
    weights = CountSketch(n, 2, seed=seed)._sign
    rows = reductions._row_sketch(n, 2, seed)._sign
    for one, two in ((signs, weights), (signs, rows), (weights, rows)):
        assert abs(float((one * two).sum())) < 4 * n**0.5


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("n_probes", [None, 2])
def test_single_atoms_have_rows_of_zeros(
    reduction: str, n_probes: int | None, potential: Potential
) -> None:
    alone = sample_structures(potential)[6:]
    rows = compute(potential, alone, reduction=reduction, n_probes=n_probes)
    assert not rows.any()
    mixed = compute(potential, [*alone, samples()[0]], reduction=reduction, n_probes=n_probes)
    assert not mixed[:3].any() and mixed[3].any() and mixed.isfinite().all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cells_of_a_crystal(reduction: str, potential: Potential) -> None:
    """Another unit cell changes nothing, nor does a supercell."""
    crystal = samples()[2]
    sheared = crystal.copy()
    sheared.set_cell([[1, 0, 0], [1, 1, 0], [0, -1, 1]] @ crystal.cell.array)
    wrapped = crystal.copy()
    wrapped.wrap(center=(0.1, 0.7, 0.3))
    cells = [crystal, sheared, wrapped, crystal.repeat((2, 1, 1))]
    rows = compute(potential, cells, reduction=reduction)
    for row in rows[1:]:
        assert_same(row, rows[0])


@pytest.mark.parametrize("name", ["ntk-f", "ntk-ef"])
def test_stores_tell_means_from_the_sums_that_were_in_their_place(name: str) -> None:
    def told(reduction: str) -> Any:
        options = RepresentationOptions(reduction=reduction)
        return make_representation(name, options).relevant_options(options).get("rows")

    assert told("fields") == told("force-norm") == "means over 3N"
    assert told("rms") is told("element-rms") is told("moments") is None


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "options", [{}, {"parameters": "readout", "sketch_dim": 7}], ids=["embedding", "sketched"]
)
def test_joint_rows_are_both_rows_side_by_side(
    reduction: str, options: dict[str, Any], potential: Potential
) -> None:
    options = {**options, "reduction": reduction, "n_probes": 2, "seed": 3}
    joint = compute(potential, name="ntk-ef", energy_weight=0.2, **options)
    energy = compute(potential, name="ntk-e", **options)
    forces = compute(potential, name="ntk-f", **options)
    torch.testing.assert_close(joint, torch.cat([energy, forces], dim=1))
    chosen = RepresentationOptions(energy_weight=0.2, **options)
    representation = make_representation("ntk-ef", chosen)
    assert isinstance(representation, ModelRepresentation)
    assert representation.blocks(potential) == (
        FeatureBlock(energy.shape[1], 0.2),
        FeatureBlock(forces.shape[1], 0.8),
    )


def test_joint_rows_take_one_forward_pass(
    potential: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = type(potential).energies

    def counting(self: Potential, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(potential), "energies", counting)
    compute(potential, name="ntk-ef")
    assert len(calls) == 1


def test_single_precision_gives_single_precision(potential: Potential) -> None:
    single = make_potential(make_mace(**VARIANTS["vectors"], dtype=torch.float32), name="single")
    rows = compute(single, reduction="element-rms")
    assert rows.dtype == torch.float32
    assert rows.isfinite().all() and rows.any()
