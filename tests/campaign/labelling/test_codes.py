"""Codes that ASE runs, by stand-ins: a clear reason for every structure without a label.

The inputs are those that ASE writes for ORCA, VASP, Quantum ESPRESSO, CP2K and Psi4; the
executables answer and fail as the codes do, see ``stand_ins.py``. None of the codes is here.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, GPa, Hartree, Rydberg

from labelwise.campaign.labelling import (
    CalculatorLabeller,
    CalculatorSettings,
    Failure,
    Label,
    Outcome,
    Task,
)
from labelwise.structures import Source
from tests.campaign.labelling import stand_ins

pytestmark = pytest.mark.thorough
SCRIPT = Path(stand_ins.__file__)
#: Arguments of each calculator.
ARGUMENTS = {
    "orca": {"orcasimpleinput": "HF def2-SVP EnGrad"},
    "vasp": {"xc": "pbe", "encut": 200},
    "espresso": {"pseudopotentials": {"H": "H.UPF"}, "input_data": {"system": {"ecutwfc": 20}}},
    "cp2k": {},
}
#: What the detail of a failure has to say, by the number of atoms.
DETAILS = {4: "0.4998", 5: "version", 6: "license checkout failed"}


@pytest.fixture
def codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ASE find the stand-ins where users name their executables."""
    command = f"{sys.executable} -S {SCRIPT}"
    sections = {
        "orca": f"command = {command} orca",
        "espresso": f"command = {command} espresso\npseudo_dir = {tmp_path}",
    }
    config = tmp_path / "ase.ini"
    config.write_text("".join(f"[{name}]\n{text}\n" for name, text in sections.items()))
    monkeypatch.setenv("ASE_CONFIG_PATH", str(config))
    monkeypatch.setenv("ASE_VASP_COMMAND", f"{command} vasp")
    monkeypatch.setenv("ASE_CP2K_COMMAND", f"{command} cp2k")
    potential = tmp_path / "potpaw_PBE" / "H" / "POTCAR"
    potential.parent.mkdir(parents=True)
    potential.write_text("a potential of hydrogen\n")
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))


def make_tasks(numbers: list[int]) -> list[Task]:
    return [
        Task(
            f"chain-{n}",
            Atoms(f"H{n}", [[0.5, 0.5, 0.9 * i] for i in range(n)], cell=[8, 8, 9], pbc=True),
            Source("pool", n),
        )
        for n in numbers
    ]


def label(calculator: str, folder: Path, numbers: list[int], **more) -> dict[int, Outcome]:
    settings = CalculatorSettings(calculator=calculator, n_retries=0, time_limit_s=10.0, **more)
    outcomes = CalculatorLabeller(settings, folder).label(deque(make_tasks(numbers)))
    return {int(outcome.key.removeprefix("chain-")): outcome for outcome in outcomes}


@pytest.mark.usefixtures("codes")
@pytest.mark.parametrize("code", ARGUMENTS)
def test_every_failure_has_a_clear_reason(code: str, tmp_path: Path) -> None:
    found = label(code, tmp_path, [2, 3, 4, 5, 6], arguments=ARGUMENTS[code])
    failures = {n: each for n, each in found.items() if isinstance(each, Failure)}
    assert sorted(failures) == [2, 3, 4, 5, 6]
    assert failures[2].reason == "not-converged", failures[2]
    assert failures[3].reason == "time-out"
    for number, said in DETAILS.items():
        assert failures[number].reason == "exception"
        assert said in failures[number].detail


#: Units of energy, forces and stress, with the sign; None where the code gives no stress.
UNITS = {
    "orca": (Hartree, Hartree / Bohr, None),
    "vasp": (1.0, 1.0, -0.1 * GPa),
    "espresso": (Rydberg, Rydberg / Bohr, -Rydberg / Bohr**3),
    "cp2k": (1.0, 1.0, -1.0),
    "psi4": (Hartree, Hartree / Bohr, None),
}


def check_label(code: str, n_atoms: int, outcome: Outcome) -> None:
    energy, force, stress = UNITS[code]
    assert isinstance(outcome, Label), outcome
    assert outcome.energy == pytest.approx(stand_ins.ENERGY * energy, rel=1e-6)
    forces = np.array(stand_ins.list_forces(n_atoms))
    assert outcome.forces == pytest.approx(forces * force, rel=1e-6)
    if stress is None:
        assert outcome.stress is None
    else:
        assert outcome.stress == pytest.approx(np.array(stand_ins.STRESS) * stress, rel=1e-6)


@pytest.mark.usefixtures("codes")
@pytest.mark.parametrize("code", ARGUMENTS)
def test_results_are_read_in_the_units_of_the_code(code: str, tmp_path: Path) -> None:
    found = label(code, tmp_path, [1, 7], arguments=ARGUMENTS[code])
    for n_atoms, outcome in found.items():
        check_label(code, n_atoms, outcome)
    assert not list((tmp_path / "calculations").glob("chain-*"))


@pytest.mark.usefixtures("codes")
def test_a_label_of_orca(tmp_path: Path) -> None:
    """An old output beside it, of a try that failed, is not taken for this one's."""
    folder = tmp_path / "calculations" / "chain-1"
    folder.mkdir(parents=True)
    (folder / "former.out").write_text(stand_ins.SCF["orca"])
    os.utime(folder / "former.out", (0, 0))
    check_label("orca", 1, label("orca", tmp_path, [1], arguments=ARGUMENTS["orca"])[1])


@pytest.mark.usefixtures("codes")
def test_an_executable_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "ase.ini").write_text("[orca]\ncommand = /nowhere/orca\n")
    found = label("orca", tmp_path, [1], arguments=ARGUMENTS["orca"])[1]
    assert isinstance(found, Failure)
    assert "/nowhere/orca" in found.detail


PSI4 = """
class SCFConvergenceError(Exception):
    pass


class core:
    set_output_file = print_out = staticmethod(lambda *words: None)


class Wavefunction:
    energy = staticmethod(lambda: ENERGY)


set_num_threads = set_options = set_memory = lambda *words: None


class driver:
    def gradient(name, return_wfn=False, molecule=None):
        import psi4

        if psi4.n_atoms == 2:
            raise SCFConvergenceError("Could not converge SCF iterations in 100 iterations.")
        if psi4.n_atoms == 7:
            return GRADIENT, Wavefunction()
        raise RuntimeError("the basis set file requires version 1.9")


def geometry(text):
    import psi4

    psi4.n_atoms = text.count("H\\t")
"""


def test_psi4(tmp_path: Path) -> None:
    gradient = (-np.array(stand_ins.list_forces(7))).tolist()
    (tmp_path / "psi4.py").write_text(f"ENERGY = {stand_ins.ENERGY}\nGRADIENT = {gradient}\n{PSI4}")
    found = label("psi4", tmp_path, [2, 5, 7], arguments={"method": "hf", "basis": "sto-3g"})
    check_label("psi4", 7, found[7])
    one, two = found[2], found[5]
    assert isinstance(one, Failure)
    assert isinstance(two, Failure)
    assert one.reason == "not-converged"
    assert "requires version 1.9" in two.detail
