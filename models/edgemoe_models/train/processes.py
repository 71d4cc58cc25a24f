"""One training process, or several that torchrun started and that share the work of each step."""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta

import torch
from torch import distributed, nn

#: Longer than the first process may need to generate scenes or to evaluate while the others wait.
_TIMEOUT = timedelta(hours=3)


def find_device(wanted: str) -> torch.device:
    """The device ``wanted`` (``config.DEVICES``) stands for: of several processes on a machine each has its own GPU.

    Raises:
        ValueError: a GPU is asked for and there is none, or there are fewer than processes on this machine.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be cpu or auto, not cuda: PyTorch finds no GPU here")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise ValueError(f"there must be a GPU for each process, not {torch.cuda.device_count()} only")
    chosen = torch.device("cuda", number)
    torch.cuda.set_device(chosen)
    return chosen


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process (``rank``) among ``count``, and the device that it trains on."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def start(cls, device: str) -> Processes:
        """Find the device, and meet the other processes if torchrun started several (nccl on GPUs, else gloo).

        Raises:
            ValueError: as of ``find_device``.
        """
        chosen = find_device(device)
        count = cls.expected()
        if count > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_TIMEOUT)
        return cls(int(os.environ.get("RANK", "0")), count, chosen)

    @staticmethod
    def expected() -> int:
        """How many there are to be, as torchrun says."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def is_first(self) -> bool:
        """Whether this process writes logs and files."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """This process's pictures of a batch."""
        return slice(self.rank, None, self.count)

    def joined(self, model: nn.Module) -> nn.Module:
        """The model, with gradients averaged over all processes at each backward.

        A step of one task leaves the other tasks' gates and heads without gradients, hence find_unused_parameters.
        """
        if self.count == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices, find_unused_parameters=True)

    def agreed(self, value: float) -> float:
        """The first process's value: clocks differ, but all must have the same schedule."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        result: float = shared.item()
        return result

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier()

    def end(self) -> None:
        """Part from the others."""
        if self.count > 1:
            distributed.destroy_process_group()
