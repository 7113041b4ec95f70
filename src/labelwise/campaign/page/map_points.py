"""The points of a campaign's map with their structures, which are read again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelwise.campaign.datasets import GivenSets, iter_pool
from labelwise.campaign.pool_map import PoolMapData
from labelwise.campaign.state import CampaignState
from labelwise.errors import LabelwiseError
from labelwise.structures import Frame, Source


@dataclass(frozen=True, eq=False)
class MapPoints:
    """Structures as points.

    Attributes:
        data: What was measured of them.
        frames: The structures, (n,), their sources as the campaign names them.
        place: Point of each source, for those that come from the pool.
        remarks: What is missing, one line each.
    """

    data: PoolMapData
    frames: tuple[Frame, ...]
    place: dict[Source, int]
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        """Count the points."""
        return len(self.frames)


def read_points(state: CampaignState, given: GivenSets, data: PoolMapData) -> MapPoints:
    """Read the structures of a map again; those that are gone are no points any more."""
    remarks = list(data.remarks)
    own = {each.source: each for each in map(state.name_frame, given.train)}
    others = {frame.source: frame for frame in state.recorded_frames()}
    wanted = set(data.sources[data.n_given :])
    try:
        for frame in iter_pool(state.directory, state.config):
            named = state.name_frame(frame)
            if named.source in wanted:
                others[named.source] = named
    except (LabelwiseError, OSError) as error:
        remarks.append(f"The pool cannot be read any more: {error}")
    found = [
        (own if point < data.n_given else others).get(source)
        for point, source in enumerate(data.sources)
    ]
    left = data.keep(np.array([frame is not None for frame in found], dtype=bool))
    frames = [frame for frame in found if frame is not None]
    return MapPoints(
        left,
        tuple(frames),
        {source: point for point, source in enumerate(left.sources) if point >= left.n_given},
        tuple(remarks),
    )
