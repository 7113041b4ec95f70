"""The points of a campaign's map with their structures, which are read again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labelwise.campaign.context import CampaignContext
from labelwise.campaign.inputs import name_source
from labelwise.campaign.labelling.encoding import decode_structure
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


def read_points(state: CampaignState, context: CampaignContext, data: PoolMapData) -> MapPoints:
    """Read the structures of a map again; those that are gone are no points any more.

    Args:
        state: The campaign.
        context: The given structures.
        data: What a run measured.
    """
    remarks = list(data.remarks)
    given = {name_source(state.directory, frame.source): frame for frame in context.given.train}
    others = {frame.source: frame for frame in _labelled_frames(state)}
    wanted = set(data.sources[data.n_given :])
    try:
        for frame in context.iter_pool(state):
            source = name_source(state.directory, frame.source)
            if source in wanted:
                others[source] = frame
    except (LabelwiseError, OSError) as error:
        remarks.append(f"The pool cannot be read any more: {error}")
    found = [
        (given if point < data.n_given else others).get(source)
        for point, source in enumerate(data.sources)
    ]
    left = data.keep(np.array([frame is not None for frame in found], dtype=bool))
    frames = [frame for frame in found if frame is not None]
    return MapPoints(
        left,
        tuple(
            Frame(frame.atoms, source, frame.index)
            for frame, source in zip(frames, left.sources, strict=True)
        ),
        {source: point for point, source in enumerate(left.sources) if point >= left.n_given},
        tuple(remarks),
    )


def _labelled_frames(state: CampaignState) -> Iterator[Frame]:
    """Yield what the campaign's own records hold, should the pool have lost it."""
    for number, record in enumerate((*state.labels.values(), *state.failures.values())):
        yield Frame(decode_structure(record["structure"]), Source(*record["source"]), number)
