"""From files of structures to rows in a feature store, here or on many machines."""

from labelwise.features.extraction.extractor import Extracted, Extractor
from labelwise.features.extraction.filling import ExtractionCounts, StoreFiller
from labelwise.features.extraction.offered import Offered
from labelwise.features.extraction.preparing import Prepared, Preparer, make_key

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
