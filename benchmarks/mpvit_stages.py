"""MPViT-S, forward and backward: the formulas as they are written down, and `MPViT`.

The direct way keeps maps channel by channel, so that every step between convolutions and tokens
copies, and multiplies by einsum. Weights and outputs are the same.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, cpu_ms
from mimdet.modeling.backbone.mpvit import SIZES, MPViT, MPViTBlock, PathEncoder

_NUM_HEADS = 8


def measure(repeats: int, side: int = 512) -> list[Row]:
    """CPU time of a training step without update, and activations kept for the backward pass."""
    torch.manual_seed(0)
    network = MPViT(**SIZES["mpvit_small"]._asdict(), norm="BN")
    saving = MPViT(**SIZES["mpvit_small"]._asdict(), norm="BN", checkpointing=True)
    images = torch.randn(2, 3, side, side)

    with torch.no_grad():
        for ours, plain in zip(network.eval()(images), _direct(network, images), strict=True):
            torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)
    network.train()
    plain_ms, ours_ms = cpu_ms(
        lambda: _step(lambda x: _direct(network, x), images),
        lambda: _step(network, images),
        repeats,
    )
    kept = [_kept_mib(model, images) for model in (network, saving)]
    what = f"MPViT-S, 2 images of {side}x{side}"
    return [
        Row(f"{what}, forward and backward: direct / ours", plain_ms, ours_ms, "ms"),
        Row(f"{what}, kept activations: all / checkpointing=True", *kept, "MiB"),
    ]


def _step(forward: Callable[[Tensor], list[Tensor]], images: Tensor) -> None:
    sum(output.square().mean() for output in forward(images)).backward()


def _kept_mib(network: nn.Module, images: Tensor) -> float:
    """MiB of the tensors that a forward pass keeps, the weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network(images)  # alive, so that no storage is used twice
    del outputs
    return sum(size for address, size in storages.items() if address not in weights) / 2**20


def _direct(network: MPViT, x: Tensor) -> list[Tensor]:
    outputs = []
    x = network.stem(x)
    for embed, stage in zip(network.patch_embed_stages, network.mhca_stages, strict=True):
        maps = embed(x)
        paths = [_path(encoder, e) for encoder, e in zip(stage.mhca_blks, maps, strict=True)]
        x = stage.aggregate(torch.cat([stage.InvRes(maps[0]), *paths], dim=1))
        outputs.append(x)
    return outputs


def _path(encoder: PathEncoder, x: Tensor) -> Tensor:
    for block in encoder.MHCA_layers:
        x = x + encoder.cpe.proj(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + _attention(block, encoder, block.norm1(tokens), x.shape)
        tokens = tokens + block.mlp(block.norm2(tokens))
        x = tokens.transpose(1, 2).reshape(x.shape).contiguous()
    return x


def _attention(block: MPViTBlock, encoder: PathEncoder, tokens: Tensor, shape: tuple) -> Tensor:
    attention = block.factoratt_crpe
    B, L, C = tokens.shape
    qkv = attention.qkv(tokens).reshape(B, L, 3, _NUM_HEADS, C // _NUM_HEADS)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, N, L, D)
    context = torch.einsum("bnlk,bnlv->bnkv", k.softmax(dim=2), v)
    factorized = attention.scale * torch.einsum("bnlk,bnkv->bnlv", q, context)
    convs = encoder.crpe.conv_list
    parts = v.transpose(2, 3).reshape(shape).split([conv.out_channels for conv in convs], dim=1)
    relative = torch.cat([conv(part) for conv, part in zip(convs, parts, strict=True)], dim=1)
    relative = q * relative.reshape(B, _NUM_HEADS, -1, L).transpose(2, 3)
    return attention.proj((factorized + relative).transpose(1, 2).reshape(B, L, C))
