from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.checkpoint import CheckpointCalculator
from ase.calculators.lj import LennardJones
from ase.calculators.loggingcalc import LoggingCalculator
from ase.calculators.mixing import AverageCalculator, MixedCalculator, SumCalculator

from labelwise.campaign.labelling.convergence import find_unconverged_part
from labelwise.structures.convergence import find_unconverged


class Stopped(LennardJones):
    """Keeps its results when it runs out of steps, as ASE's ``Vasp`` does."""

    def __init__(self, converged: Any = False, /, **results: Any) -> None:
        super().__init__()
        self.converged = converged
        self._more = results

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        self.results.update(self._more)


def calculated(calculator: Calculator) -> Calculator:
    atoms = molecule("H2O")
    atoms.calc = calculator
    atoms.get_potential_energy()
    return calculator


@pytest.mark.parametrize("said", [False, np.False_, 0, "F", "False", ".FALSE.", " no ", [True, 0]])
def test_what_is_taken_for_a_denial(said: Any) -> None:
    assert find_unconverged({"energy": -1.0, "Converged": said}).startswith("Converged = ")
    assert find_unconverged({"scf_converged": said})
    assert find_unconverged({"is_converged": said})


@pytest.mark.parametrize(
    "said", [True, None, 1, 12, "T", "yes", "", "unknown", float("nan"), [True, True], [], {}]
)
def test_what_is_not_judged(said: Any) -> None:
    assert find_unconverged({"converged": said, "note": "converged = F"}) == ""


@pytest.mark.parametrize(
    "calculator",
    [
        Stopped(),
        Stopped(np.False_),
        Stopped(lambda: False),
        Stopped(None, converged=False),
        Stopped(True, scf_converged=False),
        SumCalculator([LennardJones(), Stopped()]),
        MixedCalculator(Stopped(), LennardJones(), 0.5, 0.5),
        AverageCalculator([LennardJones(), SumCalculator([Stopped()])]),
        LoggingCalculator(Stopped()),
    ],
)
def test_calculators_that_did_not_converge(calculator: Calculator) -> None:
    found = find_unconverged_part(calculated(calculator))
    assert found.startswith("Stopped: ")
    assert "onverged = " in found


def test_a_solver_inside_and_a_checkpoint(tmp_path) -> None:
    outer = LennardJones()
    outer.solver = SimpleNamespace(converged=False)
    assert find_unconverged_part(calculated(outer)) == "SimpleNamespace: converged = False"
    kept = CheckpointCalculator(Stopped(), db=str(tmp_path / "kept.db"))
    assert find_unconverged_part(calculated(kept)).startswith("Stopped")


def refuse() -> bool:
    raise RuntimeError("no output file")


@pytest.mark.parametrize(
    "calculator",
    [
        LennardJones(),
        Stopped(True),
        Stopped(None),
        Stopped(refuse),
        Stopped(lambda step: False),
        Stopped(True, converged=True),
        SumCalculator([LennardJones(), Stopped(True)]),
    ],
)
def test_calculators_that_say_nothing_of_it(calculator: Calculator) -> None:
    calculator.myself = calculator  # and circles end
    assert find_unconverged_part(calculated(calculator)) == ""
