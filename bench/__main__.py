"""``python -m bench``: every measurement, one after the other."""

from __future__ import annotations

import subprocess
import sys

for name in ("bench.bench_encode", "bench.bench_train", "bench.bench_index", "bench.bench_scale"):
    sys.stdout.write(f"== {name}\n")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", name], check=True)
