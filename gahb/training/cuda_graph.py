"""A training step as one CUDA graph: recorded once, and from then on launched as a whole.

A graph repeats what was recorded, at the addresses where it was recorded. So what differs from step to step is data on
the device: weights, running standard deviations, the optimizer's state and learning rate, and the seed of the random
numbers, which torch writes to the device at each launch.
"""

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Runs before the recording, in which compilers and libraries do what they do only once."""


class CudaGraph:
    """`body()`, recorded at the first call and launched at every call. The loss that a call returns holds until the
    next.

    Args:
        body: a step without a synchronisation: noise, forward, backward, `optimizer`, running standard deviations.
        net: what `body` trains.
        optimizer: with its moments made and learning rates that are tensors on the device.
        draws: the generator of all random numbers of `body`, seeded before each call.
        averages: what else `body` changes from step to step.
    """

    def __init__(
        self,
        body: Callable[[], Tensor],
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        draws: torch.Generator,
        averages: Iterable[Tensor] = (),
    ) -> None:
        self.body, self.net, self.optimizer, self.draws = body, net, optimizer, draws
        self.averages = averages
        self.launch: Callable[[], None] | None = None

    def __call__(self) -> Tensor:
        if self.launch is None:
            seed = self.draws.initial_seed()
            self.launch, self.loss = record(self.body, self.warm_up, self.draws)
            self.optimizer.zero_grad()  # the gradients lie in the graph's memory
            self.draws.manual_seed(seed)
        self.launch()
        return self.loss

    def warm_up(self) -> None:
        """Run the step as often as it takes until it runs as always, and leave no trace of that."""
        moments = (tensor for state in self.optimizer.state.values() for tensor in state.values())
        with unchanged([*self.net.parameters(), *self.net.buffers(), *moments, *self.averages]):
            for _ in range(WARM_UP):
                self.body()
        self.optimizer.zero_grad()
        for group in self.optimizer.param_groups:
            group["capturable"] = True  # torch asks for it while it records, and warns of it while it does not


@contextlib.contextmanager
def unchanged(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Give the tensors back, in place, the values that they had before the block."""
    before = [(tensor, tensor.detach().clone()) for tensor in tensors]
    yield
    with torch.no_grad():
        for tensor, value in before:
            tensor.copy_(value)


def record(
    body: Callable[[], Tensor], warm_up: Callable[[], None], draws: torch.Generator
) -> tuple[Callable[[], None], Tensor]:
    """After `warm_up`, a graph of `body`: what launches it, and the tensor in which it leaves its result.

    Raises:
        torch.OutOfMemoryError: it does not fit beside what the process holds; nothing of it is left.
    """
    stream, current = _side_stream(draws.device), torch.cuda.current_stream(draws.device)
    stream.wait_stream(current)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(draws)
    with torch.cuda.stream(stream):
        warm_up()
        torch.cuda.synchronize()
        gc.collect()  # a graph that dies while another is recorded would spoil that
        torch.cuda.empty_cache()  # the graph has memory of its own, which takes nothing from what is only reserved
        graph.capture_begin(capture_error_mode="thread_local")  # other threads may use CUDA meanwhile
        try:
            result = body()
        except BaseException:  # torch.cuda.graph would hide it behind an error of its own
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            graph.reset()
            raise
        graph.capture_end()
    current.wait_stream(stream)
    return graph.replay, result


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all trials of a process: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream(device)
