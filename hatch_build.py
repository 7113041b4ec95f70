"""Fetches the JavaScript libraries that a report carries in its file, when the package is built.

What is fetched is pinned, with checksums, by ``package-lock.json`` beside the report's own
sources. Wheels and source distributions ship it, so that only who builds from a clone needs npm.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: The script of each library, inside its npm package.
SCRIPTS = {
    "plotly.js-strict-dist-min": "plotly-strict.min.js",
    "3dmol": "build/3Dmol-min.js",
}
_SECONDS = 300


class LibrariesHook(BuildHookInterface):
    """Fills ``pages/web/vendor`` before anything is packed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Fetch the libraries, unless those of the pinned versions are there already."""
        web = Path(self.root) / "src" / "labelwise" / "pages" / "web"
        wanted = json.loads((web / "package.json").read_text("utf-8"))["dependencies"]
        if read_versions(web / "vendor") == wanted:
            return
        try:
            fetch_libraries(web, wanted)
        except (OSError, subprocess.SubprocessError) as error:
            self.app.display_warning(
                "The libraries of reports could not be fetched with npm, so that this "
                f"installation cannot write reports; all else works. {describe(error)}"
            )


def read_versions(vendor: Path) -> dict[str, str]:
    """Return the versions of the libraries that are there; nothing if some are missing."""
    try:
        versions: dict[str, str] = json.loads((vendor / "versions.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    is_whole = all((vendor / f"{name}.js.gz").is_file() for name in SCRIPTS)
    return versions if is_whole else {}


def fetch_libraries(web: Path, versions: dict[str, str]) -> None:
    """Install with npm into a temporary folder, and keep scripts and licences."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm was not found: install Node.js, then run pip again.")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(web / name, folder)
        subprocess.run(  # noqa: S603
            [npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        keep_libraries(Path(folder) / "node_modules", web / "vendor", versions)


def keep_libraries(modules: Path, vendor: Path, versions: dict[str, str]) -> None:
    """Write scripts, compressed, licences and, last of all, versions."""
    vendor.mkdir(parents=True, exist_ok=True)
    (vendor / "versions.json").unlink(missing_ok=True)
    for name, script in SCRIPTS.items():
        content = gzip.compress((modules / name / script).read_bytes(), 9, mtime=0)
        (vendor / f"{name}.js.gz").write_bytes(content)
    (vendor / "licences.txt").write_text(collect_licences(modules), "utf-8")
    (vendor / "versions.json").write_text(json.dumps(versions, indent=2) + "\n", "utf-8")


def collect_licences(modules: Path) -> str:
    """Return the licences of the libraries and of what they contain."""
    parts = []
    packages = [*modules.glob("*/package.json"), *modules.glob("*/node_modules/*/package.json")]
    for package in sorted(packages):
        version = json.loads(package.read_text("utf-8"))["version"]
        licence = package.with_name("LICENSE").read_text("utf-8").strip()
        parts.append(f"{package.parent.name} {version}\n\n{licence}\n")
    return "\n\n".join(parts)


def describe(error: Exception) -> str:
    """Return what npm said at the end, or what went wrong before."""
    said = getattr(error, "stderr", None)
    return str(said).strip()[-300:] if said else str(error)
