"""What a calculation is: the settings that decide a label, and a name for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ase import Atoms
from pydantic import Field

from labelwise.campaign.labelling.base import LabellerSettings
from labelwise.campaign.labelling.encoding import plain_info
from labelwise.structures import hash_structure

_DIGITS = 16


@dataclass(frozen=True)
class Level:
    """A level of theory.

    Attributes:
        name: What people call it, and what labelled structures carry as ``labelwise_level``.
        digest: The folder's name in a store, 16 hexadecimal digits.
        info_arguments: Arguments of the calculator that come from a structure, to info keys.
    """

    name: str
    digest: str
    info_arguments: Mapping[str, str]

    def name_label(self, atoms: Atoms) -> str:
        """Return a name for the label of a structure at this level.

        The structure's content hash, and behind it one of what else of the structure is given to
        the calculator; the charge and the multiplicity are in the first already.
        """
        given = plain_info(atoms) if self.info_arguments else {}
        found = {
            argument: given[key] for argument, key in self.info_arguments.items() if key in given
        }
        key = hash_structure(atoms)
        return f"{key}-{_digest(found)}" if found else key


class CalculationSettings(LabellerSettings):
    """A calculator, and where its labels are kept: what every labeller that calculates has.

    Attributes:
        calculator: ``package.module.Class`` (``tblite.ase.TBLite``), the same of a function
            that returns a calculator, or a name that ASE knows (``orca``).
        arguments: Its keyword arguments.
        info_arguments: Keyword arguments that come from the structure: argument to info
            key, for instance ``charge: total_charge``.
        level: Name of the level of theory; None for one of calculator and arguments. With a
            name, arguments that change no label, such as the number of cores, may change.
        store: Folder of labels that were made at any time; what is there is not calculated.
        n_threads: Threads of each calculation (``OMP_NUM_THREADS`` and the like).
        time_limit_s: Limit for one calculation, seconds; None for no limit.
        n_retries: Further tries for a calculation that failed.
    """

    calculator: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    info_arguments: dict[str, str] = Field(default_factory=dict)
    level: str | None = Field(default=None, min_length=1)
    store: str | None = None
    n_threads: int = Field(default=1, ge=1)
    time_limit_s: float | None = Field(default=None, gt=0.0)
    n_retries: int = Field(default=1, ge=0)

    @property
    def n_at_once(self) -> int:
        """Calculations at once."""
        return 1

    def describe_level(self) -> Level:
        """Return the level of theory that calculator and arguments are."""
        if self.level is not None:
            return Level(self.level, _digest({"level": self.level}), self.info_arguments)
        words = {
            "calculator": name_calculator(self.calculator),
            "arguments": self.arguments,
            "info_arguments": self.info_arguments,
        }
        digest = _digest(words)
        return Level(f"{words['calculator']}-{digest[:8]}", digest, self.info_arguments)


#: Short names of calculators that come with the package, and names of earlier versions.
_OURS = dict.fromkeys(
    ("pyscf", "labelwise.labelling.pyscf.PySCF"), "labelwise.campaign.labelling.pyscf.PySCF"
)


def name_calculator(name: str) -> str:
    """Return the one name of a calculator that may be called by several."""
    full = _OURS.get(name, name).replace(":", ".")
    return full if "." in full else full.lower()


def _digest(words: Mapping[str, Any]) -> str:
    text = json.dumps(words, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=_DIGITS // 2).hexdigest()
