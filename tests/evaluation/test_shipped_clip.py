"""The CLIP that is shipped, on the real pictures: what it sees, its bias, and the heads that carry gender."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from torch.nn import functional as F

from lce.data.pictures.views import view
from lce.evaluation.audit_inputs import open_audit
from lce.evaluation.head_audit import HeadAudit, HeadTrial
from lce.localize.head_settings import HeadSettings
from lce.metrics.group_association import CORRECTED_V, LEAN
from lce.models.image_states import ImageStates

CLIP = ROOT / "checkpoints/lce-clip-mini"


@pytest.fixture(scope="module")
def audit(drawn: Path) -> HeadAudit:
    """That of `make audit`."""
    values = yaml.safe_load((ROOT / "configs/audit.yaml").read_text(encoding="utf-8"))
    return open_audit(HeadSettings(**(values | {"model": str(CLIP), "pictures": str(drawn), "device": "cpu"})))


def test_it_is_small_and_plain_transformers_reads_it_alike(audit: HeadAudit) -> None:
    from transformers import AutoProcessor, CLIPModel

    assert sum(path.stat().st_size for path in CLIP.iterdir()) < 15e6
    model, processor = CLIPModel.from_pretrained(CLIP, dtype=torch.float32).eval(), AutoProcessor.from_pretrained(CLIP)
    texts = ["a woman", "a drawing of a firefighter"]
    images = [view(picture, 0, 0) for picture in audit.pictures.pictures[:4]]
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(**inputs)
        states = ImageStates.of(audit.clip.tower, audit.clip.pixels(images))
    assert torch.allclose(states.embedding(), F.normalize(found.image_embeds, dim=1), atol=1e-5)
    assert torch.allclose(audit.clip.text_embeddings(texts), F.normalize(found.text_embeds, dim=1), atol=1e-5)


@torch.inference_mode()
def test_the_terms_sum_to_the_embedding(audit: HeadAudit) -> None:
    images = [view(picture, number, 0) for picture in audit.pictures.pictures[::60] for number in (0, 1)]
    states = ImageStates.of(audit.clip.tower, audit.clip.pixels(images))
    assert torch.allclose(audit.statistics.reading.terms(states).total(), states.embedding(), atol=1e-5)


def test_it_tells_occupations_apart_and_leans_as_it_was_trained_to(audit: HeadAudit) -> None:
    plain = np.array([one.view == 0 for one in audit.batches.views])
    assert audit.unedited_among(plain).values()["accuracy"] > 0.95
    values, null = audit.unedited.values(), audit.unedited.null()
    for name in (LEAN, CORRECTED_V):
        assert values[name] > np.nanpercentile(null[name], 99), name


def test_the_head_that_writes_most_of_gender_is_described_by_it_and_edits_lower_the_lean(audit: HeadAudit) -> None:
    first = max(audit.localizer.reports, key=lambda report: report.score)
    assert first.rank == 1
    selection = audit.localizer.selection()
    assert (first.layer, first.head) in audit.units.heads_of(selection)
    before = audit.unedited.values()
    for outcome in audit.measured([HeadTrial("chosen", selection, name) for name in ("mean", "projection")]):
        after = audit.association(outcome).values()
        assert after[LEAN] < before[LEAN]
        assert after["accuracy"] > before["accuracy"] - 0.02
