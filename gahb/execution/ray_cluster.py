"""The executor: Ray Tune, and the only module that knows it. It may be thrown away after each launch.

Tune places trials on CPUs and GPUs and starts one again whose worker died; the trial itself resumes from its own
checkpoint, so nothing of Tune's is kept.

Ray reads its settings from the environment when it is imported, so it is imported after they are made.
"""

import contextlib
import logging
import os
import platform
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gahb import registry
from gahb.errors import UserError
from gahb.execution import worker_types
from gahb.execution.code import code
from gahb.execution.task import Task
from gahb.execution.waiting import waiting
from gahb.own_folder import own_folder
from gahb.planning import gpu_sharing
from gahb.planning.placement import GPU_MEMORY, KIND, WorkerType
from gahb.tracking.preflight import check_listening

if TYPE_CHECKING:
    import torch

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it reports to a host outside
    "MLFLOW_DISABLE_TELEMETRY": "true",  # the same; Ray imports MLflow
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the record is MLflow's
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt is ours
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_enable_metrics_collection": "0",  # they answer without a token
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

ASK_SECONDS = 10.0
"""How long a GPU may take to tell its memory."""

ACCESS = ("MLFLOW_", "AWS_")
"""Prefixes of the environment variables that give access to the record and to the storage. Workers receive them as an
object in Ray's memory: a runtime_env is written to logs and to command lines, which other users of a machine may read.
"""

LONGEST_SOCKET = "ray-12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1"
"""What Ray's longest name of a socket looks like, of whose path the system takes 107 bytes."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at an address (or at `RAY_ADDRESS`), or else a Ray of this machine's own.

    Raises:
        UserError: no cluster at the address, or none that starts here.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    if not address and "ray" not in sys.modules:  # a token of its own, which no file keeps
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)  # in a notebook it asks for widgets
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if address:
            check_reachable(address)
            check_token()
            folder = stack.enter_context(code())
            with _told(f"no Ray cluster to be had at {address}"):
                ray.init(address, runtime_env={"working_dir": str(folder), "env_vars": ALLOCATOR}, **quiet)
        else:
            session = stack.enter_context(_session_folder())
            with _inherited(ALLOCATOR), _told("Ray does not start here; on a busy machine, try again"):
                ray.init("local", include_dashboard=False, _temp_dir=session, **quiet)
        ray._private.worker._worker_logs_enabled = False  # what became of workers and nodes, the record and we say
        stack.callback(ray.shutdown)
        yield


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell in a line what Ray raises, of many kinds, when it starts or connects."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{what}: {str(error).strip().splitlines()[0]}") from None


@contextlib.contextmanager
def _session_folder() -> Iterator[str]:
    """A folder for a Ray of this machine's own, removed at the end. Ray opens it to everybody; what is around it stays
    closed."""
    around = own_folder()
    if len(f"{around}/{LONGEST_SOCKET}") > 107:
        around = own_folder(root=Path("/tmp"))
    with tempfile.TemporaryDirectory(prefix="ray-", dir=around, ignore_cleanup_errors=True) as folder:
        yield folder


@contextlib.contextmanager
def _inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started in this block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for key in variables:
            del os.environ[key]
        os.environ.update({key: before[key] for key in variables if key in before})


def check_token() -> None:
    """Raise UserError if others may read the token with which this process connects to a cluster, if it uses one."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN") or not file.exists():
        return
    about = file.stat()
    if about.st_uid == os.getuid() and about.st_mode & 0o077:
        raise UserError(
            f"others may read {file}, and with it run code on the cluster: chmod 600 {file}, and if this machine has "
            "other users, make a new token: (umask 077; ray get-auth-token --generate)"
        )


def check_reachable(address: str) -> None:
    """Raise UserError if nothing listens at [scheme://]host:port; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    if host and port.isdigit():
        try:
            check_listening(host, int(port))
        except (OSError, OverflowError) as error:
            raise UserError(f"no Ray cluster to be had at {address}: {error}") from None


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
