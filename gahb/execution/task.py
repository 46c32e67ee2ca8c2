"""A trial on its way to a worker."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from gahb.planning.placement import KIND
from gahb.training.checkpoint_names import folder_of


@dataclass(frozen=True)
class Task:
    """Plain values only: what to train, its run, where data, checkpoints and record are, how often it may start again
    without having got further, what is granted (CPUs, GPUs, a fraction if trials share one, the kind that they must be
    of, if only one will do, and bytes of the node's memory), the plugin files that were loaded, as `registry.Origin`
    has them, and the signatures of trials of the same course, from one of which it may start."""

    flat: dict[str, Any]
    signature: str
    data_hash: str
    run_id: str
    storage: str
    record_uri: str
    checkpoint_seconds: float
    retries: int
    cpus: float
    gpus: float
    kind: str
    memory: int
    plugins: Sequence[dict[str, Any]] = ()
    course: Sequence[str] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        return cls(**plain)

    @property
    def resources(self) -> dict[str, float]:
        """What is granted, by Ray's names."""
        of_kind = {f"{KIND}{self.kind}": 0.001} if self.kind else {}
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory, **of_kind}

    @property
    def folder(self) -> str:
        """The trial's place in the storage."""
        return folder_of(self.signature)
