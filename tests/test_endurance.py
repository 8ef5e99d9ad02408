"""Long uses in one process: memory stays flat. NST_FULL=1 uses it for as long as tests/benchmarks/endurance.py --all does."""
import csv
import os
import runpy
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "endurance.py"
COUNTS = {"steps of an optimisation": 400, "panels opened and closed": 40, "pictures by AdaIN": 200}
FLAT = 24  # MiB: what allocators keep comes and goes by that much


@pytest.mark.parametrize("use", COUNTS)
def test_memory_stays_flat(use):
    pytest.importorskip("psutil")
    count = runpy.run_path(str(SCRIPT))["USES"][use][1] if os.environ.get("NST_FULL") else COUNTS[use]
    done = subprocess.run([sys.executable, SCRIPT, use, str(count)], capture_output=True, text=True)
    rows = list(csv.reader(done.stdout.splitlines()))
    assert len(rows) == 10 and int(rows[-1][1]) == count, done.stderr[-2000:]
    early, late = (statistics.median(float(row[2]) for row in part) for part in (rows[1:4], rows[7:]))
    assert late - early < FLAT, rows


def test_how_much_is_used(reliability):
    reliability("one process, used for long", ", ".join(f"{count:,} {use}" for use, count in COUNTS.items()),
                f"memory flat within {FLAT} MiB")
