"""What a hook patch says of itself, made fit for people."""

from __future__ import annotations

from lce.patch.hooks import HookPatch
from lce.patch.record import NO_WEIGHTS
from lce.patch.text import plain, provenance_rows, score_rows

LISTED = 40
"""Features that are named at most."""


def describe_hook(patch: HookPatch, size: int) -> str:
    """A summary for the terminal; ``size`` is the file's, in bytes."""
    provenance = dict(patch.provenance)
    features = provenance.pop("features", None)
    unit = f"{patch.count:,} feature{'s' * (patch.count != 1)}" if patch.shift.kind == "feature" else "a direction"
    numbers = ", ".join(f"{plain(name)} {plain(value)}" for name, value in patch.shift.numbers().items())
    lines = [
        f"{unit} at {plain(patch.site.name)} ({numbers}), at {positions_text(patch)}; {size / 1024:,.0f} KiB",
        f"it {NO_WEIGHTS}",
        f"base fingerprint {patch.base}",
        *(f"{key}: {value}" for key, value in provenance_rows(provenance)),
        *(f"{name}: {before} → {after}" for name, before, after in score_rows(provenance)),
    ]
    if isinstance(features, list):
        more = f" and {len(features) - LISTED:,} more" if len(features) > LISTED else ""
        lines.append(f"features: {', '.join(plain(one) for one in features[:LISTED])}{more}")
    return "\n".join(lines)


def positions_text(patch: HookPatch) -> str:
    """Where in a text the patch acts."""
    if patch.positions == "visual":
        return "the tokens of pictures"
    where = "all positions" if patch.positions == "all" else "the positions of the prompt"
    return f"{where} but a text's first"
