"""The layers that all bias-free denoisers share.

Bias-free batch normalisation divides by the standard deviation of its channel and subtracts nothing:

    BN(x)_c = g_c · x_c / sqrt(Var(x_c) + ε),    Var over batch, height and width.

So a network of convolutions without bias, ReLUs and these is homogeneous of degree 1 in evaluation mode.
"""

from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-5
MOMENTUM = 0.1


class BiasFreeBatchNorm(nn.Module):
    """(B, channels, H, W) to the same. Training divides by the batch's standard deviation, evaluation by `running_sd`.

    Training leaves in `next_sd` where momentum 0.1 takes `running_sd` from the batch. That does not move it: a forward
    pass that is repeated within backward finds the same again, and `update_running_sd` moves it once a step.
    """

    running_sd: Tensor
    next_sd: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("running_sd", torch.ones(1, channels, 1, 1))
        self.register_buffer("next_sd", torch.ones(1, channels, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * (self.gain / self.running_sd)
        if torch.compiler.is_compiling() and not x.is_cuda:
            wide = x.to(self.gain.dtype)
            centred = wide - wide.detach().mean(dim=(0, 2, 3), keepdim=True)
            sd = torch.sqrt(centred.square().mean(dim=(0, 2, 3), keepdim=True) + EPSILON)
            y = x * (self.gain / sd)
        else:
            y, sd = _DivideBySd.apply(x, self.gain)
        with torch.no_grad():
            self.next_sd.copy_(self.running_sd.lerp(sd, MOMENTUM))
        return y


def update_running_sd(net: nn.Module) -> None:
    """End a training step: let the running standard deviations follow those of the last batch."""
    for module in net.modules():
        if isinstance(module, BiasFreeBatchNorm) and module.training:
            module.running_sd.copy_(module.next_sd)


class _DivideBySd(torch.autograd.Function):
    """(x, g) ↦ y = g x/s and s = sqrt(Var x + ε), with d = ∂L/∂y and n values a channel

        ∂L/∂g = Σ d x / s,    ∂L/∂x = g/s · d - g Σ(d x)/(n s³) · (x - m).

    s is in the precision of g; y is, too, on a CPU, and in that of x on a GPU, which is bound by memory. Mean m and s
    take one pass here. `x.var` and its gradient take many, over tensors that fit in no cache, unless compiled.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling():
            variance, mean = torch.var_mean(x.to(gain.dtype), dim=(0, 2, 3), correction=0, keepdim=True)
            sd = torch.sqrt(variance + EPSILON)
        else:
            _, mean, inverse = torch.native_batch_norm(x, gain.flatten(), None, None, None, True, 0.0, EPSILON)
            mean, sd = mean.view_as(gain), inverse.reciprocal().view_as(gain)
        ctx.save_for_backward(x, gain, mean, sd)
        ctx.mark_non_differentiable(sd)
        y = x * (gain / sd)
        return y.to(x.dtype) if x.is_cuda else y, sd

    @staticmethod
    def backward(ctx: Any, d: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        x, gain, mean, sd = ctx.saved_tensors
        d = d.to(gain.dtype)
        scale = gain / sd
        product = (d * x).sum(dim=(0, 2, 3), keepdim=True)
        pull = scale * product / (x.numel() // x.shape[1] * sd.square())
        return torch.addcmul(torch.addcmul(pull * mean, d, scale), x, -pull).to(x.dtype), product / sd


def conv(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    """A convolution, 3×3 or of another odd side, without bias, that keeps the image's size (zero padding)."""
    return nn.Conv2d(inputs, outputs, kernel_size=side, padding=side // 2, bias=False)


def conv_norm_relu(inputs: int, outputs: int, side: int = 3) -> nn.Sequential:
    """Convolution, bias-free batch normalisation, ReLU."""
    return nn.Sequential(conv(inputs, outputs, side), BiasFreeBatchNorm(outputs), nn.ReLU(inplace=True))


def beside(a: Tensor, b: Tensor) -> Tensor:
    """The channels of a (B, m, H, W) and then those of b (B, n, H, W), (B, m + n, H, W).

    On several threads torch joins channels-last tensors faster if told that channels are the last dimension.
    """
    return torch.cat([a.movedim(1, 3), b.movedim(1, 3)], dim=3).movedim(3, 1)


def initialise(module: nn.Module) -> None:
    """Draw a layer's weights; to be applied to all modules of a network that is about to be trained.

    Convolutions: Kaiming normal, fan-in, gain sqrt 2. Gains: N(0, 1)·2/(9·64), clamped to ±0.025.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    elif isinstance(module, BiasFreeBatchNorm):
        with torch.no_grad():
            module.gain.normal_().mul_(2 / (9 * 64)).clamp_(-0.025, 0.025)


class Denoiser(nn.Module):
    """y ↦ f(y) = y - net(y), the denoised image, for a network that estimates the noise. (B, C, H, W) to the same."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, y: Tensor) -> Tensor:
        return y - self.net(y)


class PiecewiseLinear(nn.Module):
    """A network whose modules are convolutions without bias, BiasFreeBatchNorm and ReLU (none of it in functional form)
    and whose forward pass is linear between them, so that in evaluation mode it is linear wherever no ReLU switches."""
