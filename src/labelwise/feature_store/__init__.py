"""Feature rows on disk in checked chunks, reused by every rule and appended to."""

from labelwise.feature_store.chunk_writer import ChunkWriter
from labelwise.feature_store.columns import RowColumns, StoredColumns
from labelwise.feature_store.errors import DamagedChunkError
from labelwise.feature_store.identity import Identity
from labelwise.feature_store.listings import Listing, hash_file
from labelwise.feature_store.store import FeatureStore
from labelwise.feature_store.stored_rows import find_common_norms
from labelwise.feature_store.verifying import Damage, verify_store
from labelwise.feature_store.view import StoreView

__all__ = [
    "ChunkWriter",
    "Damage",
    "DamagedChunkError",
    "FeatureStore",
    "Identity",
    "Listing",
    "RowColumns",
    "StoreView",
    "StoredColumns",
    "find_common_norms",
    "hash_file",
    "verify_store",
]
