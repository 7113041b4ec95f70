"""What can be asked of representations and of the kernels that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from labelwise.runtime.memory import parse_bytes
from labelwise.runtime.settings import CHOICE, MACHINE, SCALE, Seed, Setting

#: How the force tangents of a structure become one row.
REDUCTION_NAMES = ("rms", "element-rms", "force-norm", "fields", "moments")
#: What rows are divided by.
NORMALISATIONS = ("cosine", "none")
#: Random probes that stand for all 3N force tangents of a structure, unless said otherwise.
DEFAULT_PROBES = 8
#: How a feature store may keep numbers.
STORAGE_DTYPES = ("float32", "float16", "bfloat16")

BatchAtoms = Annotated[
    int | None,
    Setting("Atoms evaluated at once; halved when memory runs out.", ge=1, panel=MACHINE),
]

StoreDtype = Annotated[
    str,
    Setting(
        "How --store keeps numbers; half precision takes half the disk.",
        choices=STORAGE_DTYPES,
        panel=SCALE,
    ),
]
MemoryBytes = Annotated[
    int | None,
    Setting(
        "What the process may occupy while it chooses from a --store, such as 4GB; by default "
        "half of what it may use.",
        flags=("--memory",),
        ge=1,
        parse=parse_bytes,
        metavar="SIZE",
        panel=SCALE,
    ),
]


@dataclass(frozen=True)
class StoreOptions:
    """Where rows are kept, and how."""

    store: Annotated[
        Path | None,
        Setting(
            "Keep features in this folder: a pool may be larger than memory, a killed run goes "
            "on, and what is there is not computed again.",
            metavar="DIR",
            panel=SCALE,
        ),
    ] = None
    store_dtype: StoreDtype = STORAGE_DTYPES[0]
    memory_bytes: MemoryBytes = None


@dataclass(frozen=True)
class RepresentationOptions:
    """Settings that representations understand; each takes what concerns it.

    Example:
        >>> from labelwise import RepresentationOptions
        >>> RepresentationOptions(parameters="readout", sketch_dim=256).reduction
        'fields'
    """

    parameters: Annotated[
        str,
        Setting(
            "Block of weights behind the tangent kernels: embedding, all, or another of the "
            "model's; those of MACE are embedding, readout, products, interaction, all.",
            suggestions=("embedding", "readout", "products", "interaction", "all"),
            metavar="BLOCK",
            panel=CHOICE,
        ),
    ] = "embedding"
    sketch_dim: Annotated[
        int | None,
        Setting(
            "Length to which the gradients of readout, products or all are sketched; by default "
            "2,048. Those of embedding stay as they are without it.",
            ge=1,
            panel=CHOICE,
        ),
    ] = None
    seed: Seed = 0
    reduction: Annotated[
        str,
        Setting(
            "How ntk-f and ntk-ef make one row of a structure's force tangents: rms, element-rms, "
            "force-norm, fields or moments.",
            choices=REDUCTION_NAMES,
            metavar="TEXT",
            panel=CHOICE,
        ),
    ] = "fields"
    n_probes: Annotated[
        int | None,
        Setting(
            "Random probes in place of all 3N force tangents of a structure, for ntk-f, ntk-ef "
            "and joint-pv.",
            aliases=("--probes",),
            ge=1,
            none="exact",
            metavar="N|exact",
            panel=CHOICE,
        ),
    ] = DEFAULT_PROBES
    energy_weight: Annotated[
        float,
        Setting(
            "Part of the energy in the kernel of ntk-ef and in joint-pv, 0 to 1; the forces have "
            "the rest.",
            ge=0,
            le=1,
            panel=CHOICE,
        ),
    ] = 0.5


@dataclass(frozen=True)
class KernelOptions(RepresentationOptions):
    """Which rows a kernel is made of, and their scale."""

    representation: Annotated[
        str,
        Setting(
            "ntk-e, ntk-f, ntk-ef, activation; ntk-random, activation-random: the same network "
            "untrained; soap, morgan: no model; or random.",
            flags=("--representation", "-r"),
            panel=CHOICE,
        ),
    ] = "ntk-e"
    normalise: Annotated[
        str | None,
        Setting(
            "Divide each structure's features by their own norm (cosine), or all by one number "
            "(none), so that their length counts; by default none for joint-pv, else cosine.",
            choices=NORMALISATIONS,
            panel=CHOICE,
        ),
    ] = None
    batch_atoms: BatchAtoms = None

    @property
    def options(self) -> RepresentationOptions:
        """What representations take of the settings."""
        names = [field.name for field in fields(RepresentationOptions)]
        return RepresentationOptions(**{name: getattr(self, name) for name in names})

    @property
    def resolved_normalise(self) -> str:
        """The normalisation as given, or the default."""
        return "cosine" if self.normalise is None else self.normalise

    def explain_need_of_model(self) -> str:
        """Return in words that a model has to be given."""
        return (
            f"representation {self.representation!r} needs a model: give --model PATH, a name from "
            "'labelwise models', or --model demo"
        )
