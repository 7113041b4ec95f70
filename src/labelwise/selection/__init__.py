"""From a pool of structures to the batch worth labelling."""

from labelwise.selection.acquire import acquire as acquire
from labelwise.selection.results import NEAREST_TRAIN_KEY as NEAREST_TRAIN_KEY
from labelwise.selection.results import POOL_INDEX_KEY as POOL_INDEX_KEY
from labelwise.selection.results import RANK_KEY as RANK_KEY
from labelwise.selection.results import SCORE_KEY as SCORE_KEY
from labelwise.selection.results import SOURCE_KEY as SOURCE_KEY
from labelwise.selection.results import Acquisition as Acquisition
from labelwise.selection.results import Pick as Pick
from labelwise.selection.settings import JOINT_RULE as JOINT_RULE
from labelwise.selection.settings import AcquisitionSettings as AcquisitionSettings
from labelwise.selection.settings import list_rules as list_rules
from labelwise.selection.stored import StoreSettings as StoreSettings
from labelwise.selection.stored import acquire_stored as acquire_stored
from labelwise.selection.stored import fill_store as fill_store
