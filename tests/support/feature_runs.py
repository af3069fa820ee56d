"""`lce localize features` and `lce edit features` on the planted model, with settings that make them quick."""

from __future__ import annotations

from pathlib import Path

import planted
import yaml

from lce.cli import main

TEXT = """The nurse said that he met the plumber.
We met the engineer before she told me the news.
Yesterday the pilot told me that he liked the job.
Everyone heard the secretary.
"""


def configured(folder: Path) -> Path:
    """The planted model in ``model`` and its autoencoder in ``sae``, a text, and settings in ``config.yaml``."""
    model, sae = planted.saved(folder)
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    settings = {
        "model": str(model),
        "sae": str(sae),
        "scale": [0.0, 0.5],
        "random_baselines": 2,
        "snippets": 0,
        "experiment": str(folder / "run"),
        "evaluation": {
            "metrics": ["occupation_pronouns", "forced_choice", "perplexity"],
            "text": str(folder / "text.txt"),
        },
        "trainer": {"accelerator": "cpu"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def features(folder: Path, command: str, *options: object) -> int:
    """The status of the command with the settings of the ``folder``."""
    return main([command, "features", "--config", str(folder / "config.yaml"), *map(str, options)])
