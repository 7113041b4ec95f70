"""Documents made by hand that use every panel."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.constraints import FixAtoms

from labelwise.pages.document import (
    Axis,
    CategoryColumn,
    Chart,
    Choice,
    Document,
    Fact,
    HeatMap,
    Kind,
    Mark,
    NumberColumn,
    PointNote,
    PoolMap,
    Role,
    Section,
    Series,
    StructureSet,
    Table,
    TableColumn,
)
from labelwise.selection.page.structure_packing import StructurePacker

ROLES = {role: place for place, role in enumerate(Role)}
MOLECULES = ("CH3CH2OH", "C6H6", "CH3CHO", "C4H4O", "HCOOH")


def make_document(*, n_points: int = 400, text: str = "", n_structures: int = 30) -> Document:
    """Return a document with every panel.

    Args:
        n_points: Points of the map.
        text: Put into every text, as hostile as a test wants it.
        n_structures: Structures that can be looked at; they are the first points.
    """
    rng = np.random.default_rng(0)
    structures = make_structures(n_structures, text)
    return Document(
        kind=Kind.SELECTION,
        title=f"25 of {n_points} structures{text}",
        subtitle=f"LCMD on energy tangents of the embedded model, after 60 labels{text}",
        facts=(
            Fact(f"pool{text}", f"{n_points}", f"from two files{text}"),
            Fact("chosen", "10", "2.5 % of the pool"),
            Fact("coverage", "0.81", "0.62 before"),
            Fact("time", "4.2 s", ""),
        ),
        sections=(
            Section(
                "map-section", f"Map{text}", (make_map(rng, n_points, text),), (f"A map.{text}",)
            ),
            Section(
                "charts",
                f"Charts{text}",
                (make_lines(rng, text), make_parity(rng, text), make_steps(rng), *make_bars(text)),
            ),
            Section(
                "tables",
                "Tables",
                (make_table(rng, text), make_heat_map(rng, text), make_choice(rng, text)),
            ),
        ),
        structures=structures,
        notes=(f"Features in float64.{text}", "Labelwise 0.1.0"),
    )


def make_structures(n_structures: int, text: str) -> StructureSet | None:
    rng = np.random.default_rng(1)
    packer = StructurePacker()
    for i in range(n_structures):
        atoms = make_slab() if i % 6 == 5 else molecule(MOLECULES[i % 6])
        atoms.rattle(0.05, seed=i)
        packer.add(f"pool{text}.extxyz@{i}", atoms, atom_values=rng.random(len(atoms)) * 80)
    packed = packer.pack(atom_label=f"force uncertainty / meV Å⁻¹{text}")
    if packed is None or not text:
        return packed
    return StructureSet(**{**vars(packed), "formulas": tuple(f + text for f in packed.formulas)})


def make_slab() -> Atoms:
    slab = fcc111("Cu", (3, 3, 3), vacuum=6.0)
    add_adsorbate(slab, molecule("CO"), 1.9, "ontop")
    slab.set_constraint(FixAtoms(mask=[atom.tag == 3 for atom in slab]))
    slab.pbc = True
    return slab


def make_map(rng: np.random.Generator, n: int, text: str) -> PoolMap:
    centres = rng.normal(size=(8, 2)) * 3
    family = rng.integers(0, 8, n)
    x, y = (centres[family] + rng.normal(size=(n, 2)) * 0.7).T
    roles = np.full(n, ROLES[Role.POOL])
    roles[40:60] = ROLES[Role.SHORTLISTED]
    roles[60:65] = ROLES[Role.SCREENED]
    roles[10:40] = ROLES[Role.LABELLED]
    roles[:10] = ROLES[Role.CHOSEN]
    rounds = np.full(n, -1)
    rounds[10:40] = np.repeat([0, 0, 1], 10)
    rounds[:10] = 2
    structure = np.where(np.arange(n) < 30, np.arange(n), -1)
    neighbour = np.where(np.arange(n) < 10, 10 + np.arange(n), -1)
    names = [f"family {letter}{text}" for letter in "ABCDEFGHIJ"]
    return PoolMap(
        name="map",
        title=f"The pool under the kernel{text}",
        x=x.astype(np.float32),
        y=y.astype(np.float32),
        roles=roles.astype(np.uint8),
        x_label=f"first component (31 %){text}",
        y_label="second component (12 %)",
        files=(f"pool{text}.extxyz",),
        file=np.zeros(n, dtype=np.int32),
        frame=np.arange(n, dtype=np.int32),
        structure=structure.astype(np.int32),
        neighbour=neighbour.astype(np.int32),
        columns=(
            CategoryColumn(f"source{text}", family.astype(np.int32), tuple(names)),
            NumberColumn("energy", (x * 0.1 - 3).astype(np.float32), f"eV{text}"),
            NumberColumn("partly known", np.where(x > 0, y, np.nan).astype(np.float32)),
        ),
        rounds=rounds.astype(np.int32),
        notes=tuple(
            PointNote(i, (("posterior variance", f"0.{81 - i}"), (f"because{text}", f"far{text}")))
            for i in range(10)
        ),
        caption=f"Each point is a structure. Near points are alike under the kernel.{text}",
    )


def make_lines(rng: np.random.Generator, text: str) -> Chart:
    x = np.array([50, 100, 200, 400, 800])
    series = []
    for i, name in enumerate(["random", "LCMD", "posterior variance", "k-center", "committee"]):
        y = (300 - 25 * i) * x**-0.35
        band = 6 + rng.random(5) * 8
        series.append(
            Series(
                f"{name}{text}",
                x,
                y.astype(np.float32),
                (y - band).astype(np.float32),
                (y + band).astype(np.float32),
            )
        )
    return Chart(
        "learning-curves",
        f"Learning curves{text}",
        Mark.LINES,
        Axis(f"labels{text}", is_log=True),
        Axis(f"force RMSE / meV Å⁻¹{text}"),
        tuple(series),
        caption=f"Mean of five seeds.{text}",
        band_name="range of seeds",
    )


def make_parity(rng: np.random.Generator, text: str, n: int = 120) -> Chart:
    x = np.sort(rng.normal(size=n)).astype(np.float32)  # the first lie alone
    y = (x + 0.1 * rng.normal(size=n)).astype(np.float32)
    structure = np.where(np.arange(n) < 5, np.arange(n), -1).astype(np.int32)
    return Chart(
        "parity",
        "Predicted and true energy",
        Mark.POINTS,
        Axis("true energy / eV"),
        Axis("predicted energy / eV"),
        (Series(f"pool{text}", x, y, structure=structure),),
        diagonal=True,
    )


def make_steps(rng: np.random.Generator) -> Chart:
    counts, edges = np.histogram(rng.normal(size=900), 24)
    y = np.append(counts, 0).astype(np.float32)
    other = Series("chosen", edges, (0.4 * y[::-1]).astype(np.float32))
    return Chart(
        "distances",
        "Distance to the nearest labelled structure",
        Mark.STEPS,
        Axis("kernel distance"),
        Axis("structures"),
        (Series("before", edges, y), other),
    )


def make_bars(text: str) -> tuple[Chart, Chart]:
    words = ("read", f"screen{text}", "represent", "select")
    series = tuple(
        Series(f"round {i}", words, np.array([1, 0.5, 4 - i, np.nan], dtype=np.float32))
        for i in range(3)
    )
    x, y = Axis("stage"), Axis("time / s")
    return (
        Chart("bars", "Time per stage", Mark.BARS, x, y, series),
        Chart("stacked", "Time per stage, stacked", Mark.STACKED, x, y, series),
    )


def make_table(rng: np.random.Generator, text: str, n: int = 130) -> Table:
    rows = tuple(
        (f"structure {i}{text}", i, float(rng.normal()), None if i % 7 == 0 else float(i) * 1e-6)
        for i in range(n)
    )
    return Table(
        "picks",
        f"What was chosen{text}",
        (
            TableColumn(f"structure{text}"),
            TableColumn("order"),
            TableColumn("variance", 3),
            TableColumn("cluster mass", 2),
        ),
        rows,
        points=tuple(i if i < 10 else -1 for i in range(n)),
        map_name="map",
        caption="In order of choice.",
    )


def make_heat_map(rng: np.random.Generator, text: str) -> HeatMap:
    values = rng.random((6, 6)).astype(np.float32)
    values[2, 3] = np.nan
    names = tuple(f"family {letter}{text}" for letter in "ABCDEF")
    return HeatMap("kernel", f"Kernel{text}", values, names, names, f"mean kernel{text}")


def make_choice(rng: np.random.Generator, text: str) -> Choice:
    def parity(i: int) -> Chart:
        x = rng.normal(size=80).astype(np.float32)
        y = (x + 0.3 * rng.normal(size=80) / (i + 1)).astype(np.float32)
        axes = Axis("true force / eV Å⁻¹"), Axis("predicted force / eV Å⁻¹")
        series = (Series("test", x, y, style=2),)
        return Chart(f"forces-{i}", f"Forces, round {i}", Mark.POINTS, *axes, series, diagonal=True)

    return Choice(
        "rounds", f"round{text}", tuple((f"round {i}{text}", parity(i)) for i in range(3)), 2
    )
