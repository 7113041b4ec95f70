from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from labelwise.errors import ArgumentError, LabelError, PotentialError, StructureError
from labelwise.finetuning.evaluation import evaluate, reference_of
from labelwise.finetuning.labelled import prepare_labelled
from labelwise.finetuning.loss import collate_targets, weighted_huber_loss
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.potentials import Potential
from labelwise.potentials.mace.checkpoint import import_mace_modules
from labelwise.potentials.mace.loading import make_potential
from labelwise.structures import Source
from tests.finetuning.conftest import NAMES, OFFSETS, label, make_potential_of, rattle
from tests.potentials.models import VARIANTS, make_mace

SHORT = Recipe(batch_size=4, learning_rate=0.01, max_updates=6)


def weights_of(fitted: FineTuned) -> list[torch.Tensor]:
    return list(fitted.potential.model.state_dict().values())  # type: ignore[attr-defined]


def same(a: FineTuned, b: FineTuned) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights_of(a), weights_of(b), strict=True))


def test_it_fits_a_small_labelled_set(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    recipe = Recipe(batch_size=4, learning_rate=0.02, max_updates=120, annealing="linear")
    fitted = finetune(student, train, valid, recipe, seed=0)
    first, last = fitted.history[0], fitted.history[-1]
    assert first.valid is not None
    assert last.valid is not None
    assert (first.epoch, first.updates, first.train_loss) == (0, 0, None)
    assert last.updates == fitted.n_updates == 120
    assert last.valid.forces_rmse < 0.5 * first.valid.forces_rmse
    before = evaluate(student, train).errors
    after = evaluate(fitted.potential, train).errors
    assert after.forces_rmse < 0.4 * before.forces_rmse
    assert after.energy_rmse_per_atom < 0.1 * before.energy_rmse_per_atom
    assert fitted.seconds > 0


def test_the_errors_recorded_are_those_of_the_potential_returned(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    fitted = finetune(student, train, valid, SHORT, seed=0)
    record = next(r for r in fitted.history if r.epoch == fitted.best_epoch)
    errors = evaluate(fitted.potential, valid).errors
    assert record.valid is not None
    assert errors.forces_rmse == pytest.approx(record.valid.forces_rmse, rel=1e-9)
    assert errors.energy_rmse == pytest.approx(record.valid.energy_rmse, rel=1e-9)
    best = min(fitted.history, key=lambda r: np.inf if r.valid_loss is None else r.valid_loss)
    assert best.epoch == fitted.best_epoch


def test_every_weight_is_trained(student: Potential, train: list[Atoms]) -> None:
    fitted = finetune(student, train, [], SHORT, seed=0)
    before = dict(student.model.named_parameters())  # type: ignore[attr-defined]
    for name, after in fitted.potential.model.named_parameters():  # type: ignore[attr-defined]
        assert not torch.equal(before[name], after), name
        assert not after.requires_grad


@pytest.mark.parametrize("kind", ["vectors", "heads", "nonlinear", "agnostic"])
def test_every_kind_of_mace_can_be_trained(kind: str, teacher: Potential) -> None:
    structures = label(rattle(("H2O", "CO2"), 4, seed=5), teacher, offsets=OFFSETS)
    potential = make_potential_of(**VARIANTS[kind])
    recipe = Recipe(batch_size=4, learning_rate=0.001, max_updates=8)
    fitted = finetune(potential, structures, structures, recipe, seed=0)
    losses = [record.valid_loss for record in fitted.history if record.valid_loss is not None]
    assert losses[-1] < losses[0]
    assert fitted.best_epoch > 0


def test_the_input_stays_as_it_was(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    before = student.content_hash
    flags = [p.requires_grad for p in student.model.parameters()]  # type: ignore[attr-defined]
    atoms = [a.copy() for a in train]
    finetune(student, train, valid, SHORT, seed=0)
    assert student.content_hash == before
    assert flags == [p.requires_grad for p in student.model.parameters()]  # type: ignore[attr-defined]
    assert all(a == b and a.info.keys() == b.info.keys() for a, b in zip(atoms, train, strict=True))


def test_a_seed_decides_everything(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    torch.manual_seed(1)
    first = finetune(student, train, valid, SHORT, seed=3)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    state = torch.random.get_rng_state()
    with torch.no_grad():
        second = finetune(student, train, valid, SHORT, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert same(first, second)
    assert not same(first, finetune(student, train, valid, SHORT, seed=4))


def test_scratch_weights_come_from_the_seed(student: Potential, train: list[Atoms]) -> None:
    seed = 5
    recipe = Recipe(start="scratch", batch_size=4, max_updates=1)
    state = torch.random.get_rng_state()
    first = finetune(student, train, [], recipe, seed=seed)
    assert torch.equal(state, torch.random.get_rng_state())
    assert same(first, finetune(student, train, [], recipe, seed=seed))
    other = finetune(student, train, [], recipe, seed=seed + 1)
    name = "interactions.0.linear_up.weight"
    mine = first.potential.model.get_parameter(name)  # type: ignore[attr-defined]
    assert not torch.equal(mine, other.potential.model.get_parameter(name))  # type: ignore[attr-defined]
    assert not torch.allclose(mine, student.model.get_parameter(name), atol=0.05)  # type: ignore[attr-defined]


def test_scratch_learns(student: Potential, train: list[Atoms], valid: list[Atoms]) -> None:
    recipe = Recipe(start="scratch", batch_size=4, learning_rate=0.02, max_updates=40)
    fitted = finetune(student, train, valid, recipe, seed=0)
    losses = [record.valid_loss for record in fitted.history if record.valid_loss is not None]
    assert losses[-1] < 0.8 * losses[0]


def setup_loss(potential: Potential, structures: Sequence[Atoms]) -> Any:
    work = require_trainable(potential).copy().without_references()
    labelled = prepare_labelled(work.graph_builder, structures, role="training")
    reference = reference_of(
        labelled.graphs, require_trainable(potential).copy().reference_energies
    )
    idx = list(range(len(structures)))
    targets = collate_targets(labelled, reference, idx, dtype=work.dtype, device=work.device)
    network = work.training_network()
    batch = network.collate(network.prepare(labelled.graphs))

    def loss() -> torch.Tensor:
        energies, forces = network.energies_and_forces(batch, training=True)
        return weighted_huber_loss(energies, forces, targets, Recipe(huber_delta=0.05))

    return loss, work.trained_weights(), work, targets


def test_the_gradient_equals_finite_differences(student: Potential, train: list[Atoms]) -> None:
    loss, weights, _, _ = setup_loss(student, train[:3])
    for weight in weights:
        weight.requires_grad_(True)
    loss().backward()
    rng = np.random.default_rng(0)
    step = 1e-5
    for weight in weights:
        assert weight.grad is not None
        direction = torch.from_numpy(rng.normal(size=weight.shape))
        values = []
        for sign in (1, -2):
            with torch.no_grad():
                weight.add_(direction, alpha=sign * step)
            values.append(float(loss().detach()))
        with torch.no_grad():
            weight.add_(direction, alpha=step)
        expected = (values[0] - values[1]) / (2 * step)
        assert float((weight.grad * direction).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_loss_is_mace_torchs_huber(student: Potential, train: list[Atoms]) -> None:
    modules = import_mace_modules()
    loss, _, _, targets = setup_loss(student, train)
    batch = student.collate([student.prepare(atoms) for atoms in train])
    predicted = student.predict(batch)
    huber = modules.WeightedHuberEnergyForcesStressLoss(
        energy_weight=10.0, forces_weight=10.0, stress_weight=0.0, huber_delta=0.05
    )
    counts = torch.tensor((0, *batch.atom_counts)).cumsum(0)
    stress = torch.zeros(len(train), 3, 3, dtype=torch.float64)
    fields = {
        "energy": torch.tensor([a.info["REF_energy"] for a in train], dtype=torch.float64),
        "forces": targets.forces,
        "stress": stress,
    }

    class Reference(SimpleNamespace):
        def __getitem__(self, key: str) -> torch.Tensor:
            value: torch.Tensor = getattr(self, key)
            return value

    theirs = huber(
        Reference(ptr=counts, num_graphs=len(train), **fields),
        {"energy": predicted.energies, "forces": predicted.forces, "stress": stress},
    )
    assert float(loss().detach()) == pytest.approx(float(theirs), rel=1e-6)


def test_the_moving_average_is_what_is_returned(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    """With decay 0 after one update the average is the weights; a high one lags behind."""
    plain = finetune(
        student, train, [], Recipe(max_updates=1, batch_size=12, ema_decay=None), seed=0
    )
    follow = finetune(
        student, train, [], Recipe(max_updates=1, batch_size=12, ema_decay=0.9), seed=0
    )
    decay = min(0.9, 2 / 11)
    for start, now, average in zip(
        student.model.parameters(),  # type: ignore[attr-defined]
        plain.potential.model.parameters(),  # type: ignore[attr-defined]
        follow.potential.model.parameters(),  # type: ignore[attr-defined]
        strict=True,
    ):
        torch.testing.assert_close(average, decay * start + (1 - decay) * now)


def test_a_worse_epoch_is_not_returned(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    """A learning rate that only does harm leaves the start's weights."""
    recipe = Recipe(learning_rate=3.0, batch_size=4, max_updates=9, ema_decay=None)
    fitted = finetune(student, train, valid, recipe, seed=0)
    assert fitted.best_epoch == 0
    for name, weight in student.model.named_parameters():  # type: ignore[attr-defined]
        assert torch.equal(weight, fitted.potential.model.get_parameter(name))  # type: ignore[attr-defined]


def test_early_stop(student: Potential, train: list[Atoms], valid: list[Atoms]) -> None:
    recipe = Recipe(learning_rate=3.0, batch_size=12, epochs=50, max_validations=50)
    patient = Recipe(
        learning_rate=3.0, batch_size=12, epochs=50, max_validations=50, early_stop_patience=2
    )
    assert finetune(student, train, valid, patient, seed=0).n_updates == 2
    assert finetune(student, train, valid, recipe, seed=0).n_updates == 50


def test_the_learning_rate_falls_in_the_second_half(student: Potential, train: list[Atoms]) -> None:
    recipe = Recipe(learning_rate=0.01, batch_size=12, epochs=8, annealing="linear")
    rates = [r.learning_rate for r in finetune(student, train, [], recipe, seed=0).history]
    expected = [0.0, *[0.01] * 5, 0.0075, 0.005, 0.0025]
    assert rates == pytest.approx(expected)


def test_validations_are_spread_over_the_epochs(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    seen: list[int] = []
    recipe = Recipe(batch_size=12, epochs=10, max_validations=4)
    fitted = finetune(
        student, train, valid, recipe, seed=0, progress=lambda record: seen.append(record.epoch)
    )
    assert seen == [0, 3, 6, 9, 10]
    assert [record.epoch for record in fitted.history] == seen


def test_a_loss_that_is_not_finite_is_backed_off(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    """At this learning rate the weights really overflow; the last good ones come back."""
    recipe = Recipe(learning_rate=1e200, batch_size=4, epochs=30, max_backoffs=2, ema_decay=None)
    fitted = finetune(student, train, valid, recipe, seed=0)
    assert fitted.best_epoch == 0
    assert fitted.n_updates < 90
    assert "halved to 5e+199" in fitted.messages[-3]
    assert "halved to 2.5e+199" in fitted.messages[-2]
    assert "stopped there" in fitted.messages[-1]
    assert all(torch.isfinite(weight).all() for weight in weights_of(fitted))


def test_after_a_back_off_training_goes_on(
    student: Potential, train: list[Atoms], valid: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch whose labels overflow the loss once; the rest of the run learns."""
    from labelwise.finetuning import loop

    calls = 0

    def broken_once(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = weighted_huber_loss(*arguments)
        return loss * float("inf") if calls == 5 else loss

    monkeypatch.setattr(loop, "weighted_huber_loss", broken_once)
    recipe = Recipe(learning_rate=0.02, batch_size=4, max_updates=30, annealing="none")
    fitted = finetune(student, train, valid, recipe, seed=0)
    assert fitted.n_updates == 30
    assert fitted.best_epoch > 0
    assert fitted.history[-1].learning_rate == 0.01
    assert sum("not finite" in message for message in fitted.messages) == 1


def test_reference_energies_are_fitted_and_reported(
    student: Potential, train: list[Atoms], valid: list[Atoms]
) -> None:
    fitted = finetune(student, train, valid, Recipe(batch_size=12, max_updates=1), seed=0)
    assert set(fitted.reference_energies) == {"H", "C", "O"}
    before = evaluate(student, valid).errors.energy_rmse_per_atom
    start = fitted.history[0].valid
    assert start is not None
    assert start.energy_rmse_per_atom < 0.02 * before
    assert any("were fitted to the labels" in message for message in fitted.messages)


def test_an_undetermined_composition_is_reported(student: Potential, teacher: Potential) -> None:
    water = label(rattle(("H2O",), 4, seed=0), teacher, offsets=OFFSETS)
    methane = label(rattle(("CH4",), 2, seed=0), teacher, offsets=OFFSETS)
    fitted = finetune(student, water, methane, SHORT, seed=0)
    text = " ".join(fitted.messages)
    assert "H and O one by one" in text
    assert "2 of 2 validation structures" in text
    assert "C not in the training set" in text


def test_isolated_given_and_checkpoint_energies(student: Potential, train: list[Atoms]) -> None:
    def energies(**settings: Any) -> dict[str, float]:
        isolated = settings.pop("isolated_atoms", None)
        recipe = Recipe(batch_size=12, max_updates=1, **settings)
        fitted = finetune(student, train, [], recipe, seed=0, isolated_atoms=isolated)
        return fitted.reference_energies

    known = {1: -1.0, 6: -2.0, 8: -3.0}
    by_symbol = {"H": -1.0, "C": -2.0, "O": -3.0}
    assert energies(reference_energies="isolated", isolated_atoms=known) == by_symbol
    assert energies(start="scratch", isolated_atoms=known) == by_symbol
    assert energies(reference_energies="given", given_energies=known) == by_symbol
    table = require_trainable(student).copy().reference_energies
    assert list(energies(reference_energies="checkpoint").values()) == table.tolist()
    with pytest.raises(ArgumentError, match="isolated_atoms lacks the energies of C and O"):
        energies(reference_energies="isolated", isolated_atoms={1: -1.0})


def break_energy(atoms: Atoms) -> None:
    del atoms.info["REF_energy"]


def zero_energy(atoms: Atoms) -> None:
    atoms.info["REF_energy"] = 0.0


def zero_forces(atoms: Atoms) -> None:
    atoms.arrays["REF_forces"][:] = 0.0


def nan_forces(atoms: Atoms) -> None:
    atoms.arrays["REF_forces"][0, 0] = np.nan


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_energy, "'REF_energy' is missing"),
        (zero_energy, "'REF_energy' is exactly zero"),
        (zero_forces, "all forces under 'REF_forces' are exactly zero"),
        (nan_forces, "'REF_forces' is not finite"),
    ],
)
@pytest.mark.parametrize("role", ["training", "validation"])
def test_bad_labels_are_refused_before_training(
    student: Potential, train: list[Atoms], valid: list[Atoms], damage: Any, words: str, role: str
) -> None:
    structures = train if role == "training" else valid
    damage(structures[2])
    name = "valid_sources" if role == "validation" else "train_sources"
    sources = {name: [Source("set.extxyz", i) for i in range(len(structures))]}
    with pytest.raises(LabelError, match=rf"{role} structure 2 .*set.extxyz@2.*{words}"):
        finetune(student, train, valid, SHORT, seed=0, **sources)


def test_zero_forces_of_an_atom_and_of_a_crystal_are_labels(
    student: Potential, train: list[Atoms]
) -> None:
    atom = Atoms("O", info={"REF_energy": -95.0})
    atom.arrays["REF_forces"] = np.zeros((1, 3))
    crystal = Atoms("CO", [[0, 0, 0], [1.5, 1.5, 1.5]], cell=[3, 3, 3], pbc=True)
    crystal.info["REF_energy"] = -145.0
    crystal.arrays["REF_forces"] = np.zeros((2, 3))
    finetune(student, [*train, atom, crystal], [], SHORT, seed=0)
    with pytest.raises(LabelError, match="all forces of all 2 training structures"):
        finetune(student, [atom, crystal], [], SHORT, seed=0)


def test_other_errors_name_the_structure(student: Potential, train: list[Atoms]) -> None:
    ammonia = molecule("NH3")
    ammonia.info["REF_energy"] = -1.0
    ammonia.arrays["REF_forces"] = np.ones((4, 3))
    with pytest.raises(StructureError, match=r"training structure 12 .H3N.: .*contains N"):
        finetune(student, [*train, ammonia], [], SHORT, seed=0)
    with pytest.raises(ArgumentError, match="0 training structures"):
        finetune(student, [], [], SHORT, seed=0)
    with pytest.raises(ArgumentError, match="seed is -1"):
        finetune(student, train, [], SHORT, seed=-1)
    with pytest.raises(ArgumentError, match="sources has 1 entries for 12 training"):
        finetune(student, train, [], SHORT, seed=0, train_sources=["here"])


def test_a_foreign_potential_is_refused(train: list[Atoms]) -> None:
    from labelwise.finetuning.trainable import require_trainable

    class Foreign(Potential):
        name = "foreign"

    Foreign.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    with pytest.raises(
        PotentialError, match="foreign is a Foreign; only potentials written in torch"
    ):
        require_trainable(Foreign())  # type: ignore[abstract]


def test_single_precision_keeps_large_energies_exact(teacher: Potential) -> None:
    """Energies of -20,000 eV, where single precision has steps of 2 meV."""
    single = make_potential(make_mace(seed=1), name="single", dtype=torch.float32)
    offsets = {1: -1000.0, 6: -5000.0, 8: -9000.0}
    structures = label(rattle(("CH4", "H2O", "CO2", "C2H4"), 8, seed=2), teacher, offsets=offsets)
    fitted = finetune(single, structures, structures, Recipe(max_updates=1, batch_size=8), seed=0)
    assert fitted.history[0].valid is not None
    assert fitted.history[0].valid.energy_rmse < 1.0


def test_all_orders_of_the_batch_give_one_loss(student: Potential, train: list[Atoms]) -> None:
    forward, _, _, _ = setup_loss(student, train)
    backward, _, _, _ = setup_loss(student, train[::-1])
    assert float(forward().detach()) == pytest.approx(float(backward().detach()), rel=1e-12)


def test_a_family_of_ones_own_is_trained(tmp_path: Path) -> None:
    """The family of the documentation: energies alone, and everything follows."""
    from labelwise.finetuning.committee import predict_committee
    from labelwise.finetuning.export import save_potential

    text = (Path(__file__).parents[2] / "docs" / "adding_a_potential.md").read_text()
    names: dict[str, Any] = {"__name__": "documented"}
    exec(text.split("```python\n")[1].partition("```")[0], names)  # our own documentation
    start, teacher = (names["PairPotential"]((1, 6, 8)) for _ in range(2))
    with torch.no_grad():
        teacher.model.readout.mul_(-1.5)
    structures = label(rattle(NAMES, 18, seed=1), teacher, offsets={1: -13.0, 6: -1000.0})
    recipe = Recipe(batch_size=3, learning_rate=0.02, max_updates=120, max_validations=8)
    members = [
        finetune(start, structures[:12], structures[12:], recipe, seed=seed) for seed in (0, 1)
    ]
    errors = [record.valid.forces_rmse for record in members[0].history if record.valid]
    assert min(errors) < 0.5 * errors[0]
    assert members[0].reference_energies["C"] < -900
    energies, _ = predict_committee([m.potential for m in members], structures[:2])
    assert (energies.std(axis=0) > 0).all()
    with pytest.raises(PotentialError, match="cannot write"):
        save_potential(members[0].potential, tmp_path / "pair.pt")
    with pytest.raises(PotentialError, match="cannot be built with new weights"):
        finetune(start, structures, [], replace(recipe, start="scratch"), seed=0)
