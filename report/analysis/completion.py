"""Line at the top of every page on a study that has not trained as many candidates as it asks for.

Apart from `report.tables`, which `top` loads, as the limits of a study belong to the samplers' package.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.study.records import Record, progress
from search.study.run import Run
from search.training.result import Outcome
from search.tuning.sampler import NOTHING_NEW
from search.tuning.stopping import Limits


def unfinished_words(run: Run, candidates: Sequence[Record], references: Sequence[Record] = ()) -> str | None:
    """The number of trials trained of those asked for, and why there are no more; None for a complete study."""
    config, records = run.config, list(candidates)
    done, asked = progress(records), config.trials
    running = [record for record in records if record.outcome == Outcome.RUNNING]
    if done >= asked and not running:
        return None
    trained = f"{done:,} of {asked:,} trials are trained"
    if running:
        others = f"trial {running[0].number} was" if len(running) == 1 else f"{len(running):,} more were"
        return f"Not finished: {trained}, and {others} in training or interrupted when this was written."
    limit = Limits(config.stop, None, config.cost_metrics).reached(records, [*records, *references])
    without = [record.reason for record in records if (record.reason or "").startswith(NOTHING_NEW)]
    if reason := limit or (without[-1] if without else None):
        return f"Ended early: {trained}, as {reason}."
    return f"Not finished: {trained}; resume the study with: {run.command}"
