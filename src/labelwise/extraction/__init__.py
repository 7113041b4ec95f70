"""From files of structures to rows in a feature store, here or on many machines."""

from labelwise.extraction.extractor import Extracted, Extractor
from labelwise.extraction.filling import ExtractionCounts, StoreFiller
from labelwise.extraction.offered import Offered
from labelwise.extraction.preparing import Prepared, Preparer, make_key

__all__ = [
    "Extracted",
    "ExtractionCounts",
    "Extractor",
    "Offered",
    "Prepared",
    "Preparer",
    "StoreFiller",
    "make_key",
]
