from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
import torchvision
from fvcore.nn.distributed import differentiable_all_reduce
from torch import Tensor, nn

from detectron2.utils import comm

Norm: TypeAlias = str | Callable[[int], nn.Module] | None


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """Batch normalisation with fixed statistics and affine map: buffers only, no parameters.

    Args:
        num_features: channels C of the (N, C, H, W) input.
        eps: added to the variance. A fresh layer stores the variance 1 - eps and so is an
            exact identity.
    """

    # What upstream writes into state dicts, where `_load_from_state_dict` finds it.
    _version = 3

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)
        self.running_var -= eps
        self.num_features = num_features
        # There, as in any batch norm, but None: state dicts have no such entry.
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W), keeping shape and dtype."""
        if not x.requires_grad:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        # F.batch_norm would also compute gradients for weight and bias, at extra memory.
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * _per_channel(scale).to(x.dtype) + _per_channel(shift).to(x.dtype)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        # Files of before version 2 hold no statistics because they were merged into the affine map.
        if (local_metadata.get("version") or 0) < 2 and prefix + "weight" in state_dict:
            state_dict.setdefault(prefix + "running_mean", torch.zeros_like(self.running_mean))
            state_dict.setdefault(prefix + "running_var", torch.ones_like(self.running_var))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace every BatchNorm2d and SyncBatchNorm inside `module`, in place, by this class.

        Args:
            module: any module; statistics, affine map and eps are copied.

        Returns:
            `module`, or its replacement if it is itself a batch norm.

        Raises:
            ValueError: if a batch norm does not track running statistics.
        """
        return _replace(module, (nn.BatchNorm2d, nn.SyncBatchNorm), cls)

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """Replace every FrozenBatchNorm2d inside `module`, in place, by a trainable BatchNorm2d.

        Args:
            module: any module; statistics, affine map and eps are copied.

        Returns:
            `module`, or its replacement if it is itself a frozen batch norm.
        """
        return _replace(module, (cls,), nn.BatchNorm2d)


def _replace(module: nn.Module, kinds: tuple[type, ...], new_kind: type[nn.Module]) -> nn.Module:
    """Put a norm of `new_kind` in the place of every submodule of one of `kinds`."""
    if isinstance(module, kinds):
        return _converted(module, new_kind)
    for name, child in module.named_children():
        module.add_module(name, _replace(child, kinds, new_kind))
    return module


@torch.no_grad()
def _converted(norm: nn.Module, new_kind: type[nn.Module]) -> nn.Module:
    """A copy of `norm` as `new_kind`; a norm without affine map leaves that of a fresh one."""
    if norm.running_mean is None:
        raise ValueError(
            f"only a batch norm with running statistics can be frozen, got {norm}; "
            "build it with track_running_stats=True"
        )
    new = new_kind(norm.num_features, norm.eps).to(norm.running_mean.device)
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(norm, name)
        if value is not None:
            getattr(new, name).copy_(value)
    return new.train(norm.training)


class LayerNorm(nn.Module):
    """Layer normalisation over the channels of (N, C, H, W), at each position by itself.

    The output has the type of the input, also where autocast normalises in float32. It is no
    `torch.nn.LayerNorm`, which matters to rules that pick modules by type.

    Args:
        normalized_shape: number of channels C.
        eps: added to the variance.

    Reference: Ba et al. 2016, arXiv 1607.06450; over channels only as in Liu et al. 2022,
    arXiv 2201.03545.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W), keeping the shape."""
        # One kernel, which sums in float32 whatever the type of `x` is.
        channels_last = x.permute(0, 2, 3, 1)
        y = F.layer_norm(channels_last, self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2).to(x.dtype)


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over all processes, on any device, also where a process has no input.

    Outside training and in a single process it is `torch.nn.BatchNorm2d`. Otherwise the running
    variance is the biased one and `num_batches_tracked` does not move, as in upstream Detectron2.

    Args:
        *args: what `torch.nn.BatchNorm2d` takes.
        stats_mode: how processes are averaged. "": with equal weights, whatever their batch
            sizes, none of which may be 0. "N": by their numbers of samples; pixels do not count,
            and a process with an empty batch takes part with weight 0.
        **kwargs: what `torch.nn.BatchNorm2d` takes.

    Raises:
        AssertionError: if `stats_mode` is neither "" nor "N".
    """

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert stats_mode in ("", "N"), f'stats_mode must be "" or "N", got {stats_mode!r}'
        self._stats_mode = stats_mode

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W), keeping shape and dtype.

        Raises:
            AssertionError: for an empty input on one of several processes with stats_mode "".
        """
        if comm.get_world_size() == 1 or not self.training:
            return super().forward(input)
        x = _at_least_float32(input)
        batch_size = input.shape[0]
        if self._stats_mode == "":
            assert batch_size > 0, (
                f"NaiveSyncBatchNorm needs a sample on every process, got {tuple(input.shape)}; "
                'use stats_mode="N"'
            )
            mean, var, _ = _synced_moments(x, weight=1)
            momentum = self.momentum
        else:
            mean, var, total = _synced_moments(x, weight=batch_size)
            # 0 where no process has a sample: then the running statistics stay as they are.
            momentum = total.clamp(max=1) * self.momentum
        if self.track_running_stats:
            _update(self.running_mean, mean, momentum)
            _update(self.running_var, var, momentum)
        return _normalize(x, mean, var, self).to(input.dtype)

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return f"{super().extra_repr()}, stats_mode={self._stats_mode!r}"


class SyncBatchNorm(nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm` that also works for several processes on the CPU.

    There torch raises an error. Here the same statistics come from an all-reduce: processes
    weighted by their numbers of pixels, and the unbiased running variance. On the CPU wrap the
    model by `detectron2.engine.create_ddp_model`: torch's `DistributedDataParallel` itself refuses
    this class there.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...), keeping shape and dtype."""
        on_gpu = input.device.type != "cpu"
        # A group of some processes is torch's business too: `_synced_moments` asks all of them.
        if on_gpu or not self.training or comm.get_world_size() == 1 or self.process_group:
            return super().forward(input)
        self._check_input_dim(input)
        x = _at_least_float32(input)
        mean, var, total = _synced_moments(x, weight=input.numel() // input.shape[1])
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            momentum = self.momentum
            if momentum is None:
                # As torch has it: without momentum, the mean of all batches so far.
                momentum = 1.0 / self.num_batches_tracked.item()
            _update(self.running_mean, mean, momentum)
            # n / (n - 1) makes the running variance unbiased, while the batch is divided by the
            # biased one.
            _update(self.running_var, var * (total / (total - 1).clamp(min=1)), momentum)
        return _normalize(x, mean, var, self).to(input.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    """Statistics in half precision lose their low bits, in float16 they even overflow."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _per_channel(values: Tensor) -> Tensor:
    return values.reshape(1, -1, 1, 1)  # (C,) -> (1, C, 1, 1)


def _synced_moments(x: Tensor, weight: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,) and biased variance (C,) over all processes, and the sum () of their weights.

    Args:
        x: (N, C, ...) of this process.
        weight: its weight in the average; if its batch is empty it has none.
    """
    channels = x.shape[1]
    if x.shape[0] > 0:
        # One message for all: means, mean squares, and the weight, whose sum they are divided by.
        dims = [0, *range(2, x.dim())]
        moments = torch.cat([x.mean(dims), (x * x).mean(dims), x.new_ones(1)]) * weight
    else:
        # The sum keeps this process in the graph: all must take part in the backward all-reduce.
        moments = x.new_zeros(2 * channels + 1) + x.sum()
    moments = differentiable_all_reduce(moments)
    mean, mean_square, total = moments.split([channels, channels, 1])
    total = total.detach().squeeze(0)
    mean, mean_square = mean / total.clamp(min=1), mean_square / total.clamp(min=1)
    # Rounding can make the difference of two nearly equal numbers negative.
    return mean, (mean_square - mean * mean).clamp(min=0), total


@torch.no_grad()
def _update(running: Tensor, batch: Tensor, momentum: float | Tensor) -> None:
    running += momentum * (batch - running)


def _normalize(
    x: Tensor, mean: Tensor, var: Tensor, norm: nn.BatchNorm2d | nn.SyncBatchNorm
) -> Tensor:
    """(x - mean) / sqrt(var + eps), then the affine map of `norm` if it has one."""
    scale = torch.rsqrt(var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    shape = [1, -1] + [1] * (x.dim() - 2)  # (C,) -> (1, C, 1, ...)
    return x * scale.reshape(shape) + shift.reshape(shape)


class CycleBatchNormList(nn.ModuleList):
    """Batch norms used in turn, one per call, that share one affine map.

    For a head that runs on several feature levels, in fixed order, whose statistics differ.

    Args:
        length: number of norms.
        bn_class: class of the norms.
        **kwargs: arguments of `bn_class`; `affine` decides about the shared `weight` and `bias`.
    """

    def __init__(
        self, length: int, bn_class: type[nn.Module] = nn.BatchNorm2d, **kwargs: Any
    ) -> None:
        affine = kwargs.pop("affine", True)
        super().__init__(bn_class(**kwargs, affine=False) for _ in range(length))
        self._affine = affine
        if affine:
            self.weight = nn.Parameter(torch.ones(self[0].num_features))
            self.bias = nn.Parameter(torch.zeros(self[0].num_features))
        self._next = 0

    def reset(self) -> None:
        """Start again with the first norm: call it before the first level of each forward.

        An exception between two levels would otherwise shift every later call.
        """
        self._next = 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) by the next norm."""
        x = self[self._next](x)
        self._next = (self._next + 1) % len(self)
        if self._affine:
            x = x * _per_channel(self.weight) + _per_channel(self.bias)
        return x

    def extra_repr(self) -> str:
        """The arguments, for `repr`."""
        return f"affine={self._affine}"


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": SyncBatchNorm,
    "nnSyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": partial(nn.GroupNorm, 32),
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": partial(NaiveSyncBatchNorm, stats_mode="N"),
    "LN": LayerNorm,
}


def get_norm(norm: Norm, out_channels: int) -> nn.Module | None:
    """Build the normalisation layer that `norm` names.

    Args:
        norm: "BN", "SyncBN", "nnSyncBN", "FrozenBN", "GN" (32 groups), "naiveSyncBN",
            "naiveSyncBN_N" or "LN"; or a callable that takes the channels; None or "" for none.
        out_channels: channels of the (N, C, H, W) input of the layer.

    Raises:
        KeyError: for an unknown name.
    """
    if norm is None or norm == "":
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise KeyError(f"norm must be one of {', '.join(_NORMS)} or empty, got {norm!r}")
        norm = _NORMS[norm]
    return norm(out_channels)
