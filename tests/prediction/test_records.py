"""The records of a prediction."""

import subprocess
import sys


def test_the_records_are_imported_without_torch():
    code = "import sys, septum.prediction.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
