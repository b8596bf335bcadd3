"""The processes that train one model, and what they exchange."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from pipeline.core.errors import ConfigError

PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}
TIMEOUT = timedelta(days=7)  # of waiting for another process, which may be validating for long


class PlainDDP(DDPStrategy):
    """Data parallelism whose gradients are added up by ``sum_gradients``.

    DistributedDataParallel would wait for ever where one process has no clips left, or less blocks of time.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:
        return module


def make_fabric(device: str, devices: int, nodes: int, precision: str) -> Fabric:
    """What moves tensors between devices, before its ``launch``. ConfigError if torchrun has not started as many
    processes, or the device cannot be used.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != devices * nodes:
        several = f" --nnodes={nodes} --rdzv_endpoint=FIRST_NODE:29500" if nodes > 1 else ""
        more = f" trainer.nodes={nodes}" if nodes > 1 else ""
        raise ConfigError(
            f"trainer.devices: {devices} needs as many processes, not {world}; start them by "
            f"torchrun --nproc_per_node={devices}{several} train.py ... trainer.devices={devices}{more}"
        )
    try:
        return Fabric(
            accelerator=device,
            devices=devices,
            num_nodes=nodes,
            strategy=PlainDDP(timeout=TIMEOUT) if world > 1 else "auto",
            precision=PRECISION[precision],
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"trainer.device: {device!r} cannot be used here ({error}); set trainer.device=cpu") from None


def sum_gradients(fabric: Fabric, parameters: Sequence[nn.Parameter]) -> None:
    """Gradients become their sums over all processes; those that no process has stay None."""
    if fabric.world_size == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    present = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat: Tensor = torch.cat([present, *(gradient.detach().flatten() for gradient in gradients)])
    torch.distributed.all_reduce(flat)
    owners, *sums = torch.split(flat, [len(trained), *(p.numel() for p in trained)])
    for parameter, count, total in zip(trained, owners.tolist(), sums, strict=True):
        parameter.grad = total.view_as(parameter).clone() if count else None


def broadcast_weights(fabric: Fabric, model: nn.Module) -> None:
    """All processes begin with the weights of the first."""
    if fabric.world_size > 1:
        for tensor in [*model.parameters(), *model.buffers()]:
            torch.distributed.broadcast(tensor.detach(), 0)


def sum_over_processes(fabric: Fabric, numbers: list[float]) -> list[float]:
    """Each number, summed over all processes."""
    if fabric.world_size == 1:
        return numbers
    total: Any = fabric.all_reduce(torch.tensor(numbers, dtype=torch.float64), reduce_op="sum")
    return [float(number) for number in total.tolist()]


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """What each process has, by its rank."""
    if fabric.world_size == 1:
        return [value]
    found: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(found, value)
    return found
