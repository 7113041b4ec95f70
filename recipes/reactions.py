"""The demo reactions: reactant SMILES and the bond edits that turn it into the product.

An edit ``(i, j, order)`` sets the bond between atoms ``i`` and ``j`` (numbered as in the SMILES
after hydrogens were added, so heavy atoms come first in the order written) to ``order``; 0 removes
it. Hydrogens that take part are named by ``(heavy, k)``: the k-th hydrogen of that heavy atom. The
product therefore has the atom order of the reactant and no atom mapping has to be guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rdkit import Chem

AtomRef = int | tuple[int, int]


@dataclass(frozen=True)
class Reaction:
    """One elementary step.

    Attributes:
        name: Readable identifier, the ``reaction`` key of every frame.
        reactant: SMILES of the reactant, with charges where the Lewis structure needs them.
        edits: Bonds to set, (atom, atom, order); order 0 removes the bond.
        charges: Formal charges of the product where they differ from the reactant, atom -> e.
    """

    name: str
    reactant: str
    edits: tuple[tuple[AtomRef, AtomRef, int], ...]
    charges: dict[int, int] = field(default_factory=dict)


REACTIONS: tuple[Reaction, ...] = (
    Reaction(
        "vinyl_alcohol_to_acetaldehyde",
        "C=CO",
        ((2, (2, 0), 0), ((2, 0), 0, 1), (0, 1, 1), (1, 2, 2)),
    ),
    Reaction(
        "methyl_isocyanide_to_acetonitrile", "C[N+]#[C-]", ((0, 1, 0), (0, 2, 1)), {1: 0, 2: 0}
    ),
    Reaction("cyclobutene_ring_opening", "C1=CCC1", ((2, 3, 0), (0, 1, 1), (0, 3, 2), (1, 2, 2))),
    Reaction(
        "butadiene_ethylene_diels_alder",
        "C=CC=C.C=C",
        ((0, 1, 1), (1, 2, 2), (2, 3, 1), (4, 5, 1), (3, 4, 1), (5, 0, 1)),
    ),
    Reaction(
        "allyl_vinyl_ether_claisen",
        "C=COCC=C",
        ((2, 3, 0), (0, 5, 1), (0, 1, 1), (1, 2, 2), (3, 4, 2), (4, 5, 1)),
    ),
    Reaction(
        "formamide_to_formimidic_acid",
        "NC=O",
        ((0, (0, 0), 0), ((0, 0), 2, 1), (0, 1, 2), (1, 2, 1)),
    ),
    Reaction(
        "oxirane_to_acetaldehyde", "C1CO1", ((0, 2, 0), (1, (1, 0), 0), ((1, 0), 0, 1), (1, 2, 2))
    ),
    Reaction(
        "ethyl_formate_elimination",
        "CCOC=O",
        ((1, 2, 0), (0, (0, 0), 0), ((0, 0), 4, 1), (0, 1, 2), (2, 3, 2), (3, 4, 1)),
    ),
    Reaction(
        "acetic_acid_to_ketene_water",
        "CC(=O)O",
        ((1, 3, 0), (0, (0, 0), 0), ((0, 0), 3, 1), (0, 1, 2)),
    ),
    Reaction(
        "fulminic_acid_ethylene_cycloaddition",
        "C#[N+][O-].C=C",
        ((0, 1, 2), (0, 3, 1), (2, 4, 1), (3, 4, 1)),
        {1: 0, 2: 0},
    ),
    Reaction(
        "propiolactone_decarboxylation", "C1COC1=O", ((0, 3, 0), (1, 2, 0), (0, 1, 2), (2, 3, 2))
    ),
    Reaction(
        "hydroxypropanal_retro_aldol",
        "OCCC=O",
        ((1, 2, 0), (0, (0, 0), 0), ((0, 0), 4, 1), (0, 1, 2), (2, 3, 2), (3, 4, 1)),
    ),
    Reaction(
        "malonaldehyde_proton_transfer",
        "OC=CC=O",
        ((0, (0, 0), 0), ((0, 0), 4, 1), (0, 1, 2), (1, 2, 1), (2, 3, 2), (3, 4, 1)),
    ),
    Reaction(
        "nitromethane_to_methyl_nitrite", "C[N+](=O)[O-]", ((0, 1, 0), (0, 3, 1)), {1: 0, 3: 0}
    ),
)


def reactant_mol(reaction: Reaction) -> Chem.Mol:
    """Return the reactant with explicit hydrogens."""
    return Chem.AddHs(Chem.MolFromSmiles(reaction.reactant))


def product_mol(reaction: Reaction) -> Chem.Mol:
    """Return the product in the atom order of the reactant, sanitised."""
    mol = Chem.RWMol(reactant_mol(reaction))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    hydrogens = {
        (atom.GetIdx(), k): h
        for atom in reactant_mol(reaction).GetAtoms()
        for k, h in enumerate(n.GetIdx() for n in atom.GetNeighbors() if n.GetAtomicNum() == 1)
    }
    orders = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
    for first, second, order in reaction.edits:
        i, j = (hydrogens[ref] if isinstance(ref, tuple) else ref for ref in (first, second))
        if mol.GetBondBetweenAtoms(i, j) is not None:
            mol.RemoveBond(i, j)
        if order:
            mol.AddBond(i, j, orders[order])
    for atom, charge in reaction.charges.items():
        mol.GetAtomWithIdx(atom).SetFormalCharge(charge)
    for atom in mol.GetAtoms():
        atom.SetNoImplicit(True)
        atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
    for bond in mol.GetBonds():
        bond.SetStereo(Chem.BondStereo.STEREONONE)
    Chem.SanitizeMol(mol)
    return mol.GetMol()


def endpoint_smiles(min_heavy_atoms: int = 3) -> set[str]:
    """Return canonical SMILES of all endpoint fragments with at least ``min_heavy_atoms``."""
    found = set()
    for reaction in REACTIONS:
        for mol in (reactant_mol(reaction), product_mol(reaction)):
            for part in Chem.GetMolFrags(Chem.RemoveHs(mol), asMols=True):
                if part.GetNumHeavyAtoms() >= min_heavy_atoms:
                    found.add(Chem.MolToSmiles(part))
    return found
