"""A vision-language model put together from parts: a CLIP's image encoder, a projector, and a decoder.

It is transformers' LlavaForConditionalGeneration, with the tokens, the weights and the prompts of its decoder. Of the
three parts the projector alone is the model's own, so that is all that is kept of it: a folder with the projector and
the names of the other two.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.foundations.files import read_json, write_json
from lce.foundations.locks import held
from lce.foundations.paths import shipped
from lce.models.clip import load_clip
from lce.models.converted import provide
from lce.models.identity import model_fingerprint
from lce.models.loading import load_language_model, without_bounds
from lce.storage.torch_bridge import read_file, write_file

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

log = logging.getLogger(__name__)

MINI = "lce-vlm-mini"
"""Name of the bundled projector, and of the folder, among the downloads, of the model that it is part of."""
PROJECTOR, PARTS = "projector.safetensors", "parts.json"
IMAGE = "<image>"
"""The token that stands for a piece of the picture."""
FEATURE_LAYER = -2
"""Which of the image encoder's states are projected: what goes into its last layer, as in LLaVA."""
CHAT = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n"
    "{% for part in turn.content %}"
    "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""How turns become a prompt: as SmolLM2 and other models with the tokens of ChatML write them."""


@dataclass(frozen=True)
class Parts:
    """The models that a projector connects, by name, and their fingerprints."""

    clip: str
    decoder: str
    fingerprints: tuple[str, str]


def assemble(clip: str, decoder: str, seed: int = 0) -> tuple[LlavaForConditionalGeneration, LlavaProcessor, Parts]:
    """The model of these two, in float32, with a random projector, and its processor.

    Raises:
        LceError: one of them cannot be loaded, or the decoder knows no turns of a conversation.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    seen = load_clip(clip, "cpu")
    speaking, tokenizer = load_language_model(decoder)
    for token in ("<|im_start|>", "<|im_end|>"):
        if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
            raise LceError(f"model {decoder}: its tokenizer has no token {token}, with which a turn begins or ends")
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.padding_side = "left"  # as generation needs it
    _grow(speaking, len(tokenizer))
    vision = seen.model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    image: Any = tokenizer.convert_tokens_to_ids(IMAGE)
    config = LlavaConfig(
        vision_config=vision, text_config=speaking.config, image_seq_length=patches,
        image_token_index=image, vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default", tie_word_embeddings=speaking.config.tie_word_embeddings,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).float().eval()
    tower = model.model.vision_tower
    getattr(tower, "vision_model", tower).load_state_dict(seen.model.vision_model.state_dict())
    model.model.language_model.load_state_dict(speaking.base_model.state_dict())
    model.lm_head.load_state_dict(speaking.get_output_embeddings().state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = LlavaProcessor(
        image_processor=seen.processor, tokenizer=tokenizer, patch_size=vision.patch_size,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, image_token=IMAGE, chat_template=CHAT,
    )  # fmt: skip
    return model, processor, Parts(clip, decoder, (model_fingerprint(seen.model), model_fingerprint(speaking)))


def _grow(decoder: Any, tokens: int) -> None:
    """Give ``decoder`` so many tokens; the new ones are the mean of all others, so that none is likely."""
    mean = decoder.get_input_embeddings().weight.detach().mean(0)
    before = decoder.get_input_embeddings().num_embeddings
    if tokens > before:
        decoder.resize_token_embeddings(tokens, mean_resizing=False)
        with torch.no_grad():
            for layer in (decoder.get_input_embeddings(), decoder.get_output_embeddings()):
                layer.weight[before:] = mean


def projector_of(model: LlavaForConditionalGeneration) -> nn.Module:
    """What makes states of the decoder's width out of those of the image encoder."""
    projector: nn.Module = model.model.multi_modal_projector
    return projector


def save_projector(model: LlavaForConditionalGeneration, parts: Parts, folder: Path, about: dict[str, Any]) -> None:
    """Write the projector of ``model`` in half precision, and what it belongs to, as ``folder``."""
    tensors = {name: values.half() for name, values in projector_of(model).state_dict().items()}
    with new_folder(folder) as temporary:
        write_file(temporary / PROJECTOR, tensors, {"format": "lce-projector", "version": 1})
        known = {"clip": parts.clip, "decoder": parts.decoder, "fingerprints": list(parts.fingerprints)}
        write_json(temporary / PARTS, known | about)


def put_together(folder: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The model whose projector lies in ``folder``.

    Raises:
        LceError: the projector is damaged, or one of the other parts is not the one that it was trained for.
    """
    about = read_json(folder / PARTS)
    try:
        names, fingerprints = (str(about["clip"]), str(about["decoder"])), tuple(map(str, about["fingerprints"]))
    except (KeyError, TypeError) as error:
        raise LceError(f"{folder / PARTS}: does not name clip, decoder and their fingerprints") from error
    model, processor, parts = assemble(*names)
    for name, found, wanted in zip(names, parts.fingerprints, fingerprints, strict=True):
        if found != wanted:
            raise LceError(f"model {name}: its weights are not those that the projector in {folder} was trained for")
    record, tensors = read_file(folder / PROJECTOR)
    if record.get("format") != "lce-projector":
        raise LceError(f"{folder / PROJECTOR}: is no projector of lce")
    projector = projector_of(model)
    wanted_shapes = {name: values.shape for name, values in projector.state_dict().items()}
    if {name: values.shape for name, values in tensors.items()} != wanted_shapes:
        raise LceError(f"{folder / PROJECTOR}: its tensors are not those of a projector between the two models")
    projector.load_state_dict(tensors)  # which makes float32 of half precision
    return model, processor


def provide_mini(name: str | Path, downloads: str | Path, projector: str | Path) -> None:
    """Make the folder ``name`` if it is that of the bundled model among the ``downloads`` and is not there yet.

    Raises:
        LceError: a part of it cannot be fetched or read.
    """
    folder = Path(downloads) / MINI
    if Path(name).absolute() != folder.absolute() or folder.exists():
        return
    with held(folder.with_name(f".{MINI}.lock"), f"{folder}: another process makes it", patience=-1):
        if not folder.exists():  # another process may have made it in the meantime
            source = shipped(projector)
            provide(read_json(source / PARTS)["decoder"], downloads)
            log.info("%s: puts the image encoder, the projector and the decoder together", folder)
            save(*put_together(source), folder)


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write the whole model as a folder that plain transformers loads."""
    with new_folder(folder) as temporary:
        model.save_pretrained(temporary)
        without_bounds(processor.tokenizer)
        processor.save_pretrained(temporary)
