"""What the spread of a few members says about the spread of all: arrays in, interval out.

The members' integrals have a total variance T = V + B: V is made by the model (sigma_model^2), B
is the known variance of counting n_generated events (0 for exact probabilities). The unbiased
sample variance t of m members follows T chi^2_nu / nu, so a confidence interval for T is one for V.

*V cannot be negative.* With equal tails the interval would be empty in 16 % of all cases at 68 %
when counting noise dominates. Any split of alpha = 1 - confidence that depends on the parameter
alone keeps the coverage exact (Puza and O'Neill, Canadian Journal of Statistics 34 (2006) 299). The
lower tail here is alpha/2 (1 - B/T): the usual equal-tailed chi^2 interval for exact probabilities,
an upper limit on V where counting dominates, and never an empty interval.

*nu for several regions.* t is a sum over regions whose integrals go up and down together, so nu =
(m - 1) (tr S)^2 / tr S^2 (Satterthwaite) for the covariance S of the regions. A handful of members
tells little more about S than tr S^2 / (tr S)^2, its purity, and that with a bias. Two spectra that
explain it are taken, and the geometric mean of their nu:

- One leading mode and a flat remainder. The leading mode's share solves the moment equation of the
  purity that holds given that mode's own fluctuation. A spread that is low by chance is low mostly
  in the leading mode, so nu is evaluated at each hypothesised T, not once for the observed t.
- Some modes of equal variance. The purity then fluctuates independently of t, and the ratio of the
  moments of tr S^2 and (tr S)^2 is unbiased. Its weight grows with the share of counting noise.

The weight was chosen for coverage at 5 and 10 members, with 18 correlated regions and with two
fitted parameters; the page on intervals measures it with other random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import gammainc, gammaincinv

from genamp_lib.amplification._numbers import Array, find_root

# Weight of the reading of the purity as modes of equal variance: without noise, and what a spread
# of nothing but counting noise adds.
EQUAL_MODES = (0.33, 0.2)


class Spread(NamedTuple):
    """Result of `member_spread`; every array has the leading shape of its input."""

    integrals: Array  # mean over members, (..., n_regions)
    event_variance: Array  # sum over regions of mean (1 - mean): n sigma_stat^2(n)
    total_variance: Array  # sum over regions of the unbiased variance over members
    model_low: Array  # edges of sigma_model^2, at least 0
    model_high: Array
    degrees_of_freedom: Array  # nu at the observed spread
    noise_p_value: Array  # probability of so small a spread from counting noise alone


def member_spread(fractions: Array, *, n_generated: float, confidence: float) -> Spread:
    """Split the spread of fractions (..., n_members, n_regions) into model and counting part.

    `n_generated` is infinite for exact probabilities.
    """
    dof = fractions.shape[-2] - 1
    integrals = fractions.mean(axis=-2)
    event_variance = (integrals * (1 - integrals)).sum(axis=-1)
    counting = event_variance / n_generated  # B
    deviations = fractions - integrals[..., None, :]
    # Rounding of the mean must not turn identical members into a spread of 1e-34.
    identical = (np.ptp(fractions, axis=-2) == 0).all(axis=-1)
    total = np.where(identical, 0.0, (deviations**2).sum(axis=(-2, -1)) / dof)
    safe_total = np.where(identical, 1.0, total)

    def noise_share(x: Array) -> Array:
        """Return B/T at the hypothesis T = t/x."""
        return x * counting / safe_total

    effective_dof = _degrees_of_freedom(deviations, safe_total, integrals, noise_share)

    def cdf(x: Array) -> Array:
        """Return the probability of a spread of at most t at the hypothesis T = t/x."""
        nu = effective_dof(x)
        return gammainc(nu / 2, nu * x / 2)

    alpha = 1 - confidence
    # T = B, the largest x that means anything; beyond `widest` no tail of chi^2 is left.
    with np.errstate(divide="ignore"):
        edge = np.where(counting > 0, safe_total / counting, np.inf)
    widest = 2 * max(2 / dof * gammaincinv(dof / 2, 1 - alpha / 2), 1.0)
    top = np.minimum(edge, widest)
    x_high = find_root(lambda x: cdf(x) - alpha / 2 * (1 - noise_share(x)), top)
    x_low = find_root(lambda x: cdf(x) - 1 + alpha / 2 * (1 + noise_share(x)), top)
    model_high = np.where(identical, 0.0, safe_total / x_high - counting)
    # No root below T = B: the spread is within what counting alone gives.
    model_low = np.where(identical | (x_low >= edge), 0.0, safe_total / x_low - counting)
    # The interval holds the estimate; it may not at confidence levels below 68 %.
    estimate = total - counting
    return Spread(
        integrals=integrals,
        event_variance=event_variance,
        total_variance=total,
        model_low=np.maximum(np.minimum(model_low, estimate), 0.0),
        model_high=np.maximum(model_high, np.maximum(estimate, 0.0)),
        degrees_of_freedom=effective_dof(np.ones_like(total)),
        noise_p_value=np.where(identical, 0.0, np.where(counting > 0, cdf(top), 1.0)),
    )


def _degrees_of_freedom(
    deviations: Array, total: Array, integrals: Array, noise_share: Callable[[Array], Array]
) -> Callable[[Array], Array]:
    """Return nu as a function of x, the observed total variance over the hypothesised one."""
    n_members, n_regions = deviations.shape[-2:]
    dof = n_members - 1
    rest = n_regions - 1
    if rest == 0:
        return lambda x: np.full_like(x, dof)

    # tr S^2 / (tr S)^2 of the sample covariance, from the Gram matrix of the members.
    gram = deviations @ np.swapaxes(deviations, -2, -1)
    purity = (gram**2).sum(axis=(-2, -1)) / (dof * total) ** 2
    # Counting noise has a known covariance, (diag(I) - I I^T) / n_generated, so a known purity.
    event_variance = (integrals * (1 - integrals)).sum(axis=-1)
    squares = (integrals**2).sum(axis=-1)
    noise_purity = (
        ((integrals * (1 - integrals)) ** 2).sum(axis=-1) + squares**2 - (integrals**4).sum(axis=-1)
    ) / event_variance**2
    noise_mode = _leading_share(noise_purity, n_regions)

    # Given the leading mode's share s of the sample spread, the expected purity is
    # s^2 + 2 s (1 - s) / dof + (1 - s)^2 flat, the last two from Wishart moments.
    flat = (1 / rest) + (1 / dof) + 1 / (rest * dof)
    square, linear = 1 - 2 / dof + flat, flat - 1 / dof
    discriminant = np.maximum(linear**2 - square * (flat - purity), 0.0)
    share = np.clip((linear + np.sqrt(discriminant)) / square, 1 / n_regions, 1.0)
    # How far the leading mode's variance moves with the total one: modes' sample variances
    # fluctuate independently, each in proportion to its square. Counting noise does not move, so
    # this asks for the leading share of the model's part; where noise hides that part, three
    # standard deviations of the noise count as leading.
    noise = np.minimum(noise_share(np.ones_like(total)), 1e6)  # beyond, there is nothing to see
    hidden = 3 * noise * np.sqrt(2 / (dof * rest))
    visible = np.maximum(1 - noise, 0.0) + hidden
    model_mode = (np.maximum(share - noise * noise_mode, 0.0) + hidden) / visible
    model_mode = np.clip(model_mode, 1 / n_regions, 1.0)
    follows = model_mode**2 / (model_mode**2 + (1 - model_mode) ** 2 / rest)

    if dof == 1:  # two members: always one mode
        equal = np.ones_like(purity)
    else:
        equal = (purity - 1 / dof) / (1 + 1 / dof - 2 * purity / dof)
        equal = np.clip(equal, 1 / n_regions, 1.0)

    def effective(x: Array) -> Array:
        x = np.maximum(x, 1e-12)
        noise = np.minimum(noise_share(x), 1.0)
        leading = share * x + (1 - x) * follows
        # The leading mode of the sum cannot hold more than the noise allows.
        leading = np.clip(leading, 1 / n_regions, 1 - noise * (1 - noise_mode))
        largest = (1 - noise) ** 2 + 2 * (1 - noise) * noise / n_regions + noise_purity * noise**2
        weight = EQUAL_MODES[0] + EQUAL_MODES[1] * noise**2
        one_mode = leading**2 + (1 - leading) ** 2 / rest
        return dof / one_mode ** (1 - weight) / np.minimum(equal, largest) ** weight

    return effective


def _leading_share(purity: Array, n_regions: int) -> Array:
    """Solve s^2 + (1 - s)^2 / (n_regions - 1) = purity for the share s of the leading mode."""
    excess = np.maximum((n_regions - 1) * (n_regions * purity - 1), 0.0)
    return np.clip((1 + np.sqrt(excess)) / n_regions, 1 / n_regions, 1.0)
