"""Run a sweep through failures: `python -m chaos --rounds 20 --seed 1`."""

import sys, tempfile, time, subprocess, os, shutil
from pathlib import Path
from chaos import hosts, services, sweep
from chaos.world import World

if len(sys.argv)==1:
    why = hosts.missing({**hosts.PROGRAMS, **services.PROGRAMS})
    if why:
        print("skipped:", why); sys.exit(0)
    folder = tempfile.mkdtemp(prefix="chaos-"); os.chmod(folder, 0o755)
    print(folder)
    sys.exit(subprocess.run(hosts.enclosure([sys.executable, "-m", "chaos", folder])).returncode)
t=time.monotonic()
w = World(Path(sys.argv[1]), 3, True, (1,2,4,8,16,32), 15)
print("up", time.monotonic()-t); t=time.monotonic()
w.begin("one", False)
os.environ.update(w.access)
w.launch()
print(w.drivers[0].wait(), time.monotonic()-t)
print(w.states(1))
r = sweep.result(__import__("gahb.record").record.Record(w.server.uri))
print(r.states, [o.host for o in r.finished.values()])
