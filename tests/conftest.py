"""Makes the builders of this folder importable, also in spawned workers, which inherit sys.path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
