"""Several studies side by side: what each says of the paper's claims, and what was measured in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lce.foundations.atomic_files import replaced_file
from lce.foundations.errors import LceError
from lce.foundations.figures import save
from lce.foundations.files import write_json
from lce.foundations.labels import label
from lce.metrics.items import defined
from lce.study.overlaps import MOVED
from lce.study.report.aggregates import gap
from lce.study.report.claims import Claim, judge
from lce.study.report.results import Results, load_results
from lce.study.report.section import VERDICTS, markdown_table
from lce.study.report.statistics import Estimate, mean_interval
from lce.study.settings import NEUTRAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, NUMBERS, FIGURE = "comparison.md", "comparison.json", "comparison"
ALPHAS = (1.0, 2.0, 3.0)
Samples = dict[tuple[str, str], "Sequence[float] | NDArray[np.float64]"]
Measures = dict[tuple[str, str], Estimate]
"""(what is measured, of what) → its mean over seeds; each of the first is a panel of the figure."""


def write_comparison(runs: Sequence[Path], folder: Path) -> Path:
    """Write to ``folder`` what the studies in ``runs`` found, in columns; return the page.

    Raises:
        LceError: one of them holds no study of variants, or no result yet; two have the same name; or ``folder`` holds
            something else.
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise LceError(f"lce report: the folders of studies that are compared must have different names, got {names}")
    if folder.is_file():
        raise LceError(f"{folder}: is a file; a comparison is written to a folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / NUMBERS).exists():
        raise LceError(f"{folder}: exists and holds no comparison of lce; name another folder")
    studies = {run.name: load_results(run) for run in runs}
    for name, results in studies.items():
        if not results.study.variants:
            raise LceError(f"{name}: is a study without variants, of which the paper claims nothing")
    claims = {name: judge(results) for name, results in studies.items()}
    found = {name: measures(results) for name, results in studies.items()}
    different = differences(
        {name: asdict(results.study) | {"trainer": results.trainer} for name, results in studies.items()}
    )
    unfinished = {name: results.missing for name, results in studies.items() if results.missing}
    write_json(folder / NUMBERS, _numbers(different, claims, found) | {"unfinished": unfinished})
    if drawn := figure(found, different):
        for end in ("svg", "png"):
            save(drawn, folder / f"{FIGURE}.{end}")
    with replaced_file(folder / PAGE) as temporary:
        temporary.write_text(_page(different, claims, found, unfinished), encoding="utf-8")
    return folder / PAGE


def measures(results: Results) -> Measures:
    """What is told of a study, at its sparsity, with 95 % intervals over seeds."""
    sparsity = results.study.sparsity
    samples: Samples = {}
    for metric in results.bias:
        for level in (0.0, sparsity):
            of = f"two variants, {f'{level:.0%} sparse' if level else 'dense'}"
            samples[f"gap in {label(metric)}", of] = gap(results, level, metric)
    compared = [result for cell, result in results.of("compare").items() if cell.sparsity == sparsity]
    samples["weights in which masks differ [%]", "two variants"] = [
        100 * result["selections"]["mask"]["share"] for result in compared
    ]
    for cell, result in results.of("overlap").items():
        if cell.sparsity == sparsity:
            samples |= _overlaps(result)
    samples |= closed(results)
    trained = results.trained[(results.trained["sparsity"] == sparsity) & (results.trained["variant"] != NEUTRAL)]
    samples["perplexity", "mean of the variants"] = trained.groupby("seed")["perplexity"].mean()
    return {key: mean_interval(values) for key, values in samples.items() if len(values)}


def _overlaps(result: Mapping[str, Any]) -> Samples:
    """Pairs of seeds are not independent of each other; their intervals say how far they spread."""
    found = {
        ("Jaccard similarity of masks", "two seeds"): [v for name, v in result["masks"].items() if name != NEUTRAL],
        ("Jaccard similarity of masks", "two variants"): [
            v for name, v in result["variants"].items() if NEUTRAL not in name.split(", ")
        ],
    }
    distances = {name: v for name, v in result.get("distances", {}).items() if NEUTRAL not in name.split(", ")}
    moved = distances.pop(MOVED, None)
    if moved:
        found["distance from the base [% of its norm]", "all models"] = [[100 * share for share in moved]]
    for of, is_of_variants in (("two seeds", False), ("two variants", True)):
        found["distance of weights", of] = [v for name, v in distances.items() if (", " in name) == is_of_variants]
    return {key: np.concatenate(parts) for key, parts in found.items() if parts}


def closed(results: Results) -> Samples:
    """By score and edit, the share of the gap between the variants that is closed, mean of both ways, by seed [%];
    without the seeds in which there is no gap in the intended direction.
    """
    found: Samples = {}
    frame = results.edits[results.edits["last_layers"].isna() & (results.edits["strategy"] == "linear")]
    frame = frame[frame["k"].isna() | (frame["k"] == results.study.k)]
    frame = frame[(frame["sparsity"] == results.study.sparsity) & frame["alpha"].isin(ALPHAS)]
    frame = frame[(frame["target"] != NEUTRAL) & (frame["reference"] != NEUTRAL)]
    for metric in [name for name in (results.weat, "crows_pairs", "occupation_pronouns") if name in results.bias]:
        whole = gap(results, results.study.sparsity, metric)
        here = frame[(frame["metric"] == metric) & frame["control"].isin(("none", "uninformed"))]
        by = ["localization", "control", "alpha"]
        for (localization, control, alpha), part in here.groupby(by, sort=False):
            moved = part.groupby("seed")["intended"].mean()
            kind = f"{localization}-based" if control == "none" else f"random, as many as {localization}-based"
            shares = (100 * moved / whole.where(whole > 0)).dropna()
            found[f"closed of the gap in {label(metric)} [%], α = {alpha:g}", kind] = shares
    return found


def differences(studies: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings in which the studies differ: setting → study → value; folder and edits apart."""
    flat = {name: _flat(settings) for name, settings in studies.items()}
    keys = dict.fromkeys(key for one in flat.values() for key in one if key not in ("experiment", "edits"))
    values = {key: {name: one.get(key) for name, one in flat.items()} for key in keys}
    return {key: by for key, by in values.items() if len({str(value) for value in by.values()}) > 1}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def figure(found: Mapping[str, Measures], different: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """A panel for everything that is measured, over the first setting in numbers in which the studies differ."""
    from matplotlib.figure import Figure

    key = next((k for k, of in different.items() if all(type(v) in (int, float) for v in of.values())), None)
    if key is None:
        return None
    by = different[key]
    studies = sorted(found, key=lambda name: by[name])
    panels: dict[str, list[str]] = {}
    for one in found.values():
        for what, of in one:
            if of not in panels.setdefault(what, []):
                panels[what].append(of)
    columns = 4
    rows = -(-len(panels) // columns)
    drawn = Figure(figsize=(3.4 * columns, 3.2 * rows), layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False).flatten()
    for place, (what, lines) in zip(axes, panels.items(), strict=False):
        for number, of in enumerate(lines):
            points = [(by[name], found[name][what, of]) for name in studies if (what, of) in found[name]]
            x, estimates = zip(*points, strict=True)
            spread = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
            look: dict[str, Any] = {"marker": "o", "markersize": 3, "capsize": 2, "color": f"C{number}"}
            look["linestyle"] = ":" if of.startswith("random") else "-"
            place.errorbar(x, [e.value for e in estimates], np.nan_to_num(spread), label=of, **look)
        place.set_title("\n".join(wrap(what, 42, break_on_hyphens=False)), fontsize=9)
        place.set_xscale("log" if min(by.values()) > 0 else "linear")
        place.set_xticks([by[name] for name in studies])
        place.xaxis.set_major_formatter("{x:g}")
        place.minorticks_off()
        place.set_xlabel(key, fontsize=8)
        place.tick_params(labelsize=8)
        if len(lines) > 1:
            place.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
    for place in axes[len(panels) :]:
        place.set_axis_off()
    return drawn


def _numbers(
    different: Mapping[str, Any], claims: Mapping[str, Sequence[Claim]], found: Mapping[str, Measures]
) -> dict[str, Any]:
    numbers = {
        name: [
            {"measured": what, "of": of} | {key: defined(value) for key, value in estimate._asdict().items()}
            for (what, of), estimate in one.items()
        ]
        for name, one in found.items()
    }
    verdicts = {name: {claim.number: claim.holds for claim in one} for name, one in claims.items()}
    return {"kind": "comparison", "settings": different, "claims": verdicts, "measures": numbers}


def _page(
    different: Mapping[str, Any],
    claims: Mapping[str, Sequence[Claim]],
    found: Mapping[str, Measures],
    unfinished: Mapping[str, str],
) -> str:
    names = list(claims)
    lines = ["# Studies compared", "", *(f"{name}: {missing}\n" for name, missing in unfinished.items())]
    lines += ["## In what they differ", ""]
    lines += markdown_table(
        ["", *names], [[f"`{key}`", *(str(by[name]) for name in names)] for key, by in different.items()]
    )
    lines += ["", "## The paper's claims", ""]
    same = list(zip(*claims.values(), strict=True))
    verdicts = [[one[0].number, one[0].text, one[0].paper, *(VERDICTS[claim.holds] for claim in one)] for one in same]
    lines += markdown_table(["", "claim", "paper", *names], verdicts)
    lines += ["", "## What was measured for each", ""]
    lines += markdown_table(["", *names], [[one[0].number, *(claim.measured for claim in one)] for one in same])
    lines += [
        "",
        "## Measures",
        "",
        "Means over seeds, with 95 % bootstrap intervals: of two or three seeds, their range.",
        "",
    ]
    keys = dict.fromkeys(key for one in found.values() for key in one)
    rows = [[f"{what}: {of}", *(_text(found[name].get((what, of))) for name in names)] for what, of in keys]
    return "\n".join([*lines, *markdown_table(["", *names], rows)]) + "\n"


def _text(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    digits = 3 if abs(estimate.value) < 1 else 2 if abs(estimate.value) < 10 else 1
    value, low, high = (f"{number:.{digits}f}" for number in estimate)
    return value if np.isnan(estimate.low) else f"{value} ({low} to {high})"
