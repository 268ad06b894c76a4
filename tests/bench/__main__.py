"""Run all benchmarks, or the one named: `python -m tests.bench [NAME]`."""

from __future__ import annotations

import json
import sys

from tests.bench import collaboration, logits

BENCHMARKS = {"collaboration": collaboration.run, "logits": logits.run}


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    for name in names:
        print(json.dumps({"benchmark": name, **BENCHMARKS[name]()}), flush=True)


if __name__ == "__main__":
    main()
