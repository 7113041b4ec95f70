"""One set of data for all tests of campaigns, and a finished campaign to compare with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelwise.campaign.loop import run_campaign
from tests.campaign.building import write_campaign
from tests.campaign.zygote import Zygote
from tests.conftest import MakeOnce


@pytest.fixture(scope="session")
def data(campaign_data: Path) -> Path:
    """Labelled pool, train, valid, test and a model."""
    return campaign_data


@pytest.fixture(scope="session")
def finished(data: Path, made_once: MakeOnce) -> Path:
    """A campaign that ran without interruption; not to be changed."""

    def make(directory: Path) -> None:
        write_campaign(directory, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_campaign(directory)

    return made_once("finished-campaign", make)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """A process that runs campaigns in children of its own, to be killed."""
    with Zygote() as process:
        yield process
