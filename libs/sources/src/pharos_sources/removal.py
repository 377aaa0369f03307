"""Removing a folder that a stranger filled: as deep and as oddly as a repository allows."""

from __future__ import annotations

import subprocess
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove *folder* whole, if it is there. Raises OSError where something of it could not be removed.

    The system's ``rm`` knows no limit on depth; Python's ``shutil.rmtree`` recurses, and a thousand nested
    folders end it (and every process that meets them again).
    """
    if not folder.exists() and not folder.is_symlink():
        return
    done = subprocess.run(["/bin/rm", "-rf", "--", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode and folder.exists():
        # Folders that lost their permissions get them back first.
        subprocess.run(["/bin/chmod", "-R", "u+rwx", "--", str(folder)], capture_output=True, check=False)
        done = subprocess.run(
            ["/bin/rm", "-rf", "--", str(folder)], capture_output=True, text=True, check=False
        )
    if folder.exists():
        raise OSError(f"{folder.name} could not be removed: {done.stderr.strip()[-200:]}")
