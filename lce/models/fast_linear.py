"""Matrix products in float32 on a processor: through oneDNN, where PyTorch by itself takes MKL.

Both compute the same products with the same precision. MKL leaves AVX-512 unused on AMD processors, and there
oneDNN takes about half the time (`make bench` measures it); on Intel processors the two are alike, and where there is
no AVX-512, MKL is the faster one. The choice depends on the machine alone, never on a measurement, so that the same
command gives the same numbers.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@cache
def has_onednn() -> bool:
    """Whether this build of PyTorch brings oneDNN's linear operator, for a processor on which it is the faster one."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class OneDnnLinear(TorchFunctionMode):
    """While active, every linear map of float32 tensors on the processor goes through oneDNN, gradients too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.compiler.is_compiling() and func is torch.nn.functional.linear and _applies(*args, **kwargs):
            return _linear(*args, **kwargs)
        return func(*args, **kwargs)


def _applies(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return (
        has_onednn()
        and input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
        and input.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    return _Linear.apply(input, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradients[0].reshape(-1, weight.shape[0])
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(rows, weight.t()).view(x.shape) if needs_x else None,
            _product(rows.t(), x.reshape(-1, x.shape[-1]).t()) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )
