"""``python -m labelwise``: the command line without the installed script."""

import sys

from labelwise.cli import main

sys.exit(main())
