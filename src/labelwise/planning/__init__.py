"""What a selection will need, from a short trial of its model, its pool and this machine."""

from labelwise.planning.estimate import STORE_DTYPES as STORE_DTYPES
from labelwise.planning.estimate import Estimate as Estimate
from labelwise.planning.estimate import LargestPool as LargestPool
from labelwise.planning.estimate import Rates as Rates
from labelwise.planning.estimate import RunSettings as RunSettings
from labelwise.planning.estimate import StageEstimate as StageEstimate
from labelwise.planning.estimate import Workload as Workload
from labelwise.planning.estimate import estimate_run as estimate_run
from labelwise.planning.plan import LargestStructure as LargestStructure
from labelwise.planning.plan import Plan as Plan
from labelwise.planning.plan import make_plan as make_plan
from labelwise.planning.road_probe import check_plannable as check_plannable
from labelwise.planning.survey import Survey as Survey
from labelwise.planning.survey import survey_files as survey_files
