"""A model's fingerprint is that of the weights that it has now, however they were written."""

from __future__ import annotations

import causal_models
import pytest
import torch

from lce.models.identity import model_fingerprint


def fused_step(parameter):
    parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW([parameter], lr=0.1, fused=True).step()


def by_data(parameter):
    parameter.data.mul_(2)


def counted(parameter):
    with torch.no_grad():
        parameter[0] += 1


@pytest.mark.parametrize("write", [fused_step, by_data, counted])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_write_is_seen(write, dtype):
    model = causal_models.tiny("llama").to(dtype)
    parameter = next(p for name, p in model.named_parameters() if "down_proj" in name)
    old, before = model_fingerprint(model), parameter.detach().clone()
    assert model_fingerprint(model) == old
    write(parameter)
    assert model_fingerprint(model) != old
    parameter.data.copy_(before)
    assert model_fingerprint(model) == old
