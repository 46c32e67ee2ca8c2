"""The executor: Ray Tune, and the only module that knows it. It may be thrown away after each launch.

Tune places trials on CPUs and GPUs and starts one again whose worker died; the trial itself resumes from its own
checkpoint, so nothing of Tune's is kept.

Ray reads its settings from the environment when it is imported, so it is imported after they are made.
"""

import contextlib
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gahb import registry
from gahb.errors import UserError
from gahb.execution.code import code
from gahb.execution.task import Task
from gahb.planning.gpu_sharing import Gpu
from gahb.tracking.preflight import check_listening

if TYPE_CHECKING:
    import torch

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it reports to a host outside
    "MLFLOW_DISABLE_TELEMETRY": "true",  # the same; Ray imports MLflow
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the record is MLflow's
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # inside a job, whose own holds the same code
}
"""Environment variables, where the user has not set them."""

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "MALLOC_ARENA_MAX": "1",
}
"""Lets glibc keep freed memory in workers; by default it returns every large activation to the system at each step.
One arena, because Tune trains in a thread, and a thread's own arena gives back whatever exceeds 64 MiB."""

MAX_WORKER_DEATHS = 1000
"""Workers that a trial may lose in all. The worker counts those that die without having got further; this number ends
a trial whose workers die before they can count."""

FORWARDED = ("MLFLOW_", "AWS_")
"""Prefixes of the environment variables that workers receive: access to the record and its artifacts."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at an address (or at `RAY_ADDRESS`), or else a Ray of this machine's own.

    Raises:
        UserError: no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    if not address and "ray" not in sys.modules:  # a token of its own, which no file keeps
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    if ray.is_initialized():
        yield
        return
    environment = {**ALLOCATOR, **{k: v for k, v in os.environ.items() if k.startswith(FORWARDED)}}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if address:
            check_reachable(address)
            folder = stack.enter_context(code())
            try:
                ray.init(address, runtime_env={"working_dir": str(folder), "env_vars": environment}, **quiet)
            except Exception as error:  # Ray raises many kinds here; each means that the cluster is out of reach
                reason = str(error).strip().splitlines()[0]
                raise UserError(f"no Ray cluster to be had at {address}: {reason}") from None
        else:
            ray.init("local", include_dashboard=False, runtime_env={"env_vars": environment}, **quiet)
        stack.callback(ray.shutdown)
        yield


def check_reachable(address: str) -> None:
    """Raise UserError if nothing listens at [scheme://]host:port; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    if host and port.isdigit():
        try:
            check_listening(host, int(port))
        except (OSError, OverflowError) as error:
            raise UserError(f"no Ray cluster to be had at {address}: {error}") from None


def gpu() -> Gpu | None:
    """The GPUs of the connected cluster, as the first of them answers; None if it has none."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    if not nodes:
        return None

    @ray.remote(num_gpus=0.01, num_cpus=0)
    def ask() -> tuple[str, int]:
        import torch

        return torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory

    name, memory = ray.get(ask.remote())
    return Gpu(name, memory, max(node.get("CPU", 0) / node["GPU"] for node in nodes))


def check_resources(cpus: float, gpus: float, memory: int) -> None:
    """Raise UserError if a trial needs more than any node has."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for resource, needed in (("CPU", cpus), ("GPU", gpus)):
        most = max(node.get(resource, 0) for node in nodes)
        if needed > most:
            raise UserError(f"a trial needs {needed:g} {resource}s, and the largest node has {most:g}")
    most = max(node.get("memory", 0) for node in nodes)
    if memory > most:
        raise UserError(
            f"a trial needs {memory / 1e9:.1f} GB of memory, and the largest node has {most / 1e9:.1f} GB for trials; "
            "a smaller batch_size needs less"
        )


def run_trials(tasks: Sequence[Task], *, on_result: Callable[[str, Mapping[str, Any]], None]) -> dict[str, str]:
    """Run trials on the connected cluster until each has ended, or the user interrupts.

    Args:
        tasks: the trials.
        on_result: called in this process with a run id and its newest evaluation.

    Returns:
        run id → reason, for trials that could not even begin, and so could not tell the record.
    """
    from ray import tune

    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:  # Tune's own files, which only this process reads
        tuner = tune.Tuner(
            tune.with_resources(_trial, _resources),
            param_space={"task": tune.grid_search([task.plain() for task in tasks])},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name="launch",
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=MAX_WORKER_DEATHS),
                callbacks=[_relay(on_result, failures)],
                verbose=0,
            ),
        )
        with contextlib.redirect_stdout(_Discarded()):
            tuner.fit()
    return failures


def map_unordered(
    function: Callable[[Any, "torch.device"], Any], items: Sequence[Any], *, cpus: float = 1
) -> Iterator[tuple[int, Any]]:
    """Call a function for every item as tasks on the connected cluster.

    Args:
        function: takes an item and the device that the task was granted, a GPU if the cluster has any; called again if
            its worker died.
        items: its arguments.
        cpus: of a task.

    Yields:
        an item's position and the function's result, as soon as there is one.

    Raises:
        UserError: raised by the function; the other tasks' results are lost.
    """
    import ray

    task = ray.remote(num_cpus=cpus, num_gpus=1 if ray.cluster_resources().get("GPU") else 0, max_retries=3)(_call)
    calls = [ray.cloudpickle.dumps((function, item)) for item in items]
    waiting = {task.remote(registry.files(), call): i for i, call in enumerate(calls)}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        try:
            yield waiting.pop(done), ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, UserError) else error from None


def _call(plugins: Sequence[registry.Origin], call: bytes) -> Any:
    """A task on its worker: call a function for an item, both of which may be of a plugin file."""
    import ray

    for origin in plugins:
        registry.load_source(origin)
    function, item = ray.cloudpickle.loads(call)
    granted = ray.get_runtime_context().get_assigned_resources()
    return function(item, _device(granted.get("CPU", 1), granted.get("GPU", 0)))


def _device(cpus: float, gpus: float) -> "torch.device":
    """The device of a worker that was granted so many CPUs and GPUs; sets the number of threads and, where GPUs are
    shared, the memory that it may use."""
    import torch

    torch.set_num_threads(max(1, int(cpus)))
    if 0 < gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    return torch.device("cuda" if gpus else "cpu")


def _resources(config: dict[str, Any]) -> Any:
    """What Tune reserves for a trial. The node's memory is reserved only, not enforced; a GPU's `_device` enforces."""
    from ray import tune

    task = Task.of(config["task"])
    return tune.PlacementGroupFactory([{"CPU": task.cpus, "GPU": task.gpus, "memory": task.memory}])


def _trial(config: dict[str, Any]) -> None:
    """A trial on its worker."""
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


def _relay(on_result: Callable[[str, Mapping[str, Any]], None], failures: dict[str, str]) -> Any:
    """A Tune callback that passes each evaluation to `on_result` and collects the reasons of failures. Tune pickles it;
    the copies do nothing."""
    from ray import tune

    class Relay(tune.Callback):
        def __reduce__(self) -> tuple[type, tuple[()]]:
            return tune.Callback, ()

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
            if "gahb" in result:
                on_result(trial.config["task"]["run_id"], result["gahb"])
            if "gahb_refused" in result:
                failures[trial.config["task"]["run_id"]] = result["gahb_refused"]

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            reason = str(trial.get_error()).strip().splitlines()[-1]
            failures[trial.config["task"]["run_id"]] = reason

    return Relay()


class _Discarded:
    """A text stream that discards what is written to it: Tune prints tables that the record makes superfluous."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return

    def isatty(self) -> bool:
        return False
