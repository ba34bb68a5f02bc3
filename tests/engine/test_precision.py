"""The types that a run computes in: what auto means, and what contradicts itself."""

import copy

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from mimdet.engine.precision import (
    amp_dtype,
    check_compression,
    check_types,
    evaluation_context,
    set_float32_precision,
    settle_amp,
)


@pytest.fixture
def card(monkeypatch):
    """Say whether the card of this machine, which need have none, computes in bfloat16."""

    def has_bfloat16(has_it: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_it)

    return has_bfloat16


def config(device: str, **ddp: bool):
    amp = dict(enabled=True, dtype="auto")
    return OmegaConf.create(dict(train=dict(device=device, amp=amp, ddp=ddp)))


def test_auto_is_bfloat16_where_the_device_computes_in_it(card):
    for has_it, expected in ((True, torch.bfloat16), (False, torch.float16)):
        card(has_it)
        assert amp_dtype("auto", "cuda:1") == expected
    assert amp_dtype("auto", "cpu") == torch.bfloat16
    assert amp_dtype("float16", "cuda") == torch.float16  # what is asked for stays


@pytest.mark.parametrize("has_it, dtype", [(True, "bfloat16"), (False, "float16")])
def test_with_auto_a_recipe_of_float16_compresses_in_the_type_of_the_card(card, has_it, dtype):
    card(has_it)
    cfg = config("cuda", fp16_compression=True, bf16_compression=False)
    check_compression(cfg.train)
    assert settle_amp(cfg) == [f"train.amp.dtype=auto is {dtype} on cuda"]
    assert cfg.train.amp.dtype == dtype
    assert cfg.train.ddp == {"fp16_compression": not has_it, "bf16_compression": has_it}
    check_compression(cfg.train)


def test_a_run_without_compression_or_without_auto_stays_so(card):
    card(True)
    cfg = config("cuda", fp16_compression=False)
    settle_amp(cfg)
    assert cfg.train.ddp == {"fp16_compression": False}
    released = config("cuda", fp16_compression=True)
    released.train.amp.dtype = "float16"
    before = copy.deepcopy(released)
    assert settle_amp(released) == [] and released == before


@pytest.mark.parametrize(
    "name, dtype", [("fp16_compression", "float16"), ("bf16_compression", "bfloat16")]
)
def test_gradients_are_compressed_to_the_type_of_the_forward_pass_alone(name, dtype):
    other = {"float16": "bfloat16", "bfloat16": "float16"}[dtype]
    check_compression({"ddp": {name: True}, "amp": {"enabled": True, "dtype": dtype}})
    check_compression({"ddp": {name: False}, "amp": {"enabled": False}})
    for amp in ({"enabled": True, "dtype": other}, {"enabled": False, "dtype": dtype}, None):
        with pytest.raises(ValueError, match=f"{name} needs .*dtype={dtype}.* write train.ddp."):
            check_compression({"ddp": {name: True}, "amp": amp})


@pytest.mark.parametrize(
    "train, message",
    [
        ({"amp": {"dtype": "half"}}, r"train.amp.dtype must be one of .*'auto'.* got 'half'"),
        ({"float32_precision": "tf32"}, r"train.float32_precision must be .*'high'.* got 'tf32'"),
    ],
)
def test_an_unknown_type_is_refused(train, message):
    with pytest.raises(ValueError, match=message):
        check_types(train)


def test_products_of_float32_have_the_precision_of_the_config(monkeypatch):
    given = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", given.append)
    set_float32_precision({"float32_precision": "high"})
    set_float32_precision({"float32_precision": ""})
    assert given == ["high"]


@pytest.mark.parametrize("chosen, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_an_evaluation_is_in_mixed_precision_where_it_is_asked_for(chosen, dtype):
    amp = dict(enabled=True, dtype="auto", eval=chosen)
    with evaluation_context(dict(device="cpu", amp=amp)):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == dtype
