"""Plans: the arithmetic by hand, the look at a pool, and the trial of the model."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from labelwise.errors import ArgumentError
from labelwise.features.store.columns import column_dtype
from labelwise.potentials import Potential
from labelwise.selection.planning.estimate import (
    Estimate,
    Machine,
    Rates,
    Trial,
    Workload,
    estimate_run,
    find_largest,
)
from labelwise.selection.planning.plan import (
    check_plannable,
    describe_machine,
    make_plan,
    run_trial,
)
from labelwise.selection.planning.settings import RunSettings
from labelwise.selection.planning.survey import count_by_length, read_frames_at, survey_files
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import write_structures
from labelwise.structures.reading import FileSlice

GB = 10**9
TRIAL = Trial(
    n_structures=1000,
    n_atoms=20_000,
    kept_fraction=0.5,
    screen_s_per_atom=1e-5,
    represent_s_per_atom=1e-4,
    relative_error=0.05,
    width=1000,
    n_blocks=1,
    peak_memory_bytes=GB,
    device="cpu",
)
MACHINE = Machine(
    n_cores=4,
    load_average=1.0,
    memory_bytes=32 * GB,
    free_bytes=100 * GB,
)
RATES = Rates(1e-5, 1e-6, 3.0, TRIAL, MACHINE)
WORK = Workload(
    n_structures=200_000,
    atoms_per_structure=20.0,
    n_select=1000,
    shortlist=10_000,
    n_train=2000,
    train_atoms_per_structure=20.0,
)
ROW_BYTES = 4000 + column_dtype(1).itemsize


def seconds_of(found: Estimate) -> dict[str, float]:
    return {stage.name: stage.seconds for stage in found.stages}


def test_stages_by_hand() -> None:
    found = seconds_of(estimate_run(WORK, RunSettings(), RATES))
    assert found == pytest.approx(
        {
            "load the model": 3.0,
            "read and screen": 2e-5 * (200_000 + 2000) * 20,
            "represent": 1e-4 * (100_000 + 2000) * 20,
            "read the batch": 0.2,
        }
    )


def test_random_needs_no_rows() -> None:
    no_rows = replace(RATES, trial=replace(TRIAL, width=0))
    found = estimate_run(replace(WORK, rule="random", shortlist=None), RunSettings(), no_rows)
    assert list(seconds_of(found)) == ["load the model", "read and screen", "read the batch"]
    assert found.store_bytes == 0 and found.fits


def test_half_precision_halves_the_rows_on_disk() -> None:
    whole = estimate_run(WORK, RunSettings(), RATES).store_bytes
    half = estimate_run(WORK, RunSettings(store_dtype="bfloat16"), RATES).store_bytes
    assert whole == 102_000 * ROW_BYTES
    assert whole - half == 102_000 * 2000


def test_gpus_divide_the_represent_stage_and_cores_the_reading() -> None:
    on_gpu = replace(RATES, trial=replace(TRIAL, device="cuda:0"))
    run = RunSettings(n_gpus=8, price_per_hour=3.0)
    found = estimate_run(WORK, run, on_gpu)
    assert seconds_of(found)["represent"] == pytest.approx(102_000 * 20 * 1e-4 / 8)
    assert seconds_of(found)["read and screen"] == pytest.approx(202_000 * 20 * 2e-5 / 4)
    assert found.cost == pytest.approx(found.total.seconds / 3600 * 3.0 * 8)


def test_gpus_that_are_not_here_need_a_measured_speed() -> None:
    with pytest.raises(ArgumentError, match="--structures-per-second"):
        estimate_run(WORK, RunSettings(n_gpus=8), RATES)
    run = RunSettings(n_gpus=8, structures_per_second=500.0)
    assert seconds_of(estimate_run(WORK, run, RATES))["represent"] == pytest.approx(102_000 / 4000)


def test_the_range_widens_with_what_is_not_known() -> None:
    sure = estimate_run(WORK, RunSettings(), RATES).total
    counted = estimate_run(replace(WORK, count_error=0.1), RunSettings(), RATES).total
    assert sure.low_s < sure.seconds < sure.high_s
    assert counted.seconds == sure.seconds
    assert counted.high_s > sure.high_s


def test_memory_is_bounded_and_the_least_is_enough() -> None:
    work = replace(WORK, shortlist=None)
    free = estimate_run(work, RunSettings(memory_bytes=16 * GB), RATES)
    least = free.least_memory_bytes
    assert GB < least < 4 * GB
    tight = estimate_run(work, RunSettings(memory_bytes=least), RATES)
    assert tight.fits and tight.peak_memory_bytes <= least
    assert not estimate_run(work, RunSettings(memory_bytes=least - 10**6), RATES).fits


def test_largest_pools_fit_and_larger_ones_do_not() -> None:
    run = RunSettings(memory_bytes=4 * GB, hours=2.0)
    largest = estimate_run(WORK, run, RATES).largest
    assert largest.rows_in_memory < largest.in_memory_bound

    def at(n: int) -> Estimate:
        return estimate_run(replace(WORK, n_structures=n), run, RATES)

    assert at(largest.in_memory_bound).least_memory_bytes <= 4 * GB + 10**6
    assert at(largest.in_memory_bound + 10_000).least_memory_bytes > 4 * GB
    assert at(largest.on_disk).store_bytes <= MACHINE.free_bytes
    assert at(largest.on_disk + 2).store_bytes > MACHINE.free_bytes
    assert largest.in_hours is not None
    assert at(largest.in_hours).total.seconds <= 7200.0 < at(largest.in_hours + 1).total.seconds


@pytest.mark.parametrize("wanted", [0, 1, 2, 3, 1000, 123_456_789])
def test_find_largest(wanted: int) -> None:
    assert find_largest(lambda n: n <= wanted) == wanted


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (RunSettings(store_dtype="float8"), "float32, float16, bfloat16"),
        (RunSettings(n_gpus=0), "n_gpus is 0; allowed is >= 1"),
        (RunSettings(structures_per_second=0.0), "structures_per_second is 0.0; allowed is > 0"),
        (RunSettings(price_per_hour=-1.0), "price_per_hour is -1.0; allowed is >= 0"),
        (RunSettings(hours=float("nan")), "hours is nan; allowed is > 0"),
    ],
)
def test_wrong_settings_are_named(run: RunSettings, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        estimate_run(WORK, run, RATES)


def test_more_picks_than_structures() -> None:
    with pytest.raises(ArgumentError, match=r"1 to 500"):
        estimate_run(replace(WORK, n_structures=500), RunSettings(), RATES)


def make_chain(n: int, rng: np.random.Generator) -> Atoms:
    positions = 1.1 * np.arange(n)[:, None] * [1.0, 0.0, 0.0] + rng.normal(scale=0.02, size=(n, 3))
    return Atoms("C" * n, positions=positions)


@pytest.fixture
def chains(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A file whose structures grow from 2 to 21 atoms: its front is not like the rest."""
    path = tmp_path / "chains.extxyz"
    structures = [make_chain(2 + i // 200, rng) for i in range(4000)]
    ase.io.write(path, structures, format="extxyz")
    return path


def test_a_large_file_is_entered_all_over(chains: Path) -> None:
    found = survey_files(chains, seconds=0.01, counted_bytes=0)
    assert found.is_spread and len(found.frames) < 4000
    assert found.n_structures != 4000 and found.count_error > 0.0  # not counted
    assert abs(found.n_structures / 4000 - 1) < max(0.1, 4 * found.count_error)
    assert found.atoms_per_structure == pytest.approx(11.5, rel=0.15)
    assert found.read_s_per_atom > 0.0 and found.split_s_per_structure > 0.0


def test_a_small_file_is_counted(chains: Path) -> None:
    found = survey_files([chains, chains], seconds=5.0)
    assert (found.n_structures, found.count_error) == (8000, 0.0)
    assert found.atoms_per_structure == 11.5
    assert sorted(frame.index for frame in found.frames) == list(range(len(found.frames)))


def test_frames_are_found_behind_any_offset(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "mixed.xyz"
    texts = []
    for i in range(12):
        atoms = make_chain(1 + i % 5, rng)
        lines = [f"C {x:.3f} {y:.3f} {z:.3f}" for x, y, z in atoms.positions]
        comment = "7" if i % 3 == 0 else f"é {i}"  # a comment that looks like a count
        blank = "\n" if i % 4 == 1 else ""
        texts.append("\n".join([f" {len(atoms)}", comment, *lines]) + "\n" + blank)
    content = "".join(texts).encode()
    path.write_bytes(content)
    starts = np.cumsum([0, *(len(text.encode()) for text in texts)])[:-1]
    file = FileSlice(path, slice(None))
    for offset in range(len(content)):
        expected = [t for t, start in zip(texts, starts, strict=True) if start >= offset]
        assert [t.strip() for t in read_frames_at(file, offset, len(content))] == [
            t.strip() for t in expected
        ]


def test_a_frame_longer_than_a_place_is_read_whole(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    ase.io.write(tmp_path / "long.xyz", [make_chain(400, rng)] * 3, format="extxyz")
    file = FileSlice(tmp_path / "long.xyz", slice(None))
    assert read_frames_at(file, 10, 256)[0].startswith("400\n")


def test_count_by_length() -> None:
    assert count_by_length(10_000, [100, 200], [1, 2]) == (100, 0.0)
    n, error = count_by_length(10_000, [100, 100], [1, 3])
    # Mean length 50; residuals 50 and -50; sqrt(5000 / (2 · 1)) / 100.
    assert (n, error) == (200, 0.5)


def test_other_files_are_read_from_their_front(
    tmp_path: Path, rattled_molecules: list[Atoms]
) -> None:
    write_structures(tmp_path / "pool.extxyz", rattled_molecules)
    packed = tmp_path / "pool.extxyz.gz"
    packed.write_bytes(gzip.compress((tmp_path / "pool.extxyz").read_bytes()))
    ase.io.write(tmp_path / "pool.traj", rattled_molecules)
    mean = np.mean([len(atoms) for atoms in rattled_molecules])
    for spec, n in ((packed, 30), (tmp_path / "pool.traj", 30), (f"{packed}@:20", 20)):
        found = survey_files(spec, seconds=5.0)
        assert found.n_structures == n == len(found.frames)
    assert survey_files([packed, packed], seconds=5.0).atoms_per_structure == pytest.approx(mean)
    cut = survey_files(tmp_path / "pool.traj", seconds=1e-9)
    assert cut.n_structures is None and not cut.is_spread


def test_a_trial_takes_what_a_selection_takes(
    tmp_path: Path, rattled_molecules: list[Atoms], potential: Potential
) -> None:
    lone = Atoms("H")
    write_structures(tmp_path / "pool.extxyz", [*rattled_molecules, lone, rattled_molecules[0]])
    frames = survey_files(tmp_path / "pool.extxyz", seconds=5.0).frames
    settings = AcquisitionSettings(n_select=3, representation="activation", batch_atoms=20)
    rates = run_trial(frames, settings, potential, seconds=20.0)
    # A first, small batch is not counted.
    assert 25 <= rates.n_structures <= 30
    assert rates.kept_fraction < 1.0
    assert rates.width == potential.activation_size
    assert rates.represent_s_per_atom > 0.0 and rates.screen_s_per_atom > 0.0
    assert rates.relative_error > 0.0 and rates.structures_per_second > 0.0
    few = run_trial(frames, settings, potential, seconds=1e-9)
    assert few.n_structures < rates.n_structures


@pytest.mark.parametrize("words", [{"representation": "morgan"}, {"rule": "joint-pv"}])
def test_rows_that_are_not_dense_cannot_be_planned(words: dict[str, str]) -> None:
    with pytest.raises(ArgumentError, match="one dense row"):
        check_plannable(AcquisitionSettings(n_select=3, **words))


def test_the_machine_is_described(tmp_path: Path) -> None:
    machine = describe_machine(tmp_path / "not" / "there")
    assert list(tmp_path.iterdir()) == []
    assert machine.n_cores >= 1 and machine.memory_bytes > 1e8 and machine.free_bytes > 0


def test_a_pool_that_cannot_be_counted_needs_its_size(
    tmp_path: Path, rattled_molecules: list[Atoms], potential: Potential
) -> None:
    ase.io.write(tmp_path / "pool.traj", rattled_molecules)
    settings = AcquisitionSettings(n_select=3, representation="activation")

    def plan(n_structures: int | None) -> int:
        found = make_plan(
            [str(tmp_path / "pool.traj")],
            settings,
            potential=potential,
            run=RunSettings(),
            folder=tmp_path,
            seconds=1e-6,
            n_structures=n_structures,
        )
        return found.estimate.workload.n_structures

    with pytest.raises(ArgumentError, match="--n-structures"):
        plan(None)
    assert plan(5000) == 5000
