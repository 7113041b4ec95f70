"""cuEquivariance's convolutions and contractions against the e3nn road.

Without cuequivariance-torch all but the switch is skipped. Here it runs in plain torch; the tests
marked ``gpu`` run its kernels.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

import labelwise
from labelwise.errors import ArgumentError, MissingDependencyError, PotentialError
from labelwise.potentials import load_potential, loading
from labelwise.potentials.mace import cueq as mace_cueq
from labelwise.potentials.mace.cueq import (
    CueqContraction,
    CueqConvolution,
    KernelWarning,
    choose_kernels,
    choose_method,
    compare_kernels,
    is_available,
    resolve_switch,
)
from labelwise.potentials.mace.loading import make_potential
from labelwise.potentials.mace.potential import MacePotential
from labelwise.testing.potentials import check_potential
from tests.potentials.comparing import assert_same_derivatives
from tests.potentials.models import VARIANTS, make_mace

needs_cueq = pytest.mark.skipif(
    find_spec("cuequivariance_torch") is None, reason="cuequivariance-torch is not installed"
)
needs_kernels = pytest.mark.skipif(
    not is_available(torch.device("cuda")) or not torch.cuda.is_available(),
    reason="no CUDA device, or cuequivariance-ops-torch is not installed",
)
# Besides the variants that the contract is tested on: correlation 3 for each kind of feature.
MODELS: dict[str, dict[str, Any]] = {
    **VARIANTS,
    "scalars, correlation 3": {"correlation": 3},
    "tensors": {"hidden_irreps": "4x0e + 4x1o + 4x2e"},
    "reduced couplings": {
        "hidden_irreps": "4x0e + 4x1o",
        "correlation": 3,
        "use_reduced_cg": True,
    },
}
BATCH = [molecule("CH3CHO"), molecule("H2O"), molecule("CO2"), Atoms("O")]

BLOCKS = ("embedding", "readout", "products", "all")


@pytest.fixture(autouse=True)
def switch_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(mace_cueq.SWITCH, raising=False)


@cache
def pair(kind: str) -> tuple[MacePotential, MacePotential]:
    """Return a potential through cuEquivariance, and the same through our own modules."""
    own: Any = make_potential(make_mace(**MODELS[kind]), name=kind)
    return own.with_kernels(True), own


def rattled(n: int) -> list[Atoms]:
    structures = []
    for i in range(n):
        atoms = molecule(["H2O", "CH3OH", "CO2", "CH3CHO"][i % 4])
        atoms.rattle(0.05, seed=i)
        structures.append(atoms)
    return structures


@needs_cueq
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if place == 0 else pytest.mark.thorough)
        for place, kind in enumerate(sorted(MODELS))
    ],
)
def test_energies_forces_and_tangents_of_all_blocks_agree(kind: str) -> None:
    """To 1e-10, by the e3nn weights in e3nn's order."""
    fast, own = pair(kind)
    assert_same_derivatives(fast, own, BATCH, BLOCKS)


@needs_cueq
@pytest.mark.parametrize("kind", ["scalars, correlation 3", "tensors"])
def test_every_layer_is_evaluated_by_cuequivariance(kind: str) -> None:
    fast, own = pair(kind)
    kinds = {type(module) for module in fast._view._model.modules()}
    assert {CueqConvolution, CueqContraction} <= kinds
    assert not {CueqConvolution, CueqContraction} & {
        type(module) for module in own._view._model.modules()
    }
    assert all(type(block.conv_tp) is CueqConvolution for block in fast._view._model.interactions)


@needs_cueq
@pytest.mark.parametrize("kind", ["scalars, correlation 3", "vectors", "nonlinear"])
def test_activations_and_rows_of_representations_agree(kind: str) -> None:
    fast, own = pair(kind)
    batch = own.collate([own.prepare(atoms) for atoms in BATCH])
    torch.testing.assert_close(
        fast.activations(batch), own.activations(batch), rtol=1e-10, atol=1e-12
    )
    for name in ("ntk-e", "ntk-f", "ntk-ef", "activation"):
        got, wanted = (labelwise.represent(BATCH[:3], each, name) for each in (fast, own))
        # Rows are kept in single precision.
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7 * np.abs(wanted).max())


@needs_cueq
@pytest.mark.parametrize("hidden", ["8x0e", "6x0e + 6x1o"])
def test_it_agrees_in_single_precision(hidden: str) -> None:
    model = make_mace(dtype=torch.float32, hidden_irreps=hidden, correlation=3)
    own: Any = make_potential(model, name="float32")
    fast = own.with_kernels(True)
    batch = own.collate([own.prepare(atoms) for atoms in BATCH])
    directions = torch.randn(batch.n_atoms, 3, generator=torch.Generator().manual_seed(0))
    for parameters in BLOCKS:
        ours, theirs = (p.linearise(batch, parameters=parameters) for p in (fast, own))
        for got, wanted in (
            (ours.energies, theirs.energies),
            (ours.forces, theirs.forces),
            (ours.energy_rows(), theirs.energy_rows()),
            (ours.force_rows(directions), theirs.force_rows(directions)),
        ):
            assert got.dtype == torch.float32
            torch.testing.assert_close(
                got, wanted, rtol=1e-5, atol=1e-5 * max(1.0, float(wanted.abs().max()))
            )


@needs_cueq
def test_a_model_rounded_to_single_precision_agrees_as_far_as_it_was_kept() -> None:
    """Its coupling coefficients are rounded, so that those which span the rest do so to 1e-7."""
    model = make_mace(dtype=torch.float32, hidden_irreps="6x0e + 6x1o", correlation=3)
    own: Any = make_potential(model, name="rounded", dtype=torch.float64)
    fast = own.with_kernels(True)
    batch = own.collate([own.prepare(atoms) for atoms in BATCH])
    for got, wanted in zip(fast.predict(batch)[:2], own.predict(batch)[:2], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@needs_cueq
def test_it_obeys_the_laws() -> None:
    check_potential(pair("scalars")[0])


@needs_cueq
def test_structures_without_edges_are_taken() -> None:
    fast, own = pair("plain")
    assert_same_derivatives(fast, own, [Atoms("O"), Atoms("C")], BLOCKS)
    batch = own.collate([own.prepare(Atoms("O"))])
    torch.testing.assert_close(fast.energy_tangent(batch), own.energy_tangent(batch))


@needs_cueq
def test_changed_weights_are_followed() -> None:
    own: Any = make_potential(make_mace(correlation=3), name="changing")
    fast = own.with_kernels(True)
    for weight in own.model.parameters():
        weight.mul_(1.1)
    assert_same_derivatives(fast, own, BATCH, ["embedding"])


@needs_cueq
def test_a_random_copy_keeps_the_kernels() -> None:
    fast, own = pair("scalars, correlation 3")
    other, plain = fast.with_random_weights(3), own.with_random_weights(3)
    assert (other.cueq, plain.cueq) == (True, False)
    assert_same_derivatives(other, plain, BATCH, ["embedding"])


@needs_cueq
def test_the_content_is_the_same() -> None:
    fast, own = pair("vectors")
    assert fast.content_hash == own.content_hash
    assert fast.model is own.model


@needs_cueq
@pytest.mark.parametrize("representation", ["ntk-e", "ntk-ef"])
def test_the_same_structures_are_picked(representation: str) -> None:
    pool = rattled(24)
    picks = [
        labelwise.select(
            pool, 6, train=rattled(4)[:2], potential=each, representation=representation
        ).pool_idx
        for each in pair("vectors")
    ]
    assert picks[0] == picks[1]


@needs_cueq
def test_it_is_loaded_when_asked_for(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_used(cueq: bool | None) -> bool:
        loaded: Any = load_potential(model_path, device="cpu", trust=True, cueq=cueq)
        return bool(loaded.cueq)

    assert [is_used(cueq) for cueq in (None, False, True)] == [False, False, True]
    monkeypatch.setenv(mace_cueq.SWITCH, "on")
    assert [is_used(cueq) for cueq in (None, False)] == [True, False]


@needs_cueq
def test_kernels_that_give_other_results_are_refused_or_left() -> None:
    own, other = (make_potential(make_mace(seed=seed), name="m") for seed in (0, 1))

    def build(with_cueq: bool) -> Any:
        return other if with_cueq else own

    fault = compare_kernels(other, own)
    assert fault is not None
    assert "they differ by" in fault
    with pytest.warns(KernelWarning, match="gives other .*; it goes without"):
        assert choose_kernels(build, None, available=True) is own
    with pytest.raises(PotentialError, match="use cueq=False"):
        choose_kernels(build, True, available=True)
    assert choose_kernels(build, False, available=True) is own


def test_kernels_that_fail_are_refused_or_left() -> None:
    own = make_potential(make_mace(), name="m")

    def build(with_cueq: bool) -> Any:
        if with_cueq:
            raise RuntimeError("no kernel image is available")
        return own

    with pytest.warns(KernelWarning, match="fails with RuntimeError: no kernel image"):
        assert choose_kernels(build, None, available=True) is own
    with pytest.raises(PotentialError, match="no kernel image"):
        choose_kernels(build, True, available=True)


def test_other_families_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their ``load`` need not know of it; to ask for it is refused."""
    known: dict[str, Any] = {}
    monkeypatch.setattr(loading, "_families", lambda: known)
    document = Path(__file__).resolve().parents[3] / "docs" / "adding_a_potential.md"
    names: dict[str, Any] = {"__name__": "documented"}
    exec(document.read_text().split("```python\n")[1].partition("```")[0], names)
    loading.register_potential(names["PairFamily"]())
    assert not hasattr(load_potential("pair-hco"), "with_kernels")
    with pytest.raises(PotentialError, match="PairPotential, which cuEquivariance cannot evaluate"):
        load_potential("pair-hco", cueq=True)


def test_kernels_that_agree_are_used_where_they_are_there() -> None:
    own, same = (make_potential(make_mace(), name="m") for _ in range(2))

    def build(with_cueq: bool) -> Any:
        return same if with_cueq else own

    assert compare_kernels(same, own) is None
    assert choose_kernels(build, None, available=True) is same
    assert choose_kernels(build, None, available=False) is own


@pytest.mark.skipif(
    find_spec("cuequivariance_torch") is not None, reason="cuequivariance-torch is installed"
)
def test_it_says_what_to_install() -> None:
    with pytest.raises(MissingDependencyError, match=r"labelwise\[cueq\]"):
        load_potential("demo", device="cpu", cueq=True)
    with pytest.raises(MissingDependencyError, match="cueq=True needs the package"):
        choose_method(torch.device("cpu"))


@needs_cueq
@pytest.mark.skipif(
    find_spec("cuequivariance_ops_torch") is not None, reason="the CUDA kernels are installed"
)
def test_it_asks_for_the_kernels_on_cuda() -> None:
    assert choose_method(torch.device("cpu")) == "naive"
    with pytest.raises(MissingDependencyError, match="cuequivariance-ops-torch"):
        choose_method(torch.device("cuda"))
    assert not is_available(torch.device("cuda"))


def test_the_environment_decides_where_the_argument_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert resolve_switch(None) is None
    for value, meaning in (("auto", None), ("ON", True), ("off", False)):
        monkeypatch.setenv(mace_cueq.SWITCH, value)
        assert resolve_switch(None) is meaning
        assert resolve_switch(True) is True
        assert resolve_switch(False) is False
    monkeypatch.setenv(mace_cueq.SWITCH, "yes")
    with pytest.raises(ArgumentError, match="LABELWISE_CUEQ is 'yes'; allowed are auto, on, off"):
        resolve_switch(None)


@needs_kernels
@pytest.mark.gpu
@pytest.mark.parametrize("kind", sorted(MODELS))
def test_kernels_agree_on_cuda(kind: str) -> None:
    own: Any = make_potential(make_mace(**MODELS[kind]), name=kind, device="cuda")
    assert own.with_kernels(None).cueq
    fast = own.with_kernels(True)
    batch = own.collate([own.prepare(atoms) for atoms in BATCH])
    directions = torch.ones(batch.n_atoms, 3, dtype=own.dtype, device=own.device)
    for parameters in BLOCKS:
        ours, theirs = (p.linearise(batch, parameters=parameters) for p in (fast, own))
        for got, wanted in (
            (ours.forces, theirs.forces),
            (ours.energy_rows(), theirs.energy_rows()),
            (ours.force_rows(directions), theirs.force_rows(directions)),
        ):
            scale = float(wanted.abs().max().clamp(min=1.0))
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9 * scale)
