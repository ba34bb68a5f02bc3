"""Communication between the processes of a run; every function also works without a run."""

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

# The processes of this machine, and the run to which they belong: a later run has other groups.
_local_group: dist.ProcessGroup | None = None
_run_of_local_group: dist.ProcessGroup | None = None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes of the run; 1 without a process group."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Index of this process among all processes; 0 without a process group."""
    return dist.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """True in the process of rank 0."""
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Group the processes of each machine; all processes must call this after the global init.

    Args:
        num_workers_per_machine: processes per machine, the same on every machine. Ranks are
            expected to be numbered machine by machine.

    Raises:
        AssertionError: if the processes cannot be divided evenly among the machines.
    """
    global _local_group, _run_of_local_group
    world_size = get_world_size()
    assert world_size % num_workers_per_machine == 0, (
        f"the number of processes ({world_size}) must be a multiple of the processes per machine "
        f"({num_workers_per_machine}); start the same number on every machine"
    )
    _local_group = _run_of_local_group = dist.group.WORLD
    # One machine: all processes are local, and a second mesh of connections would be waste.
    if num_workers_per_machine < world_size:
        _local_group, _ = dist.new_subgroups(num_workers_per_machine)


def get_local_process_group() -> dist.ProcessGroup:
    """The processes of this machine.

    Raises:
        AssertionError: if `create_local_process_group` was not called.
    """
    assert _run_of_local_group is dist.group.WORLD, (
        "the processes of this machine are not grouped yet; start the run with "
        "detectron2.engine.launch, or call comm.create_local_process_group first"
    )
    return _local_group


def get_local_rank() -> int:
    """Index of this process on its machine; 0 without a process group.

    Raises:
        AssertionError: if there is a process group but `create_local_process_group` was not called.
    """
    return dist.get_rank(group=get_local_process_group()) if _is_distributed() else 0


def get_local_size() -> int:
    """Number of processes on this machine; 1 without a process group.

    Raises:
        AssertionError: if there is a process group but `create_local_process_group` was not called.
    """
    return dist.get_world_size(group=get_local_process_group()) if _is_distributed() else 1


def synchronize() -> None:
    """Wait until all processes have reached this call."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        # Named, because torch may otherwise take the device from the rank.
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


@functools.lru_cache(maxsize=1)
def _gloo_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """All processes, over a backend that moves CPU bytes; `world` tells one init from the next."""
    if dist.get_backend(world) == dist.Backend.NCCL:
        return dist.new_group(backend="gloo")
    return world


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect one picklable object from each process in every process.

    Args:
        data: any picklable object; tensors travel through the CPU.
        group: the processes to ask; all of them by default, over GLOO.

    Returns:
        The objects in the order of ranks.
    """
    if get_world_size() == 1:
        return [data]
    group = group or _gloo_group(dist.group.WORLD)
    output = [None] * dist.get_world_size(group)
    dist.all_gather_object(output, data, group=group)
    return output


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect one picklable object from each process in the process of rank `dst`.

    Args:
        data: any picklable object; tensors travel through the CPU.
        dst: rank that receives.
        group: the processes to ask; all of them by default, over GLOO.

    Returns:
        The objects in the order of ranks on `dst`, an empty list elsewhere.
    """
    if get_world_size() == 1:
        return [data]
    group = group or _gloo_group(dist.group.WORLD)
    is_receiver = get_rank() == dst
    output = [None] * dist.get_world_size(group) if is_receiver else None
    dist.gather_object(data, output, dst=dst, group=group)
    return output if is_receiver else []


def shared_random_seed() -> int:
    """A random number in [0, 2**31) that is the same in all processes.

    Every process draws once from numpy's global generator and uses what rank 0 drew.
    """
    return all_gather(int(np.random.randint(2**31)))[0]


@torch.no_grad()
def reduce_dict(input_dict: dict[str, Tensor], average: bool = True) -> dict[str, Any]:
    """Sum or average scalar tensors over all processes.

    Args:
        input_dict: name to scalar tensor, with the same names in all processes.
        average: divide by the number of processes.

    Returns:
        name to reduced tensor in the order of sorted names. Only rank 0 holds the result; what
        the others get is partial.
    """
    world_size = get_world_size()
    if world_size == 1:
        return input_dict
    names = sorted(input_dict)
    # One message for all; sorted, because each process may have another order.
    values = torch.stack([input_dict[name] for name in names])
    dist.reduce(values, dst=0)
    if average and is_main_process():
        values = values / world_size
    return dict(zip(names, values, strict=True))
