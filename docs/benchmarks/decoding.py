"""How long a data set of image files takes to decode, and to load for the first and for the second time.

    python docs/benchmarks/decoding.py tiny-imagenet|imagefolder DATA_DIR [ROUNDS]

Decoding is timed one file after the other, by threads and by processes, in turn; loading with a cache of its own, which
is deleted in the end.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from joblib.externals.loky import ProcessPoolExecutor

from maldrop_cli.config import DataConfig
from maldrop_cli.data import decoding
from maldrop_cli.data.image_folders import image_files
from maldrop_cli.data.load import describe, load
from maldrop_cli.names import Dataset


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    config, root = DataConfig(dataset=Dataset(sys.argv[1])), Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    (_, side, _), _ = describe(config, root)
    paths = list(image_files(root))

    def by_threads() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoding._decode(pool, paths, side, lambda done: None)

    def by_processes() -> None:
        with ProcessPoolExecutor() as pool:
            decoding._decode(pool, paths, side, lambda done: None)

    ways = {
        "one by one": lambda: decoding.decode_files(paths, side),
        "threads": by_threads,
        "processes": by_processes,
    }
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MALDROP_CACHE"] = cache
        times: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, way in ways.items():
                times.setdefault(name, []).append(seconds(way))
            for place in (Path(cache) / "images").glob("*"):
                place.unlink()
            for name in ("first load", "second load"):
                times.setdefault(name, []).append(seconds(lambda: load(config, root)))
    print(f"{len(paths):,} images of {side}x{side}, {os.cpu_count()} cores; median (least) of {rounds} rounds, seconds")
    for name, values in times.items():
        print(f"{name:12} {statistics.median(values):8.2f} ({min(values):.2f})")


if __name__ == "__main__":
    main()
