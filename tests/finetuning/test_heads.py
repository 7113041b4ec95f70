"""Two levels of theory with a head each: what is replayed, and what is new."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch.nn.functional import huber_loss

from labelwise.errors import ArgumentError, PotentialError
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.labelled import prepare_labelled
from labelwise.finetuning.loop import Loop
from labelwise.finetuning.pretraining_set import PretrainingSet, prepare_pretraining_set
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.potentials import Potential, TorchPotential, load_potential
from labelwise.potentials.mace.checkpoint import import_mace_modules
from labelwise.potentials.mace.loading import make_potential
from labelwise.potentials.mace.potential import MacePotential
from tests.finetuning.conftest import label, make_potential_of, rattle
from tests.potentials.models import ELEMENTS, VARIANTS, make_mace

HEADS = ("pbe", "r2scan", "Default")
RECIPE = Recipe(batch_size=3, learning_rate=0.01, max_updates=7, replay_head="pt_head")
KINDS: dict[str, dict[str, Any]] = {
    **{kind: VARIANTS[kind] for kind in ("scalars", "vectors", "plain", "charged")},
    "biases": {"readout_cls": "NonLinearBiasReadoutBlock", "hidden_irreps": "6x0e + 6x1o"},
    "last readout": {"use_last_readout_only": True},
    "heads": {"heads": HEADS},
}


def known_to(potential: Potential, n: int = 5) -> PretrainingSet:
    return prepare_pretraining_set(potential, rattle(("C2H2", "H2O"), n, seed=9), labels="model")


def predict(potential: Potential, structures: list[Atoms]) -> tuple[torch.Tensor, torch.Tensor]:
    found = potential.predict(potential.collate([potential.prepare(each) for each in structures]))
    assert found.forces is not None
    return found.energies, found.forces


def ask_mace_torch(potential: MacePotential, structures: list[Atoms], heads: list[int]) -> Any:
    """Evaluate mace-torch's own model, each structure with a head."""
    inputs = potential._inputs(potential.collate([potential.prepare(a) for a in structures]), None)
    return potential.model({**inputs, "head": torch.tensor(heads)}, training=True)


@pytest.mark.parametrize("kind", KINDS)
def test_both_heads_begin_as_the_one_and_are_mace_torchs(kind: str) -> None:
    settings = KINDS[kind]
    model = make_potential(
        make_mace(**settings), name="one", head=settings.get("heads", ["Default"])[0]
    )
    assert isinstance(model, MacePotential)
    if kind == "vectors":  # as mace-torch wrote them once
        for module, name in (
            (model.model.atomic_energies_fn, "atomic_energies"),
            (model.model.scale_shift, "scale"),
        ):
            setattr(module, name, getattr(module, name).squeeze())
    split = model.split_head("pt_head")
    names = (*model.heads, model.head)
    assert split.heads == ("pt_head", *names[1:])
    assert split.head == model.head
    structures = rattle(("CH3OH", "H2O", "C2H4", "CO2"), 4, seed=2)
    before = predict(model, structures)
    for head in ("pt_head", model.head):
        torch.testing.assert_close(predict(split.with_head(head), structures), before)
    for head in model.heads[1:]:
        torch.testing.assert_close(
            predict(split.with_head(head), structures),
            predict(model.with_head(head), structures),
        )

    generator = torch.Generator().manual_seed(0)
    for weight in split.trained_weights():
        weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    places = [0, len(split.heads) - 1] * 2
    theirs = ask_mace_torch(split, structures, places)
    for i, (atoms, place) in enumerate(zip(structures, places, strict=True)):
        energy, forces = predict(split.with_head(split.heads[place]), [atoms])
        torch.testing.assert_close(energy[0], theirs["energy"][i].detach())
        chosen = [len(each) for each in structures]
        expected = torch.split(theirs["forces"].detach(), chosen)[i]
        torch.testing.assert_close(forces, expected, rtol=1e-6, atol=1e-9)
    first, last = (predict(split.with_head(split.heads[i]), structures)[1] for i in places[:2])
    assert float((first - last).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", ["scalars", "vectors"])
def test_heads_begin_as_mace_torch_makes_them_of_a_foundation_model(kind: str) -> None:
    from mace.tools.finetuning_utils import load_foundations_elements
    from mace.tools.utils import AtomicNumberTable

    import_mace_modules()
    foundation = make_mace(**KINDS[kind])
    one = make_potential(make_mace(**KINDS[kind]), name="one")
    both = make_mace(**KINDS[kind], heads=("pt_head", "Default"), seed=5)
    load_foundations_elements(
        both, foundation, AtomicNumberTable(list(ELEMENTS)), load_readout=True,
        max_L=0 if kind == "scalars" else 1,
    )  # fmt: skip
    assert isinstance(one, MacePotential)
    ours, theirs = one.split_head("pt_head"), make_potential(both, name="theirs")
    structures = rattle(("CH3OH", "H2O", "C2H4"), 3, seed=2)
    for head in ("pt_head", "Default"):
        found = [
            predict(each.with_head(head).without_references(), structures)
            for each in (ours, require_trainable(theirs))
        ]
        torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["scalars", "vectors"])
def test_an_updates_gradient_is_that_of_mace_torchs_model(kind: str, teacher: Potential) -> None:
    start = make_potential_of(**KINDS[kind])
    assert isinstance(start, MacePotential)
    work = start.split_head("pt_head")
    train = label(rattle(("CH3OH", "H2O", "CO2"), 3, seed=0), teacher, offsets={})
    old = label(rattle(("C2H4", "CH4"), 3, seed=4), teacher, offsets={1: 0.1})
    recipe = replace(RECIPE, replay_weight=0.7, huber_delta=0.05)
    reference = np.array([0.3, -0.2, 0.1])
    labelled = prepare_labelled(work.graph_builder, train, role="training")
    nothing = prepare_labelled(work.graph_builder, [], role="validation")
    loop = Loop(
        work, labelled, nothing, reference, recipe, resolve_schedule(recipe, 3), 0, None,
        "count", prepare_pretraining_set(start, old),
    )  # fmt: skip
    weights = loop._weights
    with torch.enable_grad():
        for weight in weights:
            weight.requires_grad_(True)
        loss = loop._differentiate([0, 1, 2])
    found = [weight.grad for weight in weights]

    work.set_reference_energies(reference)
    everything = [*old, *train]
    theirs = ask_mace_torch(work, everything, [0, 0, 0, 1, 1, 1])
    counts = torch.tensor([float(len(atoms)) for atoms in everything], dtype=torch.float64)
    aims = torch.tensor([atoms.info["REF_energy"] for atoms in everything], dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    n_old = sum(len(atoms) for atoms in old)
    for part, atoms, share in (
        (slice(0, 3), slice(0, n_old), 0.7),
        (slice(3, 6), slice(n_old, None), 1.0),
    ):
        forces = np.concatenate([each.arrays["REF_forces"] for each in everything[part]])
        energy = theirs["energy"][part] / counts[part]
        of_energy = huber_loss(energy, aims[part] / counts[part], delta=0.05)
        of_forces = huber_loss(theirs["forces"][atoms], torch.from_numpy(forces), delta=0.05)
        expected = expected + share * (10 * of_energy + 10 * of_forces)
    wanted = torch.autograd.grad(expected, weights, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-8, atol=0)
    for ours, aim in zip(found, wanted, strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, aim, rtol=1e-7, atol=1e-8 * float(aim.abs().max()))


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}, {"train_blocks": ("readout",)}])
def test_mace_torchs_calculator_takes_both_heads(
    student: Potential, train: list[Atoms], tmp_path: Path, options: dict[str, Any]
) -> None:
    from mace.calculators import MACECalculator

    fitted = finetune(
        student, train, [], replace(RECIPE, **options), seed=0, replay=known_to(student)
    ).potential
    save_potential(fitted, tmp_path / "fitted.model")
    again = load_potential(tmp_path / "fitted.model", trust=True)
    assert (again.heads, again.head) == (("pt_head", "Default"), "Default")
    assert again.content_hash == fitted.content_hash
    structures, energies = rattle(("CH3OH", "CO2"), 2, seed=8), []
    for choice in ({}, {"head": "Default"}, {"head": "pt_head"}):
        ours = load_potential(tmp_path / "fitted.model", trust=True, **choice)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calculator = MACECalculator(
                model_paths=str(tmp_path / "fitted.model"),
                device="cpu",
                default_dtype="float64",
                **choice,
            )
            for atoms in structures:
                atoms.calc = calculator
                energy, forces = predict(ours, [atoms])
                energies.append(atoms.get_potential_energy())
                assert energies[-1] == pytest.approx(float(energy), abs=1e-6)
                np.testing.assert_allclose(atoms.get_forces(), forces.numpy(), atol=1e-6)
    assert energies[0] == energies[2] != energies[4]


def test_each_level_of_theory_is_learnt_by_its_own_head(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    """What is replayed has labels of a third model: one head has to choose."""
    other = make_potential_of(seed=7)
    old = label(rattle(("C2H2", "CH4", "H2O"), 12, seed=3), other, offsets={})
    apart = label(rattle(("C2H2", "CH4", "H2O"), 6, seed=5), other, offsets={})
    known = prepare_pretraining_set(student, old)
    kept = prepare_pretraining_set(student, apart, role="retained")
    recipe = Recipe(batch_size=4, learning_rate=0.02, max_updates=60)
    one, two = (
        finetune(student, train, valid, each, seed=0, replay=known, retain=kept)
        for each in (recipe, replace(recipe, replay_head="pt_head"))
    )
    assert one.retained is not None
    assert two.retained is not None
    assert two.retained.before == one.retained.before
    assert two.retained.after.energy_rmse < 0.5 * one.retained.after.energy_rmse
    assert best_of(two) < 0.95 * best_of(one)


def best_of(fitted: FineTuned) -> float:
    loss = next(each.valid_loss for each in fitted.history if each.epoch == fitted.best_epoch)
    assert loss is not None
    return loss


def test_reference_energies_are_each_heads_own(student: Potential, train: list[Atoms]) -> None:
    recipe = replace(RECIPE, reference_energies="refit")
    known = known_to(student)
    fitted = finetune(student, train, [], recipe, seed=0, replay=known).potential
    assert isinstance(fitted, MacePotential)
    before = require_trainable(student).reference_energies
    np.testing.assert_array_equal(fitted.with_head("pt_head").reference_energies, before)
    assert np.abs(fitted.reference_energies - before).max() > 10
    twice = finetune(fitted, train, [], recipe, seed=0, replay=known)
    assert twice.potential.heads == fitted.heads
    torch.testing.assert_close(
        predict(require_trainable(twice.potential).with_head("pt_head"), [molecule("C2H2")])[0],
        predict(student, [molecule("C2H2")])[0],
        rtol=0,
        atol=0.5,
    )


@pytest.mark.parametrize("replay_head", ["pbe", "old"])
def test_heads_that_are_not_trained_stay(train: list[Atoms], replay_head: str) -> None:
    start = make_potential(make_mace(heads=HEADS), name="three", head="r2scan")
    assert isinstance(start, MacePotential)
    named = start.with_head("pbe") if replay_head == "pbe" else start
    recipe = replace(RECIPE, replay_head=replay_head, train_blocks=("readout",))
    fitted = finetune(start, train, [], recipe, seed=0, replay=known_to(named)).potential
    assert isinstance(fitted, MacePotential)
    expected = {"pbe": HEADS, "old": ("pbe", "old", "Default", "r2scan")}[replay_head]
    assert (fitted.heads, fitted.head) == (expected, "r2scan")
    structures = rattle(("CH3OH", "CO2"), 2, seed=8)
    for head in {"Default", "pbe"} - {replay_head}:
        torch.testing.assert_close(
            predict(fitted.with_head(head), structures), predict(start.with_head(head), structures)
        )
    for head, was in (("r2scan", "r2scan"), (replay_head, named.head)):
        change = [
            predict(each, structures)[1] for each in (fitted.with_head(head), start.with_head(was))
        ]
        assert float((change[0] - change[1]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("head", "replays", "message"),
    [
        ("pt_head", False, "nothing is replayed"),
        ("Default", True, "fitted to the new labels"),
        ("default", True, "could be taken for the head of the new labels"),
    ],
)
def test_what_cannot_have_two_heads(
    student: Potential, train: list[Atoms], head: str, replays: bool, message: str
) -> None:
    known = known_to(student) if replays else None
    with pytest.raises(ArgumentError, match=message):
        finetune(student, train, [], replace(RECIPE, replay_head=head), seed=0, replay=known)


def test_new_weights_have_no_second_head() -> None:
    with pytest.raises(ArgumentError, match="replays nothing"):
        replace(RECIPE, start="scratch")


def test_other_families_refuse(
    student: Potential, train: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("with_head", "split_head"):
        monkeypatch.setattr(MacePotential, name, getattr(TorchPotential, name))
    with pytest.raises(PotentialError, match=r"only MACE models .* leave replay_head out"):
        finetune(student, train, [], RECIPE, seed=0, replay=known_to(student))
