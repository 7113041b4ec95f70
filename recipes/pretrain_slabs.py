"""Pretrain the potential of the slab example, and measure it on the example's test sets.

The structures are labelled with ASE's EMT and are not those of the example: strained and rattled
crystals of metals and binary alloys, clean slabs, metal clusters, molecules in vacuum, and a
little adsorption (H, O and CO on copper and nickel). What other adsorbates do on other metals is
left for the example to teach. Everything follows from the seed. The result is
``src/labelwise/potentials/mace/models/slab_potential.pt`` and its card.

Run: ``OMP_NUM_THREADS=1 python recipes/pretrain_slabs.py``
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ase.build
import mace  # noqa: F401  (before e3nn: it lets e3nn load its own constants)
import numpy as np
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.data import atomic_numbers, chemical_symbols, reference_states
from e3nn import o3
from mace.modules import ScaleShiftMACE, interaction_classes
from torch.nn.functional import silu

from labelwise import load_potential
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.loop import EpochRecord
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import FineTuned, finetune
from labelwise.potentials import GraphBuilder, Potential
from labelwise.potentials.mace.loading import make_potential
from labelwise.structures import iter_frames

sys.path.insert(0, str(Path(__file__).parents[1]))
from examples.slabs import write_slab_example
from examples.slabs.building import build_molecule, build_slab, build_system
from examples.slabs.systems import FACETS, draw_system
from examples.slabs.trajectories import LARGEST_FORCE, iter_trajectory
from examples.slabs.writing import LEVEL, TEST_SPLITS

HERE = Path(__file__).parent
ASSET = HERE.parent / "src" / "labelwise" / "potentials" / "mace" / "models" / "slab_potential.pt"
METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
ATOMIC_NUMBERS = sorted(atomic_numbers[symbol] for symbol in ("H", "C", "N", "O", *METALS))
MOLECULES = (
    *("OH", "CO", "CH", "CH3", "NH", "NH2", "NO", "H2O", "HCO", "NH3", "CN", "O2", "C2H2", "HCN"),
    *("H2", "N2", "CH4", "CO2", "C2H4", "C2H6", "H2CO", "CH3O", "CH3OH", "HCOOH", "N2O", "NO2"),
    *("O3", "N2H4", "H2O2", "CH3NO2", "CCH", "CH2_s1A1d"),
)
ADSORPTION = ((("Cu", None, 1.0), ("Ni", None, 1.0)), (("H", 1.0), ("O", 1.0), ("CO", 1.0)))
#: Kind of structure to its part of the set.
SHARES = {"crystal": 0.2, "slab": 0.35, "cluster": 0.15, "molecule": 0.2, "adsorption": 0.1}
SEED = 3
VALID = 0.1
MOST_FORCE = {"molecule": 15.0}  # eV/Å

Maker = Callable[[np.random.Generator], Iterator[Atoms]]


def make_crystals(rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield a strained and rattled crystal of one or two metals, 4 to 8 atoms."""
    pair = rng.choice(METALS, 2)
    cell = [(1, 1, 1), (2, 1, 1), (2, 1, 1)][int(rng.integers(3))]
    atoms = ase.build.bulk("Cu", "fcc", a=1.0, cubic=True).repeat(cell)
    atoms.symbols = pair[(rng.random(len(atoms)) < rng.choice([0.0, 0.25, 0.5])).astype(int)]
    length = np.mean([reference_states[z]["a"] for z in atoms.numbers])
    strain = np.eye(3) * rng.uniform(0.94, 1.08) + 0.02 * rng.standard_normal((3, 3))
    atoms.set_cell(atoms.cell.array * length @ strain, scale_atoms=True)
    yield rattle(atoms, rng, 0.25)


def make_slabs(rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield a clean slab, strained by a percent or two and rattled; a third are doped."""
    host, other = rng.choice(METALS, 2, replace=False).tolist()
    facet = str(rng.choice(list(FACETS)))
    size = FACETS[facet][1][0]
    place = int(rng.integers(size[0] * size[1])) if rng.random() < 1 / 3 else None
    dopant = other if place is not None else None
    atoms = build_slab(host, facet, size, dopant=dopant, dopant_place=place or 0)
    atoms.set_constraint()
    strain = np.diag([*rng.uniform(0.98, 1.02, 2), 1.0])
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    yield rattle(atoms, rng, 0.2)


def make_clusters(rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield a piece of a crystal of one or two metals, 4 to 13 atoms, in vacuum."""
    pair = rng.choice(METALS, 2)
    atoms = ase.build.bulk(pair[0], "fcc", cubic=True).repeat(3)
    centre = atoms.positions.mean(axis=0) + rng.uniform(-1.0, 1.0, 3)
    nearest = np.argsort(np.linalg.norm(atoms.positions - centre, axis=1), kind="stable")
    atoms = Atoms(atoms.numbers, atoms.positions)[nearest[: int(rng.integers(4, 14))]]
    atoms.symbols = pair[(rng.random(len(atoms)) < rng.choice([0.0, 0.3])).astype(int)]
    atoms.positions *= rng.uniform(0.93, 1.05)
    yield rattle(atoms, rng, 0.25)


def make_molecules(rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield a rattled molecule in vacuum, compressed or stretched."""
    name = str(rng.choice(MOLECULES))
    atoms = build_molecule(name)
    atoms.positions *= rng.uniform(0.92, 1.15)
    yield rattle(Atoms(atoms.numbers, atoms.positions), rng, 0.15)


def make_adsorption(rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield ten frames of H, O or CO on copper or nickel."""
    system = draw_system(rng, *ADSORPTION)
    start = build_system(system, rng)
    frames = list(iter_trajectory(start, rng))
    for i in rng.choice(len(frames), min(10, len(frames)), replace=False).tolist():
        atoms = start.copy()
        atoms.set_constraint()
        atoms.positions = frames[i].positions
        yield atoms


def rattle(atoms: Atoms, rng: np.random.Generator, most: float) -> Atoms:
    """Shift every atom by up to ``most`` Å (standard deviation), in place, and return them."""
    atoms.positions += rng.uniform(0.01, most) * rng.standard_normal(atoms.positions.shape)
    return atoms


MAKERS: dict[str, Maker] = {
    "crystal": make_crystals,
    "slab": make_slabs,
    "cluster": make_clusters,
    "molecule": make_molecules,
    "adsorption": make_adsorption,
}


def make_set(n_structures: int) -> list[Atoms]:
    """Return labelled structures of all kinds, in random order."""
    made: list[Atoms] = []
    for number, (kind, share) in enumerate(SHARES.items()):
        rng = np.random.default_rng([SEED, number])
        found = (label(atoms, kind) for _ in itertools.count() for atoms in MAKERS[kind](rng))
        sane = (atoms for atoms in found if atoms is not None)
        made += itertools.islice(sane, round(share * n_structures))
    order = np.random.default_rng(SEED).permutation(len(made))
    return [made[i] for i in order.tolist()]


def label(atoms: Atoms, kind: str) -> Atoms | None:
    """Return a structure with labels in eV and eV/Å; None if a force is out of the ordinary."""
    atoms.calc = EMT()
    energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
    atoms.calc = None
    if np.linalg.norm(forces, axis=1).max() > MOST_FORCE.get(kind, LARGEST_FORCE):
        return None
    atoms.info = {"REF_energy": energy, "kind": kind}
    atoms.arrays["REF_forces"] = forces
    return atoms


def free_atom_energies() -> dict[int, float]:
    """Return EMT's energies of free atoms in eV: zero is the metal's crystal, not free atoms."""
    found = {}
    for number in ATOMIC_NUMBERS:
        atom = Atoms([number])
        atom.calc = EMT()
        found[number] = float(atom.get_potential_energy())
    return found


def new_potential(args: argparse.Namespace, structures: Sequence[Atoms]) -> Potential:
    """Return a potential with weights drawn from the seed."""
    graphs = list(map(GraphBuilder(tuple(ATOMIC_NUMBERS), args.r_max), structures))
    n_edges = sum(graph.edge_index.shape[1] for graph in graphs)
    forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in structures])
    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    torch.manual_seed(SEED)
    model = ScaleShiftMACE(
        r_max=args.r_max,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=args.max_ell,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(ATOMIC_NUMBERS),
        hidden_irreps=o3.Irreps(args.hidden_irreps),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.array(list(free_atom_energies().values())),
        avg_num_neighbors=round(n_edges / sum(graph.n_atoms for graph in graphs), 4),
        atomic_numbers=ATOMIC_NUMBERS,
        correlation=args.correlation,
        gate=silu,
        radial_MLP=[32, 32],
        atomic_inter_scale=round(float(np.sqrt(np.mean(forces**2))), 6),
        atomic_inter_shift=0.0,
    )
    return make_potential(model, name="slab potential")


def pretrain(args: argparse.Namespace, structures: list[Atoms]) -> FineTuned:
    """Fit the potential; the last tenth of the structures chooses the epoch."""
    n_valid = round(VALID * len(structures))
    train, valid = structures[:-n_valid], structures[-n_valid:]
    recipe = Recipe(
        batch_size=args.batch_size,
        learning_rate=args.lr,
        epochs=-(-args.updates * args.batch_size // len(train)),
        max_updates=args.updates,
        energy_weight=30.0,
        ema_decay=0.995,
        max_validations=12,
        reference_energies="checkpoint",
        compiled=True,
    )
    return finetune(
        new_potential(args, train), train, valid, recipe, seed=SEED, progress=show_progress
    )


def show_progress(record: EpochRecord) -> None:
    """Print a validation."""
    assert record.valid is not None
    errors = f"{record.valid.energy_rmse_per_atom:.1f} meV/atom, {record.valid.forces_rmse:.1f}"
    print(f"{record.seconds:6.0f} s, {record.updates} updates: {errors} meV/Å", flush=True)


def error_lines(potential: Potential, groups: dict[str, list[Atoms]]) -> Iterator[str]:
    """Yield a Markdown table of errors."""
    yield (
        "| structures | n | E MAE, meV/atom | E RMSE, meV/atom | F MAE, meV/Å | F RMSE, meV/Å "
        "| RMS force, eV/Å |"
    )
    yield "|---|---|---|---|---|---|---|"
    for title, members in groups.items():
        errors = evaluate(potential, members).errors
        forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in members])
        yield (
            f"| {title} | {len(members)} | {errors.energy_mae_per_atom:.1f} "
            f"| {errors.energy_rmse_per_atom:.1f} | {errors.forces_mae:.1f} "
            f"| {errors.forces_rmse:.1f} | {np.sqrt(np.mean(forces**2)):.2f} |"
        )


def group_slabs(folder: Path) -> dict[str, list[Atoms]]:
    """Return the splits of the example's test file, and 1,000 structures of its pool."""
    test = [frame.atoms for frame in iter_frames([str(folder / "test.extxyz")])]
    splits = {name: [a for a in test if a.info["split"] == name] for name in TEST_SPLITS}
    pool = [frame.atoms for frame in iter_frames([f"{folder / 'pool.extxyz'}@::20"])]
    return {**splits, "**all test structures**": test, "every 20th of the pool": pool}


def write_card(args: argparse.Namespace, structures: list[Atoms], run: dict[str, Any]) -> str:
    """Measure the exported potential and return its card."""
    potential = load_potential(str(args.export))
    content = torch.load(args.export, weights_only=True)
    n_parameters = sum(weight.numel() for weight in potential.model.parameters())
    settings = "\n".join(f"{key}: {json.dumps(v)}" for key, v in content["config"].items())
    kinds = Counter(atoms.info["kind"] for atoms in structures)
    valid = structures[-round(VALID * len(structures)) :]
    own = {kind: [a for a in valid if a.info["kind"] == kind] for kind in SHARES}
    atoms = ", ".join(f"{chemical_symbols[z]} {e:.3f}" for z, e in free_atom_energies().items())
    return CARD.format(
        level=LEVEL,
        kinds="\n".join(f"| {kind} | {n} |" for kind, n in kinds.items()),
        atoms=atoms,
        n_parameters=n_parameters,
        settings=settings,
        **run,
        own="\n".join(error_lines(potential, own)),
        slabs="\n".join(error_lines(potential, group_slabs(args.slabs))),
    )


CARD = """\
# slab_potential: a small MACE for adsorbates on metals

Made by `python recipes/pretrain_slabs.py`, which also wrote this card. Licence: MIT, ours, as are
the data that it was fitted to. It is the pretrained model of the slab example, there to be
improved.

## Data

Level of theory: {level}.
The structures are not those of the example: strained and rattled crystals of one or two metals,
clean slabs (a third with one foreign atom in the top layer), pieces of crystals, molecules in
vacuum, and H, O and CO on copper and nickel. These last were made like those of the example
(relaxations, rattled and hot frames) from other random numbers; no other adsorbate and no other
metal with an adsorbate was seen. Left out: forces above 20 eV/Å, of molecules above 15 eV/Å. A
tenth of the structures chose the epoch.

| structures | n |
|---|---|
{kinds}

Free atoms (eV): {atoms}.
EMT counts the energy of a metal from its crystal, so those of the metals are cohesive energies,
and the total energy of a slab is a few electronvolts. They are the model's atomic energies.

## Model

ScaleShiftMACE of mace-torch, {n_parameters} parameters, float32:

```
{settings}
```

## Training

{n_updates} updates of {batch_size} structures in {minutes:.0f} minutes of one CPU core; best epoch:
{best_epoch}. AMSGrad, learning rate {lr:g}, falling linearly to zero over the second half; Huber
loss on energies per atom (weight 30) and forces (weight 10); moving average of the weights.

## Errors on the structures that chose the epoch

{own}

## Errors on the slab example (20,000 structures, seed 0), before any fine-tuning

Forces of all atoms, fixed ones too. `val_id` has metals and adsorbates of the pool, `val_ood_ads`
other adsorbates, `val_ood_cat` other slabs, `val_ood_both` both. Nothing was chosen by these
errors.

{slabs}

## Limits

EMT is made for seven metals; its H, C, N and O are crude, and adsorption energies and geometries
do not agree with experiment or DFT. Its labels are smooth and repeat exactly, which is why they are
used: the example shows how a selection behaves, not how a metal does. The cutoff is shorter than
EMT's, so that a small error cannot be learnt away. Adsorbates other than H, O and CO on copper and
nickel were never seen.
"""


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=6000)
    parser.add_argument("--updates", type=int, default=12_000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--hidden-irreps", default="24x0e")
    parser.add_argument("--correlation", type=int, default=2)
    parser.add_argument("--max-ell", type=int, default=3)
    parser.add_argument("--r-max", type=float, default=4.5, help="Å")
    parser.add_argument("--slabs", type=Path, default=HERE / "made" / "slabs")
    parser.add_argument("--export", type=Path, default=ASSET)
    return parser.parse_args()


def main() -> None:
    """Make the set, pretrain, export, and write the card."""
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    structures = make_set(args.structures)
    begin = time.process_time()
    fitted = pretrain(args, structures)
    minutes = (time.process_time() - begin) / 60
    for message in fitted.messages:
        print(message, file=sys.stderr)
    save_potential(fitted.potential, args.export)
    if not (args.slabs / "test.extxyz").exists():
        write_slab_example(args.slabs)
    run = {
        "n_updates": fitted.n_updates,
        "batch_size": args.batch_size,
        "minutes": minutes,
        "best_epoch": fitted.best_epoch,
        "lr": args.lr,
    }
    text = write_card(args, structures, run)
    args.export.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
