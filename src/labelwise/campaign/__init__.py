"""The active-learning loop: select, label, fine-tune, measure, repeat, and lose nothing."""

from labelwise.campaign.config import CampaignConfig, read_config
from labelwise.campaign.errors import (
    CampaignError,
    ChangedInputsError,
    ConfigError,
    DamagedStateError,
    LeakageError,
    LockedError,
)
from labelwise.campaign.loop import RunOptions, make_bench, run_campaign, step
from labelwise.campaign.state import CampaignState, read_state

__all__ = [
    "CampaignConfig",
    "CampaignError",
    "CampaignState",
    "ChangedInputsError",
    "ConfigError",
    "DamagedStateError",
    "LeakageError",
    "LockedError",
    "RunOptions",
    "make_bench",
    "read_config",
    "read_state",
    "run_campaign",
    "step",
]
