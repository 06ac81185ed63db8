"""Cheap looks at two samples, without a classifier, for what a smooth one misses.

Each look is a test of "both samples are of one density" that allows for all observables, values and
regions it compares. Looks at copies, repeated events, single values, the range and regions are
exact for any density, discrete ones included: they are about how labels are shared out among
pooled events. All use ranks, so no strictly monotone map of an observable changes their results.

Of weighted events, looks compare numbers of unweighted events that fluctuate as much as the sums of
weights do (`_events`), which is approximate; copies and repeated events are looked for as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, log_ndtr, ndtri
from scipy.stats import binom, hypergeom, rankdata

from genamp_lib.diagnostics._events import EventWeights, local_counts, scaled
from genamp_lib.diagnostics.clustering import ObservableRank, allowing_for, rank_observables
from genamp_lib.diagnostics.findings import FOUND, Finding, times

Array = NDArray[np.float64]
# Events of both samples that a value or a region must hold to be looked at.
FEWEST = 20
FEWEST_WEIGHTED = 100  # the same of weighted events, whose sums are far from Gaussian for longer
# Different generated events that are left to compare where all others repeat these.
FEWEST_DISTINCT = 100
# Steps of the ranks within which events count as copies that differ by rounding.
_STEPS = 512
# Names of the looks at one observable, from the most to the least telling, and at two.
SINGLE = ("one value", "range", "region", "one observable")
PAIR = ("correlation", "region of two")
_CELLS_OF_ONE, _CELLS_OF_PAIR = 64, 32


@dataclass(frozen=True)
class Looks:
    """What the cheap looks found.

    Attributes:
        findings: Look -> findings, the most significant first, each after allowing for all that
            this look compared.
        n_looks: Number of looks.
        marginal: Each observable of generated ("inside") against truth events.
        copies: Group of each pooled event, truth first, shape (n_truth + n_generated,): equal and
            nearly equal events share one. None where none are copies or repeated.
        distinct: Positions of the generated events that the looks used, repeated ones once.
        notes: What else was noticed.
    """

    findings: dict[str, list[Finding]]
    n_looks: int
    marginal: tuple[ObservableRank, ...] = field(repr=False)
    copies: NDArray[np.intp] | None = field(repr=False)
    distinct: NDArray[np.intp] = field(repr=False)
    notes: tuple[str, ...]


def normal_scores(truth: ArrayLike, generated: ArrayLike) -> tuple[Array, Array]:
    """Return features as normal scores of their ranks among both samples, the same for any scale.

    A value of rank r among n becomes the quantile (r - 1/2) / n of a standard Gaussian; equal
    values share their mean rank. The sign is such that the first truth event off the middle is
    positive, so that decreasing maps change nothing either.

    Args:
        truth: Features, shape (n_truth, n_features).
        generated: Features, shape (n_generated, n_features).

    >>> normal_scores([[1.0], [3.0]], [[2.0], [900.0]])[0].round(2).ravel()
    array([ 1.15, -0.32])
    """
    scores = _scores(_turned(_centred_ranks(truth, generated)))
    return scores[: len(truth)], scores[len(truth) :]


def cheap_looks(
    truth: ArrayLike,
    generated: ArrayLike,
    names: Sequence[str],
    *,
    event_weights: EventWeights | None = None,
) -> Looks:
    """Look for copies, spikes, events out of range, and differences of one or two observables.

    Where generated events are repeated, the looks that follow take each of them once: what they
    compare must be independent events.

    Args:
        truth: Features, shape (n_truth, n_features), finite.
        generated: Features, shape (n_generated, n_features), finite.
        names: Names of the features.
        event_weights: Weights of the truth and of the generated events, of any sign, (n_truth,)
            and (n_generated,); None in the place of one for unweighted events.

    Raises:
        ValueError: A sample is not 2D, is empty or not finite, or the features are not as many as
            the names.

    >>> rng = np.random.default_rng(1)
    >>> x, y = rng.normal(size=(2, 1000, 2))
    >>> y[:40, 1] = 0.5
    >>> looks = cheap_looks(x, y, ["pt", "eta"])
    >>> looks.findings["one value"][0].text
    'spike: 4 % of the generated events have exactly `eta` = 0.5; of the truth 0 % do.'
    """
    truth, generated = (np.asarray(x, dtype=np.float64) for x in (truth, generated))
    for label, sample in (("truth", truth), ("generated", generated)):
        if sample.ndim != 2 or sample.shape[1:] != (len(names),) or not sample.size:
            raise ValueError(
                f"`{label}` must be (n_events, {len(names)}), one column per name, got shape "
                f"{sample.shape}."
            )
        if not np.isfinite(sample).all():
            raise ValueError(f"`{label}` must be finite, got NaN or infinity.")
    own = scaled(event_weights, len(truth), len(generated))
    ranks, n_truth = _centred_ranks(truth, generated), len(truth)
    groups = _groups(_turned(ranks))
    near = _groups(np.round(_turned(ranks) * (_STEPS / 2 / len(ranks))))
    distinct = np.arange(len(generated))
    findings = {
        "copied events": _copied(groups, n_truth) or _copied(near, n_truth, "all but rounding"),
        "repeated events": _repeated(groups, n_truth),
    }
    found = [name for name in findings if is_found(findings[name])]
    if "repeated events" in found:
        first = np.unique(groups[n_truth:], return_index=True)[1]
        # Where many truth events are equal to others as well, repeats are part of the density.
        is_odd = groups.max() + 1 - len(first) > 0.9 * n_truth and len(first) >= FEWEST_DISTINCT
        how = "all events, as if they were independent"
        if len(first) >= len(generated) / 2 or is_odd:
            distinct, generated = np.sort(first), generated[np.sort(first)]
            ranks = _centred_ranks(truth, generated)
            if own is not None:
                own = scaled((own[0], own[1][distinct]), n_truth, len(distinct))
            how = "repeated events once"
        one = findings["repeated events"][0]
        text = f"{one.text} What follows counts {how}."
        findings["repeated events"] = [replace(one, text=text)]
    findings["one value"], notes = _values(truth, generated, names, own)
    findings["range"] = _outside(truth, generated, names, own)
    both = dict(zip(names, np.concatenate([truth, generated]).T, strict=True))
    pooled = None if own is None else np.concatenate(own)
    marginal = rank_observables(both, np.arange(n_truth, len(ranks)), event_weights=pooled)
    findings["one observable"] = [_distribution(one, len(names)) for one in marginal]
    findings["region"] = _regions(ranks, truth, generated, names, own)
    if len(names) > 1:
        findings["correlation"] = _correlations(ranks, n_truth, names, own)
        findings["region of two"] = _regions(ranks, truth, generated, names, own, of_pairs=True)
    return Looks(
        findings=findings,
        n_looks=len(findings),
        marginal=tuple(marginal),
        copies=near if found else None,
        distinct=distinct,
        notes=tuple(notes),
    )


def is_found(findings: list[Finding]) -> bool:
    """Whether a look by itself found something."""
    return bool(findings) and findings[0].significance > FOUND


def _centred_ranks(truth: ArrayLike, generated: ArrayLike) -> Array:
    """Return 2 rank - (n + 1) among both samples: whole numbers, odd under reflection."""
    both = np.concatenate([truth, generated])
    return 2 * rankdata(both, axis=0) - (len(both) + 1)


def _scores(ranks: Array) -> Array:
    return ndtri(0.5 + ranks / (2 * len(ranks)))


def _turned(ranks: Array) -> Array:
    """Reflect columns so that the first event off the middle is positive in each."""
    signs = np.sign(ranks[np.argmax(ranks != 0, axis=0), np.arange(ranks.shape[1])])
    return ranks * np.where(signs == 0, 1.0, signs)


def _groups(rows: Array) -> NDArray[np.intp]:
    """Number the distinct rows: equal rows have equal numbers."""
    odd = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64) * 2 + 1
    keys = (rows.astype(np.int64).astype(np.uint64) * odd).sum(axis=1, dtype=np.uint64)
    return np.unique(keys, return_inverse=True)[1]


def _shared_out(groups: NDArray[np.intp], n_truth: int) -> tuple[NDArray, NDArray, Array, Array]:
    """Return size and generated events of the groups of several, and the chances of pure ones."""
    size = np.bincount(groups)
    inside = np.bincount(groups[n_truth:], minlength=len(size))[size > 1]
    size = size[size > 1]
    return (
        size,
        inside,
        *(np.exp(_log_all(n, len(groups), size)) for n in (len(groups) - n_truth, n_truth)),
    )


def _log_all(n: float, n_all: float, k: ArrayLike) -> Array:
    """Return the logarithm of the chance that k events of n_all are all of the same n."""
    k = np.minimum(k, n + 1.0)
    with np.errstate(divide="ignore"):
        ways = [gammaln(m + 1.0) - gammaln(np.maximum(m - k, -1) + 1.0) for m in (n, n_all)]
    return np.where(k > n, -np.inf, ways[0] - ways[1])


def _finding(
    mode: str,
    where: str | tuple[str, ...],
    log_p: float,
    counts: Sequence[float],
    text: str,
    **more,
) -> Finding:
    """Make a finding; counts: truth and generated events in it and in all."""
    k_truth, k_generated, n_truth, n_generated = counts
    factor = (k_generated / n_generated) / (k_truth / n_truth) if k_truth else math.inf
    names = (where,) if isinstance(where, str) else where
    return Finding(
        mode=mode,
        observable=names[0],
        partner=names[1] if len(names) > 1 else "",
        low=float(more.get("low", math.nan)),
        high=float(more.get("high", math.nan)),
        factor=factor,
        significance=allowing_for(log_p, more.get("n", 1)),
        text=f"{mode}: {text}",
    )


def _copied(groups: NDArray[np.intp], n_truth: int, but: str = "") -> list[Finding]:
    """Test whether more generated events equal truth events than the labels' shuffling gives."""
    size, inside, pure_g, pure_t = _shared_out(groups, n_truth)
    if not len(size):
        return []
    mixed = (inside > 0) & (inside < size)
    chance = float(np.clip(1 - pure_g - pure_t, 0, 1).mean())
    log_p = float(binom.logsf(mixed.sum() - 1, len(size), chance)) + math.log(2)  # two steps
    n_copies, n_generated = int(inside[mixed].sum()), len(groups) - n_truth
    text = (
        f"{n_copies} of {n_generated} generated events are copies of truth events"
        f"{f', in {but}' if but else ''}. Take truth events that the generator was not trained on; "
        "if it never saw these, ask where its events are from."
    )
    counts = (int((size - inside)[mixed].sum()), n_copies, n_truth, n_generated)
    one = _finding("copied events", "", log_p, counts, text)
    return [one] if one.significance > FOUND else []


def _repeated(groups: NDArray[np.intp], n_truth: int) -> list[Finding]:
    """Test whether generated events repeat each other more than truth events and mixed ones do."""
    size, inside, pure_g, pure_t = _shared_out(groups, n_truth)
    g, t = int((inside == size).sum()), int((inside == 0).sum())
    if not g:
        return []
    same = (inside == size) | (inside == 0)
    share = float((pure_g / np.maximum(pure_g + pure_t, 1e-300))[same].mean())
    # A denser spot has more equal events, too, but mixed ones with them: at least half as many.
    log_p = max(
        float(binom.logsf(g - 1, g + t, share)),
        float(binom.logsf(g - 1, len(size) - t, max(0.5, share))),
    )
    n_more, n_generated = int((size - 1)[inside == size].sum()), len(groups) - n_truth
    counts = (int((size - 1)[inside == 0].sum()), n_more, n_truth, n_generated)
    text = (
        f"{n_more} of {n_generated} generated events repeat other generated events exactly; "
        f"{counts[0]} truth events repeat others."
    )
    return [_finding("repeated events", "", log_p, counts, text)]


Own = tuple[Array, Array] | None  # scaled weights of truth and generated events


def _totals(own: Own, n_truth: int, n_generated: int) -> tuple[float, float]:
    return (n_truth, n_generated) if own is None else (own[0].sum(), own[1].sum())


def _tables(cells: NDArray[np.intp], n_truth: int, n_cells: int, own: Own) -> NDArray:
    """Return sums by cell, (n_tables, n_cells): events of truth and generated sample.

    Of weighted ones weights and squares of truth events, and the same of generated events.
    """
    parts = cells[:n_truth], cells[n_truth:]
    if own is None:
        return np.stack([np.bincount(part, minlength=n_cells) for part in parts])
    return np.stack(
        [
            np.bincount(part, u**power, n_cells)
            for part, u in zip(parts, own, strict=True)
            for power in (1, 2)
        ]
    )


def _counts(tables: NDArray, own: Own, sizes: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Return truth and generated events of `_tables`, and those in all that they are out of."""
    if own is None:
        return *tables, *sizes
    k_t, n_t = local_counts(tables[0], tables[1], own[0].sum())
    k_g, n_g = local_counts(tables[2], tables[3], own[1].sum())
    return k_t, k_g, n_t, n_g


def _values(
    truth: Array, generated: Array, names: Sequence[str], own: Own
) -> tuple[list[Finding], list[str]]:
    """Compare how often each value occurs that many events have exactly."""
    n_t, n_g = len(truth), len(generated)
    found, notes, n_values = [], [], 0
    for j, name in enumerate(names):
        values, inverse = np.unique(
            np.concatenate([truth[:, j], generated[:, j]]), return_inverse=True
        )
        tables = _tables(inverse, n_t, len(values), own)
        k_t, k_g, of_t, of_g = (
            np.broadcast_to(one, len(values)) for one in _counts(tables, own, (n_t, n_g))
        )
        count = k_t + k_g
        often = np.flatnonzero(count >= (FEWEST if own is None else FEWEST_WEIGHTED))
        n_values += len(often)
        z = np.abs(_hypergeometric_z(k_g[often], count[often], of_t[often], of_g[often]))
        for i in often[np.argsort(-z, kind="stable")[:3]]:
            log_p = _two_sided(k_g[i], of_t[i] + of_g[i], of_g[i], count[i])
            shares = k_t[i] / of_t[i], k_g[i] / of_g[i]
            found.append((log_p, name, values[i], shares, len(often)))
        is_large = count[often] >= 0.005 * (of_t[often] + of_g[often])
        for i in often[is_large & _is_code(values[often])]:
            notes.append(
                f"`{name}` = {values[i]:g} in {k_t[i] / of_t[i]:.1%} of the truth and "
                f"{k_g[i] / of_g[i]:.1%} of the generated events looks like a code for missing "
                "values."
            )
    findings = []
    for log_p, name, value, shares, n_own in sorted(found, key=lambda one: one[0]):
        mode = "spike" if shares[1] > shares[0] else "missing spike"
        if _is_code(np.array([value]))[0]:
            mode = "code for missing values"
        elif min(shares) > max(shares) / 3 or n_own > 10:
            mode = "wrong share of a value"
        text = (
            f"{100 * shares[1]:.3g} % of the generated events have exactly `{name}` = {value:g}; "
            f"of the truth {100 * shares[0]:.3g} % do."
        )
        counts = (*shares, 1, 1)
        findings.append(
            _finding(mode, name, log_p, counts, text, low=value, high=value, n=n_values)
        )
    return findings, notes


def _is_code(values: Array) -> NDArray[np.bool_]:
    """Whether numbers are what files hold for missing values: 99, -999, 9999, ... or above 1e30."""
    size = np.abs(values)
    nines = (size >= 99) & (size < 1e12) & (np.log10(np.maximum(size, 0) + 1) % 1 == 0)
    return nines | (size > 1e30)


def _outside(truth: Array, generated: Array, names: Sequence[str], own: Own) -> list[Finding]:
    """Count the events of one sample beyond the last of the other."""
    n_t, n_g, findings = len(truth), len(generated), []
    totals = dict(zip(("truth", "generated"), _totals(own, n_t, n_g), strict=True))
    weights = dict(zip(totals, own or (None, None), strict=True))
    max_weights = {name: 1.0 if u is None else u.max() for name, u in weights.items()}
    for j, name in enumerate(names):
        for sign, side in ((1, "above"), (-1, "below")):
            t, g = sign * truth[:, j], sign * generated[:, j]
            for inner, outer, label in ((t, g, "generated"), (g, t, "truth")):
                beyond, edge = outer > inner.max(), sign * inner.max()
                k = int(beyond.sum())
                if not k:
                    continue
                u, other = weights[label], totals["truth" if label == "generated" else "generated"]
                n_outer, n_beyond = totals[label], k
                if own is not None:  # a heavy event of the other sample may be what is missing
                    other /= max(1.0, max_weights["truth" if label == "generated" else "generated"])
                if u is not None:
                    n_beyond, n_outer = local_counts(
                        u[beyond].sum(), (u[beyond] ** 2).sum(), totals[label]
                    )
                log_p = float(_log_all(n_outer, n_outer + other, n_beyond))
                if label == "generated":
                    mode = "wrong boundary"
                    text = f"{k} generated events have `{name}` {side} {edge:.6g}, no truth event."
                    counts = (0, k, n_t, n_g)
                else:
                    mode = "missing tail"
                    text = f"{k} truth events have `{name}` {side} {edge:.6g}, no generated event."
                    counts = (k, 0, n_t, n_g)
                ends = sorted([edge, sign * outer.max()])
                more = {"low": ends[0], "high": ends[1], "n": 4 * len(names)}
                findings.append(_finding(mode, name, log_p, counts, text, **more))
    return sorted(findings, key=lambda one: -one.significance)


def _distribution(one: ObservableRank, n: int) -> Finding:
    text = (
        f"`{one.name}` has median {one.median_inside:.4g}, {one.median_outside:.4g} in the truth; "
        f"KS distance {one.distance:.3f}."
    )
    return _finding("wrong distribution", one.name, one.log_p_value, (1, 1, 1, 1), text, n=n)


def _correlations(ranks: Array, n_truth: int, names: Sequence[str], own: Own) -> list[Finding]:
    """Compare the correlations of the normal scores of all pairs."""
    scores = _scores(ranks)
    n_t, n_g = _totals(own, n_truth, len(scores) - n_truth)
    u, v = own or (None, None)
    parts = ((scores[:n_truth], u), (scores[n_truth:], v))
    parts += ((scores, None if own is None else np.concatenate(own)),)
    of_truth, of_generated, both = (_moments(*one) for one in parts)
    difference = of_generated[0] - of_truth[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(difference) / np.sqrt(both[1] * (1 / n_t + 1 / n_g))
    z = np.where(both[1] > 1e-12, z, 0.0)
    first, second = np.triu_indices(len(names), 1)
    order = np.argsort(-z[first, second], kind="stable")[:10]
    findings = []
    for i, j in zip(first[order], second[order], strict=True):
        text = (
            f"`{names[i]}` and `{names[j]}` are correlated by {of_generated[0][i, j]:.2f}, in the "
            f"truth by {of_truth[0][i, j]:.2f} (as normal scores of their ranks)."
        )
        log_p = float(log_ndtr(-z[i, j])) + math.log(2)
        pair = (names[i], names[j])
        findings.append(
            _finding("wrong correlation", pair, log_p, (1, 1, 1, 1), text, n=len(first))
        )
    return findings


def _moments(scores: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Return the correlations of all pairs and the variances of one event's contribution."""
    if weights is None:
        u = scores - scores.mean(axis=0)
        scale = u.std(axis=0)
    else:
        u = scores - weights @ scores / weights.sum()
        scale = np.sqrt(np.maximum(weights @ u**2 / weights.sum(), 0.0))
    u = np.divide(u, scale, out=np.zeros_like(u), where=scale > 0)
    n, u2, own = len(u), u**2, u
    if weights is not None:  # squares of weights make the variance
        rho = (u.T * weights) @ u / weights.sum()
        n, own, u2 = (weights**2).sum(), u * weights[:, None], u2 * weights[:, None]
    else:
        rho = u.T @ u / n
    square, cube = u2.T @ u2 / n, (u2 * u).T @ own / n
    fourth = np.diag(square)
    spread = square - rho * (cube + cube.T)
    return rho, spread + rho**2 / 4 * (fourth[:, None] + fourth + 2 * square)


def _regions(
    ranks: Array,
    truth: Array,
    generated: Array,
    names: Sequence[str],
    own: Own,
    *,
    of_pairs: bool = False,
) -> list[Finding]:
    """Compare the numbers of events in windows of the ranks of one or two observables."""
    n_t, n_g, n_all = len(truth), len(generated), len(ranks)
    ranks = _turned(ranks)
    n_cells, widths = _CELLS_OF_PAIR if of_pairs else _CELLS_OF_ONE, (1, 2, 3, 5, 8, 16)
    above = ranks >= 0
    cells = np.floor(np.abs(ranks) * (n_cells / 2 / n_all)).astype(np.int64)
    cells = np.where(above, n_cells // 2 + cells, n_cells // 2 - 1 - cells).T.copy()
    which = list(combinations(range(len(names)), 1 + of_pairs))
    shape = (n_cells,) * (1 + of_pairs)
    tables = []
    for columns in which:
        flat = (
            cells[columns[0]] if not of_pairs else n_cells * cells[columns[0]] + cells[columns[1]]
        )
        tables.append(_tables(flat, n_t, n_cells ** len(shape), own))
    tables = np.stack(tables, axis=1).reshape(-1, len(which), *shape)
    n_windows = sum((n_cells - width + 1) ** len(shape) for width in widths)
    # Largest deviation of each observable or pair, and its window: z, the four of `_counts`, width
    # and place.
    best = np.zeros((len(which), 6 + len(shape)))
    for width in widths:
        windows = np.stack([_windows(table, width) for table in tables])
        counts = np.broadcast_arrays(*_counts(windows, own, (n_t, n_g)))
        k_t, k_g, of_t, of_g = counts
        if own is not None:
            few = k_t + k_g < FEWEST_WEIGHTED
            k_t, k_g = np.where(few, 0.0, k_t), np.where(few, 0.0, k_g)
            counts = k_t, k_g, of_t, of_g
        z = np.abs(_hypergeometric_z(k_g, k_t + k_g, of_t, of_g)).reshape(len(which), -1)
        top = (np.arange(len(which)), np.argmax(z, axis=1))
        place = np.stack(np.unravel_index(top[1], k_t.shape[1:]), axis=1)
        flat = [x.reshape(len(which), -1)[top] for x in (z, *counts)]
        row = np.column_stack([*flat, np.full(len(which), width), place])
        better = row[:, 0] > best[:, 0]
        best[better] = row[better]
    findings = []
    for number in np.argsort(-best[:, 0], kind="stable")[:10]:
        columns, (k_t, k_g, of_t, of_g) = which[number], best[number, 1:5].tolist()
        width, *at = best[number, 5:].astype(int).tolist()
        if not k_t + k_g:
            continue
        log_p = _two_sided(k_g, of_t + of_g, of_g, k_t + k_g)
        inside = np.all(
            [(cells[c] >= i) & (cells[c] < i + width) for c, i in zip(columns, at, strict=True)],
            axis=0,
        )
        pooled = np.concatenate([truth[:, columns], generated[:, columns]])[inside]
        ends = list(zip(pooled.min(axis=0), pooled.max(axis=0), strict=True))
        where = " and ".join(
            f"`{names[c]}` between {low:.4g} and {high:.4g}"
            for c, (low, high) in zip(columns, ends, strict=True)
        )
        factor = (k_g / of_g) / (k_t / of_t) if k_t else math.inf
        mode = "too many" if factor > 1 else "missing feature" if factor < 1 / 3 else "too few"
        text = f"generated events with {where}; {times(factor)} times as many as in the truth."
        findings.append(
            _finding(
                mode,
                tuple(names[c] for c in columns),
                log_p,
                (k_t, k_g, of_t, of_g),
                text,
                low=ends[0][0],
                high=ends[0][1],
                n=n_windows * len(which),
            )
        )
    return findings


def _windows(tables: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Sum tables over all windows of so many cells along each axis but the first."""
    for axis in range(1, tables.ndim):
        total = np.cumsum(tables, axis=axis)
        total = np.concatenate([np.zeros_like(total.take([0], axis)), total], axis=axis)
        n = total.shape[axis]
        tables = total.take(range(width, n), axis) - total.take(range(n - width), axis)
    return tables


def _hypergeometric_z(k: NDArray, count: NDArray, n_t: ArrayLike, n_g: ArrayLike) -> Array:
    """Return (generated events - expected) / standard deviation; 0 where too few to look."""
    n, rate = n_t + n_g, n_g / (n_t + n_g)
    variance = count * rate * (1 - rate) * (n - count) / (n - 1)
    looked = (count >= FEWEST) & (variance > 0)
    return np.where(looked, (k - count * rate) / np.sqrt(np.where(looked, variance, 1.0)), 0.0)


def _two_sided(k: float, n_all: float, n_g: float, count: float) -> float:
    """Return the logarithm of twice the smaller tail of the hypergeometric distribution."""
    k, n_all, n_g, count = (round(one) for one in (k, n_all, n_g, count))
    tails = hypergeom.logsf(k - 1, n_all, n_g, count), hypergeom.logcdf(k, n_all, n_g, count)
    return min(float(min(tails)) + math.log(2), 0.0)
