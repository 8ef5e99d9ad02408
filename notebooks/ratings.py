"""What people's ratings say: means, agreement, comparisons of methods, power, and how measures go along with them.

For whoever has asked people with survey.py, or wants to know how many to ask. Not here: how answers come about (survey), what is
measured of a picture without asking anybody (experiments), figures (report).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import krippendorff
import numpy as np
import pandas
import pingouin
from scipy.stats import friedmanchisquare, spearmanr, t, wilcoxon

from survey import FOLDER, METHODS, PAIRS, answers, pictures

# --- 1. The ratings ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratings:
    """values (P, K, M): what P participants said of K pairs by M methods, from 1 to 10, NaN where there is no answer."""

    participants: Sequence[str]
    pairs: Sequence[str]
    methods: Sequence[str]
    values: np.ndarray
    left_out: int = 0  # answers to pictures that are not there any more


def collected(path: Path | None = None, folder: Path = FOLDER) -> Ratings:
    """The answers in `path`, by default those beside the pictures of `folder`, in the order of the pictures."""
    rows, said = pictures(folder), answers(Path(path or Path(folder) / "answers.csv"))
    items = {row["item"]: (row["pair"], row["method"]) for row in rows}
    valid = [row for row in said if row["item"] in items]
    people, pairs, methods = (list(dict.fromkeys(names)) for names in (
        (row["participant"] for row in valid), (row["pair"] for row in rows), (row["method"] for row in rows)))
    values = np.full((len(people), len(pairs), len(methods)), np.nan)
    for row in valid:
        pair, method = items[row["item"]]
        values[people.index(row["participant"]), pairs.index(pair), methods.index(method)] = float(row["rating"])
    return Ratings(people, pairs, methods, values, len(said) - len(valid))


def simulate(people: int = 52, *, pairs: Sequence[tuple[str, str]] = PAIRS, methods: Sequence[str] = tuple(METHODS),
             seed: int = 0, level: float = 7.3, effects: Sequence[float] = (0.4, 0.6, 0.0, -0.4), picture: float = 0.8,
             rater: float = 1.0, taste: float = 0.6, noise: float = 1.5, missing: float = 0.0) -> Ratings:
    """Answers of invented people, for trying a design and its statistics. They say nothing about pictures.

    An answer is level + effects[method] + the picture's quality + the rater's generosity + the rater's liking of the method +
    noise, rounded and clipped to 1 ... 10. picture, rater, taste and noise are the standard deviations of these, in points; half
    of the variance of `picture` is that of its pair, shared by all methods. missing: share of answers that are not given.
    """
    rng, shape = np.random.default_rng(seed), (people, len(pairs), len(methods))
    quality = (rng.normal(size=(1, shape[1], 1)) + rng.normal(size=(1, *shape[1:]))) * picture / np.sqrt(2)
    person = rng.normal(size=(people, 1, 1)) * rater + rng.normal(size=(people, 1, shape[2])) * taste
    values = np.rint(level + np.asarray(effects[:shape[2]]) + quality + person + rng.normal(size=shape) * noise).clip(1, 10)
    values[rng.random(shape) < missing] = np.nan
    return Ratings([f"simulated {k + 1}" for k in range(people)], [" x ".join(pair) for pair in pairs], list(methods), values)


# --- 2. Means and agreement -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where there are too few values to tell."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}], n = {self.count}"


def mean(values: np.ndarray) -> Estimate:
    """The mean of those values that are there, with Student's interval."""
    values = np.asarray(values, dtype=float).ravel()
    values = values[~np.isnan(values)]
    count = len(values)
    middle = float(values.mean()) if count else np.nan
    half = float(t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)) if count > 1 else np.nan
    return Estimate(middle, middle - half, middle + half, count)


def average(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Means along an axis over what is there, NaN where nothing is."""
    count = (~np.isnan(values)).sum(axis)
    return np.where(count, np.nansum(values, axis) / np.maximum(count, 1), np.nan)


def agreement(values: np.ndarray) -> dict[str, float]:
    """How far participants (P, K, M) agree; NaN where that can't be told, as of one participant, or if all ratings are equal.

    "alpha": Krippendorff's for ordinal ratings, from all answers. "ICC(2,1)" and "ICC(2,k)": intraclass correlation of one
    participant and of the mean of all (Shrout and Fleiss 1979), from those who have rated every picture.
    """
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    given, whole = flat[~np.isnan(flat)], flat[~np.isnan(flat).any(1)]
    result = dict.fromkeys(("alpha", "ICC(2,1)", "ICC(2,k)"), float("nan"))
    if (~np.isnan(flat)).sum(0).max(initial=0) > 1 and np.ptp(given) > 0:
        result["alpha"] = float(krippendorff.alpha(reliability_data=flat, level_of_measurement="ordinal"))
    if len(whole) > 1 and whole.shape[1] > 1 and np.ptp(whole) > 0:
        people, items = np.indices(whole.shape)
        table = pandas.DataFrame({"person": people.ravel(), "item": items.ravel(), "rating": whole.ravel()})
        found = pingouin.intraclass_corr(table, targets="item", raters="person", ratings="rating").set_index("Type")["ICC"]
        result |= {"ICC(2,1)": float(found["ICC(A,1)"]), "ICC(2,k)": float(found["ICC(A,k)"])}
    return result


# --- 3. Methods against each other ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """The first method minus the second, in points.

    people: the mean over participants, which tells of these very pictures. pairs: the mean over pairs, which tells of other
    pictures as well, as far as the pairs stand for them. p, holm: of Wilcoxon's signed-rank test over participants, raw and
    corrected for the number of comparisons.
    """

    first: str
    second: str
    people: Estimate
    pairs: Estimate
    p: float
    holm: float = float("nan")

    def __str__(self) -> str:
        return (f"{self.first} - {self.second}: {self.people} people, p = {self.p:.2g}, corrected {self.holm:.2g}; "
                f"{self.pairs} pairs")


def differences(values: np.ndarray, first: int, second: int) -> np.ndarray:
    """How much higher each participant rates the first method than the second, on average over the pairs rated by both."""
    found = average(values[..., first] - values[..., second], 1)
    return found[~np.isnan(found)]


def compare(found: Ratings) -> list[Comparison]:
    """Every method against every other, paired by participant, corrected for their number by Holm."""
    result = []
    for first, second in combinations(range(len(found.methods)), 2):
        gaps = differences(found.values, first, second)
        over = mean(average(found.values[..., first] - found.values[..., second], 0))
        result.append(Comparison(found.methods[first], found.methods[second], mean(gaps), over, _signed_rank(gaps)))
    corrected = pingouin.multicomp([one.p for one in result], method="holm")[1] if result else []
    return [replace(one, holm=float(p)) for one, p in zip(result, corrected)]


def _signed_rank(gaps: np.ndarray) -> float:
    return np.nan if len(gaps) < 2 else float(wilcoxon(gaps).pvalue) if gaps.any() else 1.0


def friedman(values: np.ndarray) -> float:
    """p of Friedman's test that all methods (P, K, M) are liked equally, over pairs that a participant rated by every method."""
    scores = average(np.where(np.isnan(values).any(2, keepdims=True), np.nan, values), 1)
    scores = scores[~np.isnan(scores).any(1)]
    if len(scores) < 2 or scores.shape[1] < 3:
        return np.nan
    return float(friedmanchisquare(*scores.T).pvalue) if np.ptp(scores, axis=1).any() else 1.0


# --- 4. How many people, and how measures go along --------------------------------------------------------------------


def deviation(*gaps: np.ndarray) -> float:
    """The standard deviation over people of their differences (P,), of several comparisons the root mean square; NaN if no two
    people can be compared."""
    there = [gap[~np.isnan(gap)] for gap in gaps]
    squares = [gap.var(ddof=1) for gap in there if len(gap) > 1]
    return float(np.sqrt(np.mean(squares))) if squares else np.nan


def smallest_difference(spread: float, people: int = 52, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The difference that a paired t-test of so many people finds with this power. spread: a `deviation` in points; the result is
    in points as well."""
    return spread * float(pingouin.power_ttest(d=None, n=people, power=power, alpha=alpha, contrast="paired"))


def people_needed(difference: float, spread: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """How many people it takes to find a difference, see `smallest_difference`; at least 2, NaN for a spread of NaN."""
    if not spread > 0:
        return 2 if spread == 0 else np.nan
    count = pingouin.power_ttest(d=difference / spread, n=None, power=power, alpha=alpha, contrast="paired")
    return 2 if np.isnan(count) else max(2, int(np.ceil(count)))


def correlation(scores: np.ndarray, measured: np.ndarray, *, within: bool = False, draws: int = 1000, seed: int = 0) -> Estimate:
    """Spearman's correlation over pictures (K, M) of what people say with what is measured; its interval by drawing pairs anew.

    within: after the mean of each method is taken off both, so that only pictures of one method are compared with each other.
    """
    rng, columns = np.random.default_rng(seed), np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    both = np.stack([scores, measured, columns], -1)

    def rho(chosen: np.ndarray) -> float:
        one, other, column = (chosen[..., k][~np.isnan(chosen).any(-1)] for k in range(3))
        if within:
            own = column[:, None] == column
            one, other = (values - (own * values).sum(1) / own.sum(1) for values in (one, other))
        return float(spearmanr(one, other).statistic) if len(one) > 2 and np.ptp(one) > 0 < np.ptp(other) else np.nan

    drawn = np.array([rho(both[rng.integers(len(both), size=len(both))]) for _ in range(draws)])
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist() if len(drawn) else (np.nan, np.nan)
    return Estimate(rho(both), low, high, int((~np.isnan(both).any(-1)).sum()))
