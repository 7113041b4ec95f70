"""Rules that pick the batch of a pool that is worth labelling."""

from labelwise.selection.base import ProgressCallback as ProgressCallback
from labelwise.selection.base import Selection as Selection
from labelwise.selection.joint_posterior import (
    DEFAULT_JOINT_REGULARISATION as DEFAULT_JOINT_REGULARISATION,
)
from labelwise.selection.joint_posterior import JointPosterior as JointPosterior
from labelwise.selection.joint_posterior import select_joint_posterior as select_joint_posterior
from labelwise.selection.joint_shortlist import JointShortlist as JointShortlist
from labelwise.selection.k_center import select_k_center as select_k_center
from labelwise.selection.lcmd import select_lcmd as select_lcmd
from labelwise.selection.nearest_labelled import find_nearest as find_nearest
from labelwise.selection.posterior_variance import posterior_variance as posterior_variance
from labelwise.selection.posterior_variance import (
    select_posterior_variance as select_posterior_variance,
)
from labelwise.selection.random import select_random as select_random
from labelwise.selection.registry import RULES as RULES
from labelwise.selection.registry import RuleSettings as RuleSettings
from labelwise.selection.registry import register_rule as register_rule
from labelwise.selection.registry import select_batch as select_batch
from labelwise.selection.shortlist import shortlist_by_variance as shortlist_by_variance
from labelwise.selection.top import select_top as select_top
from labelwise.selection.top import select_top_variance as select_top_variance
