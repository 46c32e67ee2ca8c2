"""A transformer that is homogeneous of degree 1 like the bias-free convolutional networks.

The tokens x_i of an image are linear in it, and each block adds to them, first in attention, then token by token,

    x_i ← x_i + W_o Σ_j a_ij W_v x_j,    a_i = softmax_j(g <R_i q̂_i, R_j k̂_j>)    in each head,
    x_i ← x_i + W_2 max(W_1 x_i, 0),

where q̂ and k̂ are W_q x and W_k x divided by their norm, R_i rotates by angles that grow with the token's row and column
(rotary positions) and g is a gain. The weights a_ij are of degree 0 and the rest of degree 1, without a bias or an
absolute position, so f(a·y) = a·f(y) up to rounding; only norms below 1e-12 are taken for 1e-12. Unlike a convolutional
network this one is not piecewise linear, but J(y)·y = f(y) holds as for every function of degree 1.

Each token reads the square of twice its patch's side, zero beyond the image, and writes into the same, so that patches
have no seams and the border is seen.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, normalize, pad, unfold

from gahb.models.activation_checkpointing import BlockNetwork

SLOWEST = 100.0
"""Tokens a radian of the slowest rotation, nearly; of the fastest, 1."""


class Transformer(BlockNetwork):
    """Noisy images (B, channels, H, W) to estimated noise of the same shape; H and W multiples of `patch`, an even
    number."""

    def __init__(self, patch: int, depth: int, width: int, heads: int, channels: int = 1) -> None:
        super().__init__()
        self.windows = {"kernel_size": 2 * patch, "stride": patch, "padding": patch // 2}
        self.patch = patch
        self.turns = width // heads // 4
        self.read = _linear(channels * (2 * patch) ** 2, width)
        branch = 1 / math.sqrt(2 * depth)
        self.blocks = nn.ModuleList(Block(width, heads, branch) for _ in range(depth))
        self.write = _linear(width, channels * (2 * patch) ** 2, 0.1)

    def forward(self, y: Tensor) -> Tensor:
        x = self.read(unfold(y, **self.windows).transpose(1, 2))
        rows, columns = (torch.arange(side // self.patch, dtype=y.dtype, device=y.device) for side in y.shape[2:])
        rotation = rotations(rows, columns, self.turns)
        for each in self.blocks:
            x = self.block(each, x, rotation)
        written = self.write(x)
        if y.is_cuda:
            return sum_of_windows(written, self.patch, *y.shape[2:])
        return fold(written.transpose(1, 2), y.shape[2:], **self.windows)


class Block(nn.Module):
    """Attention, then a perceptron for each token, each added to the tokens (B, tokens, width)."""

    def __init__(self, width: int, heads: int, scale: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, scale)
        self.mlp = nn.Sequential(_linear(width, 4 * width, math.sqrt(2)), nn.ReLU(), _linear(4 * width, width, scale))

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        x = x + self.attention(x, rotation)
        return x + self.mlp(x)


class Attention(BlockNetwork):
    """Tokens (B, tokens, width) to the same, with weights that do not depend on the tokens' scale.

    The products are written out: the fused kernels have no forward derivatives and no fixed order of summation.
    """

    def __init__(self, width: int, heads: int, scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = _linear(width, 3 * width)
        self.out = _linear(width, width, scale)
        self.gain = nn.Parameter(torch.full((heads, 1, 1), math.sqrt(width / heads)))

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        return self.out(self.layer(self._attend, self.qkv(x), rotation))

    def _attend(self, qkv: Tensor, rotation: Tensor) -> Tensor:
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (rotate(normalize(vectors, dim=-1), rotation) for vectors in (q, k))
        weights = (self.gain * q @ k.transpose(-1, -2)).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)


def sum_of_windows(windows: Tensor, patch: int, height: int, width: int) -> Tensor:
    """What torch's `fold` makes of windows (B, tokens, C · (2 · patch)²), (B, C, height, width), in the same order of
    sums.

    Compiled, `fold` adds atomically, on a GPU in whatever order. Each pixel lies in four windows, so the sum is one of
    four tilings, of the quarters of all windows.
    """
    across = (height // patch, width // patch)
    parts = windows.unflatten(2, (-1, 2, patch, 2, patch)).unflatten(1, across)
    quarters = parts.permute(0, 3, 4, 6, 1, 5, 2, 7)
    tilings = quarters.reshape(len(windows), parts.shape[3], 2, 2, height, width)
    edge = patch // 2
    shifts = (edge, -edge)  # of the upper or left half of a window: half a patch back; of the other: forth
    shifted = [
        pad(tilings[:, :, i, j], (-shifts[j], shifts[j], -shifts[i], shifts[i])) for i in range(2) for j in range(2)
    ]
    return shifted[0] + shifted[1] + shifted[2] + shifted[3]


def rotations(rows: Tensor, columns: Tensor, turns: int) -> Tensor:
    """cos and sin of the angles of the tokens at rows × columns, (2, tokens, 2 * turns): the row at `turns` speeds,
    from one radian a token down to nearly 1/SLOWEST, then the column."""
    speeds = SLOWEST ** (-torch.arange(turns, dtype=rows.dtype, device=rows.device) / turns)
    angles = torch.cat([torch.cartesian_prod(rows, columns)[:, i, None] * speeds for i in range(2)], dim=1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair (first half, second half) of the last dimension by its token's angle."""
    (cos, sin), (a, b) = rotation, vectors.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def _linear(inputs: int, outputs: int, scale: float = 1.0) -> nn.Linear:
    """A linear map without bias, with weights from N(0, scale² / inputs)."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=scale / math.sqrt(inputs))
    return layer
