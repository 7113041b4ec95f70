"""Feature rows on disk in checked chunks, reused by every rule and appended to."""

from labelwise.features.store.chunk_files import DamagedChunkError
from labelwise.features.store.columns import RowColumns
from labelwise.features.store.identity import Identity
from labelwise.features.store.store import FeatureStore
from labelwise.features.store.stored_rows import find_common_norms
from labelwise.features.store.verifying import Damage, verify_store
from labelwise.features.store.view import StoreView

__all__ = [
    "Damage",
    "DamagedChunkError",
    "FeatureStore",
    "Identity",
    "RowColumns",
    "StoreView",
    "find_common_norms",
    "verify_store",
]
