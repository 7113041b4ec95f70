from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labelwise.campaign.bench import Bench
from labelwise.campaign.datasets import read_given_sets
from labelwise.campaign.page.kept import KeptArrays
from labelwise.campaign.page.labelled_sets import held_out_set
from labelwise.campaign.page.predicting import Predictor
from labelwise.campaign.state import read_state

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_a_model_that_is_gone_or_damaged_is_a_refusal(
    copied: Callable[[], Path], tmp_path: Path, content: bytes | None
) -> None:
    directory = copied()
    state = read_state(directory)
    bench = Bench(read_given_sets(directory, state.config, {}), {})
    labelled = held_out_set(state, bench, "valid", seed=0)
    assert labelled is not None
    path = directory / "round_001" / "model.pt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    predictor = Predictor(state, bench, KeptArrays(tmp_path / "kept"))
    assert predictor.predict(1, labelled) is None
    assert predictor.predict(1, labelled) is None
    assert len(predictor.refusals) == 1
    assert predictor.refusals[0].startswith("no predictions of the model of round 1: ")
    assert predictor.predict(2, labelled) is not None
