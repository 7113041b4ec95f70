"""Write ``molecules.smi``: the organic molecules that the demo potential is pretrained on.

Every molecule comes from the fragment tables below: chains joined to end groups, chains joined by
linkers, rings with substituents, and a list of small molecules that no rule makes. The result is
closed-shell, neutral, H C N O only, and the same on every run.

Run: ``python recipes/make_molecules.py``
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from rdkit import Chem, RDLogger

OUTPUT = Path(__file__).with_name("molecules.smi")
MAX_HEAVY_ATOMS = 9
MAX_ATOMS = 22
MAX_MOLECULES = 580


def words(text: str) -> list[str]:
    """Return the SMILES of a table."""
    return text.split()


SMALL = words("""
[H][H] O N C C#N [C-]#[O+] O=C=O N#N [N-]=[N+]=O OO NN N=N NO N=O ON=O O[N+](=O)[O-] N=C=O
N=[N+]=[N-] C=[N+]=[N-] C=O C=C C#C CC C=C=O C=C=C C=N C=C=N C=NO CO CN C=O OC=O NC=O NC#N N#CC#N
O=CC=O C=CC=C C=CC=O C#CC#N C#CC=C O=C=C=C=O NCO OCO NC(N)=N C=CC=C=O OC=CC=O NC=CC=O
""")

CHAINS = words("""
C CC CCC CC(C) CC(C)(C) C=C C=CC CC=C C#C C#CC CC#C C1CC1 C1CCC1 c1ccccc1 OCC COC NCC CNC N#CC
O=CC CC(=O) C=CC=C
""")

END_GROUPS = words("""
O N OC NC N(C)C C=O C(C)=O C(=O)O C(=O)OC C(=O)N C(=O)NC C#N [N+]#[C-] [N+](=O)[O-] N=O ON=O
O[N+](=O)[O-] C=NO C=NC C=N NN NO OO N=C=O C=C=O N=[N+]=[N-] OC=O NC=O OC(=O)N NC(=O)N C(=N)N
C=C=C C=C(C)C C#CC C(O)=C N=NC C=[N+]=[N-] C1CO1 C1CN1 C1CC1 CO
""")

LINKERS = words("""
O N C(=O) C(=O)O C(=O)N C=N N=N C=C C#C OO NN OC(=O)O NC(=O)N C=NO C=NN C(=O)C(=O) C(O) C(=C) N(C)
C(=O)C=C N=C=N C(=O)OC(=O) C1(CC1) C=C=C CON
""")

LINKED_CHAINS = words("C CC C=C C#C C1CC1 COC")

RINGS = words("""
c1ccccc1 c1ccncc1 c1cccnc1 c1ccccn1 c1ccnnc1 c1cncnc1 c1cnccn1 c1ccoc1
c1ccco1 c1cc[nH]c1 c1cn[nH]c1 c1cnc[nH]1 c1cocn1 c1cnoc1 c1nnco1 c1ccc2cc1C2 C1CC1 C1=CC1 C1CO1
C1CN1 C1=NC1 C1OC1=O C1CCC1 C1=CCC1 C1=CC=C1 C1COC1 C1CNC1 C1CC(=O)1 C1COC(=O)1 C1CC1=C C1CC1=O
C12CC1C2 C12CCC1C2 C1CCCC1 C1=CCCC1 C1=CCC=C1 C1CCOC1 C1CCNC1 C1CCC(=O)C1 C1CCC(=O)O1 C1CCC(=O)N1
C1COCO1 C1=CC(=O)C=C1 C1=CC(=O)OC1 C1CN=NC1 C1CCCCC1 C1CCOCC1 C1CCNCC1 C1COCCO1 C1CNCCO1 C1CCC=CC1
C1=CCC=CC1 C1=CC=CCC1 C1=COCC1 C1=CC=COC1 C1=CC(=O)C=CC1=O C1CC2CC1C2 C1C2CC1C2 C12C3C1C23
C1CC(=O)NC1=O C1CC(=O)OC1=O C1=CC(=O)NC1=O C1NC(=O)NC1=O C1CCCCCC1 C1CON=C1 C1CC=NC1 C1C=NN=C1
""")

RING_SUBSTITUENTS = ["", "C", "O", "N", "N#C", "O=C", "C=C"]


def candidates() -> Iterator[tuple[int, str]]:
    """Yield (priority, SMILES); everything with priority 0 is kept, the rest is thinned out."""
    yield from ((0, smiles) for smiles in SMALL + RINGS)
    yield from ((0, a + b) for a, b in product(["C", "C=C"], END_GROUPS))
    yield from ((0, a + b + c) for a, b, c in product(["C"], LINKERS, ["C", "C=C"]))
    yield from ((1, a + b) for a, b in product(CHAINS, END_GROUPS))
    yield from ((1, a + b + c) for a, b, c in product(LINKED_CHAINS, LINKERS, LINKED_CHAINS))
    yield from ((1, a + b) for a, b in product(RING_SUBSTITUENTS, RINGS))


def canonical(smiles: str) -> str | None:
    """Return the canonical SMILES, or None where the molecule is not one that is wanted."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None or Chem.GetFormalCharge(mol) != 0:
        return None
    full = Chem.AddHs(mol)
    elements = {atom.GetSymbol() for atom in full.GetAtoms()}
    radicals = sum(atom.GetNumRadicalElectrons() for atom in full.GetAtoms())
    if radicals or not elements <= {"H", "C", "N", "O"}:
        return None
    if mol.GetNumHeavyAtoms() > MAX_HEAVY_ATOMS or full.GetNumAtoms() > MAX_ATOMS:
        return None
    return Chem.MolToSmiles(mol)


def choose_molecules() -> list[str]:
    """Return at most MAX_MOLECULES canonical SMILES: all of priority 0, the rest by checksum."""
    priority: dict[str, int] = {}
    for level, raw in candidates():
        smiles = canonical(raw)
        if smiles is not None:
            priority[smiles] = min(level, priority.get(smiles, level))
    order = sorted(priority, key=lambda s: (priority[s], zlib.crc32(s.encode()), s))
    return sorted(order[:MAX_MOLECULES], key=lambda s: (len(s), s))


def main() -> None:
    """Write the list, one canonical SMILES a line."""
    RDLogger.DisableLog("rdApp.*")
    molecules = choose_molecules()
    OUTPUT.write_text("\n".join(molecules) + "\n", encoding="utf-8")
    print(f"{len(molecules)} molecules written to {OUTPUT.name}")


if __name__ == "__main__":
    main()
