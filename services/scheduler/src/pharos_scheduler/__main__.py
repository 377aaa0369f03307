"""``python -m pharos_scheduler``"""

from pharos_scheduler.app import main

if __name__ == "__main__":
    main()
