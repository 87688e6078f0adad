"""The tests of this sprint share a module, `witness`, which they import by its bare name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
