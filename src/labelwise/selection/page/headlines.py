"""The page's headline, its numbers and its small print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from labelwise.pages.document import Fact
from labelwise.selection.measures import Measures
from labelwise.selection.page.pool_columns import clean_text
from labelwise.selection.page.record import SelectionRecord


def write_subtitle(record: SelectionRecord) -> str:
    """Say in a line what was done."""
    settings = record.settings
    known = settings.rule
    rule = known.says or f"the rule {known.name}"
    kind = "best by themselves" if known.takes_target else "most uncertain"
    shortlist = f" among the {settings.shortlist:,} {kind}" if settings.shortlist else ""
    if known.is_random and settings.shortlist is None:
        return f"By {rule}."
    model = record.content.get("model") or {}
    of_model = f" of the model {clean_text(str(model['name']))}" if model.get("name") else ""
    joint = settings.rule.takes == "row-sets"
    kernel = "energy and force gradients" if joint else settings.representation
    return f"By {rule}{shortlist}, under the kernel of {kernel}{of_model}."


def list_facts(record: SelectionRecord, measures: Measures | None) -> tuple[Fact, ...]:
    """Return the headline numbers."""
    n_aside = len(record.screened)
    facts = [
        Fact("chosen", f"{len(record.picks):,}", f"of {record.n_pool:,} structures in the pool"),
        Fact("labelled already", f"{record.n_train:,}"),
    ]
    if n_aside:
        facts.append(Fact("set aside", f"{n_aside:,}", "by the screen, before the choice"))
    if measures is not None:
        facts += _list_changes(measures)
    return tuple(facts)


def write_small_print(record: SelectionRecord, *, is_measured: bool) -> tuple[str, ...]:
    """Return files, settings, versions, and how numbers were computed."""
    settings, content = record.settings, record.content
    lines = [_describe_files("pool", record.pool), _describe_files("labelled", record.train)]
    lines.append(f"Summary: {clean_text(record.path.name)}.")
    model = content.get("model")
    if isinstance(model, dict):
        name, digest, dtype = (
            clean_text(str(model.get(key))) for key in ("name", "content_hash", "dtype")
        )
        lines.append(f"Model: {name}, content hash {digest}, {dtype}.")
    lines.append(
        f"Representation {settings.representation}, normalised by {settings.normalise}, "
        f"rule {settings.rule.name}, λ = {settings.regularisation:g}, seed {settings.seed}."
    )
    if is_measured:
        lines.append(
            "Variances and distances are those of the selection's own kernel, in its units; the "
            "distance of x and z is the root of k(x,x) + k(z,z) − 2k(x,z)."
        )
    if settings.rule.takes == "row-sets" and is_measured:
        per_atom = ", divided by the number of atoms" if settings.normalise == "none" else ""
        lines.append(
            f"Posterior variances are those of energy and forces together{per_atom}, in units of "
            "the mean prior variance of a structure; distances are those of energy gradients."
        )
    versions = content.get("versions") or {}
    listed = ", ".join(f"{clean_text(str(k))} {clean_text(str(v))}" for k, v in versions.items())
    return (*(line for line in lines if line), f"Versions of the selection: {listed}.")


def _list_changes(measures: Measures) -> list[Fact]:
    facts = [
        _show_fall("mean posterior variance", measures.variance_before, measures.variance_after)
    ]
    if measures.target_variances is not None:
        facts.append(_show_fall("mean variance of the target", *measures.target_variances))
    for name, summarise in (("median", np.median), ("largest", np.max)):
        near, far = (
            float(summarise(each)) for each in (measures.distance_after, measures.distance_before)
        )
        random = float(np.mean([summarise(each) for each in measures.random_distances]))
        value = f"{far:.3g} → {near:.3g}" if np.isfinite(far) else f"{near:.3g}"
        note = f"to the nearest labelled or chosen; with random picks {random:.3g}"
        facts.append(Fact(f"{name} kernel distance", value, note))
    return facts


def _show_fall(
    name: str, variance_before: Float[np.ndarray, " n"], variance_after: Float[np.ndarray, " n"]
) -> Fact:
    before, after = float(variance_before.mean()), float(variance_after.mean())
    fall = f"{100 * (1 - after / before):.0f} % less" if before > 0 else ""
    return Fact(name, f"{before:.3g} → {after:.3g}", fall)


def _describe_files(role: str, specs: Sequence[str]) -> str:
    if not specs:
        return f"Structures {role}: none."
    listed = ", ".join(clean_text(Path(spec).name) for spec in specs[:10])
    more = f" and {len(specs) - 10} more" if len(specs) > 10 else ""
    return f"Structures {role}: {listed}{more}."
