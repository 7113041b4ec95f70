"""What the tests of every family written in torch ask, whatever its package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from ase import Atoms

from labelwise import select
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential, TorchPotential


def list_choices(block: str) -> list[tuple[str, str, str]]:
    """List representations, rules and blocks of weights; one block is the family's own."""
    return [
        ("activation", "lcmd", "embedding"),
        ("ntk-e", "pv", "embedding"),
        ("ntk-e", "k-center", block),
        ("ntk-f", "lcmd", "embedding"),
        ("ntk-ef", "lcmd", "readout"),
        ("ntk-e", "joint-pv", "embedding"),
        ("activation-random", "lcmd", "embedding"),
    ]


def require_choice(
    potential: Potential, structures: Sequence[Atoms], choice: tuple[str, str, str]
) -> None:
    """Choose two structures, the first being labelled."""
    representation, rule, parameters = choice
    chosen = select(
        list(structures[1:]),
        2,
        train=list(structures[:1]),
        potential=potential,
        representation=representation,
        rule=rule,
        parameters=parameters,
    )
    assert len(set(chosen.pool_idx)) == 2


def require_learning(
    student: TorchPotential, teacher: TorchPotential, structures: Sequence[Atoms]
) -> None:
    """Fit a model to labels of another, whose readout is turned round; the last are held out."""
    with torch.no_grad():
        for weight in teacher.block_weights("readout"):
            weight.mul_(-1.3)
    for atoms in structures:
        found = teacher.predict(teacher.collate([teacher.prepare(atoms)]))
        assert found.forces is not None
        atoms.info["REF_energy"] = float(found.energies)
        atoms.arrays["REF_forces"] = found.forces.numpy()
    recipe = Recipe(batch_size=3, learning_rate=0.02, max_updates=40, max_validations=5)
    fitted = finetune(student, list(structures[:9]), list(structures[9:]), recipe, seed=0)
    errors = [record.valid.forces_rmse for record in fitted.history if record.valid]
    assert min(errors) < 0.7 * errors[0]
    assert isinstance(fitted.potential, Potential)


def require_parts(student: TorchPotential, structures: Sequence[Atoms]) -> None:
    """Fit every block by itself, then low-rank changes; what is not named stays as it was."""
    before = {name: weight.clone() for name, weight in student.model.named_parameters()}
    base = Recipe(batch_size=3, learning_rate=0.01, max_updates=2, max_validations=1)
    ways: list[dict[str, Any]] = [{"train_blocks": (block,)} for block in student.blocks]
    for way in (*ways, {"lora_rank": 2}, {"train_blocks": ("readout",), "anchor": "l2"}):
        recipe = replace(base, **way)
        done = finetune(student, list(structures[:6]), [], recipe, seed=0)
        fitted = require_trainable(done.potential)
        chosen = {id(w) for block in recipe.train_blocks for w in student.block_weights(block)}
        names = {name for name, w in student.model.named_parameters() if id(w) in chosen}
        if recipe.lora_rank is not None:
            names &= student.matrix_shapes().keys()
        changed = {
            name
            for name, weight in fitted.model.named_parameters()
            if name not in fitted.absent_weights()  # reference energies, which are fitted
            and not torch.equal(weight, before[name])
        }
        assert changed <= names, (way, changed - names)
        assert changed, way
