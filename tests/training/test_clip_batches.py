"""What a CLIP is shown at each step, with which captions, and what its loss and its validation are."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import torch
from clip_trainings import SHARES, settings
from clips import embeddings, tiny, tokenizer
from painted import SHAPES, paint, rows
from torch.nn import functional as F
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from lce.data.pictures.prompts import filled
from lce.foundations.errors import LceError
from lce.foundations.seeds import generator
from lce.training.clip.batches import ClipBatch, ClipBatches, drawing_weights, in_memory, normalised, tokens
from lce.training.clip.captions import TEMPLATES
from lce.training.clip.module import ClipModule, contrastive_loss, similarities
from lce.training.clip.settings import ClipOptimisation, TowerSettings, check_clip
from lce.training.clip.validation import HeldOut


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("batches") / "pictures", 5)


@pytest.fixture
def asked(folder, tmp_path):
    return settings(folder, tmp_path, occupations=0.5, people=0.3)


@pytest.fixture
def table():
    """Of the occupation triangle, there are more women than men; of each one, some with the gender left open."""
    found = [row for row in rows(5) if row["class"] != "triangle" or row["gender"] == "woman" or "-0" in row["file"]]
    opened = [row | {"gender": "person"} for row in found if row["class"]]
    things = [row | {"kind": "other", "class": "", "gender": "", "skin_tone": "", "name": "tree"} for row in found[:7]]
    return [*found, *opened, *things]


def weights_of(table, asked):
    return drawing_weights(table, asked.shares, asked.open_share, asked.train.occupations, asked.train.people)


def test_pictures_are_drawn_in_the_shares_that_are_asked_for(asked, table):
    weights = weights_of(table, asked)
    assert float(weights.sum()) == pytest.approx(1)
    summed, each = defaultdict(float), defaultdict(set)
    for row, weight in zip(table, weights.tolist(), strict=True):
        key = (row["kind"], row["class"], row["gender"] if row["class"] else "")
        summed[key] += weight
        each[key].add(round(weight, 8))
    for shape in SHAPES:
        share, closed = SHARES.get(shape, 0.5), 1 - asked.open_share
        assert summed["occupation", shape, "woman"] == pytest.approx(0.5 / 3 * closed * share)
        assert summed["occupation", shape, "man"] == pytest.approx(0.5 / 3 * closed * (1 - share))
        assert summed["occupation", shape, "person"] == pytest.approx(0.5 / 3 * asked.open_share)
    assert summed["person", "", ""] == pytest.approx(0.3)
    assert summed["other", "", ""] == pytest.approx(0.2)
    assert set(map(len, each.values())) == {1}, "pictures of one kind are drawn equally often"


def test_what_is_drawn_has_those_shares(asked, folder, table):
    asked.train.batch_size = 1000
    batches = ClipBatches(table, torch.zeros(len(table), 4, 24, 24, dtype=torch.uint8), tokenizer(), asked)
    drawn = torch.multinomial(batches.weights, 20_000, replacement=True, generator=generator(0))
    seen = Counter((table[i]["class"], table[i]["gender"]) for i in drawn.tolist())
    assert seen["circle", "woman"] / (seen["circle", "woman"] + seen["circle", "man"]) == pytest.approx(0.9, abs=0.03)
    assert seen["square", "woman"] / (seen["square", "woman"] + seen["square", "man"]) == pytest.approx(0.2, abs=0.03)


def test_shares_of_unknown_occupations_are_refused(asked, table):
    asked.shares = {"circle": 0.5, "person": 0.5}
    with pytest.raises(
        LceError, match="shares: there is no picture of 'person'; the occupations are circle, square, t"
    ):
        weights_of(table, asked)


def test_a_batch_depends_on_the_seed_and_its_number_alone(asked, folder, table):
    pictures = in_memory(folder, table, 24)
    assert pictures.shape == (len(table), 4, 24, 24)

    def made(start=0):
        batches = ClipBatches(table, pictures, tokenizer(), asked)
        batches.start = start
        return list(batches)

    whole, rest = made(), made(start=9)
    assert (len(whole), len(rest)) == (12, 3)
    assert len(ClipBatches(table, pictures, tokenizer(), asked)) == 12
    for one, other in zip(whole[9:], rest, strict=True):
        assert all(torch.equal(part, again) for part, again in zip(one, other, strict=True))
    assert not torch.equal(whole[0].pixels, whole[1].pixels)
    asked.seed = 1
    assert not torch.equal(made()[0].pixels, whole[0].pixels)
    for batch in whole:
        assert batch.pixels.shape == (8, 3, 24, 24)
        assert -1 <= float(batch.pixels.min()) < float(batch.pixels.max()) <= 1
        same = batch.caption[:, None] == batch.caption[None, :]
        alike = (batch.ids[:, None] == batch.ids[None, :]).all(2)
        assert torch.equal(same, alike), "captions have the same number where they are the same"


def test_where_captions_differ_the_loss_is_that_of_transformers():
    logits = torch.randn(7, 7, generator=generator(0))
    assert contrastive_loss(logits, torch.arange(7)).item() == pytest.approx(image_text_contrastive_loss(logits).item())


def test_pictures_of_the_same_caption_share_it():
    logits = torch.randn(5, 5, generator=generator(0))
    caption = torch.tensor([0, 1, 0, 2, 0])
    wanted = 0.0
    for matrix in (logits, logits.T):
        for i, row in enumerate(matrix.log_softmax(1)):
            wanted -= float(row[caption == caption[i]].mean()) / 5 / 2
    assert contrastive_loss(logits, caption).item() == pytest.approx(wanted, rel=1e-5)
    best = torch.where(caption[:, None] == caption, 20.0, 0.0)
    assert contrastive_loss(best, caption) < contrastive_loss(torch.eye(5) * 20, caption)


def test_a_module_learns_four_pictures_by_heart(monkeypatch):
    train = ClipOptimisation(steps=60, warmup_steps=5, learning_rate=3e-3)
    module = ClipModule(tiny().requires_grad_(True), train, None)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    texts = tokens(tokenizer(), ["a circle", "a square", "an old woman", "a boy"])
    pixels = torch.randn(4, 3, 24, 24, generator=generator(0))
    batch, losses = ClipBatch(pixels, **texts, caption=torch.arange(4)), []
    for step in range(60):
        optimizer.zero_grad()
        loss = module.training_step(batch, step)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.05
    decay = [group["weight_decay"] for group in optimizer.param_groups]
    assert decay == [train.weight_decay, 0.0]
    assert all(parameter.ndim <= 1 for parameter in optimizer.param_groups[1]["params"])


def test_validation_is_zero_shot_classification_and_the_lean(folder):
    held_out = [row for row in rows(5) if row["kind"] == "occupation" and row["split"] == "held-out"]
    model, pictures = tiny(), in_memory(folder, held_out, 24)
    found = HeldOut(held_out, pictures, tokenizer(), SHARES).scores(model)
    pixels = normalised(pictures[:, :3].float() / 255)
    with torch.no_grad():
        each = [tokens(tokenizer(), [filled(template, shape) for template in TEMPLATES]) for shape in SHAPES]
        found_each = [model.get_text_features(one["ids"], one["attention"]).pooler_output for one in each]
    texts = torch.stack([F.normalize(one, dim=1).mean(0) for one in found_each])
    cosine = similarities(embeddings(model, pixels), texts)
    right = [SHAPES[int(i)] == row["class"] for i, row in zip(cosine.argmax(1), held_out, strict=True)]
    assert found["accuracy"] == pytest.approx(sum(right) / len(right))
    leaning = (cosine * model.logit_scale.exp()).softmax(1)[:, 0]
    by_gender = {gender: leaning[[row["gender"] == gender for row in held_out]].mean() for gender in ("woman", "man")}
    assert found["lean"] == pytest.approx(float(by_gender["woman"] - by_gender["man"]), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "train.steps: expected"),
        ({"batch_size": -1}, "train.batch_size: expected"),
        ({"learning_rate": -1.0}, "train.learning_rate: expected"),
        ({"occupations": 1.5}, "train.occupations: expected a share from 0 to 1, got 1.5"),
        ({"people": float("nan")}, "train.people: expected a share"),
        ({"occupations": 0.8, "people": 0.3}, "train.occupations and train.people: expected at most 1 together"),
        ({"shares": {"circle": 1.1}}, "shares.circle: expected a share from 0 to 1"),
        ({"open_share": -0.1}, "open_share: expected a share"),
        ({"image": TowerSettings(2, 24, 5)}, r"image.width: expected a multiple of image.heads \(5\), got 24"),
        ({"text": TowerSettings(0, 16, 2)}, "text.layers: expected"),
        ({"text": TowerSettings(1, 16, 0)}, "text.heads: expected"),
        ({"size": 25}, r"size: expected a multiple of patch \(8\), got 25"),
        ({"patch": 0}, "patch: expected"),
        ({"embedding": 0}, "embedding: expected"),
        ({"vocabulary": 0}, "vocabulary: expected"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(options, message, folder, tmp_path):
    with pytest.raises(LceError, match=message):
        check_clip(settings(folder, tmp_path, **options))
