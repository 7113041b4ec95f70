"""Which of mace-torch's blocks let another convolution stand in for theirs."""

from __future__ import annotations

from typing import Any

from labelwise.potentials.convolution import can_convolve

# Those that hand ``conv_tp`` nodes and edges when they have the attribute ``conv_fusion``.
_INTERACTIONS = {
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
}


def is_channelwise(block: Any) -> bool:
    """Tell whether ``NeighbourConvolution`` can stand in for an interaction block's ``conv_tp``.

    So it can for mace-torch's own, by the hook ``conv_fusion``; all parts have as many channels.
    """
    if type(block).__name__ not in _INTERACTIONS or hasattr(block, "conv_fusion"):
        return False
    is_even = len({part.mul for part in getattr(block.conv_tp, "irreps_in1", ())}) == 1
    return is_even and can_convolve(block.conv_tp)
