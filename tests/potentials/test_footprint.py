"""What a structure is said to take against what a process took."""

from __future__ import annotations

import subprocess
import sys

import pytest

_MEASURE = """
from functools import partial

import torch
from ase.build import bulk

import labelwise as lw
from labelwise.runtime.memory import peak_resident_bytes, resident_bytes
from labelwise.potentials.footprint import measure_footprint
from labelwise.features.representations.base import make_representation

torch.set_num_threads(1)
potential = lw.load_potential("demo")
compute = partial(make_representation("{name}").compute, potential)
footprint = measure_footprint(potential, compute)
crystal = bulk("C", "diamond", a={side}, cubic=True).repeat({repeat})
crystal.rattle(0.05, seed=0)
graph = potential.prepare(crystal)
before = resident_bytes()
compute(potential.collate([graph]))
print(footprint.estimate(graph.n_atoms, graph.n_edges), peak_resident_bytes() - before)
"""


@pytest.mark.parametrize(
    ("name", "side", "repeat"),
    [
        ("ntk-e", 3.57, 4),
        pytest.param("activation", 3.57, 4, marks=pytest.mark.thorough),
        pytest.param("ntk-e", 7.0, 6, marks=pytest.mark.thorough),
    ],
)
def test_estimate_bounds_what_a_process_takes(name: str, side: float, repeat: int) -> None:
    code = _MEASURE.format(name=name, side=side, repeat=repeat)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    estimated, taken = (int(part) for part in out.stdout.split())
    assert taken <= estimated <= 3.0 * taken
