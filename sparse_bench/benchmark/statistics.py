"""Summaries over tasks for few seeds: interquartile mean, probability of improvement, performance profile.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice". The authors'
package rliable 1.2.0 does not run with arch 7, which dropped its argument ``random_state``. Its interquartile mean and
its probability of improvement are those below.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sparse_bench.benchmark.cells import DENSE, Cell, Key
from sparse_bench.benchmark.tasks import TASKS
from sparse_bench.evidence.statistics import CONFIDENCE, StatisticsError

#: Number of bootstrap draws, and the seed of their random numbers, so that a table written again has the same digits.
DRAWS, SEED = 2000, 0
_TAIL = 100 * (1 - CONFIDENCE) / 2

#: Normalised scores of cells, by seed.
Normal = Mapping[Key, Mapping[int, float]]
#: Scores by task, one a seed.
Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def above(self, bound: float) -> bool:
        """Whether the whole interval lies above a bound."""
        return self.low > bound

    def below(self, bound: float) -> bool:
        """Whether the whole interval lies below a bound."""
        return self.high < bound


def scores(found: Mapping[Key, Cell], baselines: Mapping[str, float]) -> dict[Key, dict[int, float]]:
    """Normalised score of each run: 1 is the dense model's mean, 0 the counted baseline; logarithms of perplexities.

    Cells of a task without dense runs are skipped. So are those whose weights are more than 20 % off their unit, which
    may happen to ``small_dense``: they would not be compared at equal weights.

    Raises:
        StatisticsError: the dense model of a task is no better than the baseline, so that there is no scale.
    """
    normal: dict[Key, dict[int, float]] = {}
    for task in TASKS:
        dense = found.get((task.name, DENSE, 1.0))
        if dense is None:
            continue
        bottom = task.utility(baselines[task.name])
        height = float(np.mean([task.utility(value) for value in dense.values.values()])) - bottom
        if height <= 0:
            raise StatisticsError(f"The dense model of {task.name} is no better than the counted baseline.")
        for key, cell in found.items():
            if key[0] == task.name and cell.at_its_unit:
                normal[key] = {seed: (task.utility(v) - bottom) / height for seed, v in sorted(cell.values.items())}
    return normal


def of_scheme(normal: Normal, scheme: str, density: float) -> dict[str, np.ndarray]:
    """Task → scores of a scheme at a density, one a seed."""
    return {
        task: np.array(list(by_seed.values()))
        for (task, name, unit), by_seed in normal.items()
        if (name, unit) == (scheme, density)
    }


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half of the values, along the last axis."""
    return np.asarray(stats.trim_mean(values, 0.25, axis=-1))


def summary(by_task: Scores, statistic: Callable[[np.ndarray], np.ndarray] = interquartile_mean) -> Estimate:
    """A ``statistic`` along the last axis of all scores together; a bootstrap resamples the seeds of each task.

    Raises:
        StatisticsError: there are no scores.
    """
    if not by_task:
        raise StatisticsError("A summary needs the scores of at least one task.")
    parts, generator = list(by_task.values()), np.random.default_rng(SEED)
    drawn = statistic(np.concatenate([_resampled(part, generator) for part in parts], axis=-1))
    return Estimate(float(statistic(np.concatenate(parts))), *_interval(drawn))


def improvement(first: Scores, second: Scores) -> Estimate:
    """The probability that a run of ``first`` is better than one of ``second``, on average over the tasks of both.

    A tie counts as one half. The bootstrap resamples the seeds of each task and side.

    Raises:
        StatisticsError: the two have no task in common.
    """
    tasks = [task for task in first if task in second]
    if not tasks:
        raise StatisticsError("The two schemes have no task in common.")
    generator = np.random.default_rng(SEED)
    drawn = [_above(_resampled(first[task], generator), _resampled(second[task], generator)) for task in tasks]
    value = float(np.mean([_above(first[task], second[task]) for task in tasks]))
    return Estimate(value, *_interval(np.mean(drawn, axis=0)))


def _above(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share of pairs of values, along the last axes, of which the first is higher; ties count one half."""
    one, other = first[..., :, None], second[..., None, :]
    return np.asarray(((one > other) + 0.5 * (one == other)).mean(axis=(-2, -1)))


def paired(normal: Normal, first: str, second: str, density: float) -> dict[str, np.ndarray]:
    """Task → differences of scores, first − second, one a seed that both have; tasks without such seeds are skipped."""
    found = {}
    for task in (task.name for task in TASKS):
        one, other = normal.get((task, first, density), {}), normal.get((task, second, density), {})
        if seeds := sorted(one.keys() & other.keys()):
            found[task] = np.array([one[seed] - other[seed] for seed in seeds])
    return found


def profile(by_task: Scores, levels: Sequence[float]) -> list[float]:
    """Share of the runs with a score above each level, on average over tasks [levels]."""
    return [float(np.mean([(part > level).mean() for part in by_task.values()])) for level in levels]


def _resampled(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many values drawn with replacement, for each bootstrap draw [draws, values]."""
    return values[generator.integers(len(values), size=(DRAWS, len(values)))]


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(drawn, [_TAIL, 100 - _TAIL])
    return float(low), float(high)
