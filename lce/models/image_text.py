"""Models that read pictures and write text: opening one, its prompts, and its states at every layer.

Which positions of a prompt are visual tokens, those of pieces of the picture, is told from the token that the
configuration names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isqrt
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lce.foundations.errors import LceError
from lce.models.fast_linear import OneDnnLinear
from lce.models.kinds import own_classes, read_config, refusing
from lce.models.loading import load_weights
from lce.models.places import image_token
from lce.models.sites import Site

Grid = tuple[int, int]
"""Rows and columns."""
See = Callable[[int, Tensor], None]
"""Is given a layer's number and the states that it puts out, (batch, positions, width)."""


@dataclass(frozen=True)
class ImageText:
    """A model of pictures and text with what prepares both for it."""

    name: str
    folder: Path
    model: Any
    processor: Any

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def image_token(self) -> int:
        """The token that stands for a piece of a picture."""
        found = image_token(self.model)
        if found is None:
            raise LceError(f"model {self.name}: its configuration does not say which token stands for a picture")
        return found

    @cached_property
    def decoder(self) -> nn.Module:
        """What reads the states of both pictures and text."""
        found: nn.Module = self.model.get_decoder()
        return found

    @cached_property
    def layers(self) -> list[nn.Module]:
        """The decoder's layers."""
        count = self.model.config.get_text_config().num_hidden_layers
        for module in self.decoder.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return list(module)
        raise LceError(f"model {self.name}: {type(self.decoder).__name__} has no list of {count} layers")

    def site(self, layer: int) -> Site:
        """What a layer, counted from 0, puts out."""
        paths = {module: path for path, module in self.model.base_model.named_modules()}
        return Site(paths[self.layers[layer]])

    def prompt(self, question: str, start: str = "") -> str:
        """The question about one picture as the model's processor writes it, with the start of an answer."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        if not getattr(self.processor, "chat_template", None):
            return f"USER: {self.processor.image_token}\n{question} ASSISTANT:{start}"
        turns = [{"role": "user", "content": content}]
        return f"{self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)}{start}"

    def inputs(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the model reads of RGB ``pictures``, each with a prompt; shorter prompts are padded on the left."""
        self.processor.tokenizer.padding_side = "left"
        nested = [[picture] for picture in pictures]
        with refusing(f"model {self.name}: its processor"):
            found = self.processor(images=nested, text=list(prompts), padding=True, return_tensors="pt")
        return {name: values.to(self.device) for name, values in found.items()}

    def is_visual(self, input_ids: Tensor) -> Tensor:
        """Which tokens are those of a picture."""
        return input_ids == self.image_token

    def grids(self, inputs: dict[str, Tensor]) -> list[Grid | None]:
        """How the visual tokens of each picture lie in it, row by row; where the first of them are those of all of it,
        and parts of it follow, as of LLaVA-1.6, these first ones. None where that cannot be told.
        """
        counts = self.is_visual(inputs["input_ids"]).sum(1).tolist()
        vision, pixels = self.model.config.vision_config, inputs.get("pixel_values")
        if "image_grid_thw" in inputs:
            merged = getattr(vision, "spatial_merge_size", 1)
            found = [(rows // merged, columns // merged) for _, rows, columns in inputs["image_grid_thw"].tolist()]
        elif hasattr(self.model.config, "image_grid_pinpoints"):
            side = vision.image_size // vision.patch_size
            return [(side, side) if side * side <= count else None for count in counts]
        else:
            views = None if pixels is None else pixels.shape[1] if pixels.ndim == 5 else len(pixels) / len(counts)
            found = [(isqrt(count), isqrt(count)) if views == 1 else (0, 0) for count in counts]
        return [grid if grid[0] * grid[1] == count else None for grid, count in zip(found, counts, strict=True)]

    @torch.inference_mode()
    def read(self, inputs: dict[str, Tensor], see: See, layers: Sequence[int] | None = None) -> Tensor:
        """Let ``see`` look at what the ``layers``, by default all, put out; return the last states, (B, L, width)."""
        with seen(self.layers, see, layers), OneDnnLinear():
            states: Tensor = self.model.base_model(**inputs, use_cache=False)[0]
        return states

    @torch.inference_mode()
    def read_texts(self, texts: Sequence[str], see: See, layers: Sequence[int] | None = None) -> dict[str, Tensor]:
        """The same of ``texts`` without pictures; returns what was read, with the characters of each token."""
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "right"
        tokens = tokenizer(list(texts), padding=True, return_tensors="pt", return_offsets_mapping=True)
        offsets = tokens.pop("offset_mapping")
        inputs = {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")}
        with seen(self.layers, see, layers), OneDnnLinear():
            self.decoder(**inputs, use_cache=False)
        return {**inputs, "offsets": offsets}


@dataclass(frozen=True)
class Prompted:
    """What a model reads of pictures with one prompt, batch by batch; made anew each time, so that one is in memory."""

    model: ImageText
    pictures: Sequence[Callable[[], Image.Image]]
    prompt: str
    batch_size: int

    def __len__(self) -> int:
        return ceil(len(self.pictures) / self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(self.pictures), self.batch_size):
            shown = [opened() for opened in self.pictures[start : start + self.batch_size]]
            yield self.model.inputs(shown, [self.prompt] * len(shown))


@contextmanager
def seen(modules: Sequence[nn.Module], see: See, chosen: Sequence[int] | None = None) -> Iterator[None]:
    """Within the block, ``see`` is shown what the ``chosen`` ones of the ``modules`` put out."""

    def hook(number: int) -> Callable[..., None]:
        def shown(_: nn.Module, __: Any, output: Any) -> None:
            see(number, output[0] if isinstance(output, tuple | list) else output)

        return shown

    numbers = range(len(modules)) if chosen is None else chosen
    handles = [modules[number].register_forward_hook(hook(number)) for number in numbers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def chosen_device(name: str) -> str:
    """The device of this ``name``; auto is the GPU if there is one."""
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def load_image_text(name: str | Path, device: str = "auto", trust_remote_code: bool = False) -> ImageText:
    """A model of transformers' image-text-to-text classes, from a folder or by its name on the hub.

    Args:
        device: where it computes: cpu, cuda, …; auto takes the GPU if there is one. On a GPU its weights are of the
            type that they are stored in, else float32.

    Raises:
        LceError: nothing of this name can be loaded, or it is no model of pictures and text.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.models.auto import modeling_auto as known

    folder, config = read_config(name, trust_remote_code)
    is_known = config.model_type in known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if not is_known and "AutoModelForImageTextToText" not in own_classes(config):
        raise LceError(f"model {name}: is no model that reads pictures and writes text, such as LLaVA or Qwen2-VL")
    device = chosen_device(device)
    with refusing(f"model {name}", folder, trust_remote_code):
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    dtype: Any = torch.float32 if device == "cpu" else "auto"
    model, missing = load_weights(
        AutoModelForImageTextToText, name, folder, config, dtype=dtype, trust_remote_code=trust_remote_code
    )
    if missing:
        raise LceError(f"model {name}: its checkpoint lacks {', '.join(missing[:3])}")
    model.eval().requires_grad_(False)
    with refusing(f"model {name}: device {device}"):
        model.to(device)
    found = ImageText(str(name), folder, model, processor)
    _ = found.image_token, found.layers  # what is missing is refused here
    return found
