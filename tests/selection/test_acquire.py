from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

import labelwise as lw
from labelwise.errors import (
    ArgumentError,
    LabelError,
    LabelwiseWarning,
    ScreeningError,
    SelectionError,
)
from labelwise.features.representations import RepresentationOptions
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.morgan import SINGLE_BONDS
from labelwise.features.representations.row_sets import RowScales, RowSets, join_row_sets
from labelwise.kernels.building import build_kernels
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import Batch, Potential
from labelwise.selection.acquire import acquire
from labelwise.selection.rules import JointPosterior, find_nearest, select_joint_posterior
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import Frame, Source, iter_frames, write_structures

RULES = ["pv", "lcmd", "k-center", "top", "joint-pv", "random"]
NOTHING = torch.zeros(0, dtype=torch.int64)


@pytest.fixture
def train(rattled_molecules: list[Atoms]) -> list[Atoms]:
    return rattled_molecules[:4]


@pytest.fixture
def pool(rattled_molecules: list[Atoms]) -> list[Atoms]:
    return rattled_molecules[4:]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_train", [0, 4])
def test_every_rule_from_structures_to_batch(
    rule: str, n_train: int, train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    before = [atoms.copy() for atoms in pool]
    batch = lw.select(pool, 7, train=train[:n_train], potential=potential, rule=rule)
    assert len(set(batch.pool_idx)) == 7
    assert pool == before
    for pick, atoms in zip(batch.picks, batch.structures, strict=True):
        assert atoms == pool[pick.pool_index]
        assert atoms.info["family"] == pool[pick.pool_index].info["family"]
        assert atoms.info["labelwise_rank"] == pick.rank
        assert atoms.info["labelwise_pool_index"] == pick.pool_index
        assert atoms.info["labelwise_source"] == f"pool@{pick.pool_index}"
        assert atoms.info["labelwise_score"] == pick.score
        assert ("labelwise_nearest_train" in atoms.info) == (n_train > 0 and rule != "random")
        assert "labelwise_rank" not in pool[pick.pool_index].info


def test_picks_are_those_of_the_rule_on_the_features(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    batch = lw.select(pool, 6, train=train, potential=potential, rule="pv", regularisation=0.1)
    kernels = [LinearKernel(lw.represent(part, potential)) for part in (pool, train)]
    expected = lw.select_batch("pv", *kernels, 6, regularisation=0.1)
    assert batch.pool_idx == expected.pool_idx.tolist()
    assert [pick.score for pick in batch.picks] == expected.score.tolist()


def row_sets(structures: list[Atoms], potential: Potential, **options: object) -> RowSets:
    parts = list(iter_row_sets(structures, potential, RepresentationOptions(**options)))
    return join_row_sets(parts, parts[0].dim)


@pytest.mark.parametrize("normalise", ["cosine", "none"])
@pytest.mark.parametrize("n_probes", [3, None])
@pytest.mark.parametrize("n_train", [0, 4])
def test_the_joint_rule_chooses_as_the_posterior_does_on_the_rows(
    n_train: int,
    n_probes: int | None,
    normalise: str,
    train: list[Atoms],
    pool: list[Atoms],
    potential: Potential,
) -> None:
    train, pool = train[:n_train], pool[:12]
    batch = lw.select(
        pool, 5, train=train, potential=potential, rule="joint-pv", normalise=normalise,
        n_probes=n_probes, energy_weight=0.25, regularisation=0.2, batch_atoms=20,
    )  # fmt: skip
    sets = row_sets(pool, potential, n_probes=n_probes)
    labelled = row_sets(train, potential, n_probes=n_probes) if train else sets.take(NOTHING)
    reference = labelled if train else sets
    scales = RowScales.measured(reference, normalise=normalise, energy_weight=0.25)
    expected = select_joint_posterior(
        scales.weigh(sets), scales.weigh(labelled), 5, regularisation=0.2,
        per_atom=normalise == "none",
    )  # fmt: skip
    assert batch.pool_idx == expected.pool_idx.tolist()
    np.testing.assert_allclose([p.score for p in batch.picks], expected.score, rtol=1e-4)


@pytest.mark.parametrize("n_train", [0, 4])
def test_a_joint_shortlist_is_made_of_the_largest_variances(
    n_train: int, train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    options = {"train": train[:n_train], "potential": potential, "rule": "joint-pv"}
    options |= {"normalise": "none", "n_probes": 2, "batch_atoms": 20}
    whole = lw.select(pool, 6, shortlist=len(pool), **options)
    assert whole.pool_idx == lw.select(pool, 6, **options).pool_idx
    sets = row_sets(pool, potential, n_probes=2)
    labelled = row_sets(train, potential, n_probes=2)
    labelled = labelled.take(torch.arange(n_train))
    scales = RowScales.measured(labelled if n_train else sets, normalise="none", energy_weight=0.5)
    variance = JointPosterior(scales.weigh(labelled)).variances(scales.weigh(sets)) / sets.n_atoms
    allowed = torch.topk(variance, 8).indices.tolist()
    assert set(lw.select(pool, 6, shortlist=8, **options).pool_idx) <= set(allowed)


def test_the_joint_rule_needs_no_energy_rows(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    batch = lw.select(
        pool, 3, train=train, potential=potential, rule="joint-pv", energy_weight=0.0, n_probes=2
    )
    assert [pick.nearest_train for pick in batch.picks] == [None] * 3


def test_a_structure_whose_rows_are_not_finite_is_set_aside(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    class HalfBlind(type(potential)):
        """Gives NaN for water."""

        def embedding_pullback(self, batch: Batch, cotangent: torch.Tensor) -> torch.Tensor:
            rows = super().embedding_pullback(batch, cotangent)
            water = torch.tensor([n == 3 for n in batch.atom_counts])
            return rows.masked_fill(water[:, None], torch.nan)

    blind = copy.copy(potential)
    blind.__class__ = HalfBlind
    few = [atoms for atoms in pool if atoms.info["family"] in {"H2O", "CH4", "C2H4"}]
    train = [atoms for atoms in train if atoms.info["family"] != "H2O"]
    for shortlist in (None, 5):
        batch = lw.select(
            few, 4, train=train, potential=blind, rule="joint-pv", n_probes=2, shortlist=shortlist
        )
        screened = [item for item in batch.screened if item.role == "pool"]
        assert {item.reason for item in screened} == {"non-finite-features"}
        assert all(few[item.index].info["family"] == "H2O" for item in screened)
        for pick, atoms in zip(batch.picks, batch.structures, strict=True):
            assert atoms == few[pick.pool_index]
            assert atoms.info["family"] != "H2O"


@pytest.mark.parametrize("reduction", ["rms", "element-rms", "force-norm", "fields", "moments"])
@pytest.mark.parametrize("normalise", ["cosine", "none"])
def test_force_tangents_choose_as_the_rule_does_on_their_normalised_rows(
    reduction: str,
    normalise: str,
    train: list[Atoms],
    pool: list[Atoms],
    potential: Potential,
) -> None:
    options = {"reduction": reduction, "n_probes": 2, "energy_weight": 0.25, "seed": 3}
    batch = lw.select(
        pool, 5, train=train, potential=potential, representation="ntk-ef", rule="pv",
        normalise=normalise, **options,
    )  # fmt: skip
    parts = []
    for name, weight in (("ntk-e", 0.25), ("ntk-f", 0.75)):
        rows = lw.represent([*train, *pool], potential, name, **options).astype(float)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        if normalise == "none":
            norms = np.sqrt(np.mean(norms**2))
        parts.append(np.sqrt(weight) * rows / norms)
    rows = np.concatenate(parts, axis=1).astype(np.float32)
    kernels = [LinearKernel(part, normalise="none") for part in (rows[4:], rows[:4])]
    expected = lw.select_batch("pv", *kernels, 5, regularisation=1e-3)
    assert batch.pool_idx == expected.pool_idx.tolist()
    scores = [pick.score for pick in batch.picks]
    np.testing.assert_allclose(scores, expected.score, rtol=1e-3)
    assert batch.acquisition.n_features == rows.shape[1]


def test_the_length_of_a_row_counts_only_without_cosine(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    """The first pick without labels: the longest row, or the most typical direction."""
    arguments = {"potential": potential, "representation": "ntk-f", "reduction": "force-norm"}
    lengths = np.linalg.norm(lw.represent(pool, potential, "ntk-f", reduction="force-norm"), axis=1)
    found = lw.select(pool, 1, **arguments, normalise="none")
    assert found.pool_idx == [int(lengths.argmax())]
    assert lw.select(pool, 1, **arguments).pool_idx != found.pool_idx


def test_nearest_labelled_structure_is_the_nearest(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    batch = lw.select(pool, 5, train=train, potential=potential)
    rows = [lw.represent(part, potential).astype(float) for part in (pool, train)]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in rows]
    distance = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=-1)
    for pick in batch.picks:
        assert pick.nearest_train is not None
        assert pick.nearest_train.frame == distance[pick.pool_index].argmin()
        assert pick.nearest_distance == pytest.approx(distance[pick.pool_index].min(), abs=1e-3)


@pytest.mark.parametrize("rule", ["pv", "lcmd", "k-center", "top"])
def test_order_and_number_of_files_do_not_matter(
    rule: str, tmp_path: Path, train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    parts = {"a": pool[:9], "b": pool[9:10], "c": pool[10:]}
    for name, part in parts.items():
        write_structures(tmp_path / f"{name}.extxyz", part)
    chosen = []
    for names, batch_atoms in (("abc", None), ("cba", 1), ("bca", 40)):
        settings = AcquisitionSettings(n_select=8, rule=rule, batch_atoms=batch_atoms)
        files = [tmp_path / f"{name}.extxyz" for name in names]
        found = acquire(iter_frames(files), frames_of(train), settings, potential=potential)
        chosen.append([str(pick.source) for pick in found.picks])
    assert chosen[0] == chosen[1] == chosen[2]


def frames_of(structures: list[Atoms]) -> list[Frame]:
    return [Frame(atoms, Source("train", i), i) for i, atoms in enumerate(structures)]


def test_what_cannot_be_labelled_is_set_aside_and_places_stay(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    broken = [
        Atoms(),
        Atoms("H"),
        Atoms("U2", [[0, 0, 0], [0, 0, 2]]),
        train[0].copy(),
        pool[0].copy(),
    ]
    mixed = [broken[0], *pool[:3], *broken[1:], *pool[3:]]
    batch = lw.select(mixed, len(pool), train=train, potential=potential)
    assert [(item.index, item.reason) for item in batch.screened] == [
        (0, "no-atoms"),
        (4, "isolated-atom"),
        (5, "unknown-element"),
        (6, "duplicate-of-train"),
        (7, "duplicate-of-pool"),
    ]
    assert sorted(batch.pool_idx) == [1, 2, 3, *range(8, len(mixed))]
    for pick, atoms in zip(batch.picks, batch.structures, strict=True):
        assert atoms == mixed[pick.pool_index]
    with pytest.raises(ScreeningError, match=r"pool@0: no-atoms .*--strict"):
        lw.select(mixed, 3, train=train, potential=potential, strict=True)
    with pytest.raises(SelectionError, match=r"only 26 of the 31 .* 5 were set aside: 1 no-atoms"):
        lw.select(mixed, 27, train=train, potential=potential)


def test_a_structure_without_finite_features_is_set_aside(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    class HalfBlind(type(potential)):
        """Gives NaN for water, as an overflow in single precision would."""

        def activations(self, batch: Batch) -> torch.Tensor:
            rows = super().activations(batch)
            water = torch.tensor([n == 3 for n in batch.atom_counts])
            return rows.masked_fill(water[:, None], torch.nan)

    blind = copy.copy(potential)
    blind.__class__ = HalfBlind
    few = [atoms for atoms in pool if atoms.info["family"] in {"H2O", "CH4", "C2H4"}]
    n_water = sum(atoms.info["family"] == "H2O" for atoms in few)
    batch = lw.select(few, 4, train=train, potential=blind, representation="activation")
    screened = [item for item in batch.screened if item.role == "pool"]
    assert {item.reason for item in screened} == {"non-finite-features"}
    assert len(screened) == n_water > 0
    assert all(few[item.index].info["family"] == "H2O" for item in screened)
    assert all(atoms.info["family"] != "H2O" for atoms in batch.structures)
    with pytest.raises(ScreeningError, match="non-finite-features"):
        lw.select(few, 4, potential=blind, representation="activation", strict=True)


def test_a_charge_that_the_model_does_not_know_is_set_aside(
    pool: list[Atoms], potential: Potential
) -> None:
    charged = copy.copy(potential)
    charged.graph_builder = dataclasses.replace(potential.graph_builder, charge_range=(-1.0, 1.0))
    pool[3].info["charge"] = 5
    pool[4].info["total_charge"] = "many"
    batch = lw.select(pool, 5, potential=charged)
    assert [(s.index, s.reason) for s in batch.screened] == [
        (3, "unknown-charge"),
        (4, "unknown-charge"),
    ]


def test_required_labels_are_looked_for_before_anything_is_chosen(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    settings = AcquisitionSettings(n_select=3, required_labels=("REF_energy",))
    train[0].info["REF_energy"] = 1.0
    with pytest.raises(LabelError, match="train@1: label 'REF_energy' is missing"):
        acquire(frames_of(pool), frames_of(train), settings, potential=potential)


def test_without_a_model(train: list[Atoms], pool: list[Atoms]) -> None:
    assert len(lw.select(pool, 5, rule="random", seed=1).picks) == 5
    assert len(lw.select(pool, 5, train=train, representation="random").picks) == 5
    with pytest.raises(ArgumentError, match="needs a model"):
        lw.select(pool, 5)


def test_shortlist_narrows_the_choice(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    top = lw.select(pool, 9, train=train, potential=potential, rule="top").pool_idx
    short = lw.select(pool, 5, train=train, potential=potential, shortlist=9).pool_idx
    assert set(short) <= set(top)


def test_groups_are_counted(train: list[Atoms], pool: list[Atoms], potential: Potential) -> None:
    settings = AcquisitionSettings(n_select=10, group_by="family")
    found = acquire(frames_of(pool), frames_of(train), settings, potential=potential)
    assert sum(chosen for chosen, _ in found.groups.values()) == 10
    for name, (chosen, offered) in found.groups.items():
        assert offered == sum(atoms.info["family"] == name for atoms in pool)
        assert chosen == sum(pool[p.pool_index].info["family"] == name for p in found.picks)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "best"},
        {"representation": "soup"},
        {"parameters": "some"},
        {"regularisation": 0.0},
        {"regularisation": float("nan")},
        {"shortlist": 2},
        {"n_select": 0},
        {"n_select": 100},
        {"seed": -1},
        {"sketch_dim": 0, "parameters": "all"},
        {"normalise": "unit"},
        {"reduction": "mean", "representation": "ntk-f"},
        {"n_probes": 0, "representation": "ntk-f"},
        {"energy_weight": 1.5, "representation": "ntk-ef"},
        {"batch_atoms": 0},
        {"rule": "joint-pv", "representation": "activation"},
        {"rule": "joint-pv", "n_probes": 0},
        {"rule": "joint-pv", "energy_weight": -0.5},
        {"rule": "joint-pv", "normalise": "l2"},
    ],
)
def test_wrong_settings_say_what_is_allowed(
    wrong: dict[str, object], pool: list[Atoms], potential: Potential
) -> None:
    arguments = {"n_select": 3, **wrong}
    with pytest.raises(ArgumentError):
        lw.select(pool, potential=potential, **arguments)


def test_empty_pool(potential: Potential) -> None:
    with pytest.raises(SelectionError, match="holds no structures"):
        lw.select([], 1, potential=potential)


def test_stages_account_for_every_structure(
    train: list[Atoms], pool: list[Atoms], potential: Potential
) -> None:
    stages = {
        s.name: s for s in lw.select(pool, 5, train=train, potential=potential).acquisition.stages
    }
    assert stages["read pool"].n_structures == len(pool)
    assert stages["screen"].n_structures == 30
    represented = [stages[f"represent {role}"].n_structures for role in ("train", "pool")]
    assert represented == [len(train), len(pool)]
    assert stages["select"].n_structures == len(pool)
    assert all(stage.seconds >= 0 for stage in stages.values())


@pytest.mark.parametrize("representation", ["soap", "morgan"])
@pytest.mark.parametrize(("rule", "shortlist"), [("pv", None), ("lcmd", 20), ("k-center", None)])
@pytest.mark.parametrize("n_train", [0, 4])
def test_kernels_are_those_of_the_representation(
    representation: str,
    rule: str,
    shortlist: int | None,
    n_train: int,
    train: list[Atoms],
    pool: list[Atoms],
) -> None:
    train = train[:n_train]
    batch = lw.select(
        pool, 4, train=train, representation=representation, rule=rule, shortlist=shortlist
    )
    kernels = build_kernels([pool, train], None, representation)
    expected = lw.select_batch(rule, *kernels, 4, regularisation=1e-3, shortlist=shortlist)
    assert batch.pool_idx == expected.pool_idx.tolist()
    assert [pick.score for pick in batch.picks] == expected.score.tolist()
    if n_train:
        _, distance = find_nearest(*kernels, expected.pool_idx)
        assert [pick.nearest_distance for pick in batch.picks] == distance.tolist()
    assert batch.acquisition.n_features == {"soap": 3248, "morgan": 2048}[representation]


def test_bonds_that_were_not_perceived_are_counted(pool: list[Atoms]) -> None:
    methyl = Atoms("CH3", positions=[[0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    structures = [*pool, methyl, Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.2]])]
    batch = lw.select(structures, 3, representation="morgan")
    assert batch.acquisition.remarks == {SINGLE_BONDS: 2}
    assert lw.select(pool, 3, representation="soap").acquisition.remarks == {}


def test_tanimoto_kernels_know_no_lengths(pool: list[Atoms]) -> None:
    with pytest.raises(ArgumentError, match="compares sets and knows no lengths"):
        lw.select(pool, 3, representation="morgan", normalise="none")


def test_untrained_networks_need_the_model_for_its_architecture(
    pool: list[Atoms], potential: Potential
) -> None:
    with pytest.raises(ArgumentError, match="needs a model"):
        lw.select(pool, 3, representation="ntk-random")
    batch = lw.select(pool, 3, potential=potential, representation="activation-random", seed=2)
    built = potential.with_random_weights(2)
    expected = lw.select(pool, 3, potential=built, representation="activation")
    assert batch.pool_idx == expected.pool_idx


def turned(atoms: Atoms, seed: int) -> Atoms:
    """Return a copy that is rotated, moved and in another order of its atoms."""
    rng = np.random.default_rng(seed)
    copy = atoms.copy()
    copy.rotate(rng.uniform(20.0, 160.0), rng.normal(size=3))
    copy.positions += rng.normal(size=3)
    shuffled: Atoms = copy[rng.permutation(len(copy))]
    return shuffled


@pytest.mark.parametrize("road", ["memory", "store"])
@pytest.mark.parametrize("rule", ["lcmd", "pv", "k-center"])
def test_copies_of_labelled_structures_are_told(
    rule: str, road: str, rattled_molecules: list[Atoms], potential: Potential, tmp_path: Path
) -> None:
    """Of seven structures three are new to the kernel."""
    train = rattled_molecules[:4]
    pool = [turned(atoms, i) for i, atoms in enumerate(train)] + rattled_molecules[10:13]

    def choose(n: int) -> tuple[lw.Pick, ...]:
        if road == "memory":
            return lw.select(pool, n, train=train, potential=potential, rule=rule).picks
        lw.write_structures(tmp_path / "train.extxyz", train)
        lw.write_structures(tmp_path / "pool.extxyz", pool)
        settings = lw.AcquisitionSettings(n_select=n, rule=rule)
        return acquire(
            [str(tmp_path / "pool.extxyz")],
            [str(tmp_path / "train.extxyz")],
            settings,
            potential=potential,
            rows=open_store(tmp_path / "store.zarr", settings, potential),
        ).picks

    few = choose(3)  # warnings are errors here
    assert {pick.pool_index for pick in few} == {4, 5, 6}
    with pytest.warns(LabelwiseWarning, match=r"only 3 of the 6 chosen structures are new") as told:
        many = choose(6)
    assert len(told) == 1
    assert [pick.pool_index for pick in many[:3]] == [pick.pool_index for pick in few]


def test_copies_of_labelled_structures_are_told_of_row_sets(
    rattled_molecules: list[Atoms], potential: Potential
) -> None:
    train = rattled_molecules[:3]
    pool = [turned(atoms, i) for i, atoms in enumerate(train)] + rattled_molecules[10:12]
    with pytest.warns(LabelwiseWarning, match=r"only 2 of the 5 chosen structures are new"):
        lw.select(pool, 5, train=train, potential=potential, rule="joint-pv")


def test_frames_of_equal_bonds_are_no_copies(rattled_molecules: list[Atoms]) -> None:
    """To ``morgan`` every frame of a molecule is the same, which is no news."""
    pytest.importorskip("rdkit")
    lw.select(rattled_molecules[6:], 12, train=rattled_molecules[:6], representation="morgan")
