"""Executables that behave like ORCA, VASP, Quantum ESPRESSO and CP2K.

``python stand_ins.py CODE [FILE]`` reads the input that ASE wrote. A chain of so many hydrogen
atoms asks for:

1. a result, 2. an SCF that does not converge, 3. no end, 4. an output that ends in the middle,
5. another version than the input is for, 6. no licence, 7. a result of several atoms.

A result is ``ENERGY``, ``list_forces`` and ``STRESS`` in the units and with the sign of the code;
of an output there is what ASE reads.
"""

# ruff: noqa: T201 - it is a program that prints
from __future__ import annotations

import re
import sys
import time
from pathlib import Path

#: What the codes write, and their exit codes.
SCF = {
    "orca": "               SCF NOT CONVERGED AFTER 125 CYCLES",
    "vasp": " The electronic self-consistency was not achieved in the given number of steps",
    "espresso": "     convergence NOT achieved after 100 iterations: stopping",
    "cp2k": " *** SCF run NOT converged ***",
}
VERSION = {
    "orca": "FATAL: this input requires ORCA version 6, this is 5.0.4",
    "vasp": " ERROR: the POTCAR is of an unsupported version",
    "espresso": "     Error in routine read_upf (1): wrong version of the pseudopotential file",
    "cp2k": " Error: keyword of an incompatible version in the input",
}
ENERGY = -12.5
RESULTS = (1, 7)
STRESS = ((1.0, 0.4, 0.5), (0.4, 2.0, 0.6), (0.5, 0.6, 3.0))
LICENCE = "license checkout failed: no server answers (-15,570)"


def count_atoms(code: str, words: list[str]) -> int:
    if code == "orca":
        return len(re.findall(r"^H\s+-?\d", Path(words[0]).read_text(), re.MULTILINE))
    if code == "espresso":
        return int(re.findall(r"nat\s*=\s*(\d+)", Path("espresso.pwi").read_text())[0])
    if code == "vasp":
        return int(Path("POSCAR").read_text().splitlines()[6])
    return len(re.findall(r"^\s*H\s+-?\d", Path("cp2k.inp").read_text(), re.MULTILINE))


def list_forces(n_atoms: int) -> list[tuple[float, float, float]]:
    return [(0.01 * (i + 1), -0.002, 0.003) for i in range(n_atoms)]


def write_orca_result(n_atoms: int) -> None:
    rows = [f"  H  0.0 0.0 {0.9 * i}" for i in range(n_atoms)]
    print("Number of atoms ... ", n_atoms)
    print("CARTESIAN COORDINATES (ANGSTROEM)\n-----", *rows, sep="\n")
    print(f"FINAL SINGLE POINT ENERGY   {ENERGY:.12f}")
    print("ORCA TERMINATED NORMALLY")
    gradient = "\n".join(f"{-value:.12f}" for row in list_forces(n_atoms) for value in row)
    Path("orca.engrad").write_text(
        f"# The current gradient in Eh/bohr\n{gradient}\n# The atomic numbers\n"
    )


def write_espresso_result(n_atoms: int) -> None:
    alat = 15.0
    print("     Program PWSCF v.7.2 starts on  1Dec2026 at  0: 0: 0")
    print("     number of atoms/cell      =", n_atoms)
    print("     number of atomic types    = 1")
    print(f"     celldm(1)= {alat:.6f}  celldm(2)=   0.000000  celldm(3)=   0.000000")
    print("     crystal axes: (cart. coord. in units of alat)")
    for i in range(3):
        row = " ".join(f"{float(i == j):.6f}" for j in range(3))
        print(f"               a({i + 1}) = (   {row} )")
    print("     site n.     atom                  positions (alat units)")
    for i in range(n_atoms):
        print(f"     {i + 1}  H   tau({i + 1:4d}) = (   0.1  0.1  {0.1 * i:.7f}  )")
    print("     number of k points=     1\n                       cart. coord. in units 2pi/alat")
    print("        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000")
    print("     End of self-consistent calculation\n")
    print("          k = 0.0000 0.0000 0.0000 (   100 PWs)   bands (ev):\n\n    -5.0000\n")
    print("     the Fermi energy is     1.0000 ev\n")
    print(f"!    total energy              = {ENERGY:16.8f} Ry\n")
    print("     Forces acting on atoms (cartesian axes, Ry/au):\n")
    for i, row in enumerate(list_forces(n_atoms)):
        print(f"     atom {i + 1:4d} type  1   force =", *(f"{value:13.8f}" for value in row))
    print("\n          total   stress  (Ry/bohr**3)                   (kbar)     P= 0.00")
    for row in STRESS:
        print(*(f"{value:13.8f}" for value in row), *(f"{value:10.2f}" for value in row))
    print("\n     JOB DONE.")


def write_vasp_result(n_atoms: int) -> None:
    """Write the energy at zero smearing; that of the electrons with their entropy is another."""

    def rows(name: str, values: list[tuple[float, ...]] | tuple[tuple[float, ...], ...]) -> str:
        lines = "".join(f"<v>{' '.join(f'{value:.8f}' for value in row)}</v>" for row in values)
        return f'<varray name="{name}">{lines}</varray>'

    lines = Path("POSCAR").read_text().splitlines()
    cell = [tuple(map(float, line.split())) for line in lines[2:5]]
    places = [(0.1, 0.1, 0.1 * i) for i in range(n_atoms)]
    structure = f"<crystal>{rows('basis', cell)}</crystal>{rows('positions', places)}"
    atoms = "<rc><c>H </c><c>1</c></rc>" * n_atoms
    energies = {"e_fr_energy": ENERGY - 0.2, "e_wo_entrp": ENERGY + 0.2, "e_0_energy": ENERGY}
    energy = "".join(f'<i name="{name}">{value:.8f}</i>' for name, value in energies.items())
    Path("vasprun.xml").write_text(
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>'
        f"<kpoints>{rows('kpointlist', [(0.0, 0.0, 0.0)])}{rows('weights', [(1.0,)])}</kpoints>"
        f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>'
        f'<structure name="initialpos">{structure}</structure>'
        f"<calculation><scstep><energy>{energy}</energy></scstep>"
        f"<structure>{structure}</structure>{rows('forces', list_forces(n_atoms))}"
        f"{rows('stress', STRESS)}<energy>{energy}</energy></calculation></modeling>\n"
    )
    Path("OUTCAR").write_text(
        " vasp.6.4.2 20Jul23 complex\n   number of bands    NBANDS=      4\n"
        "------------------------ aborting loop because EDIFF is reached -----------------------\n"
    )
    Path("CONTCAR").write_text(Path("POSCAR").read_text())


def fail(code: str, n_atoms: int) -> int:
    """Say what the code would, and return its exit code."""
    if n_atoms == 3:
        time.sleep(60.0)
    said = {2: SCF[code], 4: "   1   -0.4998   0.1E-02", 5: VERSION[code], 6: LICENCE}[n_atoms]
    print(said, flush=True)
    return 0 if n_atoms == 4 else 1


def run_cp2k_shell() -> int:
    """Follow ASE's conversation with the shell until the calculation."""
    print("* READY", flush=True)
    n_atoms = 0
    for line in sys.stdin:
        words = line.split()
        if words[0] == "VERSION":
            print("CP2K Shell Version: 7.0", flush=True)
        elif words[0] == "WRITE_FILE":
            name, n_lines = sys.stdin.readline().strip(), int(sys.stdin.readline())
            Path(name).write_text("".join(sys.stdin.readline() for _ in range(n_lines)))
            sys.stdin.readline()
        elif words[0] == "LOAD":
            n_atoms = count_atoms("cp2k", [])
            if n_atoms not in RESULTS:
                with Path(words[2]).open("w") as sys.stdout:
                    return fail("cp2k", n_atoms)
            print(1)
        elif words[0] == "EXIT":
            return 0
        else:
            answer_cp2k(words[0], n_atoms)
        print("* READY", flush=True)
    return 0


def answer_cp2k(word: str, n_atoms: int) -> None:
    """Answer as the shell does in eV and Å."""
    if word == "SET_CELL":
        for _ in range(3):
            sys.stdin.readline()
    elif word == "SET_POS":
        while sys.stdin.readline().strip() != "*END":
            pass
        print(0.0)
    elif word == "GET_E":
        print(ENERGY)
    elif word == "GET_F":
        print(3 * n_atoms)
        for row in list_forces(n_atoms):
            print(*row)
        print("* END")
    elif word == "GET_STRESS":
        print(*(value for row in STRESS for value in row))


def main() -> int:
    code, words = sys.argv[1], sys.argv[2:]
    if code == "cp2k":
        return run_cp2k_shell()
    n_atoms = count_atoms(code, words)
    if n_atoms in RESULTS:
        write = {"orca": write_orca_result, "espresso": write_espresso_result}
        write.get(code, write_vasp_result)(n_atoms)
        return 0
    return fail(code, n_atoms)


if __name__ == "__main__":
    sys.exit(main())
