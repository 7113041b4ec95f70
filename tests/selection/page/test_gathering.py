from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from labelwise.errors import ArgumentError, ReadError
from labelwise.kernels.building import build_kernels
from labelwise.pages.document import (
    CategoryColumn,
    Chart,
    Choice,
    Document,
    Kind,
    NumberColumn,
    PoolMap,
    Role,
    Table,
)
from labelwise.pages.options import ReportOptions
from labelwise.potentials import Potential
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import to_json
from labelwise.selection.acquire import acquire
from labelwise.selection.force_uncertainty import predict_force_uncertainty
from labelwise.selection.measurement import measure
from labelwise.selection.measures import write_measures
from labelwise.selection.page import gather_selection
from labelwise.selection.page.pool_map import (
    DISTANCE_AFTER,
    DISTANCE_BEFORE,
    VARIANCE_AFTER,
    VARIANCE_BEFORE,
)
from labelwise.selection.picks import FORCE_STD_KEY
from labelwise.selection.record import summarise_acquisition
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import read_structures, write_structures
from tests.selection.page.conftest import POOL, TRAIN, Select, select_in_folder

ROLES = list(Role)
PLAIN = ReportOptions()
#: Places in the pool of a copy and of a lone atom.
SET_ASIDE = (13, 23)


def panels(document: Document) -> dict[str, object]:
    return {panel.name: panel for section in document.sections for panel in section.panels}


def map_of(document: Document) -> PoolMap:
    found = panels(document)["pool"]
    assert isinstance(found, PoolMap)
    return found


def table_of(document: Document, name: str) -> dict[str, list[object]]:
    found = panels(document)[name]
    assert isinstance(found, Table)
    names = [column.name for column in found.columns]
    return dict(zip(names, map(list, zip(*found.rows, strict=True)), strict=True))


def numbers(pool_map: PoolMap, name: str) -> np.ndarray:
    (found,) = (column for column in pool_map.columns if column.name == name)
    assert isinstance(found, NumberColumn)
    return found.values


def role(pool_map: PoolMap, wanted: Role) -> np.ndarray:
    return np.flatnonzero(pool_map.roles == ROLES.index(wanted))


def usable_pool() -> list[Atoms]:
    """Return the structures that are not set aside: neither the copy nor the lone atom."""
    return [a for i, a in enumerate(read_structures(POOL)) if i not in SET_ASIDE]


def brute_variances(gram: np.ndarray, given: list[int], regularisation: float) -> np.ndarray:
    cross = gram[:, given]
    inverse = np.linalg.inv(gram[np.ix_(given, given)] + regularisation * np.eye(len(given)))
    return gram.diagonal() - np.einsum("ij,jk,ik->i", cross, inverse, cross)


def brute_distances(gram: np.ndarray, given: list[int]) -> np.ndarray:
    square = gram.diagonal()[:, None] + gram.diagonal()[given] - 2 * gram[:, given]
    return np.sqrt(np.maximum(square, 0))


@pytest.mark.parametrize(
    ("representation", "rule", "more"),
    [
        ("ntk-e", "lcmd", {}),
        ("activation", "pv", {"normalise": "none"}),
        ("soap", "k-center", {}),
        ("morgan", "top", {}),
        ("ntk-ef", "pv", {"shortlist": 12}),
    ],
)
def test_numbers_are_those_of_brute_force(
    select: Select, demo: Potential, representation: str, rule: str, more: dict[str, object]
) -> None:
    summary = select(representation=representation, rule=rule, **more)
    document = gather_selection(summary, PLAIN)
    pool_map = map_of(document)
    settings = replace(
        AcquisitionSettings(n_select=5), representation=representation, rule=rule, **more
    )
    usable, train = usable_pool(), read_structures(TRAIN)
    n = len(usable)
    (whole,) = build_kernels(
        [[*usable, *train]], demo, representation, normalise=settings.resolved_normalise
    )
    gram = whole.block(slice(None), whole, slice(None)).double().numpy()
    picks = json.loads(summary.read_text())["picks"]
    chosen = [pick["pool_index"] - sum(a < pick["pool_index"] for a in SET_ASIDE) for pick in picks]
    labelled = list(range(n, n + len(train)))
    both = [*labelled, *chosen]
    scale = gram.diagonal().max()
    for name, given in ((VARIANCE_BEFORE, labelled), (VARIANCE_AFTER, both)):
        found = numbers(pool_map, name)
        np.testing.assert_allclose(
            found[:n], brute_variances(gram, given, 1e-3)[:n], atol=2e-4 * scale
        )
        assert np.isnan(found[n:]).all()
    far, near = (brute_distances(gram, given)[:n] for given in (labelled, both))
    for name, distances in ((DISTANCE_BEFORE, far), (DISTANCE_AFTER, near)):
        found = numbers(pool_map, name)[:n]
        np.testing.assert_allclose(found**2, distances.min(axis=1) ** 2, atol=1e-5 * scale)
    assert pool_map.neighbour[:n].tolist() == (n + far.argmin(axis=1)).tolist()
    assert sorted(pool_map.frame[role(pool_map, Role.CHOSEN)]) == sorted(p["frame"] for p in picks)
    assert len(role(pool_map, Role.LABELLED)) == 7
    shortlisted = role(pool_map, Role.SHORTLISTED)
    assert len(shortlisted) == (0 if "shortlist" not in more else 12 - 5)
    stands_for = table_of(document, "picks")["stands for"]
    owner = near.argmin(axis=1)
    assert stands_for == [int((owner == 7 + rank).sum()) for rank in range(5)]


def test_a_page_says_what_was_chosen_and_why(select: Select, demo: Potential) -> None:
    document = gather_selection(select(group_by="family"), PLAIN)
    assert document.kind is Kind.SELECTION
    assert document.title == "5 structures chosen of 43"
    assert {fact.label: fact.value for fact in document.facts}["set aside"] == "2"
    assert [section.name for section in document.sections] == [
        "map", "why", "coverage", "set-aside", "time",
    ]  # fmt: skip
    pool_map = map_of(document)
    table = table_of(document, "picks")
    assert table["rank"] == [0, 1, 2, 3, 4]
    assert set(table["family"]) <= {"H2O", "CH4", "CH3OH", "HCN", "C2H4"}
    linked = panels(document)["picks"]
    assert isinstance(linked, Table)
    assert linked.map_name == pool_map.name
    assert [note.point for note in pool_map.notes] == list(linked.points)
    for rank, note in enumerate(pool_map.notes):
        said = dict(note.lines)
        assert said["chosen"] == f"rank {rank} of 0 to 4"
        assert said["why"].startswith("It was the farthest member of the heaviest cluster: ")
        assert f"{table['its structures'][rank]} structures around" in said["why"]
        assert str(table["taken from the cluster around"][rank]) in said["why"]
        assert said["nearest labelled"].startswith(str(table["nearest labelled"][rank]))
    assert document.structures is not None
    assert (pool_map.structure >= 0).all()
    for point in range(len(pool_map.x)):
        name = f"{pool_map.files[pool_map.file[point]]}@{pool_map.frame[point]}"
        assert document.structures.names[pool_map.structure[point]] == name


def test_structures_are_those_of_the_files(select: Select, demo: Potential) -> None:
    document = gather_selection(select(), PLAIN)
    packed, pool_map = document.structures, map_of(document)
    assert packed is not None
    originals = [*usable_pool(), *read_structures(TRAIN)]
    for point, atoms in enumerate(originals):
        place = pool_map.structure[point]
        part = slice(packed.starts[place], packed.starts[place + 1])
        assert packed.numbers[part].tolist() == atoms.numbers.tolist()
        np.testing.assert_allclose(
            packed.positions[part] * packed.scales[place], atoms.positions, atol=1e-3
        )


def test_columns_tell_of_info_keys_and_files(select: Select, demo: Potential) -> None:
    pool_map = map_of(gather_selection(select(), PLAIN))
    columns = {column.name: column for column in pool_map.columns}
    family, source = columns["family"], columns["source"]
    assert isinstance(family, CategoryColumn)
    assert isinstance(source, CategoryColumn)
    originals = [*usable_pool(), *read_structures(TRAIN)]
    assert [family.categories[c] for c in family.codes] == [a.info["family"] for a in originals]
    assert set(source.categories) == {"pool_a.extxyz", "pool_b.extxyz", "train.extxyz"}
    assert numbers(pool_map, "step").tolist() == [a.info["step"] for a in originals]
    coloured = gather_selection(Path("batch.json"), ReportOptions(colour_by="family"))
    assert map_of(coloured).colour_by == "family"
    with pytest.raises(ArgumentError, match=r"the columns of this pool are .*family"):
        gather_selection(Path("batch.json"), ReportOptions(colour_by="nothing"))


def test_coverage_counts_the_pool(select: Select, demo: Potential) -> None:
    document = gather_selection(select(), PLAIN)
    chart = panels(document)["coverage"]
    assert isinstance(chart, Chart)
    pool_map = map_of(document)
    for series, name in zip(chart.series, (DISTANCE_BEFORE, DISTANCE_AFTER), strict=False):
        distance = numbers(pool_map, name)[:41]
        for x, y in zip(series.x, series.y, strict=True):
            assert y == pytest.approx(100 * (distance <= np.float32(x) + 1e-6).mean(), abs=2.6)
        assert series.y[-1] == 100.0
    random = chart.series[2]
    assert random.low is not None
    assert random.high is not None
    assert (random.low <= random.y + 1e-4).all()
    assert (random.y <= random.high + 1e-4).all()
    assert (random.y >= chart.series[0].y - 1e-4).all()  # labels are never taken away
    groups = panels(document)["chosen-by"]
    assert isinstance(groups, Choice)
    by_name = dict(groups.options)
    assert {"source", "composition", "family"} <= set(by_name)
    family = by_name["family"]
    assert isinstance(family, Chart)
    of_pool, of_chosen = (dict(zip(s.x, s.y, strict=True)) for s in family.series)
    counts = [a.info["family"] for a in usable_pool()]
    assert of_pool["H2O"] == pytest.approx(100 * counts.count("H2O") / len(counts))
    assert sum(of_chosen.values()) == pytest.approx(100)


def test_what_was_set_aside_is_listed(select: Select, demo: Potential) -> None:
    document = gather_selection(select(), PLAIN)
    reasons = table_of(document, "set-aside-reasons")
    assert sorted(reasons["reason"]) == ["duplicate-of-pool", "isolated-atom"]
    listed = table_of(document, "set-aside")
    assert listed["structure"] == ["pool_a.extxyz@13", "pool_a.extxyz@23"]
    pool_map = map_of(document)
    first_file = pool_map.file == pool_map.files.index("pool_a.extxyz")
    assert not {13, 23} & set(pool_map.frame[first_file].tolist())


def test_what_was_not_measured_is_said_to_be_missing(select: Select) -> None:
    summary = select()
    Path("other.npz").write_bytes(Path("batch.npz").read_bytes())
    Path("batch.npz").unlink()
    document = gather_selection(summary, PLAIN)
    (said,) = document.sections[0].text
    assert "batch.npz is not beside the summary" in said
    assert "labelwise select -n 5 … --report" in said
    assert document.sections[0].panels == ()
    assert table_of(document, "picks")["rank"] == [0, 1, 2, 3, 4]
    assert "posterior variance before" not in table_of(document, "picks")
    assert [section.name for section in document.sections] == [
        "map", "why", "coverage", "set-aside", "time",
    ]  # fmt: skip


def test_measures_of_another_batch_or_damaged_ones_are_not_taken(select: Select) -> None:
    select(rule="pv")
    of_another = Path("batch.npz").read_bytes()
    summary = select(rule="lcmd")
    content = Path("batch.npz").read_bytes()
    Path("batch.npz").write_bytes(of_another)
    assert gather_selection(summary, PLAIN).sections[0].panels == ()
    Path("batch.npz").write_bytes(content[:-200])
    with pytest.raises(ReadError, match=r"cannot read batch\.npz: .*; run the selection again"):
        gather_selection(summary, PLAIN)


def test_nothing_labelled(select: Select, demo: Potential) -> None:
    document = gather_selection(select(train=[]), PLAIN)
    pool_map = map_of(document)
    assert (pool_map.neighbour == -1).all()
    assert DISTANCE_BEFORE not in {column.name for column in pool_map.columns}
    assert "Nothing was labelled yet" in dict(pool_map.notes[0].lines)["why"]
    assert "nearest labelled" not in table_of(document, "picks")
    chart = panels(document)["coverage"]
    assert isinstance(chart, Chart)
    assert [s.name for s in chart.series] == ["chosen structures", "5 random structures"]


def test_random_picks_are_mapped_where_a_model_is_known(select: Select, demo: Potential) -> None:
    summary = select(None, rule="random", model=None)
    document = gather_selection(summary, PLAIN)
    assert "There is no map" in document.sections[0].text[0]
    assert "with a --model" in document.sections[0].text[0]
    assert document.sections[0].panels == ()
    assert table_of(document, "picks")["rank"] == [0, 1, 2, 3, 4]
    picks = json.loads(summary.read_text())["picks"]
    mapped = gather_selection(select(rule="random"), PLAIN)
    assert json.loads(summary.read_text())["picks"] == picks
    assert len(role(map_of(mapped), Role.CHOSEN)) == 5
    with_soap = gather_selection(
        select(None, rule="random", representation="soap", model=None), PLAIN
    )
    assert dict(map_of(with_soap).notes[0].lines)["why"] == "It was drawn at random."


def _note_forces(demo: Potential) -> list[Atoms]:
    """Write predicted force errors into the batch, as ``select --force-std`` does."""
    batch = read_structures("batch.extxyz")
    found = predict_force_uncertainty(batch, demo, train=read_structures(TRAIN))
    assert found.atom_std is not None
    for atoms, std, stds in zip(batch, found.structure_std, found.atom_std, strict=True):
        atoms.info[FORCE_STD_KEY] = float(std)
        atoms.arrays[FORCE_STD_KEY] = stds
    write_structures("batch.extxyz", batch)
    return batch


@pytest.mark.parametrize("train", [TRAIN, []])
def test_joint_posterior_with_force_errors(
    select: Select, demo: Potential, train: list[str]
) -> None:
    summary = select(rule="joint-pv", n_select=3, n_probes=None, train=train)
    batch = _note_forces(demo)
    document = gather_selection(summary, PLAIN)
    pool_map, packed = map_of(document), document.structures
    before, after = numbers(pool_map, VARIANCE_BEFORE), numbers(pool_map, VARIANCE_AFTER)
    n = len(usable_pool())
    assert (after[:n] <= before[:n] + 1e-6).all()
    table = table_of(document, "picks")
    scores = [pick["score"] for pick in json.loads(summary.read_text())["picks"]]
    assert table["posterior variance before"][0] == pytest.approx(scores[0], rel=1e-4)
    assert before[:n].max() == pytest.approx(scores[0], rel=1e-4)
    assert table["predicted force error / meV Å⁻¹"] == pytest.approx(
        [1000 * atoms.info[FORCE_STD_KEY] for atoms in batch], rel=1e-4
    )
    assert packed is not None
    assert packed.atom_values is not None
    for rank, atoms in enumerate(batch):
        point = pool_map.notes[rank].point
        place = pool_map.structure[point]
        part = slice(packed.starts[place], packed.starts[place + 1])
        stds = 1000 * atoms.arrays[FORCE_STD_KEY]
        np.testing.assert_allclose(packed.atom_values[part], stds, rtol=1e-4)
        said = dict(pool_map.notes[rank].lines)["force error"]
        largest = int(np.argmax(stds))
        assert f"{atoms.symbols[largest]} (atom {largest})" in said
    unchosen = pool_map.structure[role(pool_map, Role.POOL)[0]]
    assert np.isnan(packed.atom_values[packed.starts[unchosen]])


def test_joint_posterior_with_a_shortlist(select: Select, demo: Potential) -> None:
    summary = select(rule="joint-pv", n_select=3, shortlist=10)
    pool_map = map_of(gather_selection(summary, PLAIN))
    before = numbers(pool_map, VARIANCE_BEFORE)[: len(usable_pool())]
    kept = [*role(pool_map, Role.SHORTLISTED), *role(pool_map, Role.CHOSEN)]
    assert sorted(kept) == sorted(np.argsort(-before)[:10].tolist())


@pytest.mark.parametrize("normalise", ["cosine", "none"])
def test_rows_of_a_store_give_the_same_page(folder: Path, demo: Potential, normalise: str) -> None:
    settings = AcquisitionSettings(n_select=5, normalise=normalise)
    rows = open_store(folder / "store", settings, demo)
    acquisition = acquire(POOL, TRAIN, settings, potential=demo, rows=rows, measured=True)
    inputs = {"pool": POOL, "train": TRAIN, "model": "demo", "out": "batch.extxyz"}
    plain = summarise_acquisition(acquisition, settings, demo, inputs=inputs)
    plain["inputs"] |= {"store": "store", "store_dtype": "float32"}
    write_text("stored.json", to_json(plain))
    assert acquisition.measures is not None
    places = [pick.pool_index for pick in acquisition.picks]
    write_measures(Path("stored.npz"), acquisition.measures, places)
    from_memory = gather_selection(select_in_folder(settings, demo), PLAIN)
    from_store = gather_selection(Path("stored.json"), PLAIN)
    for name in (VARIANCE_BEFORE, VARIANCE_AFTER, DISTANCE_BEFORE, DISTANCE_AFTER):
        one, other = (numbers(map_of(page), name) for page in (from_memory, from_store))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(map_of(from_memory).x, map_of(from_store).x, atol=1e-4)
    one, other = (table_of(page, "picks") for page in (from_memory, from_store))
    assert one.keys() == other.keys()
    for name, cells in one.items():
        if isinstance(cells[0], float):
            assert cells == pytest.approx(other[name], rel=1e-3), name
        else:
            assert cells == other[name]


def test_changed_files_are_refused(select: Select, demo: Potential, folder: Path) -> None:
    summary = select()
    pool = Path("pool_b.extxyz").read_bytes()
    write_structures("pool_b.extxyz", read_structures("pool_b.extxyz")[:-1])
    with pytest.raises(ReadError, match=r"pool_b.extxyz is not what it was"):
        gather_selection(summary, PLAIN)
    content = json.loads(summary.read_text())
    del content["inputs"]["files"]  # as older versions wrote it
    write_text(summary, json.dumps(content))
    with pytest.raises(ReadError, match="the pool holds 42 structures and held 43"):
        gather_selection(summary, PLAIN)
    Path("pool_b.extxyz").unlink()
    with pytest.raises(ReadError, match="pool files that are not found: pool_a"):
        gather_selection(summary, PLAIN)
    Path("pool_b.extxyz").write_bytes(pool)
    batch = read_structures("batch.extxyz")
    write_structures("batch.extxyz", batch[::-1])
    with pytest.raises(ReadError, match=r"does not hold the structures that batch\.json names"):
        gather_selection(summary, PLAIN)
    Path("batch.extxyz").unlink()
    assert len(map_of(gather_selection(summary, PLAIN)).x) == 48


def test_files_are_found_from_another_folder(
    select: Select, demo: Potential, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = folder / select()
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    document = gather_selection(summary, PLAIN)
    assert map_of(document).files[0] == "pool_a.extxyz"
    content = json.loads(summary.read_text())
    del content["inputs"]["folder"]
    write_text(summary, json.dumps(content))
    gather_selection(summary, PLAIN)


def test_hostile_words_do_not_break_a_page(
    folder: Path, molecules: list[Atoms], demo: Potential, select: Select
) -> None:
    script = "</script><script>alert(1)</script>"
    bad = [atoms.copy() for atoms in molecules[7:20]]
    for number, atoms in enumerate(bad):
        atoms.info["tag"] = script
        atoms.info["posterior_variance"] = float("nan") if number % 2 else 10.0**300
    name = "<b>&'.extxyz"
    write_structures(name, bad)
    document = gather_selection(select(pool=[name], group_by="tag", n_select=2), PLAIN)
    assert map_of(document).files[0] == name
    assert table_of(document, "picks")["tag"] == [script] * 2
    (tag,) = (c for c in map_of(document).columns if c.name == "tag")
    assert isinstance(tag, CategoryColumn)
    assert tag.categories == (script,)


def test_large_pools_are_thinned(select: Select, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = select(shortlist=8).rename("whole.json")
    Path("batch.npz").rename("whole.npz")
    monkeypatch.setattr("labelwise.selection.acquire.measure", partial(measure, most_points=15))
    document = gather_selection(select(shortlist=8), PLAIN)
    pool_map = map_of(document)
    assert len(pool_map.x) == 15 + 7
    assert len(role(pool_map, Role.CHOSEN)) == 5
    assert len(role(pool_map, Role.SHORTLISTED)) == 3
    assert "15 of 41 structures of the pool, drawn at random" in pool_map.caption
    small = gather_selection(whole, ReportOptions(max_megabytes=0.001))
    assert small.structures is not None
    assert set(small.structures.names) >= set(table_of(small, "picks")["structure"])
    assert len(small.structures.names) <= 10
    (left_out,) = (note for note in small.notes if "no room" in note)
    assert "posterior variance before" in left_out
    assert not [note for note in document.notes if "no room" in note]


@pytest.mark.parametrize("why", ["{nothing.x}", "{score", "{}", "{score.x}"])
def test_a_sentence_that_somebody_edited_is_passed_over(select: Select, why: object) -> None:
    summary = select(rule="pv")
    content = json.loads(summary.read_text())
    content["rule"]["why"] = why
    summary.write_text(json.dumps(content))
    (said, *_) = map_of(gather_selection(summary, PLAIN)).notes
    assert dict(said.lines)["why"].startswith("The rule pv gave it the score ")
