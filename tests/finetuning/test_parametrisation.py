"""Which weights are trained: blocks, rates and low-rank changes."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from labelwise.errors import ArgumentError
from labelwise.finetuning.committee import predict_committee
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.loss import weighted_huber_loss
from labelwise.finetuning.parametrisation import LowRank, check_blocks, parametrise
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.potentials import Potential, load_potential
from labelwise.potentials.mace.training.compiled import CACHE_VARIABLE
from tests.finetuning.conftest import make_potential_of
from tests.finetuning.test_networks import trainable
from tests.finetuning.test_traced import RECIPE, targets_of
from tests.potentials.models import VARIANTS

SHORT = Recipe(batch_size=4, learning_rate=0.01, max_updates=3)
ONCE = Recipe(batch_size=12, learning_rate=0.01, max_updates=1, ema_decay=None)


def named(potential: Potential) -> dict[str, torch.Tensor]:
    return dict(potential.model.named_parameters())  # type: ignore[attr-defined]


def changed(before: Potential, fitted: FineTuned) -> set[str]:
    old = named(before)
    return {
        name for name, now in named(fitted.potential).items() if not torch.equal(old[name], now)
    }


def in_blocks(potential: Potential, *blocks: str) -> set[str]:
    held = require_trainable(potential)
    chosen = {id(weight) for block in blocks for weight in held.block_weights(block)}
    return {name for name, weight in named(potential).items() if id(weight) in chosen}


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [
        ("scalars", ("readout",)),
        ("scalars", ("products", "embedding")),
        ("vectors", ("interaction",)),
    ],
)
def test_other_blocks_stay_as_they_are(
    train: list[Atoms], kind: str, blocks: tuple[str, ...]
) -> None:
    start = make_potential_of(**VARIANTS[kind])
    fitted = finetune(start, train[:6], [], replace(SHORT, train_blocks=blocks), seed=0)
    assert changed(start, fitted) == in_blocks(start, *blocks)
    n_weights = sum(named(start)[name].numel() for name in in_blocks(start, *blocks))
    assert fitted.trained.n_weights == fitted.trained.n_coordinates == n_weights
    assert any(f"Trained: {' and '.join(blocks)}, {n_weights:,} of" in x for x in fitted.notes)


def test_all_blocks_by_name_are_all() -> None:
    """What a recipe says by default is what it says in more words."""
    potential = require_trainable(make_potential_of())
    everything, _ = parametrise(potential, Recipe(), seed=0)
    one_by_one, _ = parametrise(potential, Recipe(train_blocks=potential.blocks[:-1]), seed=0)
    assert [id(w) for w in everything.coordinates] == [id(w) for w in one_by_one.weights]
    assert [id(w) for w in everything.weights] == [id(w) for w in potential.trained_weights()]


@pytest.mark.parametrize("kind", ["scalars", "vectors"])
def test_gradients_of_a_block_are_those_among_all(kind: str, train: list[Atoms]) -> None:
    """Networks leave out what is not asked for."""
    potential = trainable(**VARIANTS[kind])
    network = potential.training_network()
    batch = network.collate(network.prepare([potential.prepare(atoms) for atoms in train[:3]]))

    def differentiate(block: str) -> dict[int, torch.Tensor]:
        potential.model.requires_grad_(False)
        weights = potential.block_weights(block)
        for weight in weights:
            weight.requires_grad_(True)
        energies, forces = network.energies_and_forces(batch, training=True)
        loss = (energies**2).sum() + (forces**2).sum()
        found = torch.autograd.grad(loss, weights, materialize_grads=True)
        return {id(weight): each for weight, each in zip(weights, found, strict=True)}

    everything = differentiate("all")
    for block in ("readout", "products", "interaction", "embedding"):
        for key, gradient in differentiate(block).items():
            torch.testing.assert_close(gradient, everything[key], rtol=1e-9, atol=1e-10)


def test_the_first_update_is_the_learning_rate_of_each_block(train: list[Atoms]) -> None:
    """Adam's first step is lr g / (|g| + ε), whatever the size of g: of ±1e-3 here."""
    start = make_potential_of()
    rates = {"readout": 0.5, "embedding": 0.1, "products": 3.0}
    plain = finetune(start, train, [], ONCE, seed=0)
    rated = finetune(start, train, [], replace(ONCE, block_rates=rates), seed=0)
    for name, before in named(start).items():
        step = named(rated.potential)[name] - before
        usual = named(plain.potential)[name] - before
        factor = next((f for b, f in rates.items() if name in in_blocks(start, b)), 1.0)
        torch.testing.assert_close(step, factor * usual, rtol=1e-9, atol=1e-14)
        assert float(step.abs().max()) == pytest.approx(0.01 * factor, rel=1e-3)
    assert sum("at 0.5 of the learning rate" in note for note in rated.notes) == 1


def test_weight_decay_takes_a_part_off(train: list[Atoms]) -> None:
    start = make_potential_of()
    plain = finetune(start, train, [], ONCE, seed=0)
    decayed = finetune(start, train, [], replace(ONCE, weight_decay=0.2), seed=0)
    for name, before in named(start).items():
        apart = named(decayed.potential)[name] - named(plain.potential)[name]
        torch.testing.assert_close(apart, -0.01 * 0.2 * before, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("kind", ["vectors", "nonlinear"])
def test_matrices_are_those_of_e3nn(kind: str) -> None:
    """Each view that e3nn gives of a flat weight is the matrix at its place."""
    potential = require_trainable(make_potential_of(**VARIANTS[kind]))
    shapes = potential.matrix_shapes()
    n_flat = 0
    for name, module in potential.model.named_modules():
        weight = getattr(module, "weight", None)
        if f"{name}.weight" not in shapes or weight.dim() != 1:
            continue
        n_flat += 1
        sizes = [rows * columns for rows, columns in shapes[f"{name}.weight"]]
        pieces = torch.split(weight, sizes)
        views = list(module.weight_views())
        assert len(pieces) == len(views)
        for piece, view, shape in zip(pieces, views, shapes[f"{name}.weight"], strict=True):
            assert torch.equal(piece.view(shape), view.reshape(-1, view.shape[-1]))
    assert n_flat >= 7
    others = {name for name, weight in named(potential).items() if weight.dim() == 1} - set(shapes)
    assert all(".net." in name or name.endswith(".bias") for name in others)  # of plain torch


def low_rank(potential: Any, **settings: Any) -> LowRank:
    made, _ = parametrise(potential, Recipe(**{"lora_rank": 2, **settings}), seed=3)
    assert isinstance(made, LowRank)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for each in made.coordinates:
            each.add_(torch.from_numpy(rng.normal(scale=0.1, size=each.shape)))
    return made


def explicit(made: LowRank, starts: list[torch.Tensor], scale: float, shapes: list[Any]) -> Any:
    """Return W0 + s·A·B of each weight, written out, as functions of the coordinates."""
    factors, merged = iter(made.coordinates), []
    for start, matrices in zip(starts, shapes, strict=True):
        changes = [scale * next(factors) @ next(factors) for _ in matrices]
        merged.append(start + torch.cat([each.reshape(-1) for each in changes]).view(start.shape))
    return merged


@pytest.mark.parametrize("kind", ["scalars", "vectors"])
def test_low_rank_gradients_are_those_through_the_product(kind: str, train: list[Atoms]) -> None:
    """Against autograd through mace-torch's module with W0 + s·A·B in place of its weights."""
    potential = trainable(**VARIANTS[kind])
    starts = [weight.detach().clone() for weight in potential.trained_weights()]
    made = low_rank(potential, lora_alpha=3.0)
    names = [name for name, weight in potential.model.named_parameters() if weight.numel()]
    shapes = potential.matrix_shapes()
    made.write()
    targets, atoms = targets_of(potential, train[:3]), train[:3]
    network = potential.training_network()
    batch = network.collate(network.prepare([potential.prepare(each) for each in atoms]))
    energies, forces = network.energies_and_forces(batch, training=True)
    weighted_huber_loss(energies, forces, targets, RECIPE).backward(inputs=made.weights)
    made.pull_back()
    assert all(weight.grad is None for weight in made.weights)

    for each in made.coordinates:
        each.requires_grad_(True)
    merged = explicit(made, starts, 1.5, [shapes[name] for name in names])
    for weight, whole in zip(potential.trained_weights(), merged, strict=True):
        torch.testing.assert_close(weight.detach(), whole.detach(), rtol=0, atol=1e-14)
    joined = potential.collate([potential.prepare(each) for each in atoms])
    positions = joined.positions.clone().requires_grad_()
    inputs = potential._inputs(joined, positions)
    held = dict(zip(names, merged, strict=True))
    found = torch.func.functional_call(
        potential.model, held, (inputs,), {"compute_force": False}, strict=False
    )["interaction_energy"]
    slope = torch.autograd.grad(found.sum(), positions, create_graph=True)[0]
    loss = weighted_huber_loss(found, -slope, targets, RECIPE)
    expected = torch.autograd.grad(loss, made.coordinates)
    for each, gradient in zip(made.coordinates, expected, strict=True):
        assert each.grad is not None
        scale = float(gradient.abs().max().clamp(min=1e-3))
        torch.testing.assert_close(each.grad, gradient, rtol=1e-8, atol=1e-9 * scale)


@pytest.mark.parametrize("suffix", [".pt", ".model"])
def test_what_is_returned_and_exported_is_merged(
    train: list[Atoms], tmp_path: Path, suffix: str
) -> None:
    start = make_potential_of()
    recipe = replace(SHORT, lora_rank=2, train_blocks=("products", "interaction"))
    fitted = finetune(start, train, [], recipe, seed=0)
    assert changed(start, fitted) == in_blocks(start, "products", "interaction")
    assert fitted.trained.n_coordinates < fitted.trained.n_weights < fitted.trained.n_all
    assert named(fitted.potential).keys() == named(start).keys()
    path = tmp_path / f"fitted{suffix}"
    save_potential(fitted.potential, path)
    again = load_potential(path, trust=True)
    assert again.content_hash == fitted.potential.content_hash
    errors = [evaluate(each, train).errors for each in (again, fitted.potential)]
    assert errors[0] == errors[1] != evaluate(start, train).errors


def test_changes_have_the_rank_asked_for(train: list[Atoms]) -> None:
    """Of the weights themselves; a moving average of them has a higher one."""
    start = make_potential_of()
    recipe = replace(SHORT, lora_rank=2, ema_decay=None)
    fitted = finetune(start, train, [], recipe, seed=0)
    shapes = require_trainable(start).matrix_shapes()
    for name, before in named(start).items():
        change = (named(fitted.potential)[name] - before).reshape(-1)
        sizes = [rows * columns for rows, columns in shapes[name]]
        for piece, shape in zip(torch.split(change, sizes), shapes[name], strict=True):
            rank = int(torch.linalg.matrix_rank(piece.view(shape), rtol=1e-8))
            assert rank == min(2, *shape), name


def test_a_seed_decides_what_is_drawn(train: list[Atoms]) -> None:
    start, recipe = make_potential_of(), replace(SHORT, lora_rank=1)
    hashes = [finetune(start, train, [], recipe, seed=s).potential.content_hash for s in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_is_no_matrix_stays_under_low_rank(train: list[Atoms]) -> None:
    start = make_potential_of(**VARIANTS["nonlinear"])
    recipe = replace(SHORT, lora_rank=1, train_blocks=("products", "interaction"))
    fitted = finetune(start, train[:4], [], recipe, seed=0)
    matrices = require_trainable(start).matrix_shapes().keys()
    # The densities count for nothing as long as the number that multiplies them is zero.
    used = {name for name in in_blocks(start, *recipe.train_blocks) if "density_fn" not in name}
    assert changed(start, fitted) == used & matrices
    assert used - matrices


def test_low_rank_learns_and_goes_back_from_an_overflow(
    train: list[Atoms], valid: list[Atoms]
) -> None:
    start = make_potential_of()
    recipe = Recipe(lora_rank=2, batch_size=4, learning_rate=0.02, max_updates=60)
    losses = [each.valid_loss for each in finetune(start, train, valid, recipe, seed=0).history]
    assert losses[0] is not None and losses[-1] is not None
    assert losses[-1] < 0.8 * losses[0]
    broken = replace(recipe, learning_rate=1e200, max_backoffs=2)
    fitted = finetune(start, train, valid, broken, seed=0)
    assert fitted.best_epoch == 0
    assert "halved to 5e+199" in fitted.messages[-3]
    assert not changed(start, fitted)


def test_a_new_beginning_keeps_the_weights() -> None:
    potential = trainable()
    made = low_rank(potential)
    made.write()
    before = [weight.detach().clone() for weight in made.weights]
    made.restart()
    made.write()
    assert all(torch.equal(a, b) for a, b in zip(before, made.weights, strict=True))


def test_members_of_a_committee_differ(train: list[Atoms]) -> None:
    start = make_potential_of()
    recipe = replace(SHORT, lora_rank=2, train_blocks=("readout",), anchor="l2")
    members = [finetune(start, train, [], recipe, seed=seed).potential for seed in (0, 1)]
    energies, _ = predict_committee(members, train[:3])
    assert (energies.std(axis=0) > 0).all()


def test_wrong_blocks_are_told_with_those_there_are(student: Potential, train: list[Atoms]) -> None:
    for settings in ({"train_blocks": ("readot",)}, {"block_rates": {"readot": 1.0}}):
        with pytest.raises(ArgumentError, match="interaction, all; did you mean 'readout'"):
            finetune(student, train, [], replace(SHORT, **settings), seed=0)  # type: ignore[arg-type]
    check_blocks(student, Recipe(train_blocks=("interaction",)))


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_updates_serve_every_way(
    train: list[Atoms],
    valid: list[Atoms],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    start = make_potential_of()
    ways: list[dict[str, Any]] = [
        {"train_blocks": ("readout", "products"), "block_rates": {"readout": 0.3}},
        {"lora_rank": 2, "anchor": "ewc"},
    ]
    for way in ways:
        eager, compiled = (
            finetune(start, train, valid, replace(SHORT, compiled=each, **way), seed=0)
            for each in (False, True)
        )
        for name, weight in named(eager.potential).items():
            other = named(compiled.potential)[name]
            torch.testing.assert_close(weight, other, rtol=1e-7, atol=1e-9)
        assert changed(start, compiled) == changed(start, eager)


def test_pickles_hold_no_factors(train: list[Atoms]) -> None:
    """A fitted potential is as large as the one that it began with."""
    start = make_potential_of()
    fitted = finetune(start, train[:4], [], replace(SHORT, lora_rank=2), seed=0)
    sizes = []
    for each in (start, fitted.potential):
        stream = io.BytesIO()
        each.write(stream, ".pt")
        sizes.append(len(stream.getvalue()))
    assert sizes[0] == sizes[1]
