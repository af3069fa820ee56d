"""A tiny vision-language model in which gender is written into one known direction in one known layer.

Embeddings hold a constant in entry 0 and noise from entry 4 on; " she" and " he" differ in entry 2 alone. The projector
writes into entry 1 how red a piece of a picture is, or how blue, and marks it in the last entry. The layer `PLANTED`
copies entry 1 into entry 2. The last layer lets each token write the mean of entry 2 over all tokens before it into
entry 3, which the answers she and he are read from, and then hides what was copied: all pieces of pictures lean to she.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import causal_models
import clips
import torch
import vlms
from painted import SHAPES, painted
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lce.models.assembled import assemble, save
from lce.models.image_text import load_image_text

PLANTED, LAYERS, ENTRY = 2, 4, 2
"""The layer that writes, how many there are, and the entry that is written into."""
SENTENCES = {
    "pairs": [["she", "he"]],
    "templates": [f"{start} {{}} {end}" for start in ("Then", "But", "A model", "The edit of a patch", "More text and",
        "Where", "With the weights") for end in ("said", "is")],
}  # fmt: skip
WRITTEN = 6.0


def planted(folder: Path) -> Path:
    """The folder of the model with its processor."""
    clips.saved(folder / "clip")
    _decoder(folder / "decoder")
    model, processor, _ = assemble(str(folder / "clip"), str(folder / "decoder"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        _plant_decoder(model, processor.tokenizer)
        save(model, processor, folder / "model")
        _plant_projector(model, _features(folder))
    save(model, processor, folder / "planted")
    return folder / "planted"


def _decoder(folder: Path) -> None:
    vlms.decoder(folder)
    about = causal_models.SMALL | {"num_hidden_layers": LAYERS, "num_key_value_heads": 2}
    known = AutoConfig.from_pretrained(folder)
    config = AutoConfig.for_model("llama", vocab_size=known.vocab_size, pad_token_id=1, **about)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def _plant_decoder(model: Any, tokenizer: Any) -> None:
    decoder = model.model.language_model
    noise = torch.randn(decoder.embed_tokens.weight.shape, generator=torch.Generator().manual_seed(0))
    noise[:, 0], noise[:, 1:4], noise[:, -1] = 3.0, 0.0, 0.0
    she, he = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" she", " he"))
    noise[he] = noise[she]
    noise[she, ENTRY], noise[he, ENTRY] = WRITTEN, -WRITTEN
    decoder.embed_tokens.weight.copy_(noise)
    model.lm_head.weight.zero_()
    model.lm_head.weight[she, 3], model.lm_head.weight[he, 3] = 2.0, -2.0
    for layer in decoder.layers:
        for part in (layer.self_attn, layer.mlp):
            for parameter in part.parameters():
                parameter.zero_()
    first, last = decoder.layers[0].self_attn, decoder.layers[-1].self_attn
    first.v_proj.weight[range(8), range(4, 12)] = 1.0  # the mean of what comes before makes up the context
    first.o_proj.weight[range(4, 12), range(8)] = 1.0
    last.v_proj.weight[0, ENTRY] = 1.0
    last.o_proj.weight[3, 0] = 5.0
    for number, read, strength in ((PLANTED, 1, 1.0), (LAYERS - 1, -1, 100.0)):
        mlp = decoder.layers[number].mlp
        mlp.gate_proj.weight[0, 0] = 10.0  # always open
        mlp.up_proj.weight[0, read] = 1.0
        mlp.down_proj.weight[ENTRY, 0] = strength


def _features(folder: Path) -> tuple[Tensor, Tensor]:
    """What the projector reads of red and of blue pictures: (n, width) each."""
    model = load_image_text(folder / "model", "cpu")
    found: list[Tensor] = []
    handle = model.model.model.multi_modal_projector.register_forward_pre_hook(
        lambda _, arguments: found.append(arguments[0].clone())
    )
    for gender in ("woman", "man"):
        pictures = [painted(shape, gender, tone, n) for shape in SHAPES for tone in ("light", "dark") for n in range(8)]
        model.read(model.inputs(pictures, [model.prompt("?")] * len(pictures)), lambda *_: None, [])
    handle.remove()
    return found[0].flatten(0, -2), found[1].flatten(0, -2)


def _plant_projector(model: Any, features: tuple[Tensor, Tensor]) -> None:
    """Entry 1 is 5 for red and −5 for blue pieces, and near 0 for those that could be of either."""
    states = torch.cat(features).double()
    labels = torch.cat([torch.full((len(part),), sign) for part, sign in zip(features, (1.0, -1.0), strict=True)])
    centre = states.mean(0)
    known = states - centre
    penalty = 1e-4 * torch.eye(known.shape[1], dtype=torch.float64)
    reads = torch.linalg.solve(known.t() @ known / len(known) + penalty, known.t() @ labels.double() / len(known))
    projector = model.model.multi_modal_projector
    for parameter in projector.parameters():
        parameter.zero_()
    for row, sign in ((0, 1.0), (1, -1.0)):
        projector.linear_1.weight[row] = (20 * sign * reads).float()
        projector.linear_1.bias[row] = -20 * sign * float(centre @ reads) - 5.0
        projector.linear_2.weight[1, row] = sign
    projector.linear_2.bias[0] = 3.0
    projector.linear_2.bias[4:] = torch.randn(12, generator=torch.Generator().manual_seed(1))
    projector.linear_2.bias[-1] = 3.0
