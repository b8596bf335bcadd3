"""On what a training ran."""

import os
import platform

import torch


def describe_machine(device: str) -> dict[str, str]:
    """Processor, cores, threads, ``device`` and versions, as words."""
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": f"{os.cpu_count()}, of which {torch.get_num_threads()} computed",
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }
    return found | {"python": platform.python_version(), "torch": torch.__version__}


def processor_name() -> str:
    """The name of the processor, where the system knows it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"
