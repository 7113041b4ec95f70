"""One process that calculates labels, one after another: JSON lines in, JSON lines out.

Started by ``CalculatorLabeller`` as ``python -m labelwise.campaign.labelling.worker``; it leads a
session of its own, so that killing its process group ends whatever program it has started.
When its parent dies it kills that group itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import get_calculator_class
from ase.stress import voigt_6_to_full_3x3_stress

from labelwise.campaign.labelling.convergence import find_unconverged_part
from labelwise.campaign.labelling.encoding import decode_structure
from labelwise.campaign.labelling.level import name_calculator
from labelwise.campaign.labelling.outputs import explain_failure, find_unconverged_output

_PARENT_CHECK_S = 0.5
_LONGEST_DETAIL = 500
#: Clocks of file systems go in steps, and differ by so much from the processor's, seconds.
_CLOCK_S = 0.1


def main() -> None:
    """Answer requests until standard input ends."""
    # Codes print what they like; the answers must have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    spec = json.loads(sys.stdin.readline())
    sys.path.insert(0, spec["import_from"])
    try:
        _make_calculator(spec, Atoms())
    except Exception as error:  # whatever a calculator's import and constructor raise
        _send(answers, {"error": _describe(error)})
        return
    _send(answers, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        atoms = decode_structure(request["structure"])
        _send(answers, _calculate(spec, atoms, Path(request["folder"])))


def resolve_calculator(name: str) -> Any:
    """Return what makes a calculator.

    Args:
        name: ``package.module.Class``, ``package.module:function``, or a name that ASE
            knows, such as ``orca``.

    Raises:
        ImportError: There is no such module.
        AttributeError: The module has no such name.
    """
    module, separator, attribute = name_calculator(name).rpartition(".")
    if not separator:
        return get_calculator_class(attribute)
    return getattr(import_module(module), attribute)


def _make_calculator(spec: dict[str, Any], atoms: Atoms) -> Any:
    arguments = dict(spec["arguments"])
    for argument, key in spec["info_arguments"].items():
        if key in atoms.info:
            arguments[argument] = atoms.info[key]
    return resolve_calculator(spec["calculator"])(**arguments)


def _calculate(spec: dict[str, Any], atoms: Atoms, folder: Path) -> dict[str, Any]:
    """Calculate in a folder of its own, which is removed unless the calculation failed.

    A calculator is made anew for each structure: one that starts from the last density
    would give labels that depend on what was calculated before.
    """
    began, since = time.perf_counter(), time.time() - _CLOCK_S
    home = Path.cwd()
    answer: dict[str, Any]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        atoms.calc = _make_calculator(spec, atoms)
        # Forces first: codes that are asked for the energy alone would have to run again.
        forces = atoms.get_forces(apply_constraint=False)
        stress = _stress_of(atoms)
        energy = float(atoms.get_potential_energy())
        unconverged = find_unconverged_part(atoms.calc) or find_unconverged_output(folder, since)
        answer = {"energy": energy, "forces": forces.tolist(), **stress}
        if unconverged:
            answer = {"reason": "not-converged", "detail": unconverged[:_LONGEST_DETAIL]}
    except Exception as error:  # whatever a calculator raises is a failed calculation
        said = explain_failure(folder, since)
        detail = f"{_describe(error)}; {said}" if said else _describe(error)
        answer = {
            "reason": _classify(error, find_unconverged_output(folder, since)),
            "detail": detail[: 2 * _LONGEST_DETAIL],
        }
    finally:
        os.chdir(home)
    if "energy" in answer or not any(folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
    return {**answer, "seconds": time.perf_counter() - began}


def _stress_of(atoms: Atoms) -> dict[str, Any]:
    """Return the stress, (3, 3) eV/Å³, that a calculator gave with the forces, if it did.

    None is asked for: with some codes it would be a further calculation.
    """
    value = (getattr(atoms.calc, "results", None) or {}).get("stress")
    if value is None or not atoms.pbc.all():
        return {}
    stress = np.asarray(value, dtype=np.float64)
    if stress.shape == (6,):
        stress = voigt_6_to_full_3x3_stress(stress)
    is_known = stress.shape == (3, 3) and np.isfinite(stress).all() and stress.any()
    return {"stress": stress.tolist()} if is_known else {}


def _classify(error: Exception, unconverged: str) -> str:
    said = f"{type(error).__name__} {error}".lower()
    return "not-converged" if unconverged or "converge" in said else "exception"


def _describe(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"[:_LONGEST_DETAIL]


def _send(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _die_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    with suppress(OSError):
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
