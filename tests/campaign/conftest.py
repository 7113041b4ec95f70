"""One set of data for all tests of campaigns, and a finished campaign to compare with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelwise.campaign.loop import run_campaign
from tests.campaign.building import write_campaign, write_data
from tests.campaign.zygote import Zygote


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled pool, train, valid, test and a model."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign that ran without interruption; not to be changed."""
    directory = write_campaign(tmp_path_factory.mktemp("finished"), data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_campaign(directory)
    return directory


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """A process that runs campaigns in children of its own, to be killed."""
    with Zygote() as process:
        yield process
