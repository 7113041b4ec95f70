"""Labels from a SLURM queue: shards of structures as elements of job arrays.

``labeller.py`` decides, ``shard.py`` is what an element runs, ``queue.py`` asks and tells SLURM,
``ledger.py`` is what a crash leaves: which jobs there are and what became of them.
"""
