"""The types that a run computes in: `train.amp` and `train.float32_precision`."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_COMPRESSIONS = {"float16": "fp16_compression", "bfloat16": "bf16_compression"}
_FLOAT32 = ("", "highest", "high", "medium")


def amp_dtype(choice: str, device: str | torch.device) -> torch.dtype:
    """The type of a forward pass in mixed precision.

    Args:
        choice: "float16", "bfloat16", or "auto": bfloat16 where the device computes in it (cards
            from Ampere on, and CPUs), else float16.
        device: of the model.

    Raises:
        ValueError: if the choice is another one.
    """
    _check("train.amp.dtype", choice, ("auto", *AMP_DTYPES))
    if choice != "auto":
        return AMP_DTYPES[choice]
    is_cuda = torch.device(device).type == "cuda"
    # Without this argument torch says yes of older cards too, which can store bfloat16.
    lacks_it = is_cuda and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if lacks_it else torch.bfloat16


def settle_amp(cfg: DictConfig) -> list[str]:
    """Put the type that "auto" means on this machine into a config.

    A compression of gradients becomes that of the type, so that auto alone is enough for a recipe
    that was released in float16.

    Returns:
        A line that says it, or none.
    """
    train = cfg.train
    if OmegaConf.select(train, "amp.dtype") != "auto":
        return []
    dtype = str(amp_dtype("auto", train.device)).removeprefix("torch.")
    train.amp.dtype = dtype
    ddp = train.get("ddp") or {}
    if any(ddp.get(name) for name in _COMPRESSIONS.values()):
        ddp.update({name: used == dtype for used, name in _COMPRESSIONS.items()})
    return [f"train.amp.dtype=auto is {dtype} on {train.device}"] if train.amp.enabled else []


def check_types(train: Mapping[str, Any]) -> None:
    """Refuse types that torch does not know.

    Args:
        train: `train` of a config.

    Raises:
        ValueError: naming the key.
    """
    _check("train.float32_precision", train.get("float32_precision", ""), _FLOAT32)
    dtype = (train.get("amp") or {}).get("dtype", "float16")
    _check("train.amp.dtype", dtype, ("auto", *AMP_DTYPES))


def check_compression(train: Mapping[str, Any]) -> None:
    """Refuse gradients that are exchanged in another type than that of the forward pass.

    float16 needs the loss scale, without which small gradients become 0 on their way; bfloat16 has
    fewer bits than a training in float16 or float32 computes with. "auto" brings its own, see
    `settle_amp`.

    Args:
        train: `train` of a config.

    Raises:
        ValueError: if `train.ddp` has a compression that `train.amp` does not go with.
    """
    amp = train.get("amp") or {}
    used = amp.get("dtype", "float16") if amp.get("enabled") else "float32"
    for needed, name in _COMPRESSIONS.items():
        if (train.get("ddp") or {}).get(name) and used not in (needed, "auto"):
            raise ValueError(
                f"train.ddp.{name} needs train.amp.enabled=True and train.amp.dtype={needed}, but "
                f"the forward pass is in {used} (train.amp.enabled={bool(amp.get('enabled'))}, "
                f"train.amp.dtype={amp.get('dtype')}): write train.ddp.{name}=False"
            )


def set_float32_precision(train: Mapping[str, Any]) -> None:
    """Set how matrices of float32 are multiplied, which Detectron2 0.6 does not do by itself."""
    if precision := train.get("float32_precision"):
        torch.set_float32_matmul_precision(precision)


def evaluation_context(train: Mapping[str, Any]) -> contextlib.AbstractContextManager:
    """Autocast for an evaluation where `train.amp.eval` asks for it."""
    amp = train.get("amp") or {}
    if not amp.get("eval"):
        return contextlib.nullcontext()
    device = torch.device(train["device"])
    return torch.autocast(device.type, amp_dtype(amp.get("dtype", "float16"), device))


def _check(key: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{key} must be one of {list(choices)}, got {value!r}")
