from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from labelwise.errors import SelectionError
from labelwise.selection.rules import Selection, registry, select_batch, select_lcmd
from labelwise.selection.rules.base import Ticker, check_n_select, first_max, positive_factor
from labelwise.testing.selectors import check_selector
from tests.selection.rules.oracles import RbfKernel, paths, split

GUIDE = Path(__file__).parents[3] / "docs" / "adding_a_selector.md"


def test_ties_within_rounding_go_to_the_lowest_index():
    assert first_max(torch.tensor([0.0, 1.0 - 1e-15, 1.0], dtype=torch.float64)) == 1
    assert first_max(torch.tensor([0.0, 1.0 - 1e-9, 1.0], dtype=torch.float64)) == 2
    assert first_max(torch.tensor([0.0, 1.0 - 1e-9, 1.0], dtype=torch.float64), 1e-6) == 1
    assert first_max(torch.tensor([-torch.inf, 0.0, 0.0])) == 1
    assert first_max(torch.tensor([-torch.inf, -3.0, -2.0])) == 2


def test_progress_is_rare_and_ends_at_the_total():
    calls = []
    ticker = Ticker(lambda done, total: calls.append((done, total)), 10_000)
    for _ in range(10_000):
        ticker.advance()
    assert calls[-1] == (10_000, 10_000)
    assert len(calls) < 100


def test_batch_sizes():
    check_n_select(5, 5)
    check_n_select(1, 5)
    for n_select, n_pool, message in [(0, 5, "1 to 5"), (6, 5, "1 to 5"), (1, 0, "pool is empty")]:
        with pytest.raises(SelectionError, match=message):
            check_n_select(n_select, n_pool)


def test_a_selection_cannot_be_changed():
    selection = Selection.from_lists([3, 1], [0.5, 0.25])
    assert len(selection) == 2
    with pytest.raises(AttributeError):
        selection.pool_idx = np.array([1])


def test_factor_of_what_is_singular_is_refused():
    with pytest.raises(SelectionError, match=r"regularisation=1e-20 is too small"):
        positive_factor(torch.ones(3, 3, dtype=torch.float64), 1e-20)
    lower = positive_factor(torch.ones(3, 3, dtype=torch.float64), 0.5)
    torch.testing.assert_close(
        lower @ lower.T, torch.ones(3, 3, dtype=torch.float64) + 0.5 * torch.eye(3)
    )


def test_the_guides_example(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL):
        exec(compile(code, str(GUIDE), "exec"), names)
    check_selector(names["select_unlike"])
    for make_kernel in (RbfKernel, names["RbfKernel"]):
        check_selector(names["select_unlike"], make_kernel=make_kernel)
        check_selector(select_lcmd, make_kernel=make_kernel)
    pool, train = split(paths(120, 8, seed=0), 100)
    kept = select_batch("unlike", pool, train, 5, shortlist=30)
    assert len(set(kept.pool_idx)) == 5
