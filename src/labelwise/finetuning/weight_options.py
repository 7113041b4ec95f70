"""Which weights a fine-tuning changes, how fast each, and what holds them back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from labelwise.errors import ArgumentError
from labelwise.runtime.settings import Setting, check_bounds

Anchor = Literal["none", "l2", "ewc"]

#: The block that holds every weight, in all families.
EVERYTHING = "all"
#: Heading of the help.
WEIGHTS = "Which weights are trained"
#: Weight of the penalty where none is given, of those tried in docs/finetuning.md.
ANCHOR_WEIGHTS: Mapping[str, float] = {"l2": 0.001, "ewc": 0.1}


def parse_blocks(text: str) -> tuple[str, ...]:
    """Read blocks with commas between.

    Example:
        >>> parse_blocks("readout, products")
        ('readout', 'products')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def parse_rates(text: str) -> dict[str, float]:
    """Read factors of the learning rate by block.

    Raises:
        ArgumentError: It is not of the form BLOCK=NUMBER, or a block is there twice.

    Example:
        >>> parse_rates("readout=1, products=0.3")
        {'readout': 1.0, 'products': 0.3}
    """
    rates: dict[str, float] = {}
    for word in parse_blocks(text):
        block, equals, number = (part.strip() for part in word.partition("="))
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not (block and equals) or math.isnan(factor) or block in rates:
            raise ArgumentError(
                f"block_rates is {text!r}; give BLOCK=NUMBER, each block once, with commas "
                "between: readout=1,products=0.3"
            )
        rates[block] = factor
    return rates


@dataclass(frozen=True)
class WeightOptions:
    """Which weights are trained, and how.

    Attributes:
        train_blocks: Blocks of weights of the potential (``Potential.blocks``); all others stay
            as they are, bit for bit.
        block_rates: Factor of the learning rate by block; None, and a weight that no block
            names, has 1.
        lora_rank: R, train W = W0 + (α/R)·A·B in place of W, for each matrix of R columns of A
            and R rows of B, or fewer where the matrix is smaller. What is no matrix (biases,
            scales) stays as it is. The fitted potential has the sum, and no A and B.
        lora_alpha: α; None for R, so that the sum is W0 + A·B.
        anchor: ``l2`` adds w/2 · Σ (θ − θ0)² over the trained weights to the loss, θ0 the start;
            ``ewc`` adds w/2 · Σ f (θ − θ0)², f the diagonal of the Fisher information at the
            start (``estimate_fisher``) of the structures that are replayed, also where
            ``replay_weight`` is 0, or else of the training structures. The losses that are
            recorded are without it.
        anchor_weight: w; None for ``ANCHOR_WEIGHTS``.
        weight_decay: Of AdamW: each update also takes off this part of what the optimiser moves
            (the weights, or A and B) times the learning rate. 0 for Adam.

    Source: W0 + A·B: Hu et al., arXiv:2106.09685; ``ewc``: Kirkpatrick et al., PNAS 114 (2017)
    3521; ``weight_decay``: Loshchilov and Hutter, arXiv:1711.05101.
    """

    train_blocks: Annotated[
        tuple[str, ...],
        Setting(
            "Blocks of weights, such as readout,products; the others stay as they are. A "
            "wrong name is answered with those of the model.",
            parse=parse_blocks,
            metavar="BLOCK,...",
            panel=WEIGHTS,
        ),
    ] = (EVERYTHING,)
    block_rates: Annotated[
        Mapping[str, float] | None,
        Setting(
            "Factors of the learning rate by block, such as embedding=0.1; 1 for all others.",
            parse=parse_rates,
            metavar="BLOCK=F,...",
            panel=WEIGHTS,
        ),
    ] = None
    lora_rank: Annotated[
        int | None,
        Setting(
            "Train changes of this rank to each matrix of weights (LoRA).", ge=1, panel=WEIGHTS
        ),
    ] = None
    lora_alpha: Annotated[
        float | None,
        Setting("Changes are multiplied by this / rank; by default 1.", gt=0, panel=WEIGHTS),
    ] = None
    anchor: Annotated[
        str,
        Setting(
            "Against forgetting: pull weights to where they started, all alike (l2) or by how "
            "much they matter to the start (ewc).",
            choices=get_args(Anchor),
            panel=WEIGHTS,
        ),
    ] = "none"
    anchor_weight: Annotated[
        float | None,
        Setting("How strong the pull is; by default 0.001 of l2, 0.1 of ewc.", gt=0, panel=WEIGHTS),
    ] = None
    weight_decay: Annotated[float, Setting("Of AdamW; 0 for Adam.", ge=0, panel=WEIGHTS)] = 0.0

    @property
    def trains_everything(self) -> bool:
        """Whether every weight is moved, each by itself and at one rate."""
        return self.train_blocks == (EVERYTHING,) and not self.block_rates and not self.lora_rank

    @property
    def rates(self) -> Mapping[str, float]:
        """Factors of the learning rate by block, none where none is given."""
        return {} if self.block_rates is None else self.block_rates

    @property
    def penalty_weight(self) -> float:
        """The weight of the penalty; 0 without one."""
        if self.anchor == "none":
            return 0.0
        return ANCHOR_WEIGHTS[self.anchor] if self.anchor_weight is None else self.anchor_weight

    def __post_init__(self) -> None:
        """Check the settings that need no model.

        Raises:
            ArgumentError: A number out of range, an unknown word, or settings at odds.
        """
        check_bounds(self)
        _check_blocks(self.train_blocks, self.rates)
        if self.lora_alpha is not None and self.lora_rank is None:
            raise ArgumentError(
                f"lora_alpha is {self.lora_alpha:g}, but lora_rank is not given; give both"
            )
        if self.anchor_weight is not None and self.anchor == "none":
            raise ArgumentError(
                f"anchor_weight is {self.anchor_weight:g}, but anchor is 'none'; choose l2 or ewc"
            )


def _check_blocks(blocks: tuple[str, ...], rates: Mapping[str, float]) -> None:
    if not isinstance(blocks, tuple) or not blocks or len(set(blocks)) < len(blocks):
        raise ArgumentError(
            f"train_blocks is {blocks!r}; allowed are names of blocks, each once, at least one: "
            "('readout', 'products')"
        )
    if EVERYTHING in blocks and len(blocks) > 1:
        raise ArgumentError(f"train_blocks is {','.join(blocks)}; 'all' holds every other block")
    for block, factor in rates.items():
        if block == EVERYTHING:
            raise ArgumentError("block_rates has 'all'; set learning_rate, which is for all")
        if not (math.isfinite(factor) and factor > 0):
            raise ArgumentError(
                f"block_rates has {block}={factor:g}; allowed are finite numbers > 0; leave a "
                "block out of train_blocks to keep it as it is"
            )
        if EVERYTHING not in blocks and block not in blocks:
            raise ArgumentError(
                f"block_rates has {block!r}, which is not trained: train_blocks is "
                f"{','.join(blocks)}"
            )
