"""Opens pages in headless Chromium and takes down everything that should not happen."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Software rendering, no services of the browser's own.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
OWN_SCHEMES = ("file:", "data:", "blob:")


def find_chromium() -> str | None:
    """Return the browser's path, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class OpenPage:
    """A page in the browser, and what went wrong on it.

    Attributes:
        page: Playwright's page.
        errors: What the console and uncaught errors said.
        requests: Addresses asked for that are neither of the file nor inside it.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._see)

    def open(self, path: Path) -> None:
        """Load a file and wait until everything that is near the view is drawn."""
        self.page.goto(path.resolve().as_uri())
        self.wait()

    def wait(self) -> None:
        """Wait until no plot is waiting to be drawn."""
        self.page.wait_for_selector("html[data-ready]", timeout=60_000, state="attached")

    def check(self) -> None:
        """Fail if anything went wrong."""
        assert self.errors == []
        assert self.requests == []

    def plot(self, name: str) -> Any:
        """Return the drawn plot of a panel, scrolled into view."""
        plot = self.page.locator(f'[data-plot="{name}"]')
        plot.scroll_into_view_if_needed()
        self.page.wait_for_selector(f'[data-plot="{name}"][data-drawn]', timeout=60_000)
        return plot

    def pixel_of(self, name: str, x: float, y: float) -> tuple[float, float]:
        """Return where in the window a plot has a pair of coordinates."""
        self.plot(name)
        left, top = self.page.evaluate(
            """([name, x, y]) => {
                const plot = document.querySelector(`[data-plot="${name}"]`);
                const { xaxis, yaxis } = plot._fullLayout;
                const box = plot.getBoundingClientRect();
                return [box.left + xaxis._offset + xaxis.d2p(x),
                        box.top + yaxis._offset + yaxis.d2p(y)];
            }""",
            [name, float(x), float(y)],
        )
        return float(left), float(top)

    def click_point(self, name: str, x: float, y: float) -> None:
        """Click a plot with the mouse at a pair of coordinates."""
        left, top = self.pixel_of(name, x, y)
        self.page.mouse.move(left - 3, top - 3)
        self.page.mouse.move(left, top, steps=3)
        self.page.wait_for_timeout(80)  # Plotly looks for points at most every 50 ms
        self.page.mouse.click(left, top)

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"} and "GPU stall" not in message.text:
            self.errors.append(f"{message.type}: {message.text}")

    def _see(self, request: Any) -> None:
        if not request.url.startswith(OWN_SCHEMES):
            self.requests.append(request.url)
