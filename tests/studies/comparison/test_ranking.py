"""Whose variances rank the model's errors, against the rules themselves and plain formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.stats import spearmanr

from labelwise.campaign.config import CampaignConfig
from labelwise.errors import ArgumentError
from labelwise.features.representations import RepresentationOptions, represent
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.row_sets import RowScales, join_row_sets
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.metrics import root_mean_square, sparsification_area
from labelwise.kernels.linear import LinearKernel
from labelwise.pages.document import Table
from labelwise.potentials import Potential
from labelwise.runtime.part_store import PartStore
from labelwise.selection.rules.joint_posterior import joint_variances
from labelwise.selection.rules.posterior_variance import posterior_variance
from labelwise.structures import write_structures
from labelwise.studies.comparison.inputs import KernelChoice, SampleOptions, StudyInputs
from labelwise.studies.comparison.methods import name_kernel
from labelwise.studies.comparison.page.reliability import show_ranking
from labelwise.studies.comparison.ranking import (
    N_LABELLED,
    N_REPEATS,
    ORACLE,
    measure_errors,
    measure_ranking,
)

RANKED: dict[str, dict[str, Any]] = {
    "ntk-ef+n_probes2+energy_weight0.0": {"energy_weight": 0.0},
    "ntk-ef+n_probes2+energy_weight1.0": {"energy_weight": 1.0},
    "ntk-ef+parametersreadout+n_probes2+energy_weight1.0": {
        "energy_weight": 1.0,
        "parameters": "readout",
    },
    "joint-pv+n_probes2": {"rule": "joint-pv", "representation": "ntk-e"},
    "joint-pv+n_probes2+normalisecosine": {
        "rule": "joint-pv",
        "representation": "ntk-e",
        "normalise": "cosine",
    },
}


def make_inputs(folder: Path, pool: list[Atoms]) -> StudyInputs:
    write_structures(folder / "pool.extxyz", pool)
    ranked = []
    for own in RANKED.values():
        selection = {
            "rule": "pv",
            "representation": "ntk-ef",
            "n_probes": 2,
            "initial_size": 1,
            **own,
        }
        config = CampaignConfig.model_validate(
            {
                "model": {"path": "demo"},
                "data": {"pool": [str(folder / "pool.extxyz")]},
                "selection": selection,
                "labeller": {"kind": "replay"},
            }
        )
        settings = config.selection.settings(1, seed=0)
        ranked.append(KernelChoice(name_kernel(settings), settings, 1))
    return StudyInputs("mine", folder, config, tuple(ranked), SampleOptions())


@pytest.fixture(scope="module")
def inputs(demo_pool: list[Atoms], tmp_path_factory: pytest.TempPathFactory) -> StudyInputs:
    return make_inputs(tmp_path_factory.mktemp("ranking"), demo_pool)


@pytest.fixture(scope="module")
def found(inputs: StudyInputs, demo_potential: Potential) -> dict[str, dict[str, Any]]:
    store = PartStore(inputs.directory / "kept", {}, kind="a ranking", force=True)
    return measure_ranking(inputs, demo_potential, store, 0.1)


def split(repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.from_numpy(np.random.default_rng((0, repeat)).permutation(25))
    return order[:N_LABELLED], order[N_LABELLED:]


def test_every_kernel_is_ranked_in_every_repeat(
    found: dict[str, dict[str, Any]], inputs: StudyInputs
) -> None:
    assert list(found) == [*RANKED, ORACLE]
    for name in RANKED:
        values = [found[name][key] for key in ("forces", "energy", "area")]
        assert np.isfinite(values).all() and np.shape(values) == (3, N_REPEATS)
        assert (np.array(found[name]["area"]) >= found[ORACLE]["area"]).all()
    assert len(list((inputs.directory / "kept").iterdir())) == len(found)


def test_true_errors(
    inputs: StudyInputs, demo_potential: Potential, demo_pool: list[Atoms]
) -> None:
    """Force errors are the predictions'; energy errors are blind to reference energies."""
    predicted = evaluate(demo_potential, demo_pool)
    by_hand = [
        root_mean_square(force - atoms.arrays["REF_forces"])
        for force, atoms in zip(predicted.forces, demo_pool, strict=True)
    ]
    forces, energy = measure_errors(demo_potential, demo_pool, inputs.config)
    np.testing.assert_allclose(forces, by_hand, rtol=1e-6)
    shifted = [atoms.copy() for atoms in demo_pool]
    for atoms in shifted:
        atoms.info["REF_energy"] += 3.0 * int((atoms.numbers == 6).sum()) - 1.5 * len(atoms)
    _, again = measure_errors(demo_potential, shifted, inputs.config)
    np.testing.assert_allclose(energy, again, atol=5e-5)


@pytest.mark.parametrize(
    ("parameters", "weight", "name"),
    [("embedding", 1.0, "ntk-e"), ("embedding", 0.0, "ntk-f"), ("readout", 1.0, "ntk-e")],
)
def test_the_ends_are_ntk_e_and_ntk_f(
    found: dict[str, dict[str, Any]],
    inputs: StudyInputs,
    demo_potential: Potential,
    demo_pool: list[Atoms],
    parameters: str,
    weight: float,
    name: str,
) -> None:
    block = "" if parameters == "embedding" else f"+parameters{parameters}"
    label = f"ntk-ef{block}+n_probes2+energy_weight{weight}"
    options = RepresentationOptions(parameters=parameters, n_probes=2)
    kernel = LinearKernel(represent(demo_pool, demo_potential, name, options=options))
    errors, _ = measure_errors(demo_potential, demo_pool, inputs.config)
    for repeat in range(N_REPEATS):
        train, rest = split(repeat)
        score = posterior_variance(kernel.take(rest), kernel.take(train)).numpy()
        expected = spearmanr(score, errors[rest]).statistic
        assert found[label]["forces"][repeat] == pytest.approx(expected, abs=0.02)
        area = sparsification_area(score, errors[rest])
        assert found[label]["area"][repeat] == pytest.approx(area, abs=0.02)


@pytest.mark.parametrize("normalise", ["none", "cosine"])
def test_joint_scores_are_those_of_the_rule(
    found: dict[str, dict[str, Any]],
    inputs: StudyInputs,
    demo_potential: Potential,
    demo_pool: list[Atoms],
    normalise: str,
) -> None:
    options = RepresentationOptions(n_probes=2)
    sets = join_row_sets(list(iter_row_sets(demo_pool, demo_potential, options)), dim=1)
    train, rest = split(1)
    scales = RowScales.measured(sets.take(train), normalise=normalise, energy_weight=0.5)
    weighed = scales.weigh(sets)
    score = joint_variances(weighed.take(rest), weighed.take(train)).numpy()
    if normalise == "none":
        score = score / [len(demo_pool[i]) for i in rest]
    errors, _ = measure_errors(demo_potential, demo_pool, inputs.config)
    label = "joint-pv+n_probes2" + ("" if normalise == "none" else "+normalisecosine")
    expected = spearmanr(score, errors[rest]).statistic
    assert found[label]["forces"][1] == pytest.approx(expected, abs=1e-9)


def test_the_table(found: dict[str, dict[str, Any]]) -> None:
    (table,) = show_ranking(found, "mine")
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [*RANKED, ORACLE]
    kernel = "joint-pv+n_probes2"
    row = next(row for row in table.rows if row[0] == kernel)
    values = found[kernel]["forces"]
    assert row[1:3] == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert table.rows[-1][1:5] == (None,) * 4
    assert show_ranking({}, "mine") == []


def test_a_small_pool_is_refused(
    demo_potential: Potential, demo_pool: list[Atoms], tmp_path: Path
) -> None:
    store = PartStore(None, {}, kind="a ranking", force=True)
    with pytest.raises(ArgumentError, match="a ranking takes 25"):
        measure_ranking(make_inputs(tmp_path, demo_pool[:12]), demo_potential, store, 1.0)
