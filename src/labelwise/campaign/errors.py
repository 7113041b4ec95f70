"""What can go wrong with a campaign, beside what can go wrong with its parts.

::

    LabelwiseError
    └── CampaignError          (RuntimeError)  the campaign cannot go on as things are
        ├── ConfigError        (ValueError)    campaign.yaml is wrong
        ├── LeakageError       (ValueError)    a structure is in two of train, valid, test, pool
        ├── LockedError                        another process has the campaign
        ├── ChangedInputsError                 configuration, model or data are not what they were
        └── DamagedStateError                  a file of the campaign is not what it wrote
"""

from __future__ import annotations

from labelwise.errors import LabelwiseError


class CampaignError(LabelwiseError, RuntimeError):
    """A campaign cannot go on as things are."""


class ConfigError(CampaignError, ValueError):
    """The configuration file is missing, not YAML, or has wrong keys or values."""


class LeakageError(CampaignError, ValueError):
    """A structure is in two of the sets that have to be disjoint."""


class LockedError(CampaignError):
    """Another process has the campaign."""


class ChangedInputsError(CampaignError):
    """The configuration, the model file or a data file changed since the last run."""


class DamagedStateError(CampaignError):
    """A file of the campaign directory is not what the campaign wrote."""
