"""Make the demo reaction pool: reaction table to labelled NEB frames.

For each reaction of ``reactions.py`` both endpoints are built (RDKit conformers relaxed with
GFN2-xTB; an endpoint of two molecules is pulled out of the other one), the closest pair is joined
by an IDPP path of 10 images, and the band is relaxed (improved tangent, then climbing image). An
image is recorded whenever one of its atoms has moved since it was last recorded.

Run: ``OMP_NUM_THREADS=1 python recipes/make_reactions.py``
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.calculators.calculator import Calculator, all_changes
from ase.data import covalent_radii
from ase.io import write
from ase.mep import NEB
from ase.optimize import BFGS
from rdkit import Chem, RDLogger

from labelling import (
    LEVEL,
    bonded,
    embed,
    isolated_atoms,
    label,
    make_calculator,
    read_frames,
    seed_of,
    write_frames,
)
from reactions import REACTIONS, Reaction, product_mol, reactant_mol

HERE = Path(__file__).parent
ASSETS = HERE.parent / "src" / "labelwise" / "structures"
SEED = 11
N_CONFORMERS = 16
N_IMAGES = 10
MAX_ITERATIONS = 250
ENDPOINT_FORCE, BAND_FORCE, CLIMB_FORCE = 0.02, 0.5, 0.1  # eV/Å
BARRIERS_EV = (0.3, 6.0)
MAX_FRAMES, MIN_FRAMES = 300, 100
MOVED = 0.01  # Å
MAX_PAIRS = 6
N_TRAIN, N_VALID, N_TEST_PER_REACTION = 10, 50, 35
APART = 2.8  # Å, broken bonds when an endpoint of two molecules is made


class Restrained(Calculator):
    """GFN2-xTB plus a harmonic spring on some atom pairs.

    Args:
        targets: Pair -> wanted distance in Å.
        stiffness: Spring constant in eV/Å².
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, targets: dict[tuple[int, int], float], stiffness: float = 6.0) -> None:
        super().__init__()
        self.inner = make_calculator()
        self.targets, self.stiffness = targets, stiffness

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Compute the restrained energy (eV) and forces (eV/Å)."""
        super().calculate(atoms, properties, system_changes)
        bare = atoms.copy()
        bare.calc = self.inner
        energy, forces = bare.get_potential_energy(), bare.get_forces().copy()
        for (i, j), wanted in self.targets.items():
            vector = bare.positions[j] - bare.positions[i]
            distance = float(np.linalg.norm(vector))
            pull = self.stiffness * (distance - wanted) * vector / distance
            energy += 0.5 * self.stiffness * (distance - wanted) ** 2
            forces[i] += pull
            forces[j] -= pull
        self.results = {"energy": energy, "forces": forces}


@dataclass(frozen=True)
class Path10:
    """A converged band: all recorded frames, barriers in eV and how it went."""

    frames: list[Atoms]
    summary: dict[str, Any]


def adjacency(mol: Chem.Mol) -> np.ndarray:
    """Return the (n, n) bond matrix of the Lewis structure."""
    return np.asarray(Chem.GetAdjacencyMatrix(mol), dtype=bool)


def relax(atoms: Atoms, wanted: np.ndarray) -> Atoms | None:
    """Relax with GFN2-xTB; None unless it converges and has the wanted bonds."""
    atoms.calc = make_calculator()
    try:
        converged = BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=ENDPOINT_FORCE, steps=300)
    except RuntimeError:
        return None
    return atoms if converged and np.array_equal(bonded(atoms), wanted) else None


def distinct(found: list[Atoms]) -> list[Atoms]:
    """Drop repeats: the same energy to 1e-3 eV and the same sorted distances to 0.05 Å."""
    kept: list[tuple[Atoms, float, np.ndarray]] = []
    for atoms in found:
        energy, shape = atoms.get_potential_energy(), atoms.get_all_distances()
        if not any(abs(energy - e) < 1e-3 and np.abs(shape - s).max() < 0.05 for _, e, s in kept):
            kept.append((atoms, energy, shape))
    return [atoms for atoms, *_ in kept]


def conformers(mol: Chem.Mol, seed: int) -> list[Atoms]:
    """Return the distinct relaxed conformers that keep the bonds of ``mol``."""
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    geometries = embed(mol, N_CONFORMERS, seed)
    geometries += embed(mol, N_CONFORMERS, seed, knowledge=False)
    relaxed = (relax(Atoms(symbols, xyz), adjacency(mol)) for xyz in geometries)
    return distinct([atoms for atoms in relaxed if atoms is not None])


def driven(sources: list[Atoms], before: Chem.Mol, after: Chem.Mol) -> list[Atoms]:
    """Return relaxed geometries of ``after`` made by driving its bonds in those of ``before``."""
    old, new = adjacency(before), adjacency(after)
    made = []
    for source in sources:
        radii = covalent_radii[source.numbers]
        targets = {(int(i), int(j)): APART for i, j in np.argwhere(np.triu(old & ~new))}
        targets |= {
            (int(i), int(j)): float(radii[i] + radii[j])
            for i, j in np.argwhere(np.triu(new & ~old))
        }
        atoms = source.copy()
        atoms.calc = Restrained(targets)
        try:
            BFGS(atoms, logfile=None, maxstep=0.05).run(fmax=0.3, steps=200)
        except RuntimeError:
            continue
        made.append(relax(atoms, new))
    return [atoms for atoms in made if atoms is not None]


def n_molecules(mol: Chem.Mol) -> int:
    """Return the number of molecules in a structure."""
    return len(Chem.GetMolFrags(mol))


def endpoint_pairs(reaction: Reaction) -> list[tuple[float, Atoms, Atoms]]:
    """Return (RMSD in Å, reactant, product) of relaxed pairs, aligned, closest first, no two alike.

    Both sides are embedded, except a side of two molecules, which is only driven from the other
    one. Mirror images of the product take part: embedding picks one hand at random.
    """
    left, right = reactant_mol(reaction), product_mol(reaction)
    seed = seed_of(reaction.name, SEED)
    embedded_left = conformers(left, seed) if n_molecules(left) == 1 else []
    embedded_right = conformers(right, seed + 1) if n_molecules(right) == 1 else []
    starts = embedded_left + driven(embedded_right, right, left)
    ends = embedded_right + driven(embedded_left, left, right)
    pairs = []
    for start, end, hand in product(starts, ends, (1, -1)):
        moved = end.copy()
        moved.positions *= hand
        minimize_rotation_and_translation(start, moved)
        rmsd = float(np.sqrt(((moved.positions - start.positions) ** 2).sum(1).mean()))
        pairs.append((rmsd, start.copy(), moved))
    pairs.sort(key=lambda pair: pair[0])
    kept: list[tuple[float, Atoms, Atoms]] = []
    for pair in pairs:
        if not kept or pair[0] - kept[-1][0] > 0.01:
            kept.append(pair)
    return kept


class Recorder:
    """Keeps a labelled copy of each image whenever one of its atoms has moved far enough."""

    def __init__(self, name: str, images: list[Atoms]) -> None:
        self.name, self.images = name, images
        self.last: list[np.ndarray | None] = [None] * len(images)
        self.frames: list[Atoms] = []
        self.iteration = 0

    def __call__(self) -> None:
        """Look at every image once per iteration."""
        for k, image in enumerate(self.images):
            last = self.last[k]
            if last is None or np.linalg.norm(image.positions - last, axis=1).max() >= MOVED:
                self.frames.append(
                    label(image, reaction=self.name, image=k, iteration=self.iteration, is_ts=False)
                )
                self.last[k] = image.positions.copy()
        self.iteration += 1


def relax_band(name: str, start: Atoms, end: Atoms) -> tuple[Recorder, bool]:
    """Relax the band in two stages; return what was recorded and whether it converged."""
    images = [start] + [start.copy() for _ in range(N_IMAGES - 2)] + [end]
    band = NEB(
        images,
        k=0.1,
        method="improvedtangent",
        remove_rotation_and_translation=True,
        allow_shared_calculator=False,
    )
    band.interpolate(method="idpp")
    for image in images:
        image.calc = make_calculator()
    recorder = Recorder(name, images)
    converged = False
    for climb, target in ((False, BAND_FORCE), (True, CLIMB_FORCE)):
        band.climb = climb
        optimiser = BFGS(band, logfile=None, maxstep=0.05)
        optimiser.attach(recorder)
        converged = bool(optimiser.run(fmax=target, steps=MAX_ITERATIONS - recorder.iteration))
        if not converged:
            break
    return recorder, converged


def thin(frames: list[Atoms], threshold: float) -> list[Atoms]:
    """Keep frames whose image moved by ``threshold`` Å since its last kept frame, and the TS."""
    last: dict[int, np.ndarray] = {}
    kept = []
    for frame in frames:
        seen = last.get(frame.info["image"])
        moved = seen is None or np.linalg.norm(frame.positions - seen, axis=1).max() >= threshold
        if moved or frame.info["is_ts"]:
            kept.append(frame)
            last[frame.info["image"]] = frame.positions
    return kept


def mark_transition_state(recorder: Recorder) -> tuple[float, float]:
    """Mark the top of the final band; return the forward and reverse barriers in eV."""
    energies = [image.get_potential_energy() for image in recorder.images]
    top = int(np.argmax(energies))
    frame = [f for f in recorder.frames if f.info["image"] == top][-1]
    frame.info["is_ts"] = True
    return energies[top] - energies[0], energies[top] - energies[-1]


def finish(reaction: Reaction, recorder: Recorder, rmsd: float) -> Path10 | str:
    """Check and thin a converged band; return it, or the reason it is not wanted."""
    forward, reverse = mark_transition_state(recorder)
    if not BARRIERS_EV[0] <= forward <= BARRIERS_EV[1]:
        return f"barrier of {forward:.2f} eV"
    threshold = MOVED
    frames = recorder.frames
    while len(frames) > MAX_FRAMES:
        threshold *= 1.1
        frames = thin(recorder.frames, threshold)
    if len(frames) < MIN_FRAMES:
        return f"only {len(frames)} frames"
    frames = sorted(frames, key=lambda f: (f.info["image"], f.info["iteration"]))
    for number, frame in enumerate(frames):
        frame.info["frame"] = number
    summary = {
        "reaction": reaction.name,
        "formula": frames[0].get_chemical_formula(),
        "atoms": len(frames[0]),
        "reactant": reaction.reactant,
        "product": Chem.MolToSmiles(Chem.RemoveHs(product_mol(reaction))),
        "frames": len(frames),
        "recorded": len(recorder.frames),
        "iterations": recorder.iteration,
        "threshold": threshold,
        "rmsd": rmsd,
        "forward": forward,
        "reverse": reverse,
        "max_force": float(max(np.abs(f.arrays["REF_forces"]).max() for f in frames)),
    }
    return Path10(frames, summary)


def run_reaction(reaction: Reaction) -> Path10 | str:
    """Return the band of one reaction, or why there is none."""
    reason = "no pair of endpoints"
    for rmsd, start, end in endpoint_pairs(reaction)[:MAX_PAIRS]:
        try:
            recorder, converged = relax_band(reaction.name, start, end)
        except RuntimeError as error:
            reason = f"SCF failure: {str(error).splitlines()[0]}"
            continue
        outcome = finish(reaction, recorder, rmsd) if converged else "band not converged"
        if isinstance(outcome, Path10):
            return outcome
        reason = outcome
    return reason


def make_one(reaction: Reaction, folder: Path) -> dict[str, Any] | None:
    """Make, or find made, the frames of one reaction; return its summary, None if rejected."""
    summary_path = folder / f"{reaction.name}.json"
    if not summary_path.exists():
        outcome = run_reaction(reaction)
        if isinstance(outcome, Path10):
            write_frames(folder / f"{reaction.name}.extxyz", outcome.frames)
            summary_path.write_text(json.dumps(outcome.summary), encoding="utf-8")
        else:
            summary_path.write_text(json.dumps({"rejected": outcome}), encoding="utf-8")
    summary: dict[str, Any] = json.loads(summary_path.read_text(encoding="utf-8"))
    print(reaction.name, summary, flush=True)
    return None if "rejected" in summary else summary


def split(frames: list[Atoms]) -> dict[str, list[Atoms]]:
    """Divide all frames: balanced test, then random valid and train, the rest is the pool."""
    rng = np.random.default_rng(SEED)
    by_reaction: dict[str, list[int]] = {}
    for i, frame in enumerate(frames):
        by_reaction.setdefault(frame.info["reaction"], []).append(i)
    test: list[int] = []
    for members in by_reaction.values():
        test.extend(rng.permutation(members)[:N_TEST_PER_REACTION].tolist())
    rest = rng.permutation(sorted(set(range(len(frames))) - set(test))).tolist()
    parts = {
        "train": rest[:N_TRAIN],
        "valid": rest[N_TRAIN : N_TRAIN + N_VALID],
        "test": test,
        "pool": rest[N_TRAIN + N_VALID :],
    }
    return {name: [frames[i] for i in sorted(members)] for name, members in parts.items()}


def write_compressed(path: Path, frames: list[Atoms]) -> None:
    """Write extxyz through xz at its highest level."""
    text = io.StringIO()
    write(text, frames, format="extxyz")
    path.write_bytes(lzma.compress(text.getvalue().encode(), preset=9 | lzma.PRESET_EXTREME))


def reaction_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the Markdown table of the reactions; energies in eV, lengths in Å."""
    yield (
        "| reaction | SMILES | atoms | frames | barrier, eV | reverse, eV | iterations "
        "| threshold, Å | largest force component, eV/Å |"
    )
    yield "|" + "---|" * 9
    for row in rows:
        yield (
            f"| {row['reaction']} | `{row['reactant']}>>{row['product']}` | {row['atoms']} "
            f"| {row['frames']} | {row['forward']:.2f} | {row['reverse']:.2f} "
            f"| {row['iterations']} | {row['threshold']:.3f} | {row['max_force']:.1f} |"
        )


def card(rows: list[dict[str, Any]], parts: dict[str, list[Atoms]], rejected: list[str]) -> str:
    """Return the data card, every figure taken from the run."""
    forces = np.concatenate([f.arrays["REF_forces"].ravel() for p in parts.values() for f in p])
    table = "\n".join(reaction_table(rows))
    sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
    left_out = f"\nTried and left out: {'; '.join(rejected)}.\n" if rejected else ""
    return f"""# demo_reactions: frames of reaction paths, GFN2-xTB labels

Made by `python recipes/make_reactions.py`, which also wrote this card. Licence: MIT, ours.

Level: {LEVEL}. Path: endpoints relaxed to {ENDPOINT_FORCE} eV/Å, {N_IMAGES} images, IDPP, NEB
(improved tangent) to {BAND_FORCE} eV/Å, climbing image to {CLIMB_FORCE} eV/Å, at most
{MAX_ITERATIONS} iterations. An image is recorded whenever an atom has moved by the threshold since
it was last recorded.

{table}
{left_out}
Splits (random over frames, no frame in two): {sizes}; the test set has {N_TEST_PER_REACTION} frames
of each reaction. Force components: RMS {np.sqrt((forces**2).mean()):.2f} eV/Å.

Keys: `REF_energy` (eV, total), `REF_forces` (eV/Å); info `reaction`, `image` 0-{N_IMAGES - 1},
`iteration`, `frame` (order along the path, then iteration), `is_ts` (top of the final band).
`isolated_atoms.extxyz` holds the free atoms at the same level.

Limits: test frames have near neighbours in the pool; transition states are those of a band of
{N_IMAGES} images; diradical-like geometries are closed-shell; endpoints are one conformer each.
"""


def main() -> None:
    """Run every reaction, then split and write the assets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE / "made" / "reactions")
    parser.add_argument("--assets", type=Path, default=ASSETS)
    args = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    args.folder.mkdir(parents=True, exist_ok=True)
    outcomes = {reaction.name: make_one(reaction, args.folder) for reaction in REACTIONS}
    rows = [row for row in outcomes.values() if row is not None]
    rejected = [
        f"{name} ({json.loads((args.folder / f'{name}.json').read_text())['rejected']})"
        for name, row in outcomes.items()
        if row is None
    ]
    frames = [f for row in rows for f in read_frames(args.folder / f"{row['reaction']}.extxyz")]
    parts = split(frames)
    target = args.assets / "demo_reactions"
    target.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        write_compressed(target / f"{name}.extxyz.xz", part)
    write_frames(target / "isolated_atoms.extxyz", isolated_atoms())
    (target / "demo_reactions.md").write_text(card(rows, parts, rejected), encoding="utf-8")


if __name__ == "__main__":
    main()
