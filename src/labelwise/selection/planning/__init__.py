"""What a selection will need, from a short trial of its model, its pool and this machine."""

from labelwise.selection.planning.estimate import STORE_DTYPES as STORE_DTYPES
from labelwise.selection.planning.estimate import Estimate as Estimate
from labelwise.selection.planning.estimate import LargestPool as LargestPool
from labelwise.selection.planning.estimate import Rates as Rates
from labelwise.selection.planning.estimate import RunSettings as RunSettings
from labelwise.selection.planning.estimate import StageEstimate as StageEstimate
from labelwise.selection.planning.estimate import Workload as Workload
from labelwise.selection.planning.estimate import estimate_run as estimate_run
from labelwise.selection.planning.plan import LargestStructure as LargestStructure
from labelwise.selection.planning.plan import Plan as Plan
from labelwise.selection.planning.plan import make_plan as make_plan
from labelwise.selection.planning.survey import Survey as Survey
from labelwise.selection.planning.survey import survey_files as survey_files
from labelwise.selection.planning.trial import check_plannable as check_plannable
