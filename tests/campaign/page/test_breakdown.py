from __future__ import annotations

import numpy as np
import pytest

from labelwise.campaign.page.breakdown import find_groupings, make_error_bars, make_path_errors
from labelwise.finetuning.metrics import root_mean_square
from labelwise.pages.document import CategoryColumn, Document, NumberColumn
from tests.campaign.page.conftest import FAMILIES
from tests.campaign.page.reading import panel
from tests.campaign.page.test_parity import make_set, score


def category(name: str, codes: list[int], n: int) -> CategoryColumn:
    return CategoryColumn(name, np.array(codes, dtype=np.int32), tuple(f"w{i}" for i in range(n)))


def number(name: str, values: list[float]) -> NumberColumn:
    return NumberColumn(name, np.array(values, dtype=np.float32))


def test_words_that_tell_nothing_are_no_groups() -> None:
    columns = [
        category("same", [0] * 8, 1),
        category("all different", list(range(8)), 8),
        category("kind", [0, 0, 0, 0, 0, 1, 1, -1], 2),
        number("energy", [1.0] * 8),
        category("split", [1, 0] * 4, 2),
    ]
    found = find_groupings(columns, "split")
    assert [grouping.name for grouping in found] == ["split", "kind"]
    assert [len(members) for members in found[1].members] == [5, 2]


def test_bars_are_errors_of_components(rng: np.random.Generator) -> None:
    labelled = make_set(rng)
    scored = score(labelled, rng)
    groupings = find_groupings([category("kind", [0, 1] * 3, 2)])
    forces, energies = make_error_bars(scored, groupings)
    assert [name for name, _ in forces.options] == ["element", "kind"]
    chart = forces.options[1][1]
    assert [each.name for each in chart.series] == ["round 0", "round 1"]
    parts = [
        (scored.predictions[1].forces[i] - labelled.forces[i])[labelled.counted[i]].ravel()
        for i in (1, 3, 5)
    ]
    assert chart.series[1].y[1] == pytest.approx(
        1000.0 * root_mean_square(np.concatenate(parts)), rel=1e-5
    )
    by_energy = energies.options[0][1].series[0].y
    expected = root_mean_square(scored.errors[0].energy_per_atom[[0, 2, 4]])
    assert by_energy[0] == pytest.approx(expected, rel=1e-5)
    elements = forces.options[0][1]
    assert elements.series[0].x == ("H",)  # the first atoms, C and O, do not count


def test_paths_need_a_word_and_whole_numbers(rng: np.random.Generator) -> None:
    scored = score(make_set(rng, 12), rng)
    kind = category("reaction", [0] * 6 + [1] * 6, 2)
    places = [float(i) for i in (0, 1, 2, 3, 3, 4)] * 2
    assert make_path_errors(scored, [kind]) is None
    assert make_path_errors(scored, [kind, number("temperature", places)]) is None
    assert make_path_errors(scored, [kind, number("image", [0.5 * p for p in places])]) is None
    found = make_path_errors(scored, [kind, number("image", places)])
    assert found is not None
    assert (found.label, [name for name, _ in found.options]) == ("reaction", ["w0", "w1"])
    line = found.options[0][1].series[0]
    assert np.asarray(line.x).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    errors = scored.errors[0].forces
    assert line.y[3] == pytest.approx(root_mean_square(errors[[3, 4]]), rel=1e-5)
    assert line.low is not None
    assert (line.low[3], line.high[3]) == pytest.approx(
        (errors[[3, 4]].min(), errors[[3, 4]].max())
    )


def test_composition_is_no_path_where_words_are(document: Document) -> None:
    choice = panel(document, "error-along-path")
    assert choice.label == "family"
    assert {name for name, _ in choice.options} == set(FAMILIES)
    by = [name for name, _ in panel(document, "error-by-group-forces").options]
    assert by == ["element", "composition", "family"]
