from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from labelwise.pages.document import CategoryColumn, Column
from labelwise.selection.page.pool_columns import (
    ENERGY,
    ENERGY_PER_ATOM,
    FORMULA,
    MOST_KEYS,
    MOST_WORDS,
    N_ATOMS,
    ColumnCollector,
    category_column,
    make_columns,
)


def _named(columns: tuple[Column, ...]) -> dict[str, Column]:
    assert len({column.name for column in columns}) == len(columns)
    return {column.name: column for column in columns}


def _words(column: Column) -> list[str | None]:
    assert isinstance(column, CategoryColumn)
    return [column.categories[code] if code >= 0 else None for code in column.codes]


def _molecules(**info: list[object]) -> list[Atoms]:
    structures = [molecule(name) for name in ("H2O", "CH4", "H2O")]
    for key, values in info.items():
        for atoms, value in zip(structures, values, strict=True):
            if value is not None:
                atoms.info[key] = value
    return structures


def test_composition_size_and_energy() -> None:
    structures = _molecules(REF_energy=[-3.0, None, "not a number"])
    structures[1].calc = SinglePointCalculator(structures[1], energy=-10.0)
    columns = _named(make_columns(structures))
    assert _words(columns[FORMULA]) == ["H2O", "CH4", "H2O"]
    assert columns[FORMULA].categories == ("H2O", "CH4")
    assert columns[N_ATOMS].values.tolist() == [3.0, 5.0, 3.0]
    np.testing.assert_array_equal(columns[ENERGY].values, np.float32([-3.0, -10.0, np.nan]))
    np.testing.assert_array_equal(columns[ENERGY_PER_ATOM].values, np.float32([-1, -2, np.nan]))
    assert columns[ENERGY].unit == "eV"


def test_a_key_of_ones_own_is_the_energy() -> None:
    columns = _named(make_columns(_molecules(dft=[-1.0, -2.0, -3.0]), energy_key="dft"))
    assert columns[ENERGY].values.tolist() == [-1.0, -2.0, -3.0]
    assert "dft" not in columns


def test_info_keys_become_numbers_or_words() -> None:
    columns = _named(
        make_columns(
            _molecules(
                image=[0, None, np.int64(7)],
                reaction=[None, "a", "b"],
                is_ts=[True, False, np.bool_(False)],
                vector=[np.zeros(3)] * 3,
                zero_d=[np.array(2.5)] * 3,
                labelwise_rank=[0, 1, 2],
            )
        )
    )
    np.testing.assert_array_equal(columns["image"].values, np.float32([0, np.nan, 7]))
    assert _words(columns["reaction"]) == [None, "a", "b"]
    assert _words(columns["is_ts"]) == ["true", "false", "false"]
    assert columns["is_ts"].categories[0] == "false"
    assert columns["zero_d"].values.tolist() == [2.5] * 3
    assert "vector" not in columns
    assert "labelwise_rank" not in columns


def test_a_key_of_both_kinds_is_what_most_values_are() -> None:
    columns = _named(make_columns(_molecules(a=[1, "x", 2.0], b=["x", "y", 3])))
    np.testing.assert_array_equal(columns["a"].values, np.float32([1, np.nan, 2]))
    assert _words(columns["b"]) == ["x", "y", None]


def test_hostile_keys_and_values_are_made_fit() -> None:
    script = "<script>alert(1)</script>"
    info: dict[str, list[object]] = {
        FORMULA: ["mine"] * 3,
        "": ["empty name"] * 3,
        "x" * 500: ["y" * 500] * 3,
        "surrogate\udc80": ["bad\udcff", "tab\tnew\nline", ""],
        script: [script] * 3,
        "__proto__": [1, 2, 3],
        "huge": [10**400, 1e300, float("inf")],
        "some": [10**400, 1.0, 2.0],
        "none": [None, None, None],
    }
    columns = _named(make_columns(_molecules(**info)))
    for column in columns.values():
        texts = [column.name, *getattr(column, "categories", ())]
        assert all(text.encode() and len(text) <= 80 and text.isprintable() for text in texts)
    assert _words(columns[f"{FORMULA} (2)"]) == ["mine"] * 3
    assert _words(columns["(no name)"]) == ["empty name"] * 3
    assert _words(columns["surrogate?"]) == ["bad?", "tab new line", "(empty)"]
    assert _words(columns[script]) == [script] * 3
    assert "huge" not in columns
    np.testing.assert_array_equal(columns["some"].values, np.float32([np.nan, 1, 2]))


def test_columns_and_words_are_bounded() -> None:
    collector = ColumnCollector()
    for place in range(200):
        atoms = Atoms("H")
        atoms.info |= {f"key {number}": number for number in range(100)}
        atoms.info["id"] = f"word {max(place - 99, 0)}"
        atoms.info["rare"] = 1
        if place == 3:
            atoms.info["rarest"] = 1
        collector.add(atoms)
    columns = _named(collector.columns())
    built_in = 2  # composition and number of atoms; there is no energy
    assert len(columns) == MOST_KEYS + built_in
    assert "rarest" not in columns
    words = category_column("id", [f"word {max(place - 99, 0)}" for place in range(200)])
    assert words is not None
    assert words.categories[0] == "word 0"
    assert words.categories[-1] == f"({101 - MOST_WORDS} others)"
    assert len(words.categories) == MOST_WORDS + 1
    assert int((words.codes == MOST_WORDS).sum()) == 101 - MOST_WORDS


def test_a_structure_without_a_word_has_none() -> None:
    collector = ColumnCollector()
    for number, word in enumerate(["a", "b", None, "c", None]):
        atoms = Atoms("H" * (number + 1))
        if word is not None:
            atoms.info["word"] = word
        collector.add(atoms)
    assert len(collector) == 5
    columns = _named(collector.columns())
    assert columns[N_ATOMS].values.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert _words(columns["word"]) == ["a", "b", None, "c", None]
