"""Numbers that both the claims and the report are about, worked out from a study's results."""

from itertools import pairwise
from typing import Any

import pandas as pd

from lce.study.report.results import EDIT, LEANING, Results
from lce.study.report.statistics import over_seeds
from lce.study.settings import ANTI_STEREOTYPICAL, STEREOTYPICAL


def _values(results: Results, variant: str, sparsity: float, metric: str) -> pd.Series:
    """Scores of unedited subnetworks by seed."""
    frame = results.measured
    here = frame[(frame["variant"] == variant) & (frame["sparsity"] == sparsity) & (frame["metric"] == metric)]
    return here.set_index("seed")["value"]


def gap(results: Results, sparsity: float, metric: str) -> pd.Series:
    """Stereotypical less anti-stereotypical, by seed."""
    return (
        _values(results, STEREOTYPICAL, sparsity, metric) - _values(results, ANTI_STEREOTYPICAL, sparsity, metric)
    ).dropna()


def densities(results: Results) -> pd.DataFrame:
    """localization, layer, component → weights, and those selected at the study's sparsity."""
    rows = [
        {"localization": name, "layer": layer, "component": component, "selected": selected, "weights": weights}
        for cell, result in results.of("compare").items()
        if cell.sparsity == results.study.sparsity
        for name, found in result["selections"].items()
        for layer, component, selected, weights in found["cells"]
    ]
    if not rows:
        return pd.DataFrame(columns=["localization", "layer", "component", "selected", "weights"])
    frame = pd.DataFrame(rows)
    return frame.groupby(["localization", "layer", "component"], dropna=False, sort=False).sum().reset_index()


def against_controls(results: Results, control: str, metric: str) -> pd.DataFrame:
    """Edits at the study's k that have controls: ``intended``, and, by seed, the mean over draws of the controls'
    (``by_control``) and of its absolute value (``size_by_control``).
    """
    by = [name for name in EDIT if name not in ("control", "draw")]
    frame = results.edits[results.edits["metric"] == metric]
    drawn = frame[frame["control"] == control].assign(size=lambda f: f["intended"].abs())
    means = drawn.groupby([*by, "seed"], dropna=False).agg(
        by_control=("intended", "mean"), size_by_control=("size", "mean")
    )
    return results.swept[results.swept["metric"] == metric].merge(means.reset_index(), on=[*by, "seed"])


def by_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """Of `against_controls`, the means by seed: at one seed, both directions and all sparsities share their models."""
    return frame.groupby("seed")[["intended", "by_control"]].mean()


def curve(results: Results, target: str, reference: str, localization: str, metric: str) -> pd.DataFrame:
    """alpha → mean, std of the score over seeds at the study's sparsity and k, with the unedited target at 0."""
    frame = results.swept[results.swept["alpha"].notna() & (results.swept["sparsity"] == results.study.sparsity)]
    chosen = {"target": target, "reference": reference, "localization": localization, "metric": metric}
    for column, value in chosen.items():
        frame = frame[frame[column] == value]
    unedited = frame.drop_duplicates("seed").assign(alpha=0.0, value=lambda f: f["before"])
    return over_seeds(pd.concat([frame, unedited]), ["alpha"]).sort_values("alpha", ignore_index=True)


def crossing(alphas: Any, values: Any) -> float | None:
    """The least α > 0 at which the line through the points is zero; None if it never is."""
    points = [(a, v) for a, v in zip(alphas, values, strict=True) if a >= 0]
    for (a, v), (b, w) in pairwise(points):
        if v * w <= 0 and v != w:
            return float(a + (b - a) * v / (v - w))
    return None


def over_k(results: Results, metric: str, alpha: float) -> pd.DataFrame:
    """k → mean and std of ``intended`` over seeds and both directions, at the study's sparsity."""
    frame = results.both_ways[(results.both_ways["localization"] == "value") & (results.both_ways["metric"] == metric)]
    frame = frame[(frame["alpha"] == alpha) & (frame["sparsity"] == results.study.sparsity)]
    found = over_seeds(frame, ["k"], "intended")
    shares = frame.groupby("k", sort=False)["selected_share"].mean()
    return found.assign(share=found["k"].map(shares)).sort_values("share", ignore_index=True)


def is_null(p_value: float) -> bool:
    """Whether an effect lies in the central 95 % of its permutation distribution, by its one-sided ``p_value``."""
    return 0.025 <= p_value <= 0.975


def targets(results: Results) -> list[str]:
    """The edited variants, the neutral one apart."""
    return list(results.both_ways["target"].unique())


def near_null(results: Results, target: str, k: Any, localization: str = "value") -> float:
    """Share of the seeds in which α = 2 leaves WEAT within its permutation test's null interval; NaN if none ran."""
    frame = results.both_ways[(results.both_ways["target"] == target) & (results.both_ways["alpha"] == 2)]
    frame = frame[(frame["sparsity"] == results.study.sparsity) & (frame["metric"] == results.weat)]
    frame = frame[(frame["localization"] == localization) & (frame["k"].isna() if k is None else frame["k"] == k)]
    return float(frame["p_value"].map(is_null).mean())


def smallest_k(results: Results, target: str) -> str:
    """The smallest k at which `near_null` holds in most seeds, or why there is none, as people write it."""
    unedited = results.measured[(results.measured["variant"] == target) & (results.measured["metric"] == results.weat)]
    unedited = unedited[unedited["sparsity"] == results.study.sparsity]
    if not unedited["p_value"].map(is_null).mean() <= 0.5:
        return "it is there unedited"
    if unedited["value"].mean() * LEANING[target] < 0:
        return "none, for the edit leads away from zero"
    for row in over_k(results, results.weat, alpha=2.0).itertuples():
        if near_null(results, target, row.k) > 0.5:
            return f"{row.share:.2%} of all weights"
    return "none"
