from __future__ import annotations

import re

from labelwise.studies.comparison.page.naming import Namer


def test_names_are_safe_and_unique() -> None:
    namer = Namer()
    words = ["AUC E", "AUC-E", "<b>", "日本", "", "a" * 200, "a" * 300, "auc e"]
    names = [namer.name(word) for word in words]
    assert names[:2] == ["auc-e", "auc-e-2"]
    assert names[-1] == "auc-e-3"
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name) for name in names)
