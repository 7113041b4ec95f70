from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.errors import LabelError
from labelwise.structures import Frame, Source
from labelwise.structures.isolated_atoms import (
    collect_isolated_energies,
    is_isolated_atom,
    read_isolated_energies,
    refuse_isolated_molecule,
)


def atom(symbol: str, energy: float = -1.0, **info: object) -> Atoms:
    return Atoms(symbol, info={"REF_energy": energy, **info})


def in_box(length: float, **info: object) -> Atoms:
    return Atoms("H", cell=[length] * 3, pbc=True, info={"REF_energy": -13.6, **info})


@pytest.mark.parametrize("kind", ["IsolatedAtom", "isolated_atom", "ISOLATED-ATOM", "isolatedAtom"])
def test_an_atom_that_the_file_calls_isolated(kind: str) -> None:
    assert is_isolated_atom(in_box(4.0, config_type=kind))
    refuse_isolated_molecule(in_box(4.0, config_type=kind), "x")
    water = molecule("H2O")
    water.info["config_type"] = kind
    assert not is_isolated_atom(water)
    with pytest.raises(LabelError, match=r"b@3: config_type is .*, but there are 3 atoms"):
        refuse_isolated_molecule(water, "b@3")


def test_an_atom_without_neighbours() -> None:
    assert is_isolated_atom(atom("H"))
    assert is_isolated_atom(in_box(12.0))
    assert is_isolated_atom(in_box(5.5), cutoff=5.0)
    assert not is_isolated_atom(in_box(4.5), cutoff=5.0)
    for crystal in ("Cu", "Na", "Cs", "Xe"):
        lattice = {"Cs": {"a": 6.14}, "Xe": {"crystalstructure": "fcc", "a": 6.2}}
        assert not is_isolated_atom(bulk(crystal, **lattice.get(crystal, {})))
    chain = Atoms("Au", cell=[2.6, 0, 0], pbc=[True, False, False])
    assert not is_isolated_atom(chain)
    skewed = Atoms("Au", cell=[[10.0, 0, 0], [9, 2, 0], [0, 0, 15]], pbc=True)
    assert not is_isolated_atom(skewed)
    layer = Atoms("Au", cell=[[10.0, 0, 0], [0, 9, 0], [0, 0, 3]], pbc=[True, True, False])
    assert is_isolated_atom(layer)
    assert not is_isolated_atom(molecule("H2"))
    assert not is_isolated_atom(Atoms())


def test_energies_are_read_once_an_element() -> None:
    lone = [(atom("H", -13.6), "a@0"), (atom("C", -1030.0), "a@1"), (atom("H", -13.605), "b@0")]
    assert collect_isolated_energies(lone) == {1: -13.6, 6: -1030.0}
    ions = [atom("H", 0.5, charge=1), atom("H", 0.5, total_charge="+1"), atom("H", 0.5)]
    ions[2].set_initial_charges([1.0])
    given = [*lone, *((ion, "c@0") for ion in ions)]
    assert collect_isolated_energies(given, known={8: -2040.0})[8] == -2040.0
    with pytest.raises(LabelError, match=r"b@1: an isolated atom of H has -11 eV, and -13.6 eV in"):
        collect_isolated_energies([*lone, (atom("H", -11.0), "b@1")])
    with pytest.raises(LabelError, match="-2040 eV in the isolated atoms given"):
        collect_isolated_energies([(atom("O", -2041.0), "b@1")], known={8: -2040.0})
    with pytest.raises(LabelError, match="'E' is missing"):
        collect_isolated_energies(lone, energy_key="E")


def test_a_file_of_isolated_atoms_has_one_atom_a_frame() -> None:
    frames = [Frame(each, Source("iso.xyz", i), i) for i, each in enumerate((atom("H"), atom("C")))]
    assert read_isolated_energies(frames) == {1: -1.0, 6: -1.0}
    frames.append(Frame(molecule("H2"), Source("iso.xyz", 2), 2))
    with pytest.raises(LabelError, match=r"iso\.xyz@2: .* one atom a frame, this one has 2"):
        read_isolated_energies(frames)
