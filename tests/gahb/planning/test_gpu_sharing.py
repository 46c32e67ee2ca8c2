import pytest

from gahb import hardware
from gahb.planning import gpu_sharing
from gahb.planning.calibration import Device, Rate
from gahb.planning.gpu_sharing import Gpu, host_memory, share
from gahb.training import cost
from gahb.trial import Trial

H200 = Gpu(140 * 10**9, cpus=16)


def trial(**changes: object) -> Trial:
    return Trial.of({"dataset": "disks", "resolution": 20, "n_train": 8, "images": 10**6, **changes})


@pytest.mark.parametrize("memory", [2, 4, 8, 16, 32, 64, 140])
@pytest.mark.parametrize("batch", [16, 64, 512])
def test_trials_that_share_a_gpu_fit_in_it(memory: int, batch: int) -> None:
    for small in (trial(batch_size=batch), trial(batch_size=batch, width=8)):
        part = share(small, Gpu(memory * 10**9, cpus=16), None, cpus=1)
        assert part in (1, 1 / 2, 1 / 4, 1 / 8)
        assert part == 1 or part * memory * 1e9 >= cost.memory(small) + gpu_sharing.CONTEXT


def test_small_trials_share_and_large_ones_do_not() -> None:
    assert share(trial(batch_size=64), H200, None, cpus=1) == 1 / 4
    assert share(trial(batch_size=64, width=16), H200, None, cpus=1) == 1 / 8
    assert share(trial(batch_size=512), H200, None, cpus=1) == 1
    assert share(trial(resolution=80), H200, None, cpus=1) == 1


def test_no_more_share_than_the_cpus_allow() -> None:
    assert share(trial(batch_size=64, width=16), Gpu(10**11, cpus=4), None, cpus=1) == 1 / 4
    assert share(trial(batch_size=64, width=16), H200, None, cpus=16) == 1


def test_a_measured_gpu_is_shared_by_what_a_trial_leaves_idle() -> None:
    small, large = trial(batch_size=64), trial(resolution=80)
    flops = {t: 3 * cost.forward_flops(t.architecture, t.dataset.resolution) for t in (small, large)}
    for idle in (1.5, 3, 5, 30):
        rates = [Rate(large, flops[large] / 1e14, "runs"), Rate(small, idle * flops[small] / 1e14, "runs")]
        part = share(small, H200, Device("NVIDIA H200", rates), cpus=1)
        assert 1 / min(idle, 8) <= part < 2 / min(idle, 7.99)
        assert share(small, H200, None, cpus=1) == 1 / 4


@pytest.mark.parametrize("part", [1, 1 / 2, 1 / 4, 1 / 8])
def test_what_shares_a_gpu_fits_it_with_all_contexts(part: float) -> None:
    allowed = gpu_sharing.memory_fraction(H200.memory, part) * H200.memory
    assert (allowed + hardware.CONTEXT) / part == pytest.approx(H200.memory)
    assert gpu_sharing.available(H200.memory, part) == pytest.approx(allowed - hardware.WORKSPACE)


def test_memory_on_the_node() -> None:
    big = trial(batch_size=4096)
    assert (
        0
        <= host_memory(big, on_gpu=False) - cost.memory(big, on_gpu=False) - gpu_sharing.PROCESS
        < gpu_sharing.ROUNDING
    )
    assert host_memory(big, on_gpu=True) < 1.1 * gpu_sharing.GPU_PROCESS
    on_host = host_memory(big, on_gpu=True, level="host") - host_memory(big, on_gpu=True)
    assert abs(on_host - cost.host_memory(big, "host")) < gpu_sharing.ROUNDING
    compiled = trial(compile=True)
    assert (
        host_memory(compiled, on_gpu=True, cpus=8) - host_memory(compiled, on_gpu=True, cpus=1)
        > 6 * gpu_sharing.COMPILER
    )
