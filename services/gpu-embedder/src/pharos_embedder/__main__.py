"""``python -m pharos_embedder [--role all|worker|search]``"""

from pharos_embedder.app import main

if __name__ == "__main__":
    main()
