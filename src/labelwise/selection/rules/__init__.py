"""Rules that pick the batch of a pool that is worth labelling.

Every module of this folder is imported, so that a rule that registers itself is found.
"""

from importlib import import_module
from pkgutil import iter_modules

from labelwise.selection.rules.base import ProgressCallback as ProgressCallback
from labelwise.selection.rules.base import Selection as Selection
from labelwise.selection.rules.batch import select_batch as select_batch
from labelwise.selection.rules.joint_posterior import (
    DEFAULT_JOINT_REGULARISATION as DEFAULT_JOINT_REGULARISATION,
)
from labelwise.selection.rules.joint_posterior import JOINT_RULE as JOINT_RULE
from labelwise.selection.rules.joint_posterior import JointPosterior as JointPosterior
from labelwise.selection.rules.joint_posterior import (
    select_joint_posterior as select_joint_posterior,
)
from labelwise.selection.rules.joint_shortlist import JointShortlist as JointShortlist
from labelwise.selection.rules.k_center import select_k_center as select_k_center
from labelwise.selection.rules.lcmd import select_lcmd as select_lcmd
from labelwise.selection.rules.nearest_labelled import find_nearest as find_nearest
from labelwise.selection.rules.posterior_variance import posterior_variance as posterior_variance
from labelwise.selection.rules.posterior_variance import (
    select_posterior_variance as select_posterior_variance,
)
from labelwise.selection.rules.random import select_random as select_random
from labelwise.selection.rules.registry import Rule as Rule
from labelwise.selection.rules.registry import get_rule as get_rule
from labelwise.selection.rules.registry import list_rules as list_rules
from labelwise.selection.rules.registry import register_rule as register_rule
from labelwise.selection.rules.shortlist import shortlist_by_variance as shortlist_by_variance
from labelwise.selection.rules.top import select_top as select_top
from labelwise.selection.rules.top import select_top_variance as select_top_variance

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
