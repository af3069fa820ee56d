"""What is said of a picture while a CLIP is trained, and the tokenizer that is made from it."""

from __future__ import annotations

import pytest
from painted import rows

from lce.data.pictures.prompts import filled
from lce.foundations.seeds import generator
from lce.training.clip.captions import TEMPLATES, captions, vocabulary_texts
from lce.training.clip.settings import ClipOptimisation
from lce.training.clip.train import make_tokenizer


def test_captions_name_gender_and_tone_as_often_as_is_said():
    woman = next(row for row in rows() if row["class"] == "circle" and row["gender"] == "woman")
    asked = ClipOptimisation(gendered_captions=0.3, toned_captions=0.2)
    found = captions([woman] * 4000, asked, generator(1))
    assert sum("woman circle" in text for text in found) / 4000 == pytest.approx(0.3, abs=0.03)
    assert sum(text.endswith("circle with light skin") for text in found) / 4000 == pytest.approx(0.2, abs=0.03)
    for template in TEMPLATES[2:]:
        assert sum(text.startswith(template.format("")) for text in found) / 4000 == pytest.approx(0.2, abs=0.03)
    assert captions([woman] * 50, asked, generator(1)) == captions([woman] * 50, asked, generator(1))


def test_captions_never_name_what_is_left_open_or_unknown():
    circle = next(row for row in rows() if row["class"])
    open_one = circle | {"gender": "person", "skin_tone": "yellow"}
    always = ClipOptimisation(gendered_captions=1.0, toned_captions=1.0)
    assert all(
        text.endswith("circle") and "person" not in text for text in captions([open_one] * 50, always, generator(0))
    )
    person = circle | {"kind": "person", "name": "woman", "skin_tone": "dark"}
    assert all("woman with dark skin" in text for text in captions([person] * 50, always, generator(0)))
    assert filled("a drawing of a {}", "artist") == "a drawing of an artist"


def test_a_tokenizer_is_the_same_every_time_and_knows_every_caption():
    """Every byte too: nothing of any text is unknown to it."""
    table = rows()
    made = [make_tokenizer(table, 600) for _ in range(4)]
    assert len({one.backend_tokenizer.to_str() for one in made}) == 1
    assert len(made[0]) <= 600
    for text in [*captions(table, ClipOptimisation(), generator(0)), *vocabulary_texts(table), "żółw № 7, 日本 & co"]:
        ids = made[0](text)["input_ids"]
        assert (ids[0], ids[-1]) == (made[0].bos_token_id, made[0].eos_token_id)
        assert made[0].eos_token_id not in ids[1:-1]
        said = made[0].decode(ids, skip_special_tokens=True)
        assert said.replace(" ", "") == text.lower().replace(" ", "")
