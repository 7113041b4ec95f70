"""The study of energy/force weights on twenty-five structures of the embedded pool."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.stats import spearmanr

from labelwise.cli import main
from labelwise.errors import ArgumentError, LabelError, ReadError, WriteError
from labelwise.features.representations import RepresentationOptions, represent
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.row_sets import RowScales, join_row_sets
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.labelled import prepare_labelled
from labelwise.finetuning.metrics import root_mean_square, sparsification_area
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import Potential
from labelwise.selection.rules.joint_posterior import joint_variances
from labelwise.selection.rules.posterior_variance import posterior_variance
from labelwise.structures import write_structures
from labelwise.studies.weights.report import list_lines, write_page, write_table
from labelwise.studies.weights.results import WeightStudy
from labelwise.studies.weights.settings import WeightStudySettings
from labelwise.studies.weights.study import draw_splits, measure_errors, study_weights

SETTINGS = WeightStudySettings(
    parameters=("embedding", "readout"),
    weights=(1.0, 0.0, 0.5),
    n_probes=2,
    n_train=6,
    n_repeats=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def study(demo_potential: Potential, demo_pool: list[Atoms], folder: Path) -> WeightStudy:
    return study_weights(demo_potential, demo_pool, SETTINGS, folder=folder)


def _find(study: WeightStudy, parameters: str, kernel: str, weight: float):
    block = next(block for block in study.blocks if block.parameters == parameters)
    return next(i for i in block.scores if (i.kernel, i.weight) == (kernel, weight))


def test_every_block_kernel_and_weight_is_scored_in_every_repeat(study: WeightStudy) -> None:
    kernels = ("joint-pv", "joint-pv-cosine", "ntk-ef-fields")
    expected = [(kernel, weight) for kernel in kernels for weight in (0.0, 0.5, 1.0)]
    assert [block.parameters for block in study.blocks] == ["embedding", "readout"]
    for block in study.blocks:
        assert [(item.kernel, item.weight) for item in block.scores] == expected
        for item in block.scores:
            values = (item.spearman_forces, item.spearman_energy, item.sparsification)
            assert np.isfinite(values).all() and np.shape(values) == (3, 2)
            assert (np.array(item.sparsification) >= study.reference.oracle).all()
            assert item.batch is None


def test_true_errors(study: WeightStudy, demo_potential: Potential, demo_pool: list[Atoms]) -> None:
    """Force errors are the predictions'; energy errors are blind to reference energies."""
    predicted = evaluate(demo_potential, demo_pool)
    by_hand = [
        1000 * root_mean_square(force - atoms.arrays["REF_forces"])
        for force, atoms in zip(predicted.forces, demo_pool, strict=True)
    ]
    np.testing.assert_allclose(study.reference.force_errors, by_hand, rtol=1e-6)
    builder = demo_potential.graph_builder
    shifted = [atoms.copy() for atoms in demo_pool]
    for atoms in shifted:
        atoms.info["REF_energy"] += 3.0 * int((atoms.numbers == 6).sum()) - 1.5 * len(atoms)
    errors = [
        measure_errors(demo_potential, prepare_labelled(builder, structures, role="pool"))[1]
        for structures in (demo_pool, shifted)
    ]
    np.testing.assert_allclose(errors[0], study.reference.energy_errors, atol=1e-6)
    np.testing.assert_allclose(errors[0], errors[1], atol=0.05)


@pytest.mark.parametrize("parameters", ["embedding", "readout"])
@pytest.mark.parametrize("weight,name", [(1.0, "ntk-e"), (0.0, "ntk-f")])
def test_the_ends_are_ntk_e_and_ntk_f(
    study: WeightStudy,
    demo_potential: Potential,
    demo_pool: list[Atoms],
    parameters: str,
    weight: float,
    name: str,
) -> None:
    options = RepresentationOptions(parameters=parameters, n_probes=2)
    kernel = LinearKernel(represent(demo_pool, demo_potential, name, options=options))
    errors = np.array(study.reference.force_errors)
    found = _find(study, parameters, "ntk-ef-fields", weight)
    for repeat, split in enumerate(draw_splits(SETTINGS, len(demo_pool), 0)):
        rest, train = (torch.from_numpy(idx) for idx in (split.rest_idx, split.train_idx))
        score = posterior_variance(kernel.take(rest), kernel.take(train)).numpy()
        expected = spearmanr(score, errors[split.rest_idx]).statistic
        assert found.spearman_forces[repeat] == pytest.approx(expected, abs=0.01)
        area = sparsification_area(score, errors[split.rest_idx])
        assert found.sparsification[repeat] == pytest.approx(area, abs=0.01)


@pytest.mark.parametrize("kernel,normalise", [("joint-pv", "none"), ("joint-pv-cosine", "cosine")])
def test_joint_scores_are_those_of_the_rule(
    study: WeightStudy,
    demo_potential: Potential,
    demo_pool: list[Atoms],
    kernel: str,
    normalise: str,
) -> None:
    options = RepresentationOptions(n_probes=2)
    sets = join_row_sets(list(iter_row_sets(demo_pool, demo_potential, options)), dim=1)
    weighed = RowScales.measured(sets, normalise=normalise, energy_weight=0.5).weigh(sets)
    split = draw_splits(SETTINGS, len(demo_pool), 0)[1]
    rest, train = (torch.from_numpy(idx) for idx in (split.rest_idx, split.train_idx))
    score = joint_variances(weighed.take(rest), weighed.take(train)).numpy()
    if normalise == "none":
        score = score / [len(demo_pool[i]) for i in split.rest_idx]
    errors = np.array(study.reference.force_errors)[split.rest_idx]
    found = _find(study, "embedding", kernel, 0.5).spearman_forces[1]
    assert found == pytest.approx(spearmanr(score, errors).statistic, abs=1e-9)


def test_splits_leave_nothing_out_and_do_not_depend_on_their_number() -> None:
    few, many = (draw_splits(replace(SETTINGS, n_repeats=n), 25, 0) for n in (2, 4))
    for split in many:
        assert sorted([*split.train_idx, *split.rest_idx]) == list(range(25))
        assert len(split.train_idx) == 6
    for a, b in zip(few, many, strict=False):
        assert (a.train_idx == b.train_idx).all()
    assert len({tuple(split.train_idx) for split in many}) == 4
    (given,) = draw_splits(SETTINGS, 25, 4)
    assert given.train_idx.tolist() == [25, 26, 27, 28] and len(given.rest_idx) == 25


def test_finished_blocks_are_read_again(
    study: WeightStudy, demo_potential: Potential, demo_pool: list[Atoms], folder: Path
) -> None:
    (folder / "readout.json").unlink()
    stages: list[str] = []
    again = study_weights(
        demo_potential,
        demo_pool,
        SETTINGS,
        folder=folder,
        progress=lambda stage, _done, _total: stages.append(stage),
    )
    assert again.resumed == ("embedding",)
    assert set(stages) == {"rows readout", "score readout"}
    assert again.reference == study.reference
    assert again.blocks[0] == study.blocks[0]
    assert again.blocks[1].scores == study.blocks[1].scores


@pytest.mark.parametrize(
    "change,message",
    [
        ({"weights": (0.0, 1.0)}, r"weights was \[1.0, 0.0, 0.5\] and is \[0.0, 1.0\]"),
        ({"seed": 1}, "seed was 0 and is 1"),
    ],
)
def test_another_studys_blocks_are_not_mixed_in(
    study: WeightStudy,
    demo_potential: Potential,
    demo_pool: list[Atoms],
    folder: Path,
    change: dict,
    message: str,
) -> None:
    before = (folder / "embedding.json").read_bytes()
    with pytest.raises(ArgumentError, match=message):
        study_weights(demo_potential, demo_pool, replace(SETTINGS, **change), folder=folder)
    with pytest.raises(ArgumentError, match="another pool"):
        study_weights(demo_potential, demo_pool[:-1], SETTINGS, folder=folder)
    assert (folder / "embedding.json").read_bytes() == before


def test_an_interrupted_study_keeps_its_blocks(
    demo_potential: Potential, demo_pool: list[Atoms], tmp_path: Path
) -> None:
    def interrupt(stage: str, _done: int, _total: int | None) -> None:
        if stage == "score readout":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_weights(demo_potential, demo_pool, SETTINGS, folder=tmp_path, progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embedding.json", "reference.json"]


def test_a_damaged_block_is_named(
    demo_potential: Potential, demo_pool: list[Atoms], tmp_path: Path
) -> None:
    (tmp_path / "embedding.json").write_text("{")
    with pytest.raises(ReadError, match=r"embedding\.json is not a block of a study"):
        study_weights(demo_potential, demo_pool, SETTINGS, folder=tmp_path)
    with pytest.raises(WriteError, match="is a file"):
        study_weights(demo_potential, demo_pool, SETTINGS, folder=tmp_path / "embedding.json")


def test_batches_and_a_given_labelled_set(
    demo_potential: Potential, demo_pool: list[Atoms], demo_test: list[Atoms]
) -> None:
    settings = replace(
        SETTINGS, parameters=("embedding",), weights=(0.0, 1.0), batch_size=3, max_updates=8
    )
    study = study_weights(
        demo_potential, demo_pool[5:], settings, train=demo_pool[:5], test=demo_test
    )
    assert study.reference.random is not None
    items = [item.batch for item in study.blocks[0].scores]
    for batch in (study.reference.random, *items):
        assert batch is not None
        assert len(set(batch.pool_idx)) == 3 and max(batch.pool_idx) < 20
        assert batch.energy_rmse > 0 and batch.forces_rmse > 0
    assert len(study.blocks[0].scores[0].spearman_forces) == 1
    by_batch = {tuple(sorted(batch.pool_idx)): batch.forces_rmse for batch in items if batch}
    assert len(set(by_batch.values())) == len(by_batch) > 1
    lines = list_lines(study)
    assert [line.kernel for line in lines[-2:]] == ["oracle", "random"]


def test_a_structure_is_in_one_set_only(demo_potential: Potential, demo_pool: list[Atoms]) -> None:
    with pytest.raises(ArgumentError, match=r"train structure 1 .* is pool structure 7, too"):
        study_weights(demo_potential, demo_pool[5:], SETTINGS, train=[demo_pool[0], demo_pool[12]])
    settings = replace(SETTINGS, batch_size=2)
    with pytest.raises(ArgumentError, match=r"test structure 0 .* is pool structure 3, too"):
        study_weights(demo_potential, demo_pool, settings, test=demo_pool[3:4])


def test_missing_labels_are_named(demo_potential: Potential, demo_pool: list[Atoms]) -> None:
    pool = [atoms.copy() for atoms in demo_pool]
    del pool[3].arrays["REF_forces"]
    with pytest.raises(LabelError, match=r"pool structure 3 .*'REF_forces' is missing"):
        study_weights(demo_potential, pool, SETTINGS)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"parameters": ("heads",)}, "parameters is 'heads'"),
        ({"parameters": ()}, "parameters are none"),
        ({"weights": (0.5, 1.5)}, "weights are 0.5, 1.5"),
        ({"weights": (0.5, 0.5)}, "weights are 0.5, 0.5"),
        ({"weights": (float("nan"),)}, "weights are nan"),
        ({"reductions": ("max",)}, "reductions is 'max'"),
        ({"n_probes": 0}, "n_probes is 0"),
        ({"n_repeats": 0}, "n_repeats is 0"),
        ({"regularisation": 0.0}, "regularisation=0.0"),
    ],
)
def test_settings_out_of_range(change: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        replace(SETTINGS, **change)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"n_train": 23}, "of which 2 would be scored"),
        ({"batch_size": 20}, "batch_size is 20; at most 19"),
        ({"batch_size": 2}, "give one, or batch_size 0"),
    ],
)
def test_pools_too_small(
    demo_potential: Potential, demo_pool: list[Atoms], change: dict, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        study_weights(demo_potential, demo_pool, replace(SETTINGS, **change))


def test_table_and_page(study: WeightStudy, tmp_path: Path) -> None:
    write_table(tmp_path / "weights.csv", study)
    with (tmp_path / "weights.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 3 * 3 + 1
    item = study.blocks[1].scores[4]
    row = rows[9 + 4]
    assert (row["parameters"], row["kernel"]) == ("readout", item.kernel)
    assert float(row["energy_weight"]) == item.weight
    assert float(row["spearman_forces"]) == pytest.approx(np.mean(item.spearman_forces))
    assert float(row["spearman_forces_std"]) == pytest.approx(np.std(item.spearman_forces, ddof=1))
    assert row["test_energy_rmse_mev"] == ""
    write_page(tmp_path / "weights.md", study)
    table = [line for line in (tmp_path / "weights.md").read_text().splitlines() if "|" in line]
    assert len(table) == 2 + len(rows) and len({line.count("|") for line in table}) == 1


def test_the_command_resumes_and_refuses(
    demo_pool: list[Atoms],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_structures("pool.extxyz", demo_pool[:12])
    base = ["study-weight", "--model", "demo", "--device", "cpu", "--pool", "pool.extxyz"]
    words = [
        "--n-train",
        "6",
        "--repeats",
        "2",
        "--probes",
        "2",
        "--weights",
        "0,1",
        "--out",
        "study",
    ]

    def run(*more: str) -> int:
        return main([*base, *words, *more])

    assert run("--parameters", "embedding") == 0
    out = capsys.readouterr().out
    assert "joint-pv-cosine" in out and "oracle" in out and "earlier run" not in out
    written = {"reference.json", "embedding.json", "weights.csv", "weights.md"}
    assert written <= {path.name for path in Path("study").iterdir()}
    before = Path("study/embedding.json").stat().st_mtime_ns
    assert run("--parameters", "embedding,readout", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["resumed"] == ["embedding"]
    assert [block["parameters"] for block in shown["blocks"]] == ["embedding", "readout"]
    assert Path("study/embedding.json").stat().st_mtime_ns == before
    assert run("--parameters", "embedding", "--seed", "1") == 1
    assert "seed was 0 and is 1" in capsys.readouterr().err
    assert run("--parameters", "embedding", "--seed", "1", "--force", "-q") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "words,code,message",
    [
        (["--weight", "0,1"], 2, "No such option"),
        (["--weights", "0,x"], 1, "--weights is '0,x'"),
        (["--weights", ""], 1, "weights are none"),
        (["--probes", "0"], 2, "--probes is '0'"),
        (["--forces-key", "dft"], 1, "pool.extxyz@0: label 'dft' is missing"),
    ],
)
def test_wrong_words(
    demo_pool: list[Atoms],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_structures("pool.extxyz", demo_pool)
    base = ["study-weight", "--model", "demo", "--pool", "pool.extxyz", "--out", "study"]
    assert main([*base, *words]) == code
    assert message in capsys.readouterr().err
    assert not Path("study").exists()


def test_the_picture(study: WeightStudy, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from labelwise.studies.weights.report import draw_study

    draw_study(tmp_path / "weights.png", study)
    assert (tmp_path / "weights.png").read_bytes().startswith(b"\x89PNG")
