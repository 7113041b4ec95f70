"""Make the pretraining set of the demo potential: molecules to labelled extxyz.

Each molecule of ``molecules.smi`` gives, with GFN2-xTB labels throughout: conformers before,
during and after a relaxation; Langevin dynamics that climbs from 500 to 2000 K; and runs in which
a random pair of atoms is pulled together or apart, as on a reaction path. Molecules, never frames,
are divided into train, valid and test. A molecule that is done is not done again.

Run: ``OMP_NUM_THREADS=1 python recipes/make_training_set.py --processes 2``
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.optimize import BFGS
from rdkit import Chem, RDLogger

from labelling import (
    bonded,
    embed,
    isolated_atoms,
    label,
    make_calculator,
    n_fragments,
    read_frames,
    seed_of,
    write_frames,
)
from reactions import endpoint_smiles

HERE = Path(__file__).parent
SEED = 20
N_CONFORMERS = 2
TEMPERATURES_K = (500, 1000, 1500, 2000)
EQUILIBRATION_STEPS = 60
DECORRELATION_STEPS = 25
FRAMES_PER_TEMPERATURE = 3
N_PULLS = 2
PULL_STEPS = 90
PULL_EVERY = 30
TIMESTEP_FS = 1.0
FRICTION_PER_FS = 0.05
MAX_FORCE = 15.0  # eV/Å
MAX_ENERGY_PER_ATOM = 1.5  # eV above the lowest frame of the molecule
MIN_HELD_OUT_HEAVY_ATOMS = 3
SCF_ERRORS = (CalculationFailed, RuntimeError)


class Pulled(Calculator):
    """GFN2-xTB plus a constant force along one pair of atoms.

    Args:
        pair: The two atoms.
        force: Size in eV/Å; positive pulls them together, negative drives them apart.
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, pair: tuple[int, int], force: float) -> None:
        super().__init__()
        self.inner = make_calculator()
        self.pair, self.force = pair, force

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Compute the biased energy (eV) and forces (eV/Å)."""
        super().calculate(atoms, properties, system_changes)
        bare = atoms.copy()
        bare.calc = self.inner
        i, j = self.pair
        vector = bare.positions[j] - bare.positions[i]
        distance = float(np.linalg.norm(vector))
        forces = bare.get_forces().copy()
        forces[i] += self.force * vector / distance
        forces[j] -= self.force * vector / distance
        self.results = {
            "energy": bare.get_potential_energy() + self.force * distance,
            "forces": forces,
        }


def relaxation_frames(start: Atoms) -> Iterator[Atoms]:
    """Relax in place; yield the start, a point on the way and the end."""
    yield label(start, config_type="conformer")
    BFGS(start, logfile=None, maxstep=0.1).run(fmax=1.0, steps=6)
    yield label(start, config_type="conformer")
    BFGS(start, logfile=None).run(fmax=0.05, steps=60)
    yield label(start, config_type="conformer")


def dynamics(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> Langevin:
    """Return Langevin dynamics of the atoms at a temperature in K."""
    return Langevin(
        atoms,
        TIMESTEP_FS * units.fs,
        temperature_K=temperature_K,
        friction=FRICTION_PER_FS / units.fs,
        fixcm=False,
        rng=rng,
    )


def hot_frames(atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield decorrelated frames of ever hotter dynamics; stop if the molecule falls apart."""
    pieces = n_fragments(atoms, 1.6)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * TEMPERATURES_K[0], rng=rng)
    Stationary(atoms)
    for temperature in TEMPERATURES_K:
        run = dynamics(atoms, temperature, rng)
        run.run(EQUILIBRATION_STEPS - DECORRELATION_STEPS)
        for _ in range(FRAMES_PER_TEMPERATURE):
            run.run(DECORRELATION_STEPS)
            if n_fragments(atoms, 1.6) != pieces:
                return
            yield label(atoms, config_type=f"md_{temperature}K")


def choose_pair(atoms: Atoms, rng: np.random.Generator) -> tuple[tuple[int, int], float]:
    """Return a pair and the force on it in eV/Å: a bond to stretch or neighbours to join."""
    close = bonded(atoms)
    distances = atoms.get_all_distances()
    apart = np.argwhere(np.triu(~close & (distances < 3.6), 1))
    bonds = np.argwhere(np.triu(close, 1))
    join = len(apart) > 0 and (len(bonds) == 0 or rng.random() < 0.6)
    pairs = apart if join else bonds
    i, j = pairs[rng.integers(len(pairs))]
    size = rng.uniform(1.5, 6.0)
    return (int(i), int(j)), size if join else -size


def pulled_frames(atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield frames, labelled without the bias, of 500 K dynamics under a pull on one pair."""
    pair, force = choose_pair(atoms, rng)
    MaxwellBoltzmannDistribution(atoms, temperature_K=1000, rng=rng)
    Stationary(atoms)
    atoms.calc = Pulled(pair, force)
    run = dynamics(atoms, 500, rng)
    for _ in range(PULL_STEPS // PULL_EVERY):
        run.run(PULL_EVERY)
        frame = atoms.copy()
        if n_fragments(frame, 2.2) != 1:
            return
        frame.calc = make_calculator()
        yield label(frame, config_type="pulled")


def collect(frames: Iterator[Atoms], into: list[Atoms]) -> None:
    """Append frames until they end or the SCF fails."""
    try:
        into.extend(frames)
    except SCF_ERRORS:
        return


def sane(frames: list[Atoms]) -> list[Atoms]:
    """Drop frames with absurd forces or energies."""
    lowest = min((f.info["REF_energy"] for f in frames), default=0.0)
    return [
        f
        for f in frames
        if np.isfinite(f.arrays["REF_forces"]).all()
        and np.linalg.norm(f.arrays["REF_forces"], axis=1).max() <= MAX_FORCE
        and f.info["REF_energy"] - lowest <= MAX_ENERGY_PER_ATOM * len(f)
    ]


def molecule_frames(smiles: str) -> list[Atoms]:
    """Return every labelled frame of one molecule."""
    rng = np.random.default_rng(seed_of(smiles, SEED))
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    frames: list[Atoms] = []
    relaxed: list[Atoms] = []
    for positions in embed(mol, N_CONFORMERS, seed_of(smiles, SEED)):
        atoms = Atoms(symbols, positions, calculator=make_calculator())
        collect(relaxation_frames(atoms), frames)
        relaxed.append(atoms)
    if relaxed and len(symbols) > 1:
        hot = relaxed[0].copy()
        hot.calc = make_calculator()
        collect(hot_frames(hot, rng), frames)
        for k in range(N_PULLS if len(symbols) > 2 else 0):
            collect(pulled_frames(relaxed[k % len(relaxed)].copy(), rng), frames)
    for frame in frames:
        frame.info["molecule"] = smiles
    return sane(frames)


def make_one(task: tuple[int, str, Path]) -> tuple[str, int]:
    """Make, or find made, the file of one molecule; return its SMILES and number of frames."""
    RDLogger.DisableLog("rdApp.*")
    _, smiles, path = task
    if not path.exists():
        frames = molecule_frames(smiles)
        if frames:
            write_frames(path, frames)
        else:
            path.touch()
    return smiles, len(read_frames(path)) if path.stat().st_size else 0


def split_molecules(molecules: list[str]) -> dict[str, list[int]]:
    """Return the molecules of each split: 10 % test, 4 % valid, drawn by seed, the rest train.

    Molecules of fewer than three heavy atoms go to train whatever is drawn: hydrogen or
    hydrazine teach bonds that no other molecule has, and cannot be predicted from the rest.
    """
    order = np.random.default_rng(SEED).permutation(len(molecules))
    n_test, n_valid = round(0.10 * len(order)), round(0.04 * len(order))
    splits: dict[str, list[int]] = {"test": [], "valid": [], "train": []}
    for rank, i in enumerate(order.tolist()):
        drawn = "test" if rank < n_test else "valid" if rank < n_test + n_valid else "train"
        small = Chem.MolFromSmiles(molecules[i]).GetNumHeavyAtoms() < MIN_HELD_OUT_HEAVY_ATOMS
        splits["train" if small else drawn].append(i)
    return {name: sorted(members) for name, members in splits.items()}


def merge(molecules: list[str], paths: list[Path], folder: Path) -> None:
    """Write train, valid and test, and print what they hold."""
    for name, members in split_molecules(molecules).items():
        frames = [f for i in members if paths[i].stat().st_size for f in read_frames(paths[i])]
        write_frames(folder / f"{name}.extxyz", frames)
        kinds = Counter(f.info["config_type"] for f in frames)
        print(
            f"{name}: {len(members)} molecules, {len(frames)} frames, {dict(sorted(kinds.items()))}"
        )
    write_frames(folder / "isolated_atoms.extxyz", isolated_atoms())


def main() -> None:
    """Label all molecules in parallel, then split and merge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=HERE / "made" / "training")
    args = parser.parse_args()
    (args.folder / "molecules").mkdir(parents=True, exist_ok=True)
    held_back = endpoint_smiles()
    listed = (HERE / "molecules.smi").read_text(encoding="utf-8").split()
    molecules = [smiles for smiles in listed if smiles not in held_back]
    paths = [args.folder / "molecules" / f"{seed_of(s, 0):08x}.extxyz" for s in molecules]
    tasks = list(zip(range(len(molecules)), molecules, paths, strict=True))
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for done, (smiles, count) in enumerate(pool.imap_unordered(make_one, tasks), 1):
            print(
                f"{done}/{len(tasks)} {time.monotonic() - start:.0f} s {smiles}: {count}",
                flush=True,
            )
    merge(molecules, paths, args.folder)


if __name__ == "__main__":
    main()
