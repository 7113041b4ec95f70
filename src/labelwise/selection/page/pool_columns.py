"""What is known of structures without a model, as columns: composition, energy, info keys.

Structures come one by one and are not kept. Info keys are the user's: their names and values may
be anything, so both are bounded in number and length and made fit to be written as UTF-8.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float32, Int32

from labelwise.errors import LabelError
from labelwise.pages.document import CategoryColumn, Column, NumberColumn
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, get_energy

#: Info keys that become columns, those that most structures have first.
MOST_KEYS = 24
#: Words of a column; rarer ones are counted together.
MOST_WORDS = 40
FORMULA = "composition"
N_ATOMS = "number of atoms"
ENERGY = "energy label"
ENERGY_PER_ATOM = "energy label per atom"
#: Name of the info keys that Labelwise itself writes; they are no columns.
_OWN = "labelwise_"
_LONGEST_NAME = 60
_LONGEST_WORD = 80
_MOST_KEYS_SEEN = 200
_MOST_WORDS_SEEN = 20_000
_NONE = -1


class ColumnCollector:
    """Takes structures in, one after another, and makes columns of what they tell.

    Args:
        energy_key: Info key of the total energy, eV; where it is missing, the ``energy`` that
            ASE reads is taken.
    """

    def __init__(self, *, energy_key: str = DEFAULT_ENERGY_KEY) -> None:
        self._energy_key = energy_key
        self._n = 0
        self._formulas = _Words()
        self._known_formulas: dict[bytes, str] = {}
        self._sizes = array("d")
        self._energies = array("d")
        self._keys: dict[str, _Key] = {}

    def __len__(self) -> int:
        """Return the number of structures taken in."""
        return self._n

    def add(self, atoms: Atoms) -> None:
        """Take a structure in; it is not modified."""
        numbers = atoms.numbers.tobytes()
        formula = self._known_formulas.get(numbers)
        if formula is None:
            formula = str(atoms.get_chemical_formula())
            if len(self._known_formulas) < _MOST_WORDS_SEEN:
                self._known_formulas[numbers] = formula
        self._formulas.put(self._n, formula)
        self._sizes.append(len(atoms))
        self._energies.append(find_energy(atoms, self._energy_key))
        for name, value in atoms.info.items():
            self._note(str(name), value)
        self._n += 1

    def columns(self) -> tuple[Column, ...]:
        """Return the columns that tell something: those that are not empty.

        Returns:
            Composition, number of atoms, energy in eV and eV per atom, then info keys: numbers
            as numbers, words and truth values as categories. Names are unique.
        """
        energy, sizes = np.array(self._energies), np.array(self._sizes)
        columns: list[Column | None] = [
            self._formulas.column(FORMULA, self._n),
            number_column(N_ATOMS, sizes),
            number_column(ENERGY, energy, unit="eV"),
            number_column(ENERGY_PER_ATOM, energy / np.maximum(sizes, 1.0), unit="eV"),
        ]
        by_coverage = sorted(self._keys.items(), key=lambda item: -item[1].n_values)
        for name, key in by_coverage[:MOST_KEYS]:
            columns.append(key.column(clean_text(name, _LONGEST_NAME), self._n))
        return name_apart([column for column in columns if column is not None])

    def _note(self, name: str, value: Any) -> None:
        if name.startswith(_OWN) or name == self._energy_key:
            return
        scalar = _as_scalar(value)
        if scalar is None:
            return
        key = self._keys.get(name)
        if key is None:
            if len(self._keys) >= _MOST_KEYS_SEEN:
                return
            key = self._keys[name] = _Key()
        key.put(self._n, scalar)


def make_columns(
    structures: Iterable[Atoms], *, energy_key: str = DEFAULT_ENERGY_KEY
) -> tuple[Column, ...]:
    """Return the columns of some structures, see ``ColumnCollector``.

    Args:
        structures: Read once, not modified.
        energy_key: Info key of the total energy, eV.
    """
    collector = ColumnCollector(energy_key=energy_key)
    for atoms in structures:
        collector.add(atoms)
    return collector.columns()


def number_column(name: str, values: np.ndarray, *, unit: str = "") -> NumberColumn | None:
    """Return numbers as a column, (n,); what is not finite is unknown. None if all are."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.asarray(values, dtype=np.float32)
    finite: Float32[np.ndarray, " n"] = np.where(np.isfinite(narrow), narrow, np.float32(np.nan))
    return NumberColumn(name, finite, unit) if np.isfinite(finite).any() else None


def category_column(name: str, words: Sequence[str | None]) -> CategoryColumn | None:
    """Return words as a column, the most frequent first; None if there is none.

    Args:
        name: What the words are.
        words: Of each point; None where there is none.
    """
    noted = _Words()
    for place, word in enumerate(words):
        if word is not None:
            noted.put(place, word)
    return noted.column(name, len(words))


def find_energy(atoms: Atoms, key: str = DEFAULT_ENERGY_KEY) -> float:
    """Return a structure's energy label, eV, NaN if there is none.

    Args:
        atoms: The structure.
        key: Info key of the total energy; ``energy`` is looked for after it.
    """
    for name in (key, "energy"):
        try:
            return get_energy(atoms, "", name)
        except LabelError:
            continue
    return math.nan


def clean_text(text: str, longest: int = _LONGEST_WORD) -> str:
    """Return a user's text in one line, not longer than so many characters, fit for UTF-8."""
    sound = text.encode("utf-8", errors="replace").decode("utf-8")
    line = "".join(c if c.isprintable() else " " for c in sound).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"


def name_apart(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return columns whose names are unique and not empty; the first of a name keeps it."""
    taken: set[str] = set()
    apart: list[Column] = []
    for column in columns:
        wanted = column.name or "(no name)"
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted} ({number})", number + 1
        taken.add(name)
        apart.append(_renamed(column, name))
    return tuple(apart)


def _renamed(column: Column, name: str) -> Column:
    if isinstance(column, NumberColumn):
        return NumberColumn(name, column.values, column.unit)
    return CategoryColumn(name, column.codes, column.categories)


def _as_scalar(value: Any) -> float | str | None:
    """Return a value as a number or a word, None if it is neither."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | np.integer | np.floating):
        try:
            return float(value)
        except OverflowError:
            return math.nan
    return None


class _Words:
    """Words by place, as numbers."""

    def __init__(self) -> None:
        self._codes = array("i")
        self._numbers: dict[str, int] = {}

    def put(self, place: int, word: str) -> None:
        number = self._numbers.get(word)
        if number is None:
            number = min(len(self._numbers), _MOST_WORDS_SEEN)
            if number < _MOST_WORDS_SEEN:
                self._numbers[word] = number
        self._codes.extend([_NONE] * (place - len(self._codes)))
        self._codes.append(number)

    def column(self, name: str, n: int) -> CategoryColumn | None:
        codes = _padded(self._codes, n, _NONE).astype(np.int32)
        numbers, counts = np.unique(codes[codes >= 0], return_counts=True)
        if len(numbers) == 0:
            return None
        order = np.argsort(-counts, kind="stable")
        kept, others = numbers[order[:MOST_WORDS]], numbers[order[MOST_WORDS:]]
        words = [*self._numbers, "(many more)"]
        categories = [clean_text(words[number]) or "(empty)" for number in kept.tolist()]
        if len(others):
            categories.append(f"({len(others)} others)")
        merged: dict[str, int] = {}
        for category in categories:
            merged.setdefault(category, len(merged))
        table = np.full(len(words) + 1, _NONE, dtype=np.int32)
        for number, category in zip(kept.tolist(), categories, strict=False):
            table[number] = merged[category]
        table[others] = len(merged) - 1
        recoded: Int32[np.ndarray, " n"] = table[codes]  # -1 takes the last, which is -1
        return CategoryColumn(name, recoded, tuple(merged))


class _Key:
    """The values of an info key by place: numbers and words apart."""

    def __init__(self) -> None:
        self.n_values = 0
        self._numbers = array("d")
        self._words = _Words()
        self._kinds: Counter[type] = Counter()

    def put(self, place: int, value: float | str) -> None:
        self.n_values += 1
        self._kinds[type(value)] += 1
        if isinstance(value, str):
            self._words.put(place, value)
        else:
            self._numbers.extend([math.nan] * (place - len(self._numbers)))
            self._numbers.append(value)

    def column(self, name: str, n: int) -> Column | None:
        """Return the column of the kind that most values are of."""
        if self._kinds[float] >= self._kinds[str]:
            return number_column(name, _padded(self._numbers, n, math.nan))
        return self._words.column(name, n)


def _padded(values: Collection[float | int], n: int, missing: float | int) -> np.ndarray:
    """Return n values, ``missing`` behind the last."""
    return np.array([*values, *[missing] * (n - len(values))], dtype=np.float64)
