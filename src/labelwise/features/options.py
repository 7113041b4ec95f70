"""What can be asked of representations."""

from __future__ import annotations

from dataclasses import dataclass

#: How the force tangents of a structure become one row.
REDUCTION_NAMES = ("rms", "element-rms", "force-norm", "fields", "moments")
#: What rows are divided by.
NORMALISATIONS = ("cosine", "none")
#: Random probes that stand for all 3N force tangents of a structure, unless said otherwise.
DEFAULT_PROBES = 8


@dataclass(frozen=True)
class RepresentationOptions:
    """Settings that representations understand; each takes what concerns it.

    Attributes:
        parameters: Block of weights that tangents are taken over: ``embedding``, ``readout``,
            ``products`` or ``all``.
        sketch_dim: Length of sketched rows; None keeps ``embedding`` rows as they are and
            sketches the other blocks to 2,048.
        seed: Seed of sketches, probes and random features, >= 0.
        reduction: How the force tangents of a structure become one row: ``rms``,
            ``element-rms``, ``force-norm``, ``fields`` or ``moments``.
        n_probes: Random probes that stand for the rows of the force Jacobian, >= 1; None
            takes all 3N rows, which is exact.
        energy_weight: Part of the energy block in joint rows, 0 <= w <= 1; the force block
            has the rest.
    """

    parameters: str = "embedding"
    sketch_dim: int | None = None
    seed: int = 0
    reduction: str = "fields"
    n_probes: int | None = DEFAULT_PROBES
    energy_weight: float = 0.5
