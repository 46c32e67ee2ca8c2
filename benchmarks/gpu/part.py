"""Make the checks of one part, in a process of its own: `python -m benchmarks.gpu.part NAME SECONDS FILE`.

The file is written after every check, so that what was found stays whatever happens next.
"""

import json
import shutil
import subprocess
import sys
import time
import traceback
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any


def machine() -> str:
    """The machine, its GPU, driver, CUDA and torch in words; of a dry run it says so."""
    import torch

    from benchmarks import harness

    if not torch.cuda.is_available():
        return f"DRY RUN at tiny sizes, without a GPU: {harness.machine()}"
    driver = "unknown"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.partition("\n")[0] or driver
    return f"{harness.machine()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, driver {driver}"


def main(name: str, seconds: float, file: Path) -> None:
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    about = {"machine": machine(), "date": f"{datetime.now():%Y-%m-%d %H:%M}"}

    def keep(what: str, found: str, asked: str = "", met: bool | None = None) -> None:
        rows.append({"what": what, "found": found, "asked": asked, "met": met})
        print(f"{name}: {what}: {found}{f' ({asked})' if asked else ''}{' FAILED' if met is False else ''}", flush=True)
        content = {**about, "seconds": round(time.monotonic() - began), "rows": rows}
        whole = file.with_suffix(".new")  # the process may be ended at any time
        whole.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        whole.replace(file)

    def failed(what: str, error: Exception) -> None:
        traceback.print_exc()
        keep(what, f"{type(error).__name__}: {error}".splitlines()[0][:300], "", False)

    try:
        from benchmarks.gpu.checks import Skipped

        for what, check in import_module(f"benchmarks.gpu.{name}").checks():
            if time.monotonic() - began > seconds:
                keep(what, f"left out, and all after it: the {seconds:.0f} s of this part are over")
                break
            try:
                found = check()
            except Skipped as reason:
                keep(what, f"skipped: {reason}")
            except Exception as error:
                failed(what, error)
            else:
                keep(what, found.found, found.asked, found.met)
    except Exception as error:
        failed("the whole part", error)
    sys.exit(any(row["met"] is False for row in rows))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
