"""The sparse patch: a few weights in a safetensors file, applied to one's own copy of the model."""

from lce.patch.format import Patch

__all__ = ["Patch"]
