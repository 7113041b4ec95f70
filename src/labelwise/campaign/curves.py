"""Learning curves as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from labelwise.campaign.config import MeasureSection
from labelwise.campaign.errors import CampaignError
from labelwise.campaign.rounds import RoundRecord, get_curve, has_stress_errors
from labelwise.errors import MissingDependencyError
from labelwise.runtime.files import write_bytes

CURVES = "curves.png"
_FORCES = ("forces_rmse", "RMSE of the forces, meV/Å")
_STRESS = ("stress_rmse", "RMSE of the stress, meV/Å³")


def write_curves(
    path: Path, rounds: Sequence[RoundRecord], measure: MeasureSection | None = None
) -> None:
    """Draw the errors of energy, forces and stress (if any) against the number of labels, as PNG.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        CampaignError: Nothing was measured yet.
        WriteError: The file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogFormatter
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "report", "drawing learning curves") from error
    if not get_curve(rounds, "forces_rmse"):
        raise CampaignError("no round was measured yet: there is no curve to draw")
    shown = MeasureSection() if measure is None else measure
    panels = [(shown.energy_error, f"RMSE of the energy, {shown.energy_unit}"), _FORCES]
    panels += [_STRESS] if has_stress_errors(rounds) else []
    figure = Figure(figsize=(4.0 * len(panels), 3.4), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        n_labels, values = zip(*get_curve(rounds, name), strict=True)
        axes.plot(n_labels, values, "o-", color="#1f4e79", markersize=4)
        axes.set_xlabel("labelled structures")
        axes.set_ylabel(label)
        if min(values) > 0:
            axes.set_yscale("log")
            for place in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                place(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
        axes.grid(visible=True, which="both", alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_bytes(path, content.getvalue(), durable=True)
