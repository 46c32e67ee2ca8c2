"""Less memory for more work: of a block only the inputs are kept for backward, which computes the rest again.

The same operations on the same numbers give the same bits. Parts of a batch one after the other would not, because a
batch is normalised as a whole.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

_on = False


@contextmanager
def recomputation(on: bool) -> Iterator[None]:
    """Forward passes in here keep only the inputs of blocks, if `on`; the others keep all that backward reads."""
    global _on
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before


def block(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """function(*inputs), computed again in backward within `recomputation`."""
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False) if _on else function(*inputs)
