"""The executor: Ray Tune, and the only module that knows it. It may be thrown away after each launch.

Tune places trials on CPUs and GPUs and starts one again whose worker died; the trial itself resumes from its own
checkpoint, so nothing of Tune's is kept.
"""

import contextlib
import os
import platform
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gahb import registry
from gahb.errors import UserError
from gahb.execution import worker_types
from gahb.execution.task import Task
from gahb.execution.waiting import waiting
from gahb.planning import gpu_sharing
from gahb.planning.placement import GPU_MEMORY, KIND, WorkerType

if TYPE_CHECKING:
    import torch

MAX_WORKER_DEATHS = 1000
"""Workers that a trial may lose in all. The worker counts those that die without having got further; this number ends
a trial whose workers die before they can count."""

ASK_SECONDS = 10.0
"""How long a GPU may take to tell its memory."""

ACCESS = ("MLFLOW_", "AWS_")
"""Prefixes of the environment variables that give access to the record and to the storage. Workers receive them as an
object in Ray's memory: a runtime_env is written to logs and to command lines, which other users of a machine may read.
"""


def workers() -> list[WorkerType]:
    """The worker types that the connected cluster has or may start."""
    return [*worker_types.living(), *worker_types.startable()]


def gpu_memory() -> dict[str, float]:
    """Kind of GPU → its bytes of memory. A living one is asked where Ray's name of its kind does not tell; one that is
    too busy to answer is left out."""
    import ray

    @ray.remote(num_cpus=0, num_gpus=0.01)
    def ask() -> int:
        import torch

        return torch.cuda.get_device_properties(0).total_memory

    found = dict(GPU_MEMORY)
    for kind in {worker.kind for worker in worker_types.living() if worker.gpus} - found.keys():
        wanted = {f"{KIND}{kind}": 0.001} if kind else {}
        with contextlib.suppress(ray.exceptions.RayError):
            found[kind] = ray.get(ask.options(resources=wanted).remote(), timeout=ASK_SECONDS)
    return found


def run_trials(
    tasks: Sequence[Task],
    *,
    on_result: Callable[[str, Mapping[str, Any]], None],
    on_interrupt: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, str]:
    """Run trials on the connected cluster until each has ended, or the user interrupts.

    Args:
        tasks: the trials, which begin in this order.
        on_result: called in this process with a run id and its newest evaluation.
        on_interrupt: called in a thread at the first interrupt; where it returns, or at the second, whatever still runs
            is ended.
        say: takes a line on what they wait for.

    Returns:
        run id → reason, for trials that could not even begin, and so could not tell the record.
    """
    if not tasks:  # another launch was faster
        return {}
    from ray import tune
    from ray.tune.execution import class_cache

    # Tune would hand on AWS's keys in the runtime_env of each trial
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name[:4] != "AWS_"}
    trial = tune.with_parameters(_trial, access=_access())
    failures: dict[str, str] = {}
    with (
        tempfile.TemporaryDirectory() as folder,  # Tune's own files, which only this process reads
        waiting(tasks[0].resources, say) as begin,
        _interruptible(on_interrupt) as interrupted,
    ):
        tuner = tune.Tuner(
            tune.with_resources(trial, _resources),
            param_space={"task": tune.grid_search([task.plain() for task in tasks])},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name="launch",
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=MAX_WORKER_DEATHS),
                stop=_stopper(interrupted),
                callbacks=[_relay(begin, on_result, failures)],
                progress_reporter=_silent_in_notebooks(),
                verbose=0,
            ),
        )
        with contextlib.redirect_stdout(_Discarded()):
            tuner.fit()
    return failures


def _silent_in_notebooks() -> Any:
    """A reporter that prints, which is discarded, in the place of Tune's own for notebooks, which clears what is shown
    below the cell. Elsewhere there is none to replace."""
    from ray import tune
    from ray.widgets.util import in_notebook

    return tune.CLIReporter() if in_notebook() else None


def map_unordered(
    function: Callable[[Any, "torch.device"], Any],
    items: Sequence[Any],
    *,
    cpus: float = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[int, Any]]:
    """Call a function for every item as tasks on the connected cluster.

    Args:
        function: takes an item and the device that the task was granted, a GPU if the cluster has any or may start one;
            called again if its worker died.
        items: its arguments.
        cpus: of a task.
        say: takes a line on what they wait for.

    Yields:
        an item's position and the function's result, as soon as there is one.

    Raises:
        UserError: no node has so many CPUs, or raised by the function; the other tasks' results are lost.
    """
    import ray

    able = workers()
    resources = {"CPU": cpus, "GPU": 1 if any(worker.gpus for worker in able) else 0}
    check_resources(resources, able)
    task: Any = ray.remote(num_cpus=cpus, num_gpus=resources["GPU"], max_retries=3, num_returns="streaming")(_call)
    calls = [ray.cloudpickle.dumps((function, item)) for item in items]
    access = ray.put(_access())
    waiting_for: dict[Any, int] = {task.remote(registry.files(), access, call): i for i, call in enumerate(calls)}
    with waiting(resources, say) as begin:
        while waiting_for:
            ready: Any = ray.wait(list(waiting_for), num_returns=1)[0][0]
            try:
                found = ray.get(next(ready))
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, UserError) else error from None
            begin()
            if found is not None:
                (result,) = found
                yield waiting_for.pop(ready), result


def check_resources(resources: Mapping[str, float], workers: Sequence[WorkerType]) -> None:
    """Raise UserError if no worker type has as many CPUs and GPUs."""
    for name in ("CPU", "GPU"):
        most = max(getattr(worker, f"{name.lower()}s") for worker in workers)
        if resources[name] > most:
            raise UserError(f"a task needs {resources[name]:g} {name}, and the largest node has {most:g}")


def _access() -> dict[str, str]:
    """This process's environment variables that give access."""
    return {key: value for key, value in os.environ.items() if key.startswith(ACCESS)}


def _call(plugins: Sequence[registry.Origin], access: Mapping[str, str], call: bytes) -> Iterator[tuple[Any] | None]:
    """A task on its worker: say that it has begun, then call a function for an item, both of which may be of a plugin
    file."""
    import ray

    yield None

    os.environ.update(access)
    for origin in plugins:
        registry.load_source(origin)
    function, item = ray.cloudpickle.loads(call)
    granted = ray.get_runtime_context().get_assigned_resources()
    yield (function(item, _device(granted.get("CPU", 1), granted.get("GPU", 0))),)


def _device(cpus: float, gpus: float) -> "torch.device":
    """The device of a worker that was granted so many CPUs and GPUs; sets the number of threads and of processes that
    compile, and, where GPUs are shared, the memory that it may use.

    Raises:
        UserError: torch cannot use the GPU.
    """
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(max(1, int(cpus)))
    import torch

    from gahb.training.step import make_deterministic

    torch.set_num_threads(max(1, int(cpus)))
    make_deterministic()
    if not gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        granted = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        raise UserError(
            f"granted GPU {granted} of {platform.node()}, and torch {torch.__version__} cannot use it; install a build "
            "of torch for its driver, or give --gpus-per-trial 0"
        )
    if gpus < 1:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(gpu_sharing.memory_fraction(whole, gpus))
    return torch.device("cuda")


def _resources(config: dict[str, Any]) -> Any:
    """What Tune reserves for a trial. The node's memory is reserved only, not enforced; a GPU's `_device` enforces."""
    from ray import tune

    return tune.PlacementGroupFactory([Task.of(config["task"]).resources])


def _trial(config: dict[str, Any], access: Mapping[str, str]) -> None:
    """A trial on its worker."""
    os.environ.update(access)
    from ray import tune

    from gahb.execution.worker import RetryableError, run_trial

    task = Task.of(config["task"])
    try:
        for origin in task.plugins:
            registry.load_source(registry.Origin(**origin))
        run_trial(task, _device(task.cpus, task.gpus), lambda row: tune.report({"gahb": row}))
    except RetryableError:
        raise
    except Exception as error:
        tune.report({"gahb_refused": f"{type(error).__name__}: {error}"})


def _relay(
    on_start: Callable[[], None], on_result: Callable[[str, Mapping[str, Any]], None], failures: dict[str, str]
) -> Any:
    """A Tune callback that calls `on_start` when a trial begins, passes each evaluation to `on_result` and collects the
    reasons of failures. Tune pickles it; the copies do nothing."""
    from ray import tune

    class Relay(tune.Callback):
        def __reduce__(self) -> tuple[type, tuple[()]]:
            return tune.Callback, ()

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            on_start()

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
            if "gahb" in result:
                on_result(trial.config["task"]["run_id"], result["gahb"])
            if "gahb_refused" in result:
                failures[trial.config["task"]["run_id"]] = result["gahb_refused"]

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            reason = str(trial.get_error()).strip().splitlines()[-1]
            failures[trial.config["task"]["run_id"]] = reason

    return Relay()


@contextlib.contextmanager
def _interruptible(ask: Callable[[], None]) -> Iterator[threading.Event]:
    """What is set once the user has interrupted and `ask`, which a thread calls then, has returned; or else at the
    second interrupt. The third is one as ever."""
    ended = threading.Event()

    def wait_for_answer() -> None:
        ask()
        ended.set()

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, second)
        threading.Thread(target=wait_for_answer, daemon=True).start()

    def second(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        ended.set()

    if threading.current_thread() is not threading.main_thread():
        yield ended
        return
    before = signal.signal(signal.SIGINT, first)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGINT, before)


def _stopper(ended: threading.Event) -> Any:
    """What tells Tune to end, once an event is set. Tune pickles it; the copies do nothing."""
    from ray import tune

    class Stopper(tune.Stopper):
        def __reduce__(self) -> tuple[type, tuple[()]]:
            return tune.stopper.NoopStopper, ()

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return ended.is_set()

    return Stopper()


class _Discarded:
    """A text stream that discards what is written to it: Tune prints tables that the record makes superfluous."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return

    def isatty(self) -> bool:
        return False
