"""The protocols of the papers, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from labelwise.studies.comparison.methods import SCRATCH

#: How pools are made of labelled files.
Layout = Literal["natural", "mixed"]
#: By what a pool is shifted against the test set.
Shift = Literal["family", "path", "energy"]
SHIFTS: tuple[str, ...] = get_args(Shift)
_FAMILIES = ("activation", "ntk", "soap", "tanimoto")
_TABLE_4 = (
    "random",
    "committee-e",
    "committee-f",
    *(f"{family}-{rule}" for family in _FAMILIES for rule in ("k-center", "lcmd", "pv")),
)
#: Ten labels of five reactions may be too few compositions to fit atomic energies to another level
#: of theory; errors of hundreds of eV would then stand for a rule's.
_REACTION_PATHS = {"schedule": "reaction-paths", "reference_energies": "labelled"}
_SCRATCH_METHODS = ("random", "committee-e", *(f"{family}-lcmd" for family in _FAMILIES))


@dataclass(frozen=True)
class Preset:
    """A protocol.

    Attributes:
        title: Heading of the results.
        summary: What it is, in a sentence.
        methods: Their names, the reference first.
        batch_size: Structures a round.
        initial_size: Labelled structures to begin with.
        rounds: Rounds after round 0.
        layout: How pools are made of labelled files.
        n_pools: Pools to make of labelled files; None for the layout's number.
        seeds: A campaign of each method and pool is run with each.
        finetune: Settings of fine-tuning.
        is_biased: Whether pools are thinned against the test set.
        build: Recipe of ``datasets.builds`` that makes the pools of published files; None for
            labelled files in the layout.
        has_labels: Whether the pools come with labels to begin with.
        selection: Further settings that all methods share.
        errors: How errors are counted and shown: keys of the study.
    """

    title: str
    summary: str
    methods: tuple[str, ...]
    batch_size: int = 5
    initial_size: int = 10
    rounds: int = 40
    layout: Layout = "natural"
    n_pools: int | None = None
    seeds: tuple[int, ...] = (0, 1)
    finetune: Mapping[str, Any] = field(default_factory=lambda: dict(_REACTION_PATHS))
    is_biased: bool = False
    build: str | None = None
    has_labels: bool = False
    selection: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, Any] = field(default_factory=dict)


#: The larger pools of section 5: fifty labels, +150 a round, at most twenty rounds.
_LARGER: dict[str, Any] = {
    "methods": ("random", "committee-e", "activation-lcmd", "ntk-lcmd", "ntk-ef-lcmd"),
    "batch_size": 150,
    "initial_size": 50,
    "rounds": 20,
    "layout": "mixed",
    "finetune": {"schedule": "fixed", "reference_energies": "labelled"},
}
_NATURAL = (*_TABLE_4, "ntk-ef-lcmd", "ntk-ef-pv", "joint-pv")

#: Tables are those of *Pretrained Model Representations as Acquisition Signals for Active Learning
#: of MLIPs*. Forty rounds, because it shows its kernels at iterations 1, 20 and 40 and says no
#: other number. ``pool-bias`` has three seeds, since the claim of *Force-Aware Neural Tangent
#: Kernels* (arXiv:2605.13788) is about the variance over them.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "reaction-natural": Preset(
            title="Reaction paths, natural pools",
            summary="Three pools of five reactions, +5 a round, balanced test (table 4).",
            methods=_NATURAL,
        ),
        "reaction-mixed": Preset(
            title="Reaction paths, mixed pool",
            summary="100 reactions in one pool, 50 labels at first, +150 a round (table 3).",
            **_LARGER,
        ),
        "pool-bias": Preset(
            title="Pools shifted against the test set",
            summary="Pools shifted by family, path and energy, and an unshifted control.",
            methods=(
                "random",
                "committee-e",
                "committee-f",
                *(f"{family}-{rule}" for family in _FAMILIES[:2] for rule in ("lcmd", "pv")),
            ),
            n_pools=1,
            seeds=(0, 1, 2),
            is_biased=True,
        ),
        "scratch": Preset(
            title="From scratch against pretrained",
            summary="Natural pools, each method pretrained and from random weights (table 6).",
            methods=(*_SCRATCH_METHODS, *(f"{name}{SCRATCH}" for name in _SCRATCH_METHODS)),
        ),
        "t1x-natural": Preset(
            title="Transition1x, natural pools",
            summary="reaction-natural on pools of Transition1x (table 4).",
            methods=_NATURAL,
            build="t1x-natural",
        ),
        "t1x-mixed": Preset(
            title="Transition1x, mixed pool",
            summary="reaction-mixed on a pool of Transition1x (table 3).",
            build="t1x-mixed",
            **_LARGER,
        ),
        "rgd": Preset(
            title="OMol25, RGD",
            summary="5,000 structures of OMol25's RGD, 50 labels at first, +150 a round (table 3).",
            build="omol-rgd",
            **_LARGER,
        ),
        "pmechdb": Preset(
            title="OMol25, PMechDB",
            summary="10,000 of OMol25's PMechDB, 50 labels at first, +150 a round (table 3).",
            build="omol-pmechdb",
            **_LARGER,
        ),
        "oc20": Preset(
            title="OC20, structures to energy and forces",
            summary="A pool of 200,000, 2,000 labels at first, +1,250 of a shortlist of 50,000 a "
            "round; errors per validation split.",
            methods=(
                "random",
                "committee-e",
                "committee-f",
                "activation-pv",
                "activation-lcmd",
                "ntk-lcmd",
                "ntk-ef-lcmd",
            ),
            batch_size=1_250,
            initial_size=2_000,
            rounds=6,
            build="oc20",
            has_labels=True,
            selection={"shortlist": 50_000},
            finetune={"schedule": "fixed", "loss_fixed_forces": "exclude"},
            errors={
                "fixed_forces": "exclude",
                "energy_errors": "per-atom",
                "split_key": "split",
            },
        ),
    }
)
