"""LALS of every visual token in every layer of the small vision-language model, against a loop over tokens, in one run.

The loop is what the definition says: each picture by itself, all hidden states, and for each token of each layer the
cosines with all texts and the k nearest of them. Both take the same pictures, in turns: once with the forward pass, and
once with the states at hand, so that the search alone is compared. Then lce alone reads as many pictures as an audit
does; memory is what the process takes beyond model and texts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import PEER_OWN_RATIO, TURNS, in_turns, machine, peak_memory, report, seconds, spent, timed
from torch import Tensor

from lce.data.pictures.drawn import draw_pictures
from lce.data.pictures.loading import read_picture
from lce.data.pictures.table import TABLE, read_table
from lce.foundations.logs import quieten
from lce.localize.direction_settings import MINI
from lce.localize.head_settings import DRAWN
from lce.localize.lals import TextReference, load_sentences, read_reference
from lce.localize.visual_leaning import Measure, Openers, leaning_of_tokens, read_leaning
from lce.models.assembled import provide_mini
from lce.models.image_text import ImageText, load_image_text

DOWNLOADS, PROJECTOR = "data/downloads", "checkpoints/lce-vlm-mini"
QUESTION, K, TOP, TOGETHER = "What does this picture show?", 20, 0.3, 60
PICTURES, LOOPED = 360, 24


@torch.inference_mode()
def states_of(model: ImageText, opened: Openers, measure: Measure) -> list[Tensor]:
    """The states of all visual tokens of these pictures, (tokens, width) for each layer."""
    inputs = model.inputs([one() for one in opened], [measure.prompt] * len(opened))
    visual = model.is_visual(inputs["input_ids"])
    found = model.model(**inputs, output_hidden_states=True, use_cache=False).hidden_states[1:]
    return [hidden[visual] for hidden in found]


def searched(reference: TextReference, states: list[Tensor]) -> Tensor:
    """LALS of all tokens in all layers, (layers, tokens)."""
    return torch.stack(
        [leaning_of_tokens(reference, reference.labels, layer, some, K) for layer, some in enumerate(states)]
    )


def looped(reference: TextReference, states: list[Tensor]) -> Tensor:
    """The same, token by token."""
    found = torch.zeros(len(states), len(states[0]))
    for layer, several in enumerate(states):
        for token, state in enumerate(several):
            cosines = torch.nn.functional.cosine_similarity(state[None], reference.states[layer], dim=1)
            found[layer, token] = reference.labels[cosines.topk(K).indices].float().mean()
    return found


def compared(mine: Callable[[], Tensor], other: Callable[[], Tensor]) -> list[str]:
    """The cells of a row: those of the turns, and by how much both differ at most."""
    # transformers' states of the last layer are normalised, so that its row is another one
    differ = float((mine()[:-1] - other()[:-1]).abs().max())
    return [*in_turns(spent(mine), spent(other)).cells(), f"{differ:.2f}", ""]


def main() -> None:
    quieten()
    provide_mini(MINI, DOWNLOADS, PROJECTOR)
    folder = draw_pictures(DRAWN, DOWNLOADS)
    rows = [row for row in read_table(folder / TABLE) if row["kind"] == "occupation"][:PICTURES]
    pictures = [partial(read_picture, Path(folder) / row["file"], None) for row in rows]
    model = load_image_text(MINI, "cpu")
    reference = read_reference(model, load_sentences("gender"))
    measure = Measure(model.prompt(QUESTION), K, TOP, TOGETHER)
    none = reference.labels[:0].reshape(0, len(reference.labels))
    before = peak_memory()
    whole, _ = timed(partial(read_leaning, model, reference, pictures, measure, none))
    memory = f"+{(peak_memory() - before) / 1e6:,.0f} MB"
    some = pictures[:: len(pictures) // LOOPED][:LOOPED]
    states = states_of(model, some, measure)

    def read() -> Tensor:
        return torch.cat(read_leaning(model, reference, some, measure, none).maps, 1)

    def one_by_one() -> Tensor:
        return torch.cat([looped(reference, states_of(model, [one], measure)) for one in some], 1)

    found = [
        [f"{LOOPED} pictures, with the forward pass", *compared(read, one_by_one)],
        [f"{LOOPED} pictures, nearest texts and maps alone",
            *compared(partial(searched, reference, states), partial(looped, reference, states))],
    ]  # fmt: skip
    found.append([f"{len(pictures)} pictures", "", seconds(whole), "", "", memory])
    print(machine(torch.device("cpu")))
    tokens = len(states[0]) // LOOPED
    title = (
        f"LALS: {len(states)} layers, {tokens} visual tokens a picture, {len(reference.labels)} texts, {TURNS} turns"
    )
    report(title, ["", *PEER_OWN_RATIO, "differ by at most", "memory"], found)


if __name__ == "__main__":
    main()
