"""Gives converted rows to a package that reads no table: run by benchmarks/rivals.py with that package's own Python.

python rivals_feed.py NAME rows.jsonl FOLDER
"""

import json
import math
import sys
from pathlib import Path
from typing import Any


def rlwatch(rows: list[dict[str, Any]], folder: str) -> None:
    from rlwatch.config import RLWatchConfig
    from rlwatch.core import RLWatch

    config = RLWatchConfig()  # its defaults, no file and no environment
    config.run_id, config.framework, config.storage.log_dir = "run", "manual", folder
    monitor = RLWatch(config)
    monitor.start()
    for row in rows:
        monitor.log_step(row.pop("step"), **row)
    monitor.stop()


def rlprobe(rows: list[dict[str, Any]], folder: str) -> None:
    from rlprobe.recorder import Recorder

    with Recorder(folder, algorithm="grpo", run_id="run", capture_env=False, queue_size=1 << 20) as recorder:
        for row in rows:
            bad = [value for value in row.values() if not math.isfinite(value)]
            good = {key: value for key, value in row.items() if math.isfinite(value)}  # as its TRL callback does
            step = good.pop("step")
            recorder.log_step(step, nan_count=sum(map(math.isnan, bad)), inf_count=sum(map(math.isinf, bad)), **good)


def zen(rows: list[dict[str, Any]], folder: str) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(folder)
    for row in rows:
        step = row.pop("step")
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in row.items()]
        writer.add_event(Event(step=step, wall_time=float(step), summary=Summary(value=values)))
    writer.close()


if __name__ == "__main__":
    name, table, folder = sys.argv[1:]
    rows = [json.loads(line) for line in Path(table).read_text(encoding="utf-8").splitlines()]
    {"rlwatch": rlwatch, "rlprobe": rlprobe, "zen-rl": zen}[name](rows, folder)
