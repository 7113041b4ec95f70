"""Executables that behave like ORCA, VASP, Quantum ESPRESSO and CP2K when they fail.

``python stand_ins.py CODE [FILE]`` reads the input that ASE wrote. A chain of so many hydrogen
atoms asks for:

1. a result (ORCA alone), 2. an SCF that does not converge, 3. no end, 4. an output that ends in the
middle, 5. another version than the input is for, 6. no licence.
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
LICENCE = "license checkout failed: no server answers (-15,570)"


def count_atoms(code: str, words: list[str]) -> int:
    if code == "orca":
        return len(re.findall(r"^H\s+-?\d", Path(words[0]).read_text(), re.MULTILINE))
    if code == "espresso":
        return int(re.findall(r"nat\s*=\s*(\d+)", Path("espresso.pwi").read_text())[0])
    if code == "vasp":
        return int(Path("POSCAR").read_text().splitlines()[6])
    return len(re.findall(r"^\s*H\s+-?\d", Path("cp2k.inp").read_text(), re.MULTILINE))


def write_orca_result(n_atoms: int) -> None:
    rows = [f"  H  0.0 0.0 {0.9 * i}" for i in range(n_atoms)]
    print("Number of atoms ... ", n_atoms)
    print("CARTESIAN COORDINATES (ANGSTROEM)\n-----", *rows, sep="\n")
    print("FINAL SINGLE POINT ENERGY   -0.500000000000")
    print("ORCA TERMINATED NORMALLY")
    gradient = "\n".join("0.001" for _ in range(3 * n_atoms))
    Path("orca.engrad").write_text(
        f"# The current gradient in Eh/bohr\n{gradient}\n# The atomic numbers\n"
    )


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
    for line in sys.stdin:
        words = line.split()
        if words[0] == "VERSION":
            print("CP2K Shell Version: 7.0", flush=True)
        elif words[0] == "WRITE_FILE":
            name, n_lines = sys.stdin.readline().strip(), int(sys.stdin.readline())
            Path(name).write_text("".join(sys.stdin.readline() for _ in range(n_lines)))
            sys.stdin.readline()
        elif words[0] == "LOAD":
            with Path(words[2]).open("w") as sys.stdout:
                return fail("cp2k", count_atoms("cp2k", []))
        print("* READY", flush=True)
    return 0


def main() -> int:
    code, words = sys.argv[1], sys.argv[2:]
    if code == "cp2k":
        return run_cp2k_shell()
    n_atoms = count_atoms(code, words)
    if n_atoms == 1 and code == "orca":
        write_orca_result(n_atoms)
        return 0
    return fail(code, n_atoms)


if __name__ == "__main__":
    sys.exit(main())
