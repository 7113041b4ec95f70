from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from labelwise.errors import SelectionError
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.stored import StoredKernel
from labelwise.selection.rules import Rule, get_rule, select_batch, select_lcmd
from labelwise.selection.rules.planning import open_kernel, plan_selection
from tests.features.npy_rows import NpyRows
from tests.selection.rules.oracles import paths

MIB = 2**20
POOL = {"n": 200_000, "d": 1920, "n_train": 2000, "n_select": 1250, "piece_bytes": 32 * MIB}


def plan(budget, rule="lcmd", **settings):
    return plan_selection(budget, rule=rule, resident=300 * MIB, **{**POOL, **settings})


@pytest.mark.parametrize("shortlist", [None, 50_000])
@pytest.mark.parametrize("rule", ["lcmd", "k-center", "pv", "top"])
def test_more_memory_is_divided_and_never_exceeded(rule, shortlist):
    before = None
    for budget in np.linspace(1.5e9, 8e9, 30).astype(int).tolist():
        memory = plan(budget, rule, shortlist=shortlist)
        assert memory.peak_bytes <= budget
        assert memory.cache_bytes <= 4 * POOL["n"] * POOL["d"]
        assert 128 <= memory.chunk_size <= 4096
        if before is not None:
            assert memory.column_bytes >= before.column_bytes
            assert memory.in_memory >= before.in_memory
        before = memory
    assert memory.cache_bytes == (4 * POOL["n"] * POOL["d"] if shortlist is None else 0)
    assert memory.in_memory == (shortlist is None)


def test_four_gigabytes_hold_the_rows_of_the_large_pools():
    assert plan(4 * 10**9).in_memory
    assert plan(4 * 10**9, n=1_000_000, d=512).in_memory


def test_too_little_memory_names_the_least_that_would_do():
    with pytest.raises(SelectionError, match=r"the least is (\d+\.\d) (MB|GB)") as error:
        plan(500 * MIB)
    least = float(str(error.value).split("the least is ")[1].split()[0])
    plan(int(least * 10**6))
    with pytest.raises(SelectionError):
        plan(int(0.95 * least * 10**6))


def test_what_a_plan_opens_keeps_to_it(tmp_path):
    rows = LinearKernel(paths(500, 16, seed=0).float()).features.numpy()
    np.save(tmp_path / "rows.npy", rows)
    source = NpyRows(tmp_path / "rows.npy", piece_bytes=64 * 20)
    sizes = {"n": 500, "d": 16, "n_train": 5, "n_select": 4, "rule": "lcmd", "piece_bytes": 1280}
    ample = plan_selection(2**31, **sizes, resident=0)
    kernel = open_kernel(source, ample)
    assert isinstance(kernel, LinearKernel)
    assert kernel.column_bytes == ample.column_bytes
    short = open_kernel(source, plan_selection(2**31, **sizes, resident=0, shortlist=50))
    assert isinstance(short, StoredKernel)
    assert not short.in_memory
    picks = select_batch("lcmd", kernel, LinearKernel(torch.from_numpy(rows[:5])), 4)
    assert len(picks) == 4


@pytest.mark.parametrize("rule", ["lcmd", "k-center", "pv", "top", "random", "one of their own"])
def test_the_state_grows_with_the_pool(rule):
    known = Rule(rule, select_lcmd) if rule == "one of their own" else get_rule(rule)
    small, large = (known.state_bytes(n, 64, 100, 10) for n in (10**4, 10**6))
    assert 8 * 10**6 < large - small < 300 * 10**6


SCRIPT = """
import json, sys
import numpy as np, torch
torch.set_num_threads(1)
from labelwise.kernels.linear import LinearKernel
from labelwise.runtime.memory import peak_resident_bytes, resident_bytes
from tests.features.npy_rows import NpyRows
from labelwise.selection.rules import Rule, get_rule, select_batch, select_lcmd
from labelwise.selection.rules.planning import open_kernel, plan_selection
settings = json.loads(sys.argv[1])
shortlist, n_select, rule = (settings[k] for k in ("shortlist", "n_select", "rule"))
source = NpyRows(settings["path"], piece_bytes=2**24)
train = LinearKernel(torch.from_numpy(source.read(slice(0, 300)).copy()))
budget = resident_bytes() + settings["above"]
memory = plan_selection(
    budget, n=len(source), d=source.width, n_train=300,
    n_select=n_select, rule=rule, shortlist=shortlist, piece_bytes=2**24,
)
kernel = open_kernel(source, memory)
picks = select_batch(
    rule, kernel, train, n_select, shortlist=shortlist, chunk_size=memory.chunk_size
)
print(json.dumps([budget, peak_resident_bytes(), repr(kernel), picks.pool_idx.tolist()]))
"""


@pytest.fixture(scope="module")
def features_600_mb(tmp_path_factory) -> Path:
    """Rows of about 600 MB, neighbours alike, on disk only."""
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    n, d = 300_000, 512
    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
    for part in np.array_split(np.arange(n), 60):
        mean, slope = rng.normal(size=(2, 1, d))
        s = np.linspace(0, 1, len(part))[:, None]
        frames = mean + s * slope + 0.02 * rng.normal(size=(len(part), d))
        rows[part] = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    rows.flush()
    del rows
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is known on Linux")
@pytest.mark.parametrize(
    ("rule", "shortlist", "n_select", "above"),
    [
        pytest.param("lcmd", 20_000, 200, 400 * MIB, marks=pytest.mark.thorough),
        pytest.param("lcmd", None, 60, 400 * MIB, marks=pytest.mark.slow),
        pytest.param("k-center", None, 60, 400 * MIB, marks=pytest.mark.slow),
        pytest.param("pv", None, 20, 400 * MIB, marks=pytest.mark.slow),
        pytest.param("lcmd", None, 200, 1200 * MIB, marks=pytest.mark.slow),
    ],
)
def test_the_bound_on_memory_is_kept(rule, shortlist, n_select, above, features_600_mb):
    settings = {
        "path": str(features_600_mb),
        "rule": rule,
        "shortlist": shortlist,
        "n_select": n_select,
        "above": above,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(settings)],
        capture_output=True,
        text=True,
        check=True,
    )
    budget, peak, kernel, picks = json.loads(done.stdout)
    assert peak <= budget, f"{peak / MIB:.0f} MiB of {budget / MIB:.0f} MiB"
    assert kernel.startswith("LinearKernel" if above > 1000 * MIB else "StoredKernel")
    assert len(set(picks)) == n_select
