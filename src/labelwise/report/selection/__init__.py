"""From the summary of a selection to a page that shows what was chosen and why."""

from labelwise.report.selection.gathering import gather_selection as gather_selection
from labelwise.report.selection.record import SelectionRecord as SelectionRecord
from labelwise.report.selection.record import is_summary as is_summary
from labelwise.report.selection.record import read_record as read_record
