from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn.functional import linear

from lce.models import fast_linear
from lce.models.fast_linear import OneDnnLinear


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN wherever it can be had, even where MKL is the faster one."""
    can = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    monkeypatch.setattr(fast_linear, "has_onednn", lambda: can and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (0, 5)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients_are_those_of_pytorch(shape: tuple[int, ...], has_bias: bool) -> None:
    random = torch.Generator().manual_seed(0)
    made = [torch.randn(size, generator=random) for size in ((*shape, 48), (33, 48), (33,))]
    upstream = torch.randn(*shape, 33, generator=random)
    results = []
    for mode in (nullcontext, OneDnnLinear):
        x, weight, bias = (tensor.clone().requires_grad_() for tensor in made)
        arguments = (x, weight, bias) if has_bias else (x, weight)
        with mode():
            out = linear(*arguments)
        out.backward(upstream)
        results.append([out.detach(), *(tensor.grad for tensor in arguments)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_frozen_weights_get_no_gradient() -> None:
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(3, 8)
    with OneDnnLinear():
        linear(x, weight).sum().backward()
    assert weight.grad is None
    torch.testing.assert_close(x.grad, weight.sum(0).expand(4, 8))


def test_other_types_are_left_to_pytorch() -> None:
    x, weight = torch.randn(4, 8), torch.randn(3, 8)
    with OneDnnLinear():
        assert torch.equal(linear(x.double(), weight.double()), x.double() @ weight.double().T)
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16


def test_arguments_by_name() -> None:
    x, weight = torch.randn(4, 8), torch.randn(3, 8)
    with OneDnnLinear():
        torch.testing.assert_close(linear(input=x, weight=weight, bias=None), x @ weight.T)


def test_it_is_in_use_where_it_can_be() -> None:
    if not fast_linear.has_onednn():
        pytest.skip("this build of PyTorch has no oneDNN, or the processor is not an x86 one")
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(3, 8)
    with OneDnnLinear():
        assert "_Linear" in type(linear(x, weight).grad_fn).__name__
