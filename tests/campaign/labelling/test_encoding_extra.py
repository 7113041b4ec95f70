"""What a campaign's log keeps of a structure beside elements, positions and cell."""

from __future__ import annotations

import json

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.io import jsonio

from labelwise.campaign.labelling.encoding import (
    decode_structure,
    encode_extra,
    encode_structure,
)
from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.info_text import is_same_value
from tests.campaign.slabs import label, make_slab


def there_and_back(atoms, **settings):  # type: ignore[no-untyped-def]
    encoded = {**encode_structure(atoms), **encode_extra(atoms, **settings)}
    plain = json.loads(json.dumps(encoded, allow_nan=False))
    return decode_structure(plain)


def test_constraints_arrays_and_info_come_back() -> None:
    atoms = label(make_slab(1))
    atoms.set_constraint([FixAtoms([0, 3]), FixCartesian([1], mask=(True, False, True))])
    atoms.arrays["names"] = np.array([f"a{i}" for i in range(len(atoms))])
    atoms.arrays["is_surface"] = atoms.get_tags() == 1
    again = there_and_back(atoms)
    assert again == atoms
    assert [c.todict() for c in again.constraints] == [c.todict() for c in atoms.constraints]
    assert {*again.arrays} == {*atoms.arrays}
    for name, values in atoms.arrays.items():
        assert np.array_equal(again.arrays[name], values), name
        assert again.arrays[name].dtype.kind == values.dtype.kind, name
    assert np.array_equal(again.info["virial"], atoms.info["virial"])
    assert again.info["split"] == "val_ood"


def test_labels_are_left_out_and_stored_results_only_kept_on_request() -> None:
    atoms = label(make_slab(0))
    atoms.calc = SinglePointCalculator(
        atoms, energy=-1.0, forces=np.ones((len(atoms), 3)), stress=np.arange(6.0)
    )
    keys = ("REF_forces",)
    again = there_and_back(atoms, left_out=keys)
    assert again.calc is None
    assert "REF_forces" not in again.arrays
    again = there_and_back(atoms, left_out=keys, with_results=True)
    assert again.calc.results.keys() == {"stress"}
    assert np.array_equal(again.calc.results["stress"], np.arange(6.0))


def test_what_json_alone_cannot_hold_is_kept_as_text() -> None:
    atoms = make_slab(0)
    atoms.set_constraint([FixBondLength(0, 1), FixAtoms([2])])
    atoms.arrays["gap"] = np.full(len(atoms), np.nan)
    given = {
        "gap": np.array([np.inf, 1.0]),
        "ragged": [[1], [1, 2]],
        "nested": {"a": 1, "b": [None, "x"]},
        "nothing": None,
        "unknown": float("nan"),
    }
    atoms.info.update(given)
    again = there_and_back(atoms)
    assert free_atoms(again).tolist() == [i != 2 for i in range(len(atoms))]
    assert len(again.constraints) == 1
    assert np.isnan(again.arrays["gap"]).all()
    assert {*again.info} == {*atoms.info}
    for key, value in given.items():
        assert is_same_value(again.info[key], value), key


def test_an_object_of_another_program_is_not_kept() -> None:
    atoms = make_slab(0)
    atoms.info.update(made_by=object(), note="x")
    again = there_and_back(atoms)
    assert {*again.info} == {*atoms.info} - {"made_by"}


def test_a_record_of_an_earlier_version_is_read() -> None:
    atoms = make_slab(0)
    assert decode_structure(encode_structure(atoms)) == Atoms(atoms, constraint=[])
    n = len(atoms)
    again = decode_structure(
        {
            **encode_structure(atoms),
            "constraints": [{"name": "FixAtoms", "kwargs": {"indices": [0, 3]}}],
            "arrays": {"tags": [1] * n, "names": ["a"] * n},
            "info_arrays": {"virial": [[1.0, 2.0], [3.0, 4.0]]},
            "results": {"stress": [0.0] * 6, "magmom": 1.5},
            "other_info": {"nothing": "null", "nested": '{"a": [null, "x"]}'},
            "other_arrays": {"gap": jsonio.encode(np.full(n, np.nan))},
        }
    )
    assert again.constraints[0].index.tolist() == [0, 3]
    assert again.get_tags().tolist() == [1] * n
    assert again.arrays["names"].tolist() == ["a"] * n
    assert np.array_equal(again.info["virial"], [[1.0, 2.0], [3.0, 4.0]])
    assert again.calc.results["magmom"] == 1.5
    assert again.calc.results["stress"].shape == (6,)
    assert (again.info["nothing"], again.info["nested"]) == (None, {"a": [None, "x"]})
    assert np.isnan(again.arrays["gap"]).all()
