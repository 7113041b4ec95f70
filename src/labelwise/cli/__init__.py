"""The command line: parse, call, print.

Exit codes: 0 done; 1 an error that the message explains; 2 a wrong flag or argument;
3 structures would be set aside under ``--strict``; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name; None takes ``sys.argv``.
    """
    # Threads that spin while they wait make a busy machine, a shared cluster node say,
    # twenty times slower; OpenMP reads this when torch is loaded, below.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from labelwise.cli.app import run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return run(arguments)
