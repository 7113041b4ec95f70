from __future__ import annotations

import json

import numpy as np
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labelwise.campaign.labelling import Failure, Label, ReplayLabeller, Task
from labelwise.campaign.labelling.encoding import decode_structure, encode_structure
from labelwise.structures import Source, hash_structure
from tests.campaign.building import make_structures

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(
    positions=arrays(np.float64, (3, 3), elements=FINITE),
    cell=arrays(np.float64, (3, 3), elements=FINITE),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    charges=arrays(np.float64, 3, elements=FINITE),
)
def test_round_trip_through_json_keeps_every_bit(positions, cell, pbc, charges) -> None:
    atoms = Atoms("HCO", positions, cell=cell, pbc=pbc)
    atoms.set_initial_charges(charges)
    back = decode_structure(json.loads(json.dumps(encode_structure(atoms))))
    assert back.positions.tobytes() == atoms.positions.tobytes()
    assert np.array_equal(back.numbers, atoms.numbers)
    assert np.array_equal(back.pbc, atoms.pbc)
    assert np.array_equal(back.cell.array, atoms.cell.array)
    assert np.array_equal(back.get_initial_charges(), charges)


def test_info_that_json_can_hold_is_kept() -> None:
    atoms = Atoms("H")
    atoms.info = {
        "name": "a", "charge": np.int64(-1), "weight": np.float64(0.5), "ok": True,
        "bad": float("nan"), "field": np.zeros(3),
    }  # fmt: skip
    back = decode_structure(json.loads(json.dumps(encode_structure(atoms), allow_nan=False)))
    assert back.info == {"name": "a", "charge": -1, "weight": 0.5, "ok": True}


def test_empty_structures_and_hashes_survive() -> None:
    assert len(decode_structure(encode_structure(Atoms()))) == 0
    for atoms in make_structures(4):
        assert hash_structure(decode_structure(encode_structure(atoms))) == hash_structure(atoms)


def test_replay_reveals_what_the_pool_holds() -> None:
    from collections import deque

    structures = make_structures(3)
    del structures[1].info["REF_energy"]
    structures[2].arrays["REF_forces"][0, 0] = np.nan
    tasks = [Task(str(i), atoms, Source("pool", i)) for i, atoms in enumerate(structures)]
    outcomes = list(ReplayLabeller().label(deque(tasks)))
    assert isinstance(outcomes[0], Label)
    assert outcomes[0].energy == structures[0].info["REF_energy"]
    assert np.array_equal(outcomes[0].forces, structures[0].arrays["REF_forces"])
    assert [o.reason for o in outcomes[1:] if isinstance(o, Failure)] == ["no-label", "no-label"]
