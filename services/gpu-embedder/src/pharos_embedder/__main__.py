"""``python -m pharos_embedder [--role all|worker|search]``"""

import os

# Before torch loads its OpenMP, which reads this once: how often a thread looks again before it sleeps at a
# barrier. With the default of 300,000 a busy machine encodes 1.5 times and trains 2 times as slowly; a quiet
# one loses nothing (docs/experiments.md). An operator's own value stays.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from pharos_embedder.app import main

if __name__ == "__main__":
    main()
