"""From the summary of a selection to a page that shows what was chosen and why."""

from labelwise.selection.page.gathering import gather_selection as gather_selection
from labelwise.selection.page.record import SelectionRecord as SelectionRecord
from labelwise.selection.page.record import is_summary as is_summary
from labelwise.selection.page.record import read_record as read_record
