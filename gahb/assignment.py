"""A trial on its way to a worker."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from gahb.checkpoints import Checkpoints


@dataclass(frozen=True)
class Assignment:
    """Plain values only: what to train, its run, where data, checkpoints and record are, and what is granted: CPUs,
    GPUs (a fraction if trials share one) and bytes of the node's memory."""

    flat: dict[str, Any]
    signature: str
    data_hash: str
    run_id: str
    storage: str
    record_uri: str
    checkpoint_seconds: float
    cpus: float
    gpus: float
    memory: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        return cls(**plain)

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(Path(self.storage) / "trials" / self.signature)
