"""Makes the packages of helpers importable for the tests beside them."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent / name) for name in ("faults", "told", "real", "")]
