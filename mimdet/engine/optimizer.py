"""The optimizer of a run: in one kernel where its parameters are on a GPU."""

from typing import Any

from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from detectron2.config import instantiate


def build_optimizer(node: DictConfig, model: nn.Module) -> Optimizer:
    """Make the optimizer that a config describes.

    Args:
        node: its call, whose ``params`` take the model; changed. A ``fused`` of None becomes True
            where all parameters that are trained are on CUDA.
        model: on its device.
    """
    node.params.model = model
    trained = [p for p in model.parameters() if p.requires_grad]
    if node.get("fused", False) is None and all(p.is_cuda for p in trained):
        node.fused = True
    optimizer = instantiate(node)
    optimizer.register_load_state_dict_pre_hook(_keep_kernel)
    return optimizer


def _keep_kernel(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint, to be loaded into the kernel that this optimizer was made for.

    A state holds the setting of the run that saved it. With that, a run which was begun without the
    fused kernel would give its loss scale to one that takes none, and fail.
    """
    if "fused" not in optimizer.defaults:
        return state
    groups = [{**group, "fused": optimizer.defaults["fused"]} for group in state["param_groups"]]
    return {**state, "param_groups": groups}
