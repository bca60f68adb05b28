"""Makes the packages `faultlab`, `toldlab`, `reallab` and `soak` importable for the tests beside
them."""

import os
import sys
from pathlib import Path

from aimlab.real.cluster import FOLDER

sys.path += [str(Path(__file__).parent / name) for name in ("faults", "told", "real", "")]
collect_ignore = [] if FOLDER in os.environ else ["real"]  # needs the parts of `make test-real`
