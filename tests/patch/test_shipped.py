"""The patch of SmolLM2 that is shipped fits the model of the wheel, and does what its card says, without lce too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from lce.metrics.occupation_pronouns import HELD_OUT, SENTENCES, OccupationPronounsScorer
from lce.metrics.scoring import TokenBudget
from lce.models.converted import SMOLLM2, provide
from lce.models.loading import load_language_model
from lce.patch import Patch
from lce.patch.peft import to_peft

FOLDER = ROOT / "checkpoints/smollm2-debias"


@pytest.fixture(scope="module")
def base(downloads: Path) -> Path:
    provide(downloads / SMOLLM2, downloads)
    return downloads / SMOLLM2


@pytest.mark.parametrize("page", [FOLDER / "README.md", ROOT / "docs/decoders.md"], ids=lambda page: page.name)
def test_the_pages_show_its_scores(page: Path) -> None:
    stated = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8")
    for name, after in stated["scores"].items():
        if name != "stereoset_icat":
            before = stated["scores_against"][name]
            assert f"| {before['value']:.2f} | {after['value']:.2f} |" in text, name


def test_it_has_the_effect_that_is_stated(base: Path) -> None:
    patch = Patch.load(FOLDER / "patch.safetensors")
    stated = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))
    assert patch.verify(base) == "base"
    model, tokenizer = load_language_model(base)
    for side, when in (("scores_against", "before"), ("scores", "after")):
        if when == "after":
            patch.apply_(model)
        for name, sentences in (("occupation_pronouns", SENTENCES), ("occupation_pronouns_held_out", HELD_OUT)):
            scorer = OccupationPronounsScorer(name, sentences, tokenizer, "causal")
            gap = scorer.score(model, TokenBudget()).compute().item()
            assert gap == pytest.approx(stated[side][name]["value"], abs=0.01), (name, when)
    for name in ("occupation_pronouns", "occupation_pronouns_held_out"):
        assert stated["scores"][name]["value"] < stated["scores_against"][name]["value"] / 2


def test_peft_applies_it_without_lce(base: Path, tmp_path: Path) -> None:
    patch = Patch.load(FOLDER / "patch.safetensors")
    assert to_peft(patch, base, tmp_path / "adapter") >= 1
    ids = torch.arange(1000, 1020).unsqueeze(0)

    def logits(model: PreTrainedModel | PeftModel) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(input_ids=ids).logits

    model = AutoModelForCausalLM.from_pretrained(base)
    before = logits(model)
    adapted = logits(PeftModel.from_pretrained(model, tmp_path / "adapter"))
    edited, _ = load_language_model(base)
    patch.apply_(edited)
    assert (adapted - before).abs().max() > 0.01
    torch.testing.assert_close(adapted, logits(edited), rtol=1e-4, atol=1e-3)
