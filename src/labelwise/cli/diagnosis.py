"""Is the installation sound? Versions, devices and a short self-check."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read

from labelwise.errors import LabelwiseError
from labelwise.pages.libraries import read_libraries
from labelwise.potentials import Potential, load_potential
from labelwise.potentials.loading import PotentialFamily, list_families
from labelwise.runtime.provenance import package_versions
from labelwise.selection.api import represent, select
from labelwise.structures import get_labels
from labelwise.structures.demo_data import demo_file_content

_PIN = re.compile(r"([\w.-]+)\s*==\s*([\w.]+)$")
_N_STRUCTURES = 64
_N_SELECT = 10
_MAX_FORCE_RMSE = 1.0  # eV/Å; the card of the embedded model states about a tenth of it


@dataclass(frozen=True)
class Check:
    """One self-check: its name, whether it passed, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """Versions, devices and the results of the self-check.

    Attributes:
        versions: Of packages, by name.
        devices: What there is to compute on.
        checks: What was tried, a family of models that is installed among it.
        absent: Families that are not installed, and how they are.
    """

    versions: dict[str, str]
    devices: dict[str, str]
    checks: tuple[Check, ...]
    absent: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return asdict(self)


def diagnose(device: str = "auto") -> Diagnosis:
    """Load the embedded model, represent and select, and compare with what must hold.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The findings; a check that raises is a check that failed.
    """
    state: dict[str, Any] = {}

    def load() -> str:
        state["potential"] = load_potential("demo", device=device)
        return f"embedded model on {state['potential'].device}"

    def predict() -> str:
        return _check_prediction(state["potential"], _structures())

    def rotate() -> str:
        return _check_invariance(state["potential"], _structures()[:4])

    def choose() -> str:
        return _check_selection(state["potential"], _structures())

    steps = {"load": load, "forces": predict, "invariance": rotate, "select": choose}
    steps["report"] = _check_libraries
    families = list_families()
    for family in families:
        if family.is_installed:
            steps[f"{family.name} models"] = partial(_check_family, family)
    return Diagnosis(
        package_versions(),
        list_devices(),
        tuple(_run(name, step) for name, step in steps.items()),
        {each.name: describe_installation(each) for each in families if not each.is_installed},
    )


def describe_installation(family: PotentialFamily) -> str:
    """Say which package of a family is installed, or how it is; without importing it."""
    if not family.is_installed:
        remedy = "" if family.extra is None else f"; pip install 'labelwise[{family.extra}]'"
        return f"not installed{remedy}"
    if family.package is None:
        return "installed"
    found = packages_distributions().get(family.package, [family.package])
    return f"{found[0]} {version(found[0])}"


def list_devices() -> dict[str, str]:
    """Return what this machine can compute on."""
    found = {"cpu": f"{torch.get_num_threads()} threads"}
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def _run(name: str, step: Callable[[], str]) -> Check:
    start = time.perf_counter()
    try:
        detail = step()
    except (LabelwiseError, AssertionError, KeyError) as error:
        return Check(name, False, str(error))
    return Check(name, True, f"{detail} ({time.perf_counter() - start:.1f} s)")


def _check_family(family: PotentialFamily) -> str:
    """Evaluate two atoms with the first model of a family that needs no download."""
    offline = [model for model in family.known_models() if model.source != "download"]
    text = "; ".join([describe_installation(family), *_broken_pins(family)])
    if not offline:
        return f"{text}; no model without a download or a file to try"
    potential = load_potential(f"{family.name}:{offline[0].name}", device="cpu")
    pair = Atoms(numbers=[potential.elements[0]] * 2, positions=[[0, 0, 0], [0, 0, 1.5]])
    forces = potential.predict(potential.collate([potential.prepare(pair)])).forces
    if forces is None or not bool(torch.isfinite(forces).all()):
        raise AssertionError(f"{text}; {offline[0].name} predicts forces that are not finite")
    return f"{text}; {offline[0].name} works"


def _broken_pins(family: PotentialFamily) -> list[str]:
    """Name packages of which a family's own wants exactly another version than is installed."""
    if family.package is None:
        return []
    broken = []
    for name in packages_distributions().get(family.package, [])[:1]:
        for requirement in requires(name) or []:
            pin = _PIN.match(requirement)
            with suppress(PackageNotFoundError):
                if pin is not None and version(pin[1]) != pin[2]:
                    broken.append(f"it wants {pin[1]} {pin[2]}, and {version(pin[1])} is installed")
    return broken


def _check_libraries() -> str:
    found = read_libraries()
    return ", ".join(f"{library.name} {library.version}" for library in found)


def _structures() -> list[Atoms]:
    text = io.StringIO(demo_file_content("pool.extxyz").decode())
    frames = read(text, f":{_N_STRUCTURES}", "extxyz")
    return [frames] if isinstance(frames, Atoms) else frames


def _check_prediction(potential: Potential, structures: list[Atoms]) -> str:
    batch = potential.collate([potential.prepare(atoms) for atoms in structures])
    forces = potential.predict(batch).forces
    expected = np.concatenate([get_labels(atoms, "embedded pool").forces for atoms in structures])
    if forces is None or not bool(torch.isfinite(forces).all()):
        raise AssertionError("the embedded model predicts forces that are not finite")
    rmse = float(np.sqrt(np.mean((forces.cpu().numpy() - expected) ** 2)))
    if rmse > _MAX_FORCE_RMSE:
        raise AssertionError(f"force RMSE {rmse:.3f} eV/Å: the embedded model is damaged")
    return f"force RMSE {1000 * rmse:.0f} meV/Å on {len(structures)} embedded structures"


def _check_invariance(potential: Potential, structures: list[Atoms]) -> str:
    turned = [atoms.copy() for atoms in structures]
    for atoms in turned:
        atoms.rotate(40.0, (1.0, 2.0, 3.0))
        atoms.translate((3.0, -2.0, 1.0))
    before, after = represent(structures, potential), represent(turned, potential)
    difference = float(np.abs(before - after).max() / np.abs(before).max())
    if difference > 1e-3:
        raise AssertionError(f"features change by {difference:.1e} when structures are turned")
    return f"features change by {difference:.0e} when structures are turned"


def _check_selection(potential: Potential, structures: list[Atoms]) -> str:
    start = time.perf_counter()
    chosen = {
        rule: select(structures, _N_SELECT, potential=potential, rule=rule).pool_idx
        for rule in ("pv", "lcmd", "k-center")
    }
    seconds = time.perf_counter() - start
    for rule, picks in chosen.items():
        if len(set(picks)) != _N_SELECT:
            raise AssertionError(f"rule {rule} chose {picks}")
    rate = len(chosen) * len(structures) / seconds
    return f"{', '.join(chosen)}: {_N_SELECT} of {len(structures)}, {rate:.0f} structures/s"
