"""A study's model, kernels and some of its structures, as far as they are still there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelwise import __version__
from labelwise.campaign.config import CampaignConfig, read_config
from labelwise.campaign.inputs import locate
from labelwise.campaign.state import read_state, verify_model
from labelwise.campaign.yaml_files import CONFIG_FILE
from labelwise.errors import ReadError
from labelwise.potentials import Potential, load_potential
from labelwise.potentials.spec import find_model, split_family
from labelwise.selection.rules import JOINT_RULE, list_rules
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import Frame, Screen
from labelwise.structures.reading import RawFrame, expand_specs, iter_raw_frames
from labelwise.studies.comparison.methods import name_kernel
from labelwise.studies.comparison.record import StudyRecord
from labelwise.studies.comparison.series import Series
from labelwise.studies.comparison.study import CELLS


@dataclass(frozen=True)
class KernelChoice:
    """A kernel that methods of the study choose by.

    Attributes:
        label: What tells it from the study's others.
        settings: Of the first method that has it.
        style: Of that method.
    """

    label: str
    settings: AcquisitionSettings
    style: int

    @property
    def kernel(self) -> str:
        """Name of the representation."""
        return self.settings.representation


@dataclass(frozen=True)
class SampleOptions:
    """How a study's kernels are looked at.

    Attributes:
        device: Where features are computed: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        trust_model: Load a model's file although that runs code from it.
        seed: Of the samples.
        group_by: Info key of the families; None for the first of the usual ones that fits.
    """

    device: str = "auto"
    trust_model: bool = False
    seed: int = 0
    group_by: str | None = None


@dataclass(frozen=True)
class StudyInputs:
    """What a study's first pool was compared with.

    Attributes:
        pool: Name of the pool.
        directory: A campaign on it, where relative paths begin.
        config: Its configuration.
        ranked: Each kernel, the joint posterior's among them, once.
        asked: How they are looked at.
    """

    pool: str
    directory: Path
    config: CampaignConfig
    ranked: tuple[KernelChoice, ...]
    asked: SampleOptions

    @property
    def kernels(self) -> tuple[KernelChoice, ...]:
        """Each representation once, with the options of the first method that has it."""
        first: dict[str, KernelChoice] = {}
        for each in self.ranked:
            if each.settings.rule != JOINT_RULE:
                first.setdefault(each.kernel, each)
        return tuple(first.values())

    def load(self) -> Potential:
        """Load the pretrained model.

        Raises:
            PotentialError: It cannot be loaded.
            DamagedStateError: It is not the file that the campaign was begun with.
        """
        model = self.config.model
        verify_model(read_state(self.directory))
        return load_potential(
            find_model(self.directory, model.path),
            device=self.asked.device,
            dtype=model.dtype,
            head=model.head,
            trust=self.asked.trust_model,
        )

    def files_of(self, role: str) -> list[str]:
        """Return where the structures of ``pool``, ``train``, ``valid`` or ``test`` are."""
        section = getattr(self.config.data, role)
        return [
            locate(self.directory, spec)
            for spec in (section if isinstance(section, list) else section.files)
        ]

    def describe(self) -> dict[str, Any]:
        """Return what results depend on, as plain data; files by size and time of change.

        Raises:
            ReadError: A file is missing.
        """
        specs = {role: self.files_of(role) for role in ("pool", "valid", "test")}
        model = Path(split_family(find_model(self.directory, self.config.model.path))[1])
        return {
            "version": __version__,
            "format": 3,
            "model": [self.config.model.path, _describe_file(model)],
            "precision": [self.config.model.dtype, self.config.model.head],
            **{role: [[spec, *_describe(spec)] for spec in found] for role, found in specs.items()},
            "kernels": [[each.kernel, asdict(each.settings.options)] for each in self.kernels],
            "ranked": [each.label for each in self.ranked],
            "energies": [self.config.data.energy_key, self.config.measure.energy_errors],
            "references": self.config.finetune.reference_energies,
            "asked": [self.asked.seed, self.asked.group_by],
        }


def find_inputs(record: StudyRecord, asked: SampleOptions) -> StudyInputs:
    """Find the campaigns of a study's first pool and the kernels that they choose by.

    Raises:
        ReadError: No campaign of the pool is in the study's folder.
        StateError: A campaign's configuration cannot be read.
    """
    comparison = record.comparison
    pool = comparison.pools[0] if comparison.pools else ""
    found: list[tuple[Path, CampaignConfig]] = []
    kernels: dict[str, KernelChoice] = {}
    for style, series in enumerate(comparison.series):
        directory = _find_campaign(record.folder, pool, series)
        if directory is None:
            continue
        config = read_config(directory)
        found.append((directory, config))
        choice = _choose_kernel(config, style)
        if choice is not None:
            kernels.setdefault(choice.label, choice)
    if not found:
        raise ReadError(
            f"no campaign of the pool {pool} is in {record.folder / CELLS}, so its model and data "
            "are not known; keep the folder of the campaigns beside the results"
        )
    return StudyInputs(pool, *found[0], tuple(kernels.values()), asked)


def draw_frames(specs: Sequence[str], screen: Screen, n_most: int, *, seed: int) -> list[Frame]:
    """Read some structures at most, each with the same chance, in the order of the files.

    The screen remembers what it has seen: sets drawn with the same one have none in common.

    Raises:
        ReadError: A file is missing or damaged.
    """
    drawn = _draw_raw(iter_raw_frames(specs), n_most, np.random.default_rng(seed))
    frames = (raw.parse() for raw in sorted(drawn, key=lambda raw: raw.index))
    return [frame for frame in frames if screen.check_pool(frame) is None]


def _draw_raw(frames: Iterable[RawFrame], n_most: int, rng: np.random.Generator) -> list[RawFrame]:
    """Keep a sample of a stream of unknown length (Vitter's algorithm R)."""
    kept: list[RawFrame] = []
    for number, frame in enumerate(frames):
        if len(kept) < n_most:
            kept.append(frame)
        elif (place := int(rng.integers(number + 1))) < n_most:
            kept[place] = frame
    return kept


def _find_campaign(folder: Path, pool: str, series: Series) -> Path | None:
    """Return the folder of one of a method's campaigns on a pool."""
    if any(name != Path(name).name for name in (pool, series.method)):
        return None  # a record that points outside the study
    parent = folder / CELLS / pool / series.method
    found = sorted(path.parent for path in parent.glob(f"seed_*/{CONFIG_FILE}"))
    return found[0] if found else None


def _choose_kernel(config: CampaignConfig, style: int) -> KernelChoice | None:
    selection = config.selection
    if selection.rule == "random" or selection.rule not in list_rules():
        return None
    settings = selection.settings(selection.batch_size, seed=config.seed)
    return KernelChoice(name_kernel(settings), settings, style)


def _describe(spec: str) -> list[Any]:
    return [_describe_file(part.path) for part in expand_specs([spec])]


def _describe_file(path: Path) -> list[Any]:
    """Return a file's size and time of change; nothing of a model that is known by name."""
    if not path.exists():
        return []
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
