"""For programs that freeze programs: where PyInstaller finds the hook that tells what the package needs.

The entry point ``hook-dirs`` of the group ``pyinstaller40`` names the function below, as PyInstaller's manual has it
("Providing PyInstaller Hooks with your Package").
"""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """Return the directories with hooks: this one."""
    return [os.path.dirname(__file__)]
