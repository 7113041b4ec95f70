"""What the tests of every family written in torch ask, whatever its package."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase import Atoms

from labelwise import select
from labelwise.finetuning.recipe import Recipe
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
