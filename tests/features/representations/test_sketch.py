from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError
from labelwise.features.representations.sketch import CountSketch, hash_integers

PLACES = [2, 3, 1, 2, 3, 3]
SIGNS = [-1.0, 1.0, -1.0, -1.0, 1.0, 1.0]


def test_inner_products_are_kept_on_average_and_within_the_stated_variance() -> None:
    """Monte Carlo over 2,000 seeds, five standard errors."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 300, generator=generator, dtype=torch.float64)
    y = 0.6 * x + 0.8 * y
    k, n_seeds = 32, 2000
    products, squares = [], []
    for seed in range(n_seeds):
        sx, sy = CountSketch(300, k, seed=seed)(torch.stack([x, y]))
        products.append(float(sx @ sy))
        squares.append(float(sx @ sx))
    for estimates, exact, bound in (
        (products, float(x @ y), 2 * float(x @ x) * float(y @ y) / k),
        (squares, float(x @ x), 2 * float(x @ x) ** 2 / k),
    ):
        assert np.var(estimates) < 1.2 * bound
        assert abs(np.mean(estimates) - exact) < 5 * np.sqrt(bound / n_seeds)


def test_a_seed_means_the_same_sketch_for_ever() -> None:
    """Written down once: stored features depend on it."""
    sketch = CountSketch(6, 4, seed=7)
    assert sketch._place.tolist() == PLACES
    assert sketch._sign.tolist() == SIGNS
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # no global generator may matter
    assert CountSketch(6, 4, seed=7)._place.tolist() == PLACES


def test_the_hash_is_splitmix() -> None:
    """First outputs for the state 1234567, as published with the algorithm."""
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    published = [6457827717110365317, 3203168211198807973]
    assert [mix((1234567 + golden * i) & mask) for i in (1, 2)] == published
    start = mix((42 + golden) & mask)
    wanted = [mix((start + golden * (i + 1)) & mask) for i in range(5)]
    assert hash_integers(np.arange(5, dtype=np.uint64), 42).tolist() == wanted


def test_rows_are_sketched_independently_of_each_other() -> None:
    sketch = CountSketch(40, 8, seed=0)
    rows = torch.randn(5, 40, dtype=torch.float64)
    together = sketch(rows)
    for row, wanted in zip(rows, together, strict=True):
        assert torch.equal(sketch(row[None])[0], wanted)


def test_sketches_of_parts_sum_to_that_of_the_whole() -> None:
    sketch = CountSketch(40, 8, seed=0)
    rows = torch.randn(5, 40, dtype=torch.float64)
    parts = [sketch(rows[:, start : start + 16], start=start) for start in (0, 16, 32)]
    torch.testing.assert_close(torch.stack(parts).sum(dim=0), sketch(rows))


def test_seeds_differ_and_places_are_even() -> None:
    size, k = 20_000, 16
    sketch, other = CountSketch(size, k, seed=0), CountSketch(size, k, seed=1)
    counts = np.bincount(sketch._place.numpy(), minlength=k)
    assert abs(counts - size / k).max() < 5 * np.sqrt(size / k)
    assert abs(float(sketch._sign.sum())) < 5 * np.sqrt(size)
    assert 0.03 < float((sketch._place == other._place).double().mean()) < 0.1


@pytest.mark.parametrize(("size", "dim", "seed"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_impossible_sketches_are_refused(size: int, dim: int, seed: int) -> None:
    with pytest.raises(ArgumentError, match="at least"):
        CountSketch(size, dim, seed=seed)
