"""The sandbox child of a system without Landlock, run by path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "dsrl" / "graders"))

import sandbox_child

sandbox_child.restrict_files = lambda _folder: False
sandbox_child.main()
