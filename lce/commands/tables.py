"""Results for the terminal."""

from pathlib import Path
from typing import Any

from rich.table import Table

from lce.foundations.console import wide_console
from lce.foundations.files import read_json
from lce.foundations.labels import interval_text, label, number_text, p_text
from lce.localize.components import components_of, layer_text, layers_of
from lce.localize.selection import Selection


def print_edits(result: dict[str, Any]) -> None:
    """The table of every α, what was edited, and where."""
    for edit in result.get("edits", [result]):
        _print_edit(result, edit)


def _print_edit(result: dict[str, Any], edit: dict[str, Any]) -> None:
    console = wide_console()
    title = f"{result['strategy']}, α = {edit['alpha']:g}, {result['localization']}-based, seed {result['seed']}"
    table = Table(title=title, title_justify="left")
    for heading in ("", "target before", "target after", "random baseline", "reference", "n"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in edit["scores"].items():
        control = "–" if row["uninformed"] is None else f"{row['uninformed']:.2f}"
        if row["uninformed_std"] is not None:
            control += f" ± {row['uninformed_std']:.2f}"
        values = [
            f"{row['before']:.2f}",
            f"{row['after']:.2f}",
            control,
            number_text(row["reference"]),
            f"{row['n']:,}",
        ]
        table.add_row(label(name), *values)
    console.print(table if edit["scores"] else title)
    edited = edit["edited"]
    console.print(f"weights edited: {edited['count']:,} ({edited['share']:.3%} of those compared)")
    if edited["count"]:
        ranked = sorted(edited["by_component"].items(), key=lambda item: -item[1]["count"])
        shares = (f"{name} {about['count'] / edited['count']:.0%}" for name, about in ranked)
        console.print("where they sit: " + ", ".join(shares))
        console.print(f"patch: {edit['patch']} ({edit['patch_bytes'] / 1024:,.0f} KiB)", soft_wrap=True)
    console.print()


def print_evaluation(result: dict[str, Any]) -> None:
    """One row per score with its 95 % interval; of two models, their difference and its paired test."""
    console = wide_console()
    against, measured = result.get("against"), result["measured_with"]
    limited = f", first {measured['limit']} items only" if measured["limit"] else ""
    title = result["model"]["name"] + (f" against {against['name']}" if against else "")
    table = Table(title=f"{title} ({measured['bias_type']}{limited})", title_justify="left")
    compared = ["against", "difference", "95 % interval"] if against else []
    for heading in ("", "score", "95 % interval", *compared, "p, paired" if against else "p", "n"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, score in result["scores"].items():
        row = [label(name), number_text(score["value"]), interval_text(score["interval"])]
        if against:
            difference = result["differences"][name]
            p_value = difference["tests"][0]["p_value"] if difference["tests"] else None
            row += [number_text(result["scores_against"][name]["value"]), number_text(difference["value"], "+.2f")]
            row.append(interval_text(difference["interval"]))
        else:
            p_value = score.get("p_value")
        table.add_row(*row, p_text(p_value), f"{score['n']:,}")
    console.print(table)
    if against:
        differing = against["weights_differing"]
        same = "the two models are the same" if differing == 0 else f"{differing:,} weights differ" if differing else ""
        console.print(same or "the two models differ in shape")
    for benchmark, items in measured["special_cases"].items():
        console.print(f"{label(benchmark)}: {len(items)} special cases, listed in the JSON")


def print_autoencoder(folder: Path) -> None:
    """What an autoencoder is, and how well it does on held-out text."""
    from lce.models.autoencoder_files import SETTINGS

    settings = read_json(folder / SETTINGS)
    about = settings["metadata"]
    console = wide_console()
    console.print(f"{settings['architecture']}, {settings['d_sae']:,} features of {settings['d_in']:,} values, "
                  f"at {about['lce_site']} of {about['model_name']}")  # fmt: skip
    for name, value in about["lce_scores"].items():
        console.print(f"  {SCORES_OF_AUTOENCODERS.get(name, name)}: {value:.4g}")


SCORES_OF_AUTOENCODERS = {
    "unexplained_variance": "share of the variance unexplained, held-out text",
    "l0": "active features of a state",
    "dead": "share of features that are dead",
    "loss": "loss of the model (nats a token)",
    "loss_spliced": "the same with its states reconstructed",
}


def print_report(report: dict[str, Any], folder: Path) -> None:
    """What the prepared data holds."""
    console = wide_console()
    table = Table(title="biased sentences by group", title_justify="left")
    for heading in ("target term", "attribute term", "sentences"):
        table.add_column(heading, justify="right" if heading == "sentences" else "left")
    for cell in report["cells"]:
        table.add_row(cell["target_group"], cell["attribute_group"], f"{cell['sentences']:,}")
    console.print(table)
    console.print(f"{report['distinct_sentences']:,} distinct sentences of {report['sentences']:,}")
    for variant, count in report["swapped"].items():
        console.print(f"swapped in the {variant} variant: {count:,}")
    for role, count in report["roles"].items():
        console.print(f"{role}: {count:,}, of them {report['held_out'][role]:,} held out")
    for pair in report["pairs"]:
        console.print(f"\n  {pair['source']}\n→ {pair['rewritten']}", highlight=False, soft_wrap=True)
    console.print(f"\nwritten to {folder}", soft_wrap=True)


def print_selection(selection: Selection) -> None:
    """Selected weights by layer and component; the longer side runs downwards."""
    cells = selection.by_layer_and_component()
    layers, components = layers_of(cells), components_of(cells)
    is_deep = len(layers) > len(components)
    rows: list[Any] = list(layers if is_deep else components)
    columns: list[Any] = list(components if is_deep else layers)
    console = wide_console()
    is_wide = 16 * (len(columns) + 2) > console.width
    grid = Table(title="selected weights (share)", title_justify="left")
    for heading in ("", *columns):
        grid.add_column("" if heading == "" else _place(heading), justify="left" if heading == "" else "right")
    for row in rows:
        found = (cells.get((row, column) if is_deep else (column, row)) for column in columns)
        grid.add_row(_place(row), *(_share(cell, is_wide) for cell in found))
    console.print(grid)
    console.print(f"{selection.count:,} of {selection.size:,} weights ({selection.share:.3%})")


def _place(place: int | str | None) -> str:
    return place if isinstance(place, str) else f"layer {layer_text(place)}"


def _share(cell: tuple[int, int] | None, is_wide: bool) -> str:
    if cell is None:
        return ""
    share = f"{cell[0] / cell[1]:.2%}"
    return share if is_wide else f"{cell[0]:,} ({share})"
