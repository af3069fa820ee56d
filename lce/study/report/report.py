"""The report of a study: one self-contained HTML page, its figures, its tables as text, and TensorBoard logs."""

import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader

from lce.evaluation.evaluator import LIBRARIES
from lce.foundations.atomic_files import replaced_file, scratch_folder
from lce.foundations.errors import LceError
from lce.foundations.figures import as_svg, save
from lce.foundations.files import write_json
from lce.foundations.paths import STUDY_REPORT
from lce.study.report import direction_edits, feature_edits, head_edits
from lce.study.report import extra_sections as beyond
from lce.study.report import paper_sections as paper
from lce.study.report.claims import Claim, judge
from lce.study.report.plots import figures
from lce.study.report.results import EDIT, Results, load_results
from lce.study.report.section import VERDICTS, Section, markdown_table
from lce.study.report.statistics import about_intervals
from lce.study.settings import StudySettings

OWN = ("pandas", "ray", "statsmodels")
CLAIMS = "claims.json"


def write_report(run: Path) -> Path:
    """Write the report of the study in ``run``; return the page.

    Beside it lie tables.md (the same tables), claims.json, edits.csv (every edit and score), a folder of figures as SVG
    and PNG, and TensorBoard logs; of features, features.csv, of attention heads, heads.csv, of directions,
    directions.csv; without variants, there are no claims.

    Raises:
        LceError: ``run`` holds no study, or no result yet.
    """
    results = load_results(run)
    folder = run / STUDY_REPORT
    if folder.exists() and any(folder.iterdir()) and not (folder / CLAIMS).exists():
        raise LceError(f"{folder}: exists and holds no report of lce; the report goes to a folder of its own")
    claims = judge(results) if results.study.variants else []
    parts, drawn = sections(results), figures(results)
    write_json(folder / CLAIMS, [asdict(claim) for claim in claims])
    for name, figure in drawn.items():
        save(figure, folder / "figures" / f"{name}.svg")
        save(figure, folder / "figures" / f"{name}.png")
    if results.study.variants:
        _write_frame(results.edits, folder / "edits.csv")
        write_logs(results, folder / "logs")
    if results.study.features.is_asked:
        _write_frame(feature_edits.edits_of(results), folder / "features.csv")
    if results.study.heads.is_asked:
        _write_frame(head_edits.head_edits(results), folder / "heads.csv")
    if results.study.directions.is_asked:
        _write_frame(direction_edits.edits_of(results), folder / "directions.csv")
    about = _about(results, claims)
    with replaced_file(folder / "tables.md") as temporary:
        temporary.write_text(_markdown(about, claims, parts), encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("lce.study.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    shown = [asdict(claim) | {"verdict": VERDICTS[claim.holds]} for claim in claims]
    page = environment.get_template("study.html").render(
        **about, claims=shown, sections=parts, figures={name: as_svg(figure) for name, figure in drawn.items()}
    )
    with replaced_file(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "report.html"


def _write_frame(frame: pd.DataFrame, path: Path) -> None:
    with replaced_file(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.5g")


def sections(results: Results) -> list[Section]:
    """All sections for which there are results: the paper's, those beyond it, and those of other units than weights."""
    of_variants = (*paper.SECTIONS, *beyond.SECTIONS) if results.study.variants else ()
    of_units = (feature_edits.section, head_edits.section, direction_edits.section)
    made = (make(results) for make in (*of_variants, *of_units))
    return [section for section in made if section is not None]


def _about(results: Results, claims: Sequence[Claim]) -> dict[str, Any]:
    study = results.study
    seconds = sum(result["seconds"] for result in results.cells.values())
    reused = sum(bool(result.get("existed")) for result in results.cells.values())
    hours = f"{len(results.cells):,} cells, {seconds / 3600:.1f} worker-hours"
    hours += f", without {reused} trainings that were there before" if reused else ""
    counts = {verdict: sum(claim.holds is holds for claim in claims) for holds, verdict in VERDICTS.items()}
    seeds = f"seeds {', '.join(map(str, study.seeds))}"
    title, summary = _subject(study, seeds)
    return {
        "title": f"{title} of {study.base}",
        "summary": f"{summary}. {hours}.",
        "missing": results.missing,
        "verdicts": "; ".join(f"{verdict}: {count}" for verdict, count in counts.items())
        + ". The rules are part of lce, whatever a study finds."
        + about_intervals(len(study.seeds)),
        "made": {
            "command": f"lce sweep --config {study.experiment}/config.yaml && lce report {study.experiment}",
            **({"training": asdict(study.train)} if study.variants else {}),
            **{unit: asdict(block) for unit, block in study.units.items()},
            **({"evaluation": asdict(study.evaluation)} if study.reads_text else {}),
            "machines": "; ".join(sorted({str(result.get("device")) for result in results.cells.values()})),
            "versions, of the report": ", ".join(
                [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in (*LIBRARIES, *OWN))]
            ),
        },
    }


def _subject(study: StudySettings, seeds: str) -> tuple[str, str]:
    """What a study is about, and of what."""
    about = {
        "features": f"autoencoder {study.features.sae}",
        "heads": ", ".join(study.heads.attributes),
        "directions": study.directions.attribute,
    }
    units = [f"{about[unit]}{f' in {block.model}' if block.model else ''}" for unit, block in study.units.items()]
    if not study.variants:
        names = {"features": "Features", "heads": "Attention heads", "directions": "Directions"}
        return " and ".join(names[unit] for unit in study.units), "; ".join([*units, seeds])
    levels = f"sparsities {', '.join(f'{s:.0%}' for s in study.sparsities)}"
    trained = f"{', '.join(study.variants)} models; {seeds}; {levels}; bias type {study.evaluation.bias_type}"
    return "Local contrastive editing", "; ".join([trained, *units])


def _markdown(about: dict[str, Any], claims: Sequence[Claim], parts: Sequence[Section]) -> str:
    """The report without its figures."""
    lines = [f"# {about['title']}", "", about["summary"], about["missing"]]
    if claims:
        lines += ["", "## The paper's claims", "", about["verdicts"], ""]
        verdicts = [[c.number, c.text, c.paper, c.rule, c.measured, VERDICTS[c.holds]] for c in claims]
        lines += markdown_table(["", "claim", "paper", "rule", "measured here", ""], verdicts)
    for part in parts:
        lines += [
            "",
            f"## {part.title}",
            "",
            part.text,
            "",
            *(markdown_table(part.headings, part.rows) if part.rows else []),
        ]
    lines += [
        "",
        "## How it was made",
        "",
        *markdown_table(["", ""], [[k, f"`{v}`"] for k, v in about["made"].items()]),
    ]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def write_logs(results: Results, folder: Path) -> None:
    """TensorBoard logs: a run per curve over α, with its scores at step 100 · α and its settings as hparams."""
    from torch.utils.tensorboard import SummaryWriter

    frame = results.edits.astype(dict.fromkeys(EDIT, object))
    by = [name for name in EDIT if name != "alpha"]
    with scratch_folder(folder) as temporary:
        for key, part in frame.groupby([*by, "seed"], dropna=False, sort=False):
            known = {name: value for name, value in zip([*by, "seed"], key, strict=True) if not pd.isna(value)}
            name = "-".join(f"{value}" for value in known.values())
            strongest = {}
            with SummaryWriter(str(temporary / name)) as writer:
                for metric, points in part.groupby("metric", sort=False):
                    scores = dict(zip(points["alpha"].fillna(1).astype(float), points["value"], strict=True))
                    for alpha, value in sorted((scores | {0.0: points["before"].iloc[0]}).items()):
                        writer.add_scalar(metric, value, round(100 * alpha))
                    strongest[f"strongest/{metric}"] = scores[max(scores)]
                writer.add_hparams(known, strongest, run_name=".")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
