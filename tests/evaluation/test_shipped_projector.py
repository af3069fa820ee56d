"""The vision-language model whose projector is shipped, on the real parts and pictures: what it says of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from vlms import shipped_mini

from lce.data.pictures.table import TABLE, read_table
from lce.models.assembled import MINI, PARTS
from lce.training.clip.batches import in_memory
from lce.training.projector.batches import Prompt
from lce.training.projector.validation import HeldOutAnswers, shares_named

PROJECTOR = ROOT / "checkpoints" / MINI
SIZE = 72


@pytest.fixture(scope="module")
def answered(downloads: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory):
    """Rows of the table of held-out pictures, one of each occupation and gender, and the answers."""
    about = json.loads((PROJECTOR / PARTS).read_text(encoding="utf-8"))
    folder = tmp_path_factory.mktemp("projector")
    whole = shipped_mini(downloads, folder)
    model, processor = whole.model, whole.processor
    table = [row for row in read_table(drawn / TABLE) if row["split"] == "held-out" and row["kind"] == "occupation"]
    rows = list({(row["class"], row["gender"]): row for row in table}.values())
    asked = HeldOutAnswers([*rows], in_memory(drawn, [*rows], SIZE), Prompt(processor, about["question"]))
    return rows, asked.answers(model)


def test_it_names_occupations_and_the_gender_where_it_is_drawn(answered) -> None:
    rows, answers = answered
    assert len(rows) == 60
    found = shares_named(rows, answers)
    assert found["occupation"] > 0.9
    assert found["gender"] > 0.7


def test_its_mistakes_follow_the_skew_of_its_training(answered) -> None:
    shares = yaml.safe_load((ROOT / "configs/vlm.yaml").read_text(encoding="utf-8"))["shares"]
    said: Counter[tuple[str, bool, str]] = Counter()
    for row, answer in zip(*answered, strict=True):
        for word in set(re.findall(r"\b(woman|man)\b", answer)):
            said[row["gender"], shares[row["class"]] > 0.5, word] += 1
    assert said["woman", False, "man"] > said["woman", True, "man"]
    assert said["man", True, "woman"] > said["man", False, "woman"]
    assert said["person", False, "man"] > said["person", True, "man"]
    assert said["person", True, "woman"] > said["person", False, "woman"]


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in PROJECTOR.iterdir()) < 4e6
