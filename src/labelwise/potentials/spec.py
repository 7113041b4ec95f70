"""What is said of a model before it is loaded."""

from __future__ import annotations

from typing import Literal, get_args

#: Blocks of weights that gradients are taken over.
ParameterBlock = Literal["embedding", "readout", "products", "all"]
PARAMETER_BLOCKS: tuple[str, ...] = get_args(ParameterBlock)
