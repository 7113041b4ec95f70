"""The residual-GP protocol on a part of the embedded pool."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read
from scipy.stats import norm

from labelwise.errors import ArgumentError, LabelError, ReadError, StructureError, WriteError
from labelwise.finetuning.evaluation import evaluate
from labelwise.kernels.building import build_kernels
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import Potential, load_potential
from labelwise.runtime.provenance import to_json
from labelwise.selection.rules import select_posterior_variance
from labelwise.structures.demo_data import demo_file_content
from labelwise.studies.diagnostics.calibration import (
    calibrate,
    choose_prefix,
    choose_prefix_sizes,
    draw_initial_sets,
)
from labelwise.studies.diagnostics.calibration_metrics import measure_calibration
from labelwise.studies.diagnostics.calibration_pictures import draw_prefixes, draw_reliability
from labelwise.studies.diagnostics.calibration_report import (
    QUANTITIES,
    as_plain_data,
    describe,
    format_line,
    list_warnings,
    write_page,
    write_table,
)
from labelwise.studies.diagnostics.calibration_results import (
    Calibration,
    CalibrationSets,
    KernelCalibration,
)
from labelwise.studies.diagnostics.settings import CalibrationSettings

SETTINGS = CalibrationSettings(
    kernels=("activation", "ntk-e"), n_initial=6, step=4, max_labels=17, n_repeats=2, n_bins=3
)


def _read(name: str, n: int) -> list[Atoms]:
    structures = list(
        read(io.StringIO(demo_file_content(name).decode()), ":", format="extxyz")  # type: ignore[arg-type]
    )
    return structures[:: len(structures) // n][:n]


@pytest.fixture(scope="module")
def demo_potential() -> Potential:
    return load_potential("demo", device="cpu")


@pytest.fixture(scope="module")
def sets() -> CalibrationSets:
    """Structures of twenty-three, eight and nine, all ten reactions among them."""
    return CalibrationSets(
        _read("pool.extxyz", 23), _read("valid.extxyz", 8), _read("test.extxyz", 9)
    )


@pytest.fixture(scope="module")
def calibration(demo_potential: Potential, sets: CalibrationSets) -> Calibration:
    return calibrate(demo_potential, sets, SETTINGS)


def _relabelled(sets: CalibrationSets, shift: dict[str, float], scale: float = 1.0):
    """Return the sets with atomic energies added to the labels, eV."""

    def change(atoms: Atoms) -> Atoms:
        copy = atoms.copy()
        added = sum(shift.get(symbol, 0.0) for symbol in atoms.get_chemical_symbols())
        copy.info["REF_energy"] = scale * atoms.info["REF_energy"] + added
        return copy

    parts = {role: [change(atoms) for atoms in found] for role, found in sets.by_role().items()}
    return CalibrationSets(**parts)


def test_sizes_of_prefixes() -> None:
    assert choose_prefix_sizes(SETTINGS, 23) == (6, 10, 14, 17)
    assert choose_prefix_sizes(replace(SETTINGS, max_labels=None), 16) == (6, 10, 14, 16)
    assert choose_prefix_sizes(replace(SETTINGS, max_labels=None), 999, 3)[::49] == (3, 199)
    assert choose_prefix_sizes(replace(SETTINGS, max_labels=6), 23) == (6,)
    for wrong in (5, 24):
        with pytest.raises(ArgumentError, match=r"max_labels is .* the initial set, 6, .*, 23"):
            choose_prefix_sizes(replace(SETTINGS, max_labels=wrong), 23)
    with pytest.raises(ArgumentError, match="none is left to acquire"):
        choose_prefix_sizes(SETTINGS, 6)


def test_initial_sets_do_not_depend_on_their_number() -> None:
    two, three = (draw_initial_sets(replace(SETTINGS, n_repeats=n), 23) for n in (2, 3))
    assert all((a == b).all() for a, b in zip(two, three[:2], strict=True))
    assert len({tuple(drawn) for drawn in three}) == 3
    assert all(len(set(drawn.tolist())) == 6 and (drawn < 23).all() for drawn in three)
    assert draw_initial_sets(SETTINGS, 23, 3)[0].tolist() == [23, 24, 25]


def test_the_least_likelihood_chooses_the_first_of_equal_prefixes() -> None:
    assert choose_prefix([3.0, 1.0, 2.0, 1.0]) == 1


@pytest.mark.parametrize("per_atom,with_noise", [(False, False), (True, True)])
def test_every_number_is_that_of_brute_force(
    demo_potential: Potential, sets: CalibrationSets, per_atom: bool, with_noise: bool
) -> None:
    """From raw predictions by the paper's equations, references kept so as to be independent."""
    settings = replace(
        SETTINGS,
        kernels=("ntk-e",),
        n_repeats=1,
        per_atom=per_atom,
        with_noise=with_noise,
        references="checkpoint",
    )
    replay = calibrate(demo_potential, sets, settings).kernels[0].replays[0]
    built = build_kernels((sets.pool, sets.valid, sets.test), demo_potential, "ntk-e")
    pool, *others = [kernel for kernel in built if isinstance(kernel, LinearKernel)]
    initial = np.array(replay.initial_idx)
    rest = np.setdiff1d(np.arange(23), initial)
    picked = select_posterior_variance(
        pool.take(torch.from_numpy(rest)), pool.take(torch.from_numpy(initial)), 11
    )
    assert list(replay.pool_idx) == rest[picked.pool_idx].tolist()

    def residuals(structures: list[Atoms]) -> np.ndarray:
        predicted = evaluate(demo_potential, structures).energies
        labels = np.array([atoms.info["REF_energy"] for atoms in structures])
        sizes = np.array([len(atoms) if per_atom else 1 for atoms in structures])
        return (labels - predicted) / sizes

    sequence = [*replay.initial_idx, *replay.pool_idx]
    assert [item.n_labels for item in replay.prefixes] == [6, 10, 14, 17]
    nll = []
    for item in replay.prefixes:
        idx = sequence[: item.n_labels]
        x = pool.features.double().numpy()[idx]
        r = residuals([sets.pool[place] for place in idx])
        inverse = np.linalg.inv(x @ x.T + 1e-3 * np.eye(len(idx)))
        scale = (r - r.mean()) @ inverse @ (r - r.mean()) / len(idx)
        assert item.scale == pytest.approx(scale, rel=1e-6)
        errors, stds = [], []
        for kernel, structures in zip(others, (sets.valid, sets.test), strict=True):
            z = kernel.features.double().numpy()
            k = x @ z.T
            mean = r.mean() + k.T @ inverse @ (r - r.mean())
            variance = (z * z).sum(axis=1) - np.einsum("tm,ts,sm->m", k, inverse, k)
            errors.append(residuals(list(structures)) - mean)
            stds.append(np.sqrt(scale * (variance + 1e-3 * with_noise)))
        nll.append(-norm.logpdf(errors[0], scale=stds[0]).mean())
        assert item.valid_nll == pytest.approx(nll[-1], rel=1e-5)
        expected = measure_calibration(errors[1], stds[1], n_bins=3)
        assert item.test.rmse == pytest.approx(expected.rmse, rel=1e-5)
        assert item.test.nll == pytest.approx(expected.nll, rel=1e-5)
        assert item.test.coverages == expected.coverages
        without = residuals(list(sets.test)) - r.mean()
        assert item.bias_rmse == pytest.approx(np.sqrt(np.mean(without**2)), rel=1e-5)
    assert replay.chosen == int(np.argmin(nll))


def test_smaller_steps_visit_the_same_prefixes(
    demo_potential: Potential, sets: CalibrationSets, calibration: Calibration
) -> None:
    settings = replace(SETTINGS, kernels=("activation",), step=1)
    fine = calibrate(demo_potential, sets, settings).kernels[0]
    for few, many in zip(calibration.kernels[0].replays, fine.replays, strict=True):
        assert few.pool_idx == many.pool_idx
        by_size = {item.n_labels: item for item in many.prefixes}
        assert all(by_size[item.n_labels] == item for item in few.prefixes)
        assert many.best.valid_nll <= few.best.valid_nll


@pytest.mark.parametrize("references,n_initial", [("prefix", 6), ("initial", 20)])
def test_another_level_of_theory_changes_nothing(
    demo_potential: Potential, sets: CalibrationSets, references: str, n_initial: int
) -> None:
    """Fitted reference energies absorb any energy of the elements; the checkpoint's do not."""
    settings = replace(
        SETTINGS,
        kernels=("activation",),
        references=references,
        n_initial=n_initial,
        n_repeats=1,
        max_labels=23,
    )
    shifted = _relabelled(sets, {"H": 3.0, "C": -20.0, "N": 8.0, "O": 5.0})

    def last(of: CalibrationSets, how: CalibrationSettings):
        return calibrate(demo_potential, of, how).kernels[0].replays[0].prefixes[-1]

    one, other = last(sets, settings), last(shifted, settings)
    assert other.test.rmse == pytest.approx(one.test.rmse, rel=1e-3)
    assert other.test.nll == pytest.approx(one.test.nll, rel=1e-2)
    kept = last(shifted, replace(settings, references="checkpoint"))
    assert kept.bias_rmse > 10 * one.bias_rmse


def _rattled(name: str, n: int, seed: int) -> list[Atoms]:
    structures = []
    for place in range(seed, seed + n):
        atoms = molecule(name)
        atoms.rattle(0.05, seed=place)
        atoms.info["REF_energy"] = -30.0 + 0.1 * math.sin(7 * place)
        structures.append(atoms)
    return structures


@pytest.mark.parametrize("references,n_unreached", [("prefix", 0), ("initial", 2)])
def test_a_composition_that_references_are_not_fitted_to_is_reported(
    demo_potential: Potential, references: str, n_unreached: int
) -> None:
    """The initial set is methane, which says nothing of water; the longest prefix holds both."""
    methane, water = _rattled("CH4", 20, 1), _rattled("H2O", 8, 301)
    mixed = CalibrationSets(
        water[4:], methane[16:] + water[2:4], methane[10:16] + water[:2], methane[:10]
    )
    settings = replace(
        SETTINGS, kernels=("activation",), n_repeats=1, max_labels=14, references=references
    )
    found = calibrate(demo_potential, mixed, settings)
    assert found.kernels[0].replays[0].n_unreached == n_unreached
    words = "several eV: 2 for activation"
    assert any(words in line for line in list_warnings(found)) is (n_unreached > 0)


def test_a_given_initial_set(demo_potential: Potential, sets: CalibrationSets) -> None:
    given = replace(sets, pool=sets.pool[4:], train=sets.pool[:4])
    settings = replace(SETTINGS, kernels=("activation",), n_repeats=1)
    found = calibrate(demo_potential, given, settings).kernels[0].replays[0]
    assert found.initial_idx == (0, 1, 2, 3)
    assert found.prefixes[0].n_labels == 4 and found.prefixes[-1].n_labels == 17
    assert len(set(found.pool_idx)) == 13 and max(found.pool_idx) < 19
    with pytest.raises(ArgumentError, match="with a given training set there is one"):
        calibrate(demo_potential, given, SETTINGS)


def test_finished_kernels_are_read_again(
    demo_potential: Potential, sets: CalibrationSets, calibration: Calibration, tmp_path: Path
) -> None:
    def interrupt(stage: str, _done: int, _total: int | None) -> None:
        if stage == "features ntk-e":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(demo_potential, sets, SETTINGS, folder=tmp_path, progress=interrupt)
    assert [path.name for path in (tmp_path / "kernels").iterdir()] == ["activation.json"]
    stages: list[str] = []
    found = calibrate(
        demo_potential,
        sets,
        SETTINGS,
        folder=tmp_path,
        progress=lambda stage, _done, _total: stages.append(stage),
    )
    assert found.resumed == ("activation",) and "features activation" not in stages
    assert [item.replays for item in found.kernels] == [
        item.replays for item in calibration.kernels
    ]
    stages.clear()
    again = calibrate(
        demo_potential,
        sets,
        replace(SETTINGS, kernels=("ntk-e",)),
        folder=tmp_path,
        progress=lambda stage, _done, _total: stages.append(stage),
    )
    assert stages == [] and again.kernels == found.kernels[1:]


def test_other_settings_are_not_mixed_in(
    demo_potential: Potential, sets: CalibrationSets, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, kernels=("activation",))
    first = calibrate(demo_potential, sets, settings, folder=tmp_path)
    other = replace(settings, regularisation=0.1)
    with pytest.raises(ArgumentError, match=r"regularisation was 0.001 and is 0.1; .* --force"):
        calibrate(demo_potential, sets, other, folder=tmp_path)
    with pytest.raises(ArgumentError, match="another test"):
        calibrate(demo_potential, replace(sets, test=sets.test[1:]), settings, folder=tmp_path)
    forced = calibrate(demo_potential, sets, other, folder=tmp_path, force=True)
    assert forced.resumed == () and forced.kernels[0].replays != first.kernels[0].replays
    path = tmp_path / "kernels" / "activation.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ReadError, match=r"activation\.json is not a kernel of a calibration"):
        calibrate(demo_potential, sets, other, folder=tmp_path)
    with pytest.raises(WriteError, match="is a file"):
        calibrate(demo_potential, sets, other, folder=path)


def test_a_structure_is_in_one_set_only(demo_potential: Potential, sets: CalibrationSets) -> None:
    doubled = replace(sets, test=[*sets.test, sets.pool[5].copy()])
    with pytest.raises(ArgumentError, match=r"test structure 9 .* is pool structure 5, too"):
        calibrate(demo_potential, doubled, SETTINGS)
    doubled = replace(sets, valid=[sets.test[2].copy()])
    with pytest.raises(ArgumentError, match=r"test structure 2 .* is valid structure 0, too"):
        calibrate(demo_potential, doubled, SETTINGS)


def test_labels_and_positions_are_checked_first(
    demo_potential: Potential, sets: CalibrationSets
) -> None:
    def spoil(key: str, value: float | None):
        atoms = sets.valid[1].copy()
        if key == "positions":
            atoms.positions[0, 0] = np.nan
        else:
            atoms.info.pop(key)
            atoms.info |= {} if value is None else {key: value}
        sources = {"valid": ["here@0", "here@1"]}
        return replace(sets, valid=[sets.valid[0], atoms], sources=sources)

    for value, message in ((None, "is missing"), (0.0, "exactly zero"), (np.nan, "not finite")):
        with pytest.raises(LabelError, match=rf"valid structure 1 .* from here@1: .* {message}"):
            calibrate(demo_potential, spoil("REF_energy", value), SETTINGS)
    with pytest.raises(StructureError, match="from here@1: positions or cell are not finite"):
        calibrate(demo_potential, spoil("positions", None), SETTINGS)


def test_sets_too_small(demo_potential: Potential, sets: CalibrationSets) -> None:
    with pytest.raises(ArgumentError, match="valid is empty"):
        calibrate(demo_potential, replace(sets, valid=[]), SETTINGS)
    with pytest.raises(ArgumentError, match="at least 3 are needed for 3 bins"):
        calibrate(demo_potential, replace(sets, test=sets.test[:2]), SETTINGS)
    with pytest.raises(ArgumentError, match="train has one structure"):
        one = replace(sets, train=sets.pool[:1], pool=sets.pool[1:])
        calibrate(demo_potential, one, replace(SETTINGS, n_repeats=1))


@pytest.mark.parametrize(
    "change,message",
    [
        ({"kernels": ("ntk-e", "soup")}, "kernel is 'soup'; allowed are activation"),
        ({"kernels": ()}, "kernels are none"),
        ({"kernels": ("ntk-e", "ntk-e")}, "each once"),
        ({"n_initial": 1}, "n_initial is 1; allowed is >= 2"),
        ({"step": 0}, "step is 0"),
        ({"regularisation": math.nan}, "regularisation is nan"),
        ({"references": "pool"}, "references is 'pool'; allowed are prefix, initial"),
        ({"normalise": "l1"}, "normalise is 'l1'"),
    ],
)
def test_settings_out_of_range(change: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        replace(SETTINGS, **change)


def test_table_and_page(calibration: Calibration, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", calibration)
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["kernel"] for row in rows] == ["activation", "ntk-e"]
    for row, kernel in zip(rows, calibration.kernels, strict=True):
        values = [1000 * replay.best.test.rmse for replay in kernel.replays]
        assert float(row["rmse_mev"]) == pytest.approx(np.mean(values))
        assert float(row["rmse_mev_std"]) == pytest.approx(np.std(values, ddof=1))
        assert len(row) == 2 + 2 * len(QUANTITIES) and row["repeats"] == "2"
    write_page(tmp_path / "t.md", calibration)
    page = (tmp_path / "t.md").read_text()
    assert all(line in page for line in describe(calibration))
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1


def test_one_replay_has_no_deviation(calibration: Calibration) -> None:
    kernel = calibration.kernels[0]
    one = KernelCalibration(kernel.kernel, kernel.seconds, kernel.replays[:1])
    assert not any("±" in cell for cell in format_line(one))
    assert all("±" in cell for cell in format_line(kernel)[1:])
    assert len(format_line(kernel, short=True)) < len(format_line(kernel))


def test_plain_data_has_curves_and_no_nan(calibration: Calibration) -> None:
    unknown = replace(calibration.kernels[0].replays[0].best.test, rank_correlation=math.nan)
    replay = calibration.kernels[0].replays[0]
    prefixes = tuple(replace(item, test=unknown) for item in replay.prefixes)
    kernel = replace(calibration.kernels[0], replays=(replace(replay, prefixes=prefixes),))
    content = as_plain_data(replace(calibration, kernels=(kernel,)))
    assert to_json(content)
    shown = content["kernels"][0]
    assert shown["mean"]["rank_correlation"] is None and shown["std"]["nll"] is None
    assert shown["replays"][0]["n_labels"] == [6, 10, 14, 17]


def test_the_longest_prefix_is_worth_a_word(calibration: Calibration) -> None:
    kernel = calibration.kernels[0]
    for place, expected in ((3, True), (1, False)):
        replays = tuple(replace(replay, chosen=place) for replay in kernel.replays)
        lines = list_warnings(replace(calibration, kernels=(replace(kernel, replays=replays),)))
        assert any("longest prefix was the best for activation" in s for s in lines) is expected


def test_pictures(calibration: Calibration, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = [*draw_reliability(tmp_path, calibration), *draw_prefixes(tmp_path, calibration)]
    assert names == [
        "reliability.png", "reliability.svg", "prefixes.png", "prefixes.svg",
    ]  # fmt: skip
    for path in map(tmp_path.joinpath, names):
        start = b"\x89PNG" if path.suffix == ".png" else b"<?xml"
        assert path.read_bytes().startswith(start) and path.stat().st_size > 5000
