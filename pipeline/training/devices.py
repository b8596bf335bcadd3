"""How many processes train one model, and what they tell each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from pipeline.errors import ConfigError

PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}


def fabric(device: str, devices: int, nodes: int, precision: str) -> Fabric:
    """What moves tensors and sums gradients, started. ConfigError if fewer or more processes were started."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != devices * nodes:
        if world > 1:
            raise ConfigError(
                f"trainer.devices: {devices} on trainer.nodes={nodes}, but torchrun has started {world} processes; set "
                f"trainer.devices={os.environ.get('LOCAL_WORLD_SIZE', world)}"
            )
        several = "" if nodes == 1 else f" --nnodes={nodes} --rdzv_endpoint=FIRST_NODE:29500"
        raise ConfigError(
            f"trainer.devices: {devices} needs as many processes; start them by torchrun --nproc_per_node={devices}"
            f"{several} train.py ... trainer.devices={devices}{'' if nodes == 1 else f' trainer.nodes={nodes}'}"
        )
    made = Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if world > 1 else "auto",
        precision=PRECISION[precision],
    )
    made.launch()
    return made


def summed(fabric: Fabric, numbers: list[float]) -> list[float]:
    """Of all processes."""
    if fabric.world_size == 1:
        return numbers
    total: Any = fabric.all_reduce(torch.tensor(numbers, dtype=torch.float64), reduce_op="sum")
    return [float(number) for number in total.tolist()]


def gathered(fabric: Fabric, value: Any) -> list[Any]:
    """What each process has, by its rank."""
    if fabric.world_size == 1:
        return [value]
    found: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(found, value)
    return found


@contextmanager
def leading(fabric: Fabric) -> Iterator[None]:
    """The first process of each node goes ahead, and the others come when it is done: they find its cache."""
    with fabric.rank_zero_first(local=True):
        yield
