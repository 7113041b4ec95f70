"""Where a map over chunks runs: in this process, on all cores of the machine, or on Ray.

An engine knows nothing of features. It maps a function over a lazy stream of items and hands
the results back in the order of the items, so a sum over them is the same, bit for bit, on
every engine::

    with ProcessEngine() as engine:
        for partial in engine.map(load_model, describe_chunk, chunks):
            total += partial

``load_model()`` runs once in each worker process, ``describe_chunk(model, chunk)`` once for
each chunk. A worker that dies costs the item it was on and no other.
"""

from labelwise.runtime.engines.base import ClusterError, Engine, Ready
from labelwise.runtime.engines.local import LocalEngine
from labelwise.runtime.engines.process_engine import ProcessEngine
from labelwise.runtime.engines.ray_engine import RayEngine

__all__ = ["ClusterError", "Engine", "LocalEngine", "ProcessEngine", "RayEngine", "Ready"]
