"""Random inputs of attention with both kinds of bias, and its formula pair by pair."""

import torch
from torch import Tensor

from mimdet.layers.rel_pos import Bias, look_up, relative_terms

B, N, H, W, D = 2, 3, 3, 5, 4
L, R = H * W, 6
INDEX = torch.randint(R, (L, L), generator=torch.Generator().manual_seed(2))


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(kind: str, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> list[Tensor]:
    """q, k, v (B, N, L, D) and the tables: (H, H', D) and (W, W', D), or (R, N); all with grad."""
    tables = {"terms": [(H, H, D), (W, W, D)], "table": [(R, N)]}[kind]
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, N, L, D)] * 3 + tables
    made = [scale * torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [tensor.requires_grad_() for tensor in made]


def bias_of(q: Tensor, tables: list[Tensor]) -> Bias:
    if len(tables) == 2:
        hw = (len(tables[0]), len(tables[1]))
        return relative_terms(q.unflatten(2, hw), *tables)
    return look_up(*tables, INDEX)


def by_the_formula(q: Tensor, k: Tensor, v: Tensor, *tables: Tensor) -> Tensor:
    """(B, N, L, D), pair by pair."""
    pairs = []
    for i in range(L):
        for j in range(L):
            if len(tables) == 2:
                rows, columns = tables
                vector = rows[i // W, j // W] + columns[i % W, j % W]
                bias = (q[:, :, i] * vector).sum(-1)
            else:
                bias = tables[0][INDEX[i, j]]
            pairs.append((q[:, :, i] * k[:, :, j]).sum(-1) / D**0.5 + bias)
    return torch.stack(pairs, dim=-1).unflatten(-1, (L, L)).softmax(dim=-1) @ v
