"""The page of a campaign that is being run, written again after each round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from labelwise.campaign.page.document import gather_campaign
from labelwise.campaign.state import CampaignState
from labelwise.pages.libraries import read_libraries
from labelwise.pages.page import write_page

#: The page's file, in the campaign's folder.
PAGE = "report.html"


class CampaignPages:
    """Writes a campaign's page again and again, and never raises what keeps it from that.

    A campaign is worth more than its page: whatever goes wrong is said, each reason once, and the
    campaign goes on.

    Args:
        directory: The campaign.
        enabled: False to write nothing.
        warn: Called with the reason why a page could not be written.

    Attributes:
        path: The page's file.
        is_written: Whether the last page was written.
    """

    def __init__(self, directory: Path, *, enabled: bool, warn: Callable[[str], None]) -> None:
        self.path = directory / PAGE
        self.is_written = False
        self._directory = directory
        self._enabled = enabled
        self._warn = warn
        self._said: set[str] = set()

    def write_round(self, _state: CampaignState) -> None:
        """Write the page when a round is finished; an ``after_round`` of ``run_campaign``."""
        self.write()

    def write(self, *, stopped: str = "") -> None:
        """Write the page as the campaign is now."""
        if not self._enabled:
            return
        self.is_written = False
        try:
            read_libraries()  # before anything is computed that could not be shown
            document = gather_campaign(self._directory, stopped=stopped, check=False)
            write_page(self.path, document)
        except Exception as error:  # no mistake of a page may end a campaign
            self._say(f"no page of the campaign: {error or type(error).__name__}")
        else:
            self.is_written = True

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._warn(message)
