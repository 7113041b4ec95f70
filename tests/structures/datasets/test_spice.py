from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase.units import Bohr, Hartree

from labelwise.errors import DataSetError
from labelwise.structures.datasets.base import Entry, LabelledStructure
from labelwise.structures.datasets.spice import FORMAT, SpiceFile, recognise, sum_charges
from labelwise.structures.datasets.transition1x import recognise as recognise_transition1x

SUBSET = "SPICE DES Monomers Single Points Dataset v1.1"
#: Energies of atoms in hartree, about those of ωB97M-D3(BJ)/def2-TZVPPD.
OF_ATOMS = {1: -0.499, 3: -7.285, 6: -37.87, 7: -54.62, 8: -75.11, 53: -297.76}
WATER = ("[O:1]([H:2])[H:3]", [8, 1, 1])
AMMONIUM = ("[N+:1]([H:2])([H:3])([H:4])[H:5]", [7, 1, 1, 1, 1])


def add_molecule(
    file: h5py.File, name: str, smiles: str, numbers: list[int], n_frames: int, seed: int = 0
) -> h5py.Group:
    """Lay out a molecule as the publishers' downloader does."""
    rng = np.random.default_rng(seed)
    formation = rng.normal(scale=0.1, size=n_frames)
    group = file.create_group(name)
    for key, text in (("subset", SUBSET), ("smiles", smiles)):
        group.create_dataset(key, data=[text], dtype=h5py.string_dtype())
    group.create_dataset("atomic_numbers", data=numbers, dtype=np.int16)
    size = (n_frames, len(numbers), 3)
    for key, values, kind, units in (
        ("conformations", rng.normal(size=size), "f4", "bohr"),
        ("formation_energy", formation, "f8", "hartree"),
        ("dft_total_energy", formation + sum(map(OF_ATOMS.get, numbers)), "f8", "hartree"),
        ("dft_total_gradient", rng.normal(scale=0.05, size=size), "f4", "hartree/bohr"),
        ("mbis_charges", rng.normal(size=(*size[:2], 1)), "f4", "elementary_charge"),
    ):
        group.create_dataset(key, data=values, dtype=kind).attrs["units"] = units
    return group


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Ammonium in 4 conformations, water in 6, a group of none, and a SMILES for a name."""
    path = tmp_path / "SPICE.hdf5"
    with h5py.File(path, "w") as file:
        add_molecule(file, "water", *WATER, 6, seed=1)
        add_molecule(file, "ammonium", *AMMONIUM, 4, seed=2)
        add_molecule(file, "[I-].[Li+]", "[I-:1].[Li+:2]", [53, 3], 2, seed=3)
        empty = add_molecule(file, "left out", *WATER, 1)
        for key in ("conformations", "dft_total_gradient", "dft_total_energy"):
            units = empty[key].attrs["units"]
            del empty[key]
            empty.create_dataset(key, data=np.zeros(0)).attrs["units"] = units
    return path


def read_all(path: Path, wanted: list[int] | None = None) -> list[LabelledStructure]:
    with SpiceFile(path) as file:
        return list(file.iter_structures(wanted))


def list_entries(path: Path) -> list[Entry]:
    with SpiceFile(path) as file:
        return list(file.iter_entries())


def test_entries(path: Path) -> None:
    entries = list_entries(path)
    assert [entry.name for entry in entries] == [
        *(f"[I-].[Li+]/{k}" for k in range(2)),
        *(f"ammonium/{k}" for k in range(4)),
        *(f"water/{k}" for k in range(6)),
    ]
    assert entries[3] == Entry(
        3, "ammonium/1", "ammonium", None, SUBSET, None, 5, (1, 7), charge=1, spin=None
    )
    assert [entry.charge for entry in entries[::5]] == [0, 1, 0]
    assert [structure.entry for structure in read_all(path)] == entries


def test_atomic_units_are_converted(path: Path) -> None:
    structures = read_all(path)
    assert len(structures) == 12
    with h5py.File(path) as file:
        for structure in structures:
            name, k = structure.entry.name.rsplit("/", 1)
            group, atoms = file[name], structure.atoms
            stored = {key: group[key][int(k)] for key in group if len(group[key].shape) == 3}
            positions = stored["conformations"].astype(np.float64) * Bohr
            forces = -stored["dft_total_gradient"].astype(np.float64) * (Hartree / Bohr)
            assert np.array_equal(atoms.positions, positions)
            assert np.array_equal(atoms.arrays["REF_forces"], forces)
            assert atoms.info["REF_energy"] == group["dft_total_energy"][int(k)] * Hartree
            assert atoms.info["formation_energy"] == group["formation_energy"][int(k)] * Hartree
            assert atoms.info["smiles"] == group["smiles"].asstr()[0]
            assert atoms.info["subset"] == SUBSET
            assert "frame" not in atoms.info
            assert not atoms.pbc.any()


def test_units_in_numbers(tmp_path: Path) -> None:
    """One hartree is 27.2113860 eV and one bohr 0.529177211 Å (CODATA 2014)."""
    path = tmp_path / "SPICE.hdf5"
    with h5py.File(path, "w") as file:
        group = add_molecule(file, "water", *WATER, 1)
        group["dft_total_energy"][...] = -76.0
        group["formation_energy"][...] = -0.5
        group["conformations"][...] = np.arange(9.0).reshape(1, 3, 3)
        group["dft_total_gradient"][...] = 0.125
    atoms = read_all(path)[0].atoms
    assert atoms.info["REF_energy"] == pytest.approx(-76 * 27.21138602, rel=1e-9)
    assert atoms.info["formation_energy"] == pytest.approx(-0.5 * 27.21138602, rel=1e-9)
    assert atoms.positions[2, 2] == pytest.approx(8 * 0.52917721067, rel=1e-9)
    assert atoms.arrays["REF_forces"][1, 1] == pytest.approx(-0.125 * 51.4220671, rel=1e-9)


def test_wanted_structures_are_those_of_a_full_read(path: Path) -> None:
    everything = read_all(path)
    for wanted in ([0], [1, 2, 6, 11], [5, 6], list(range(12)), []):
        found = read_all(path, wanted)
        assert [structure.entry.position for structure in found] == wanted
        for each in found:
            other = everything[each.entry.position]
            assert each.entry == other.entry
            assert each.atoms == other.atoms
            assert each.atoms.info == other.atoms.info


def test_what_is_not_wanted_is_not_read(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["ammonium/dft_total_gradient"]
    assert [each.entry.name for each in read_all(path, [1, 6])] == ["[I-].[Li+]/1", "water/0"]
    with pytest.raises(DataSetError, match="ammonium: there is no dataset 'dft_total_gradient'"):
        read_all(path, [2])


def test_facts_that_a_group_may_lack(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        for key in ("smiles", "subset", "formation_energy"):
            del file["ammonium"][key]
    structure = read_all(path)[2]
    assert structure.entry.charge is None
    assert structure.entry.subset is None
    assert structure.atoms.info.keys() == {"REF_energy", "name", "family"}


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("[H:1][H:2]", 0),
        ("C[NH3+]", 1),
        ("[O-:1][C:2](=[O:3])[C@@H:4]([NH3+:5])[CH3:6]", 0),
        ("[Ca++].[Cl-].[Cl-]", 0),
        ("[Mg+2:1]", 2),
        ("[O--:1]", -2),
        ("[PO4-3]", None),
        ("[13CH3-]", -1),
        ("[nH+:1]1[cH:2][cH:3]cc1", 1),
        ("[O-:1", None),
        ("C]", None),
        ("", 0),
    ],
)
def test_charges_of_smiles(smiles: str, charge: int | None) -> None:
    assert sum_charges(smiles) == charge


def test_charges_of_smiles_are_those_of_rdkit() -> None:
    chem = pytest.importorskip("rdkit.Chem")
    for smiles in (
        "[H:1][N+:2]([H:3])([H:4])[C@@:5]([H:6])([C:7](=[O:8])[O-:9])[H:10]",
        "[Na+:1].[Br-:2]",
        "[S@@+:1]([O-:2])([C:3])[C:4]",
        "[Mg+2:1].[O-2:2].[Ca++:3]",
        "[n+:1]1([H:2])[c:3][c:4][c:5][c:6][c:7]1",
    ):
        molecule = chem.MolFromSmiles(smiles, sanitize=False)
        assert sum_charges(smiles) == sum(a.GetFormalCharge() for a in molecule.GetAtoms())


def put(key: str, values: Any) -> Callable[[h5py.File], None]:
    """Return an edit that puts other values in place of a dataset of water."""

    def change(file: h5py.File) -> None:
        kept = dict(file["water"][key].attrs)
        del file["water"][key]
        if values is not None:
            file["water"][key] = values
            file["water"][key].attrs.update(kept)

    return change


def put_units(key: str, units: str | bytes | None) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["water"][key].attrs["units"]
        if units is not None:
            file["water"][key].attrs["units"] = units

    return change


def put_nan(file: h5py.File) -> None:
    file["water/conformations"][3, 1, 2] = np.nan


def put_nan_energy(file: h5py.File) -> None:
    file["water/dft_total_energy"][0] = np.nan


def store_electronvolt(file: h5py.File) -> None:
    file["water/dft_total_energy"][...] *= 27.211386


def dataset_for_group(file: h5py.File) -> None:
    file["x"] = np.zeros(3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (put("conformations", None), "water: there is no dataset 'conformations'; here are"),
        (put("dft_total_energy", None), "there is no dataset 'dft_total_energy'"),
        (put("dft_total_gradient", None), "there is no dataset 'dft_total_gradient'"),
        (put("atomic_numbers", None), "there is no dataset 'atomic_numbers'"),
        (put("atomic_numbers", [8, 1]), r"shape \(6, 3, 3\); expected \(6, 2, 3\)"),
        (put("atomic_numbers", [[8, 1, 1]]), "a list of integers"),
        (put("atomic_numbers", [8, 1, 119]), "allowed are 1-118"),
        (put("dft_total_energy", np.zeros(5)), r"shape \(5,\); expected \(6,\)"),
        (put("formation_energy", np.zeros((6, 1))), r"shape \(6, 1\); expected \(6,\)"),
        (put("dft_total_gradient", np.zeros((6, 9))), r"shape \(6, 9\); expected \(6, 3, 3\)"),
        (put("smiles", [1, 2]), "'smiles' is .*expected one text"),
        (put("subset", [b"a", b"b"]), "'subset' is .*expected one text"),
        (put_units("conformations", None), "water: 'conformations' has units None"),
        (put_units("conformations", "angstrom"), "has units 'angstrom'; the format has 'bohr'"),
        (put_units("dft_total_energy", b"eV"), "has units 'eV'; the format has 'hartree'"),
        (put_units("dft_total_gradient", "hartree"), "the format has 'hartree/bohr'"),
        (put_units("formation_energy", "kcal/mol"), "has units 'kcal/mol'"),
        (put_nan, "water/3: positions: not finite"),
        (put_nan_energy, "water/0: the energy: not finite"),
        (store_electronvolt, "water/0: a total energy of .* in eV taken for hartree"),
        (dataset_for_group, "x: not a group of structures"),
    ],
)
def test_damage_is_named(path: Path, damage: Callable[[h5py.File], None], message: str) -> None:
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(DataSetError, match=message) as caught:
        read_all(path)
    assert str(path) in str(caught.value)


def test_units_may_be_bytes(path: Path) -> None:
    expected = read_all(path)
    with h5py.File(path, "r+") as file:
        put_units("conformations", b"bohr")(file)
    assert [each.atoms for each in read_all(path)] == [each.atoms for each in expected]


def test_which_files_are_recognised(path: Path, tmp_path: Path) -> None:
    assert recognise(path)
    assert not recognise_transition1x(path)
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as file:
        assert not recognise(tmp_path / "missing.hdf5")
        file.create_group("data/H2O/rxn0000")
    assert not recognise(other)
    assert recognise_transition1x(other)
    with h5py.File(other, "w"):
        pass
    assert not recognise(other)


@pytest.mark.parametrize("part", [0.1, 0.9])
def test_a_file_that_was_cut_short(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert recognise(path)
    assert not recognise_transition1x(path)
    with pytest.raises(DataSetError, match="cannot be opened as HDF5"):
        FORMAT.open(path)
