"""The states that an autoencoder is trained on: all but those of first tokens, in an order that any step can resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from causal_models import tiny

from lce.data.encoding import EncodedTexts
from lce.foundations.errors import LceError
from lce.models.sites import SINK, find_site
from lce.training.autoencoder.module import centre_and_scale
from lce.training.autoencoder.states import States

LENGTHS = [2 + 3 * i % 17 for i in range(40)] + [1]
COUNT = sum(LENGTHS) - len(LENGTHS)


def texts(lengths: list[int]) -> EncodedTexts:
    """Random tokens, no two alike within a text."""
    random = torch.Generator().manual_seed(0)
    ids = torch.cat([torch.randperm(300, generator=random)[:length] + 5 for length in lengths])
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return EncodedTexts(ids.int(), torch.zeros(len(ids), dtype=torch.bool), offsets, torch.tensor(lengths))


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("llama").requires_grad_(False)


def states(model: Any, folder: Path, lengths: list[int] | None = None, **options: Any) -> States:
    asked: dict[str, Any] = {"batch_size": 16, "seed": 0, "steps": 60, "tokens": None, "chunk": 64, "memory": 1e9}
    site, encoded = find_site(model, "layers.0"), texts(lengths or LENGTHS)
    return States(model, site, encoded, pad_id=1, width=16, folder=folder / "states", **(asked | options))


def literal(model: Any) -> torch.Tensor:
    """The states of all tokens but the first of each text, each text read alone."""
    encoded, found = texts(LENGTHS), []
    for i in range(len(encoded)):
        output = model.model(encoded[i][0][None].long(), output_hidden_states=True)
        found.append(output.hidden_states[1][0, 1:])
    return torch.cat(found)


def in_order(rows: torch.Tensor) -> torch.Tensor:
    return rows[rows[:, 0].argsort()]


def test_each_state_but_those_of_first_tokens_once(model: Any, tmp_path: Path) -> None:
    made = states(model, tmp_path)
    assert made.count == COUNT
    assert len(made.chunks) > 3
    found = torch.cat([made.states(chunk) for chunk in range(len(made.chunks))])
    torch.testing.assert_close(in_order(found), in_order(literal(model)), atol=1e-5, rtol=1e-5)
    batches = list(made)
    assert len(batches) == 60
    assert {batch.shape for batch in batches} == {(16, 16)}
    number = sum(made.batches)
    once = torch.cat(batches[:number])
    assert len(once.unique(dim=0)) == len(once) > 0.8 * COUNT
    again = torch.cat(batches[number : 2 * number])
    assert not torch.equal(again, once), "the second time, in another order"
    assert {tuple(row) for row in again.tolist()} <= {tuple(row) for row in found.tolist()}


def test_batches_depend_on_the_seed_and_the_step_alone(model: Any, tmp_path: Path) -> None:
    whole = list(states(model, tmp_path))
    for start in (7, 31, 59, 60):
        made = states(model, tmp_path)
        made.start = start
        rest = list(made)
        assert len(rest) == 60 - start
        assert all(torch.equal(one, other) for one, other in zip(rest, whole[start:], strict=True))
    longer = list(states(model, tmp_path, steps=90))
    assert all(torch.equal(one, other) for one, other in zip(longer, whole, strict=False))
    assert not torch.equal(next(iter(states(model, tmp_path, seed=1))), whole[0])


def test_on_the_disk_as_in_memory(model: Any, tmp_path: Path) -> None:
    made = states(model, tmp_path, memory=COUNT * 16 * 4 - 1)
    batches = list(made)
    assert not made.kept
    assert len(list((tmp_path / "states").iterdir())) == len(made.chunks)
    in_memory = states(model, tmp_path / "unused", memory=COUNT * 16 * 4)
    assert all(torch.equal(one, other) for one, other in zip(batches, in_memory, strict=True))
    assert not (tmp_path / "unused").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(States, "computed", None)
        assert torch.equal(next(iter(states(model, tmp_path, memory=0))), batches[0]), "they are computed once"
    made.remove()
    assert not list((tmp_path / "states").iterdir())


@pytest.mark.parametrize(("lengths", "chunk"), [([7] * 4, 16), ([60, 60, 2], 16), ([33], 16), ([9] * 12, 17)])
def test_every_cut_gives_whole_batches(lengths: list[int], chunk: int, model: Any, tmp_path: Path) -> None:
    """One and a half batches in all, texts longer than a chunk, and chunks hardly larger than a batch."""
    made = states(model, tmp_path, lengths, chunk=chunk, steps=5)
    assert sorted(i for part in made.chunks for i in part) == list(range(len(lengths)))
    assert sum(made.batches) > 0, "else there is no end"
    assert [batch.shape for batch in made] == [(16, 16)] * 5


def test_as_many_tokens_as_are_wanted(model: Any, tmp_path: Path) -> None:
    made = states(model, tmp_path, tokens=100)
    assert 100 - max(LENGTHS) < made.count <= 100
    for options in ({"tokens": 15}, {"batch_size": COUNT + 1, "chunk": COUNT + 1}):
        with pytest.raises(LceError, match=r"data: the text has fewer states than the \d+ of a step; give more of it"):
            states(model, tmp_path, **options)


def test_states_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = tiny("llama").requires_grad_(False)
    broken.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(LceError, match=r"site layers.0: the model has states there that are not finite numbers"):
        next(iter(states(broken, tmp_path)))


def test_a_model_in_training_is_read_without_dropout(tmp_path: Path) -> None:
    gpt2 = tiny("gpt2").requires_grad_(False)
    made = States(gpt2, find_site(gpt2, "layers.0"), texts(LENGTHS), 1, 16, 16, 0, 5, None, 64, 1e9, tmp_path)
    wanted = made.computed([[5, 6, 7]], "")
    gpt2.train()
    assert torch.equal(made.computed([[5, 6, 7]], ""), wanted)
    assert gpt2.training


def test_sinks_count_neither_for_the_centre_nor_for_the_scale() -> None:
    usual = torch.randn(500, 8, generator=torch.Generator().manual_seed(0)) + 2
    with_sinks = torch.cat([usual, torch.full((3, 8), 100 * SINK)])
    centre, scale = centre_and_scale(with_sinks)
    torch.testing.assert_close(centre, usual.mean(0))
    assert float(((usual - centre) * scale).norm(dim=1).mean()) == pytest.approx(8**0.5, rel=1e-5)
