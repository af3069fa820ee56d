"""What the colour of a garment changes: the leaning of a picture, and the answer about it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lce.data.pictures.recoloured import recoloured
from lce.evaluation.direction_audit import DirectionAudit
from lce.foundations.errors import LceError
from lce.metrics.picture_means import mean_of
from lce.metrics.significance import wilcoxon


def colour_shifts(audit: DirectionAudit) -> list[dict[str, Any]]:
    """For each colour, what it changes in the layer of the audit, and how the first colour differs from it.

    Every drawing is compared with itself: as it is, and with its garment in the colour. p-values are of Wilcoxon's test
    over blocks, times the number of colours (Bonferroni).

    Raises:
        LceError: no drawing has a garment that can be recoloured.
    """
    settings, shown = audit.settings, audit.shown.among(audit.ambiguous)
    blocks = {picture.file.name: block for picture, block in zip(shown.pictures, shown.blocks.tolist(), strict=True)}
    drawings = list(recoloured(blocks, settings.downloads, settings.colours))
    if not drawings:
        raise LceError("colours: no drawing of these pictures has a garment that can be recoloured")
    opened = [lambda picture=drawing.picture: picture for drawing in drawings]
    wide = len(settings.colours) + 1
    inside, outside = (
        values.reshape(-1, wide) for values in (audit.leaning_at(opened, audit.layer), audit.odds(opened))
    )
    own = np.array([blocks[drawing.file] for drawing in drawings[::wide]])
    rows = []
    for number, colour in enumerate(settings.colours, 1):
        row: dict[str, Any] = {"colour": colour, "n": len(own), "blocks": len(set(own.tolist()))}
        for name, values in (("leaning", inside), ("odds", outside)):
            plain, coloured = values[:, 0], values[:, number]
            p_value = wilcoxon(_by_block(coloured, own), _by_block(plain, own), name)["p_value"]
            adjusted = min(1.0, p_value * len(settings.colours))
            row[name] = mean_of(coloured - plain, own).as_json() | {"p_value": adjusted}
            row[f"{name}_against_first"] = mean_of(values[:, 1] - coloured, own).as_json()
        rows.append(row)
    return rows


def _by_block(values: NDArray[np.float64], blocks: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean over each block's values."""
    return np.array([values[blocks == block].mean() for block in np.unique(blocks)])
