from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from labelwise.potentials import loading

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "adding_a_potential.md"


class Scaled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.sin(values * self.factor) * self.factor


def test_the_example_in_the_documentation_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with ``check_potential``: others than MACE can fulfil the contract."""
    known = dict(loading._families())
    monkeypatch.setattr(loading, "_families", lambda: known)
    blocks = DOCUMENT.read_text().split("```python\n")[1:]
    assert len(blocks) == 2
    names: dict[str, Any] = {"__name__": "documented"}
    for block in blocks:
        exec(block.partition("```")[0], names)  # our own documentation


def test_a_hyperparameter_is_part_of_the_hash() -> None:
    names: dict[str, Any] = {"__name__": "documented"}
    exec(DOCUMENT.read_text().split("```python\n")[1].partition("```")[0], names)
    one, other = (names["PairPotential"](elements=(1, 6, 8)) for _ in range(2))
    assert one.content_hash == other.content_hash
    one.model.power, other.model.power = 6, 12
    assert one.content_hash != other.content_hash
    other.model.power = 6
    other.model.to(torch.bfloat16)
    assert one.content_hash != other.content_hash


def test_generated_code_is_hashed_by_what_it_does() -> None:
    def hash_with(module: torch.nn.Module) -> str:
        potential = names["PairPotential"](elements=(1, 6, 8))
        potential.model.traced = module
        return str(potential.content_hash)

    names: dict[str, Any] = {"__name__": "documented"}
    exec(DOCUMENT.read_text().split("```python\n")[1].partition("```")[0], names)
    one, other = (torch.fx.symbolic_trace(Scaled(factor)) for factor in (2.0, 3.0))
    renamed = torch.fx.symbolic_trace(Scaled(2.0))
    for node in renamed.graph.nodes:
        node.name = f"another_{node.name}"
    renamed.recompile()
    assert renamed.code != one.code
    assert hash_with(one) == hash_with(renamed)
    assert hash_with(one) != hash_with(other)


def test_the_kit_notices_a_wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conformance kit that cannot fail is none."""
    from labelwise.testing.potentials import check_potential

    names: dict[str, Any] = {"__name__": "documented"}
    exec(DOCUMENT.read_text().split("```python\n")[1].partition("```")[0], names)
    potential = names["PairPotential"](elements=(1, 6, 8))
    right = type(potential).embedding_pullback
    monkeypatch.setattr(type(potential), "embedding_pullback", lambda *args: 1.01 * right(*args))
    with pytest.raises(AssertionError, match="tangents of embedding"):
        check_potential(potential)
    monkeypatch.undo()
    features = names["PairModel"].features

    def absolute(self: Any, batch: Any, positions: Any, h: Any) -> Any:
        return features(self, batch, positions, h) * (1 + positions[:, :1] ** 2)

    monkeypatch.setattr(names["PairModel"], "features", absolute)
    with pytest.raises(AssertionError, match="rotation"):
        check_potential(potential)
