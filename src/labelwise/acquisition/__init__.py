"""From a pool of structures to the batch worth labelling."""

from labelwise.acquisition.acquire import acquire as acquire
from labelwise.acquisition.results import NEAREST_TRAIN_KEY as NEAREST_TRAIN_KEY
from labelwise.acquisition.results import POOL_INDEX_KEY as POOL_INDEX_KEY
from labelwise.acquisition.results import RANK_KEY as RANK_KEY
from labelwise.acquisition.results import SCORE_KEY as SCORE_KEY
from labelwise.acquisition.results import SOURCE_KEY as SOURCE_KEY
from labelwise.acquisition.results import Acquisition as Acquisition
from labelwise.acquisition.results import Pick as Pick
from labelwise.acquisition.settings import JOINT_RULE as JOINT_RULE
from labelwise.acquisition.settings import AcquisitionSettings as AcquisitionSettings
from labelwise.acquisition.settings import list_rules as list_rules
from labelwise.acquisition.stored import StoreSettings as StoreSettings
from labelwise.acquisition.stored import acquire_stored as acquire_stored
from labelwise.acquisition.stored import fill_store as fill_store
