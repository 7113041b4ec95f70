"""Kill this process at a chosen write, as a power cut would."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Every way in which the campaign changes the disk.
CALLS = ("write", "fsync", "replace", "ftruncate", "unlink")


class Boundaries:
    """Counts the calls that change the disk and dies before the n-th one."""

    def __init__(self, kill_at: int | None, *, torn: bool = False) -> None:
        self.n_seen = 0
        self._kill_at = kill_at
        self._torn = torn

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*words: Any, **options: Any) -> Any:
            self.n_seen += 1
            if self.n_seen == self._kill_at:
                if self._torn and name == "write":
                    call(words[0], bytes(words[1])[: len(words[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words, **options)

        return wrapped


def run_and_count(directory: str, kill_at: int | None, torn: bool, count_file: str) -> None:
    """Run a campaign with the fault; write how many boundaries there were."""
    from labelwise.campaign.loop import run_campaign

    boundaries = Boundaries(kill_at, torn=torn)
    boundaries.install()
    run_campaign(Path(directory))
    with open(count_file, "w") as stream:  # noqa: PTH123 - not one of the counted calls
        stream.write(str(boundaries.n_seen))
