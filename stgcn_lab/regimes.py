"""Regimes: ways in which the weather of a whole region behaves, found in a series without any labels.

A Markov-switching spatio-temporal graph network. Each regime k owns an expert that forecasts the next field from
the last ones, with one small set of weights for all stations:

    x(t) = m_k + Σ_{h=1}^{H} ( w_{k,h,0} (x(t-h) - m_k) + Σ_s w_{k,h,s} P_s (x(t-h) - m_k) ) + e(t),   e ~ N(0, Σ_k)

(P_s the mean over the neighbours in compass sector s: a directional graph convolution, and a temporal one over the
lags h). Which expert speaks is a Markov chain. At the onset of a regime the past belongs to another one, so there
the field is judged as a fresh draw from the regime's own climate, N(m_k, C_k). Errors are judged in the space of
the leading EOFs, where neighbours' errors do not count twice. Everything is fitted by expectation-maximisation.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dpotrf, dtrtrs
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from ._checks import whole_number
from .baselines import _check_series, _station_coords
from .graphs import _unit_vectors, directional_operators
from .layers import DirectionalGraphConv, TemporalConv
from .regions import discover_regions

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["Regimes", "choose_num_regimes", "complete_regimes", "discover_regimes", "discover_regions"]

P = ParamSpec("P")
R = TypeVar("R")

Array = NDArray[np.float64]
OPTIONS = ("history", "expert", "sectors", "modes", "duration", "covariance", "weights")
LEAST_STEPS = 20  # for each regime: fewer can't tell a mean from a covariance
ITERATIONS = 100
SEEN_BEFORE = 0.1  # moves of each kind counted beforehand, so that none becomes impossible
HEAT, COOLING = 0.05, 1.25  # the likelihood is raised to the power min(1, HEAT * COOLING^iteration)
SETTLED = 0.01  # filled values that change by less than this share of the typical anomaly are settled
SPREAD_PAIRS = 32  # draws from which the spread of filled values is told
FIRST_MODES = 20  # EOFs from which regimes of a series with gaps are first guessed
BLOCKS_AT_ONCE = 2**19  # numbers: as many steps of a filling are prepared at once
GATE_ROUNDS, GATE_STEPS, GATE_WINDOW = 4, 30, 512  # gated experts: EM rounds, Adam steps in each, steps of a batch


@dataclass(frozen=True)
class _Record:
    """A series as the experts see it."""

    z: Array  # (T, M) the fields in EOF space
    inputs: Array  # (T, M, H (1 + S)) what the forecasts are made of
    complete: NDArray[np.bool_]  # (T,) steps with a complete past
    breaks: NDArray[np.bool_]  # (T,) steps after a break of the time axis


@dataclass(frozen=True)
class _Space:
    """How fields become numbers: the leading EOFs, and the graph's operators seen through them."""

    mean: Array  # (N,)
    scale: Array  # (N,) square root of the station's weight
    eofs: Array  # (N, M)
    lagged: list[Array]  # 1 + S of (N, M): eofs, then P_sᵀ eofs
    history: int

    def project(self, x: Array, breaks: NDArray[np.bool_]) -> _Record:
        scaled = (x - self.mean) * self.scale
        z = scaled @ self.eofs
        columns = [scaled @ operator for operator in self.lagged] if self.history else []
        inputs = np.zeros((len(z), z.shape[1], self.history * len(self.lagged)))
        for lag in range(1, self.history + 1):
            for j, column in enumerate(columns):
                inputs[lag:, :, (lag - 1) * len(columns) + j] = column[:-lag]
        return _Record(z, inputs, _since(breaks) >= self.history, breaks)

    def widened(self, part: NDArray[np.bool_], mean: Array) -> "_Space":
        """The same seen from more stations, of which only ``part`` (N,) counts; mean (N,) of them all."""

        def rows(columns: Array) -> Array:
            wide = np.zeros((part.size, *columns.shape[1:]))
            wide[part] = columns
            return wide

        mean = np.where(part, rows(self.mean), mean)
        return _Space(mean, rows(self.scale), rows(self.eofs), [rows(c) for c in self.lagged], self.history)


def _one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """For matrices this small, several threads of BLAS wait for each other more than they work."""
    # a decorator of its own for each function: one calls another, and each restores what it found
    limited: Callable[P, R] = threadpool_limits.wrap(limits=1, user_api="blas")(function)
    return limited


def _since(breaks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps since the last break of the time axis, (T,)."""
    steps = np.arange(len(breaks))
    return steps - np.maximum.accumulate(np.where(breaks, steps, 0))


@dataclass(frozen=True)
class _Experts:
    """What expectation-maximisation estimates, in EOF space; every array begins with the regime."""

    weights: Array  # (K, H (1 + S))
    constant: Array  # (K, M)
    error: Array  # (K, M, M) covariance of the forecast errors, Σ_k
    mean: Array  # (K, M)
    climate: Array  # (K, M, M) covariance of the fields, C_k
    transition: Array  # (K, K)

    def forecast_errors(self, z: Array, inputs: Array) -> Array:
        """What the linear part of each expert leaves unexplained, (K, T, M)."""
        # one product of two matrices, where inputs @ weights would be one for each step
        forecasts = self.weights @ inputs.reshape(z.size, inputs.shape[2]).T
        return z - self.constant[:, None] - forecasts.reshape(-1, *z.shape)

    def densities(self, record: _Record, added: Array | None = None) -> tuple[Array, Array]:
        """Log density of each field if its regime goes on, and if it begins: (T, K) each.

        ``added`` (K, T, M) is what gated experts add to the linear forecast.
        """
        goes_on, begins = np.empty((2, len(record.z), len(self.weights)))
        errors = self.forecast_errors(record.z, record.inputs)
        if added is not None:
            errors -= added
        for k, error in enumerate(errors):
            begins[:, k] = _log_normal(record.z - self.mean[k], self.climate[k])
            goes_on[:, k] = _log_normal(error, self.error[k])
        goes_on[~record.complete] = begins[~record.complete]  # without a past there is nothing to forecast from
        return goes_on, begins

    def smooth(self, record: _Record, added: Array | None = None) -> tuple[Array, Array, Array]:
        """Probabilities (T, K), claims of the experts (T, K) and log density of each step (T,)."""
        goes_on, begins = self.densities(record, added)
        one = forward_backward(goes_on[None], begins[None], self.transition[None], record.breaks)
        return one[0][0], one[1][0] * record.complete[:, None], one[3][0]


def _log_normal(deviation: Array, covariance: Array) -> Array:
    root = np.linalg.cholesky(covariance)
    white = deviation @ np.linalg.inv(root).T
    size = deviation.shape[1]
    return -0.5 * np.einsum("tm,tm->t", white, white) - np.log(np.diag(root)).sum() - 0.5 * size * np.log(2 * np.pi)


@np.errstate(divide="ignore")  # log 0 is what a move that can't be has
def forward_backward(
    goes_on: Array, begins: Array, transition: Array, breaks: NDArray[np.bool_]
) -> tuple[Array, Array, Array, Array]:
    """Smoothing of hidden Markov chains whose density at a switch differs from that of staying.

    ``α(t,k) = α(t-1,k) a_kk g(t,k) + Σ_{j≠k} α(t-1,j) a_jk b(t,k)``, and β in the same way backwards, all in
    logarithms. Several chains (restarts) run side by side, and so do about √T stretches of time: first all moves
    through a stretch are taken together as one matrix, then the stretches are passed one by one, and then the steps
    in all of them at once.

    Args:
        goes_on: (R, T, K) log density g of step t if regime k goes on.
        begins: (R, T, K) log density b of step t if regime k begins there.
        transition: (R, K, K) probabilities a_jk from j to k.
        breaks: (T,) where the time axis begins anew: there any regime may begin, all equally likely.

    Returns:
        (R, T, K) probability of each regime; (R, T, K) probability that it goes on from the step before;
        (R, K, K) expected number of moves from j to k, those over a break not counted; (R, T) log density of each
        step, given those before.

    Source: Rabiner (1989), doi:10.1109/5.18626; Hamilton (1989), doi:10.2307/1912559, for regimes of a time series;
        the stretches as in Hassan, Särkkä & García-Fernández (2021), doi:10.1109/TSP.2021.3103338.
    """
    restarts, steps, regimes = goes_on.shape
    length = math.isqrt(steps)
    blocks = -(-(steps - 1) // length)
    # Without the large part that all regimes share, sums over thousands of steps keep their late digits.
    shared = np.maximum(goes_on, begins).max(axis=2, keepdims=True)

    def in_blocks(values: Array) -> Array:
        """(R, T, K) -> (length, K, R, blocks), zeros behind the last step: blocks last, to be worked on at once."""
        padded = np.zeros((restarts, blocks * length, regimes))
        padded[:, : steps - 1] = values[:, 1:]
        return np.ascontiguousarray(np.moveaxis(padded.reshape(restarts, blocks, length, regimes), (2, 3), (0, 1)))

    def in_order(first: Array, values: Array) -> Array:
        """The way back: (K, R) of the first step, (length, K, R, blocks) of all others -> (R, T, K)."""
        others = np.moveaxis(values, (2, 3), (0, 1)).reshape(restarts, blocks * length, len(first))
        return np.concatenate([first.T[:, None], others[:, : steps - 1]], axis=1)

    # Every move into a step, its density and its probability, as one matrix (from, to). What is behind the last step
    # is padded with breaks of density one, which change nothing.
    on, anew = in_blocks(goes_on - shared), in_blocks(begins - shared)
    log_transition = np.log(transition).transpose(1, 2, 0)[..., None]
    same = np.arange(regimes)
    move = anew[:, None] + log_transition
    move[:, same, same] = on + log_transition[same, same]
    inside = np.zeros(blocks * length, dtype=bool)
    inside[: steps - 1] = ~breaks[1:]
    step, block = np.nonzero(~inside.reshape(blocks, length).T)
    move[step, ..., block] = anew[step, ..., block][:, None] - np.log(regimes)

    whole = move[:1][0]  # all moves through a block as one
    for moves in move[1:]:
        whole = _log_sum(whole.swapaxes(0, 1)[:, :, None] + moves[:, None], axis=0)
    through = np.ascontiguousarray(np.moveaxis(whole, -1, 0))
    enter, leave = np.empty((blocks + 1, regimes, restarts)), np.zeros((blocks + 1, regimes, restarts))
    enter[0] = (begins - shared)[:, 0].T - np.log(regimes)
    for b in range(blocks):
        enter[b + 1] = np.logaddexp.reduce(enter[b][:, None] + through[b], axis=0)
    for b in range(blocks - 1, -1, -1):
        leave[b] = np.logaddexp.reduce(through[b] + leave[b + 1], axis=1)
    alpha, beta = np.empty((length + 1, *whole.shape[1:])), np.empty((length, *whole.shape[1:]))
    alpha[0], beta[-1] = np.moveaxis(enter[:-1], 0, -1), np.moveaxis(leave[1:], 0, -1)
    for s in range(length):
        alpha[s + 1] = _log_sum(alpha[s][:, None] + move[s], axis=0)
    for s in range(length - 1, 0, -1):
        beta[s - 1] = _log_sum(move[s] + beta[s], axis=1)

    end = np.logaddexp.reduce(enter[-1])[:, None]
    moved = np.exp(alpha[:-1, :, None] + move + (beta - end)[:, None])
    moved[step, ..., block] = 0
    probability = in_order(np.exp(enter[0] + leave[0] - end[:, 0]), np.exp(alpha[1:] + (beta - end)))
    probability /= probability.sum(axis=2, keepdims=True)
    goes = in_order(np.zeros((regimes, restarts)), moved[:, same, same])
    reached = in_order(_log_sum(enter[:1], axis=1), _log_sum(alpha[1:], axis=1)[:, None])  # of all up to t
    log_density = np.diff(reached, axis=1, prepend=0) + shared
    return probability, goes, moved.sum(axis=(0, -1)).transpose(2, 0, 1), log_density[..., 0]


def _log_sum(x: Array, axis: int) -> Array:
    """log Σ exp(x): for long arrays faster than logaddexp.reduce, whose every term takes a logarithm."""
    # of nothing but log 0, the difference would be NaN
    top = np.maximum(x.max(axis=axis, keepdims=True), np.finfo(x.dtype).min)
    return (np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top).squeeze(axis)


def _first_guess(
    record: _Record, num_regimes: int, settings: "_Settings", restart: int, rng: np.random.Generator
) -> tuple[NDArray[np.integer], float]:
    """Labels to start from, and the heat to start at.

    The first start sorts the steps by how the field has moved lately, the second by how it looks (found as regimes
    without dynamics, where there are any), all others by lot.
    """
    z, inputs = record.z, record.inputs
    dynamic = inputs.shape[2] > 0
    if restart == 1 and dynamic:
        still = replace(record, inputs=inputs[:, :, :0])
        probability = _fit_experts(still, num_regimes, settings, 2, rng).smooth(still)[0]
        return probability.argmax(axis=1), 1.0  # patterns are weak beside motion: heat would melt them
    if restart == 0:
        # The product of the field with each of its inputs says in which direction it has just moved.
        features = np.einsum("tmp,tm->tp", inputs, z) if dynamic else z
        total = np.cumsum(np.vstack([np.zeros(features.shape[1]), features]), axis=0)
        steps = np.arange(len(z))
        half = int(min(settings.duration / 4, 7))
        first, last = np.maximum(steps - half, 0), np.minimum(steps + half + 1, len(z))
        smooth = (total[last] - total[first]) / (last - first)[:, None]
        smooth /= smooth.std(axis=0) + 1e-12 if dynamic else smooth.std()
        clusters = KMeans(num_regimes, n_init=3, random_state=int(rng.integers(2**31)))
        return clusters.fit_predict(smooth), HEAT if dynamic else 1.0
    length = int(np.clip(len(z) // (8 * num_regimes), 1, settings.duration))
    return np.repeat(rng.integers(num_regimes, size=len(z) // length + 1), length)[: len(z)], HEAT


def _columns(z: Array, inputs: Array) -> Array:
    """Inputs (T, M, H (1 + S)) and the fields (T, M), time last: (H (1 + S) + 1, M, T)."""
    return np.ascontiguousarray(np.concatenate([inputs, z[:, :, None]], axis=2).transpose(2, 1, 0))


def _maximise(
    columns: Array, probability: Array, goes: Array, transition: Array, previous: _Experts | None, kind: str
) -> _Experts:
    """The experts that fit best to steps shared out by probability: weighted generalised least squares.

    ``columns`` is what :func:`_columns` makes of the series.
    """
    num_regimes, (width, modes, _) = probability.shape[1], columns.shape
    z = columns[-1]
    weights, constant, mean = (np.empty((num_regimes, size)) for size in (width - 1, modes, modes))
    error, climate = np.empty((2, num_regimes, modes, modes))
    steps, counts = probability.sum(axis=0) + 1e-9, goes.sum(axis=0) + 1e-9
    for k in range(num_regimes):
        mean[k] = z @ probability[:, k] / steps[k]
        climate[k] = (z * probability[:, k]) @ z.T / steps[k] - np.outer(mean[k], mean[k])
        used = np.flatnonzero(goes[:, k] > 1e-4)
        share, part = goes[used, k] / counts[k], columns.take(used, axis=2)
        centre = part @ share
        # Made white by the covariance of the errors, the modes are so many rows of one ordinary regression.
        if previous is None:
            variance = (part[-1] ** 2 @ share - centre[-1] ** 2).sum() / modes
            root = np.eye(modes) / np.sqrt(max(variance, 1e-300))
        else:
            root = np.linalg.inv(np.linalg.cholesky(previous.error[k]))
        rows, middle = root @ part, centre @ root.T
        rows *= np.sqrt(share)
        rows = rows.reshape(width, -1)
        second = rows @ rows.T - middle @ middle.T
        weights[k] = np.linalg.solve(second[:-1, :-1] + 1e-6 * np.eye(width - 1), second[:-1, -1])
        less = np.append(-weights[k], 1)  # the field less its forecast
        rest = (less @ part.reshape(width, -1)).reshape(modes, -1)
        constant[k] = less @ centre
        error[k] = (rest * share) @ rest.T - np.outer(constant[k], constant[k])
    error = _towards_pool(error, counts, kind)
    climate = _towards_pool(climate, steps, kind)
    return _Experts(weights, constant, error, mean, climate, transition)


def _towards_pool(covariance: Array, counts: Array, kind: str) -> Array:
    """Covariances that a regime can be held to: "full" of its own, "shared" by all, or "spherical", shared and round.

    A full one is drawn towards that of all regimes, the more, the fewer steps it has: the shared one counts as much
    as an average regime and 2 M further steps (an inverse-Wishart prior). The shared one is itself drawn a little
    towards equal variances, so that no direction is without noise.
    """
    modes = covariance.shape[-1]
    shared = np.einsum("k,kmn->mn", counts, covariance) / counts.sum()
    round_one = np.trace(shared) / modes * np.eye(modes)
    if kind == "spherical":
        return np.stack([round_one] * len(counts))
    shared = 0.99 * shared + 0.01 * round_one
    if kind == "shared":
        return np.stack([shared] * len(counts))
    share = (counts / (counts + counts.mean() + 2 * modes))[:, None, None]
    return share * covariance + (1 - share) * shared


def _fit_experts(
    record: _Record, num_regimes: int, settings: "_Settings", restarts: int, rng: np.random.Generator
) -> _Experts:
    """Expectation-maximisation from several starts: the experts of the likeliest."""
    z, inputs, complete, kind = record.z, record.inputs, record.complete, settings.covariance
    tries = range(restarts if num_regimes > 1 else 1)
    starts = [_first_guess(record, num_regimes, settings, r, rng) for r in tries]
    probability = np.stack([0.9 * np.eye(num_regimes)[labels] + 0.1 / num_regimes for labels, _ in starts])
    goes = probability * complete[:, None]
    leave = 1 / settings.duration / max(num_regimes - 1, 1)
    first = np.where(np.eye(num_regimes) > 0, 1 - leave * (num_regimes - 1), leave)
    transitions = np.stack([first] * len(starts))
    columns = _columns(z, inputs)
    experts: dict[int, _Experts] = {}
    hot = "shared" if kind == "full" else kind  # of regimes that are still vague, one can't tell the spread
    reached = np.full(len(starts), -np.inf)
    running = np.arange(len(starts))
    for iteration in range(ITERATIONS):
        heat = np.array([min(1.0, starts[r][1] * COOLING**iteration) for r in running])
        densities = []
        for r, h in zip(running.tolist(), heat, strict=True):
            experts[r] = _maximise(
                columns, probability[r], goes[r], transitions[r], experts.get(r), hot if h < 1 else kind
            )
            densities.append(experts[r].densities(record))
        goes_on, begins = (np.stack(d) * heat[:, None, None] for d in zip(*densities, strict=True))
        probability[running], goes[running], count, log_density = forward_backward(
            goes_on, begins, transitions[running], record.breaks
        )
        # Without dynamics going on and beginning are one thing, and every step tells of it.
        goes[running] = goes[running] * complete[:, None] if inputs.shape[2] else probability[running]
        count += SEEN_BEFORE
        cold = running[heat >= 1]
        transitions[cold] = (count / count.sum(axis=-1, keepdims=True))[heat >= 1]
        now = log_density.sum(axis=1)
        improves = now > reached[running] + 1e-6 * np.abs(now)
        reached[running] = np.where(heat >= 1, now, -np.inf)
        running = running[(heat < 1) | improves]
        if not running.size:
            break
    best = int(reached.argmax())
    # the commonest regime first, so that names don't depend on the start that won
    return _ordered(replace(experts[best], transition=transitions[best]), probability[best])[0]


def _ordered(experts: _Experts, probability: Array) -> tuple[_Experts, Array]:
    """Experts, and the probabilities (T, K) of their regimes, the commonest first."""
    order = np.argsort(-probability.sum(axis=0), kind="stable")
    experts = _Experts(*(getattr(experts, f.name)[order] for f in fields(_Experts)))
    return replace(experts, transition=experts.transition[:, order]), probability[:, order]


def _space(x: Array, operators: Sequence[Tensor], history: int, modes: int | None, scale: Array, most: int) -> _Space:
    """The leading EOFs of the training fields: by default as many as hold 98 % of the variance."""
    mean = x.mean(axis=0)
    _, size, patterns = np.linalg.svd((x - mean) * scale, full_matrices=False)
    share = np.cumsum(size**2) / (size**2).sum()
    if modes is None:
        modes = min(int(np.searchsorted(share, 0.98)) + 1, 40, most)
    modes = min(modes, int((size > 1e-8 * size[0]).sum()))
    eofs = patterns[:modes].T
    # P_s acts on the field before the EOFs look at it: (P_s x)·e = x·(P_sᵀ e), so the EOFs are turned round once.
    lagged = [eofs]
    for operator in operators:
        # the operator acts on plain anomalies, the EOFs on weighted ones
        turned = (operator.t().to(torch.float64) @ torch.from_numpy(eofs * scale[:, None])).numpy()
        lagged.append(turned / scale[:, None])
    return _Space(mean, scale, eofs, lagged, history)


class GatedExpert(nn.Module):
    """A small ST-GCN that adds to a linear expert what a straight line can't say.

    Directional graph convolution, gated temporal convolution over the lags, a linear map to one value for each
    station. The last layer starts at zero: untrained, it adds nothing.

    Shapes:
        x (1, T, N, 1), operators S times (N, N) -> (1, T, N): what is added to the forecast of each step. The
        first ``history`` steps, which have no complete past, get 0.
    """

    def __init__(self, history: int, sectors: int, channels: int = 8) -> None:
        super().__init__()
        self.history = history
        self.space = DirectionalGraphConv(1, channels, sectors)
        self.time = TemporalConv(channels, channels, history, pad=False)
        self.out = nn.Linear(channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, operators: Sequence[Tensor]) -> Tensor:
        if x.shape[1] <= self.history:
            return x.new_zeros(x.shape[:3])
        past = x[:, :-1]  # the forecast of step t sees t - history ... t - 1
        added = self.out(self.time(torch.relu(self.space(past, operators))))[..., 0]
        return torch.cat([added.new_zeros(1, self.history, x.shape[2]), added], dim=1)


@dataclass(frozen=True)
class _Model:
    """A fitted space with its experts, and with their networks if they are gated."""

    space: _Space
    experts: _Experts
    operators: tuple[Tensor, ...] = ()
    networks: tuple[GatedExpert, ...] = ()

    def smooth(self, x: Array, breaks: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
        """As :meth:`_Experts.smooth`, of a series (T, N)."""
        return self.experts.smooth(self.space.project(x, breaks), self.added(x))

    def added(self, x: Array) -> Array | None:
        """What the networks add to the forecasts, in EOF space: (K, T, M)."""
        if not self.networks:
            return None
        into, out = self.gate_units(x)
        with torch.no_grad():
            return torch.stack([(net(into, self.operators) @ out)[0] for net in self.networks]).double().numpy()

    def gate_units(self, x: Array) -> tuple[Tensor, Tensor]:
        """Anomalies over their typical size, (1, T, N, 1), and the matrix (N, M) that brings outputs to EOF space."""
        size = float(
            np.sqrt(np.trace(np.einsum("kmn->mn", self.experts.climate)) / x.shape[1] / len(self.experts.mean))
        )
        into = torch.from_numpy((x - self.space.mean) / size).float()[None, :, :, None]
        return into, torch.from_numpy(self.space.eofs * self.space.scale[:, None] * size).float()


def _train_gates(model: _Model, x: Array, record: _Record, kind: str, seed: int) -> _Model:
    """Generalised expectation-maximisation that goes on from linear experts with gated ones.

    Each round trains every network on the steps that its regime claims, estimates the covariance of the errors
    anew, and shares out the steps again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = tuple(GatedExpert(model.space.history, len(model.operators)) for _ in model.experts.weights)
    model = replace(model, networks=networks)
    optimisers = [torch.optim.Adam(network.parameters(), lr=0.01) for network in networks]
    rng = np.random.default_rng(seed)
    into, out = model.gate_units(x)
    length = min(len(x), GATE_WINDOW)
    for _ in range(GATE_ROUNDS):
        claims = model.experts.smooth(record, model.added(x))[1]
        lefts = model.experts.forecast_errors(record.z, record.inputs)
        for k, (network, optimiser) in enumerate(zip(networks, optimisers, strict=True)):
            white = torch.from_numpy(np.linalg.inv(np.linalg.cholesky(model.experts.error[k]))).float()
            left = torch.from_numpy(lefts[k]).float()
            claim = torch.from_numpy(claims[:, k]).float()
            for _ in range(GATE_STEPS):
                start = int(rng.integers(len(x) - length + 1))
                part = slice(start, start + length)
                error = (left[part] - (network(into[:, part], model.operators) @ out)[0]) @ white.T
                claimed = claim[part].clone()
                claimed[: network.history] = 0  # the window cuts off their past
                loss = (claimed * (error**2).mean(dim=1)).sum() / (claimed.sum() + 1)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        added, counts = model.added(x), claims.sum(axis=0) + 1e-9
        assert added is not None  # the model has networks
        error = np.stack([(claims[:, k, None] * r).T @ r / counts[k] for k, r in enumerate(lefts - added)])
        model = replace(model, experts=replace(model.experts, error=_towards_pool(error, counts, kind)))
    return model


@dataclass(frozen=True)
class _Settings:
    """What a fit needs beside the series."""

    operators: tuple[Tensor, ...]
    history: int
    expert: str
    modes: int | None
    scale: Array
    duration: float
    covariance: str

    def fit(self, x: Array, breaks: NDArray[np.bool_], counts: Sequence[int], restarts: int, seed: int) -> list[_Model]:
        """One model for each number of regimes, all in the same EOF space, so that densities can be compared."""
        most = max(1, len(x) // (5 * max(counts)))
        space = _space(x, self.operators, self.history, self.modes, self.scale, most)
        record = space.project(x, breaks)
        models = []
        for count in counts:
            experts = _fit_experts(record, count, self, restarts, np.random.default_rng(seed))
            model = _Model(space, experts, self.operators)
            models.append(_train_gates(model, x, record, self.covariance, seed) if self.expert == "gated" else model)
        return models


@dataclass(frozen=True)
class Regimes:
    """What :func:`discover_regimes` found. Regime 0 is the commonest.

    Attributes:
        labels: (time,) the most probable regime of every time.
        probabilities: (time, regime), given the whole series.
        transition_matrix: (regime, next) probability of the regime of the next step.
        mean_duration: (regime,) expected duration in steps, 1 / (1 - probability of staying).
        composites: (regime, station) mean of the series in each regime, in the series' units.
        weights: (regime, lag, source) of the linear experts; source is "self" or where the neighbours lie,
            counted in degrees clockwise from north.
        log_likelihood: mean log density of a step in EOF space, in nats.
        held_out: (num_regimes,) the same of the half of the record that was not fitted, above that of one single
            regime; NaN where the record is too short to be halved.
        stability: adjusted Rand index between what the experts of either half make of the whole record.
        supported: whether the held-out halves prefer this number of regimes to one regime and to one fewer.
        verdict: the same in words, with the figures.
    """

    labels: xr.DataArray
    probabilities: xr.DataArray
    transition_matrix: xr.DataArray
    mean_duration: xr.DataArray
    composites: xr.DataArray
    weights: xr.DataArray
    log_likelihood: float
    held_out: xr.DataArray
    stability: float
    supported: bool
    verdict: str
    _model: _Model = field(repr=False)

    def predict(self, series: xr.DataArray) -> xr.DataArray:
        """Probabilities (time, regime) of another stretch of the same stations, with nothing fitted anew."""
        return _over_time(self._smooth(series)[0], series)

    def log_density(self, series: xr.DataArray) -> xr.DataArray:
        """Log density (time,) of each step of a stretch given the steps before, in EOF space, in nats."""
        density = self._smooth(series)[2]
        return xr.DataArray(density, dims="time", coords={"time": series["time"]}, attrs={"units": "1"})

    def _smooth(self, series: xr.DataArray) -> tuple[Array, Array, Array]:
        x, breaks = _values(series)
        if not np.array_equal(series["station"].values, self.composites["station"].values):
            raise ValueError(
                "series: expected the stations of the fit in their order; select them with .sel(station=...)"
            )
        return self._model.smooth(x, breaks)


@_one_thread
def discover_regimes(
    series: xr.DataArray,
    graph: "Data",
    num_regimes: int | None = None,
    seed: int = 0,
    *,
    history: int = 2,
    expert: str = "linear",
    sectors: int = 4,
    modes: int | None = None,
    duration: float = 30,
    covariance: str = "full",
    restarts: int = 5,
    weights: ArrayLike | None = None,
    check: bool = True,
) -> Regimes:
    """Find the regimes of a region: stretches of time in which its weather looks *and moves* in one way.

    A Markov-switching spatio-temporal graph network (see the head of this module), fitted by annealed
    expectation-maximisation from several starts. Classical pattern regimes are the special case without
    dynamics, ``history=0``: a Gaussian hidden Markov model of the leading principal components.

    Args:
        series: (time, station) without missing values, in any units; take out the seasonal cycle first. Rows
            are steps of one length; where the time axis has a gap, such as between winters, the past is cut off.
        graph: of the same stations. A station without neighbours forecasts itself.
        num_regimes: K; None chooses it by :func:`choose_num_regimes`.
        seed: of the starts.
        history: lags H that an expert sees; 0 for regimes that differ in their mean and spread alone.
        expert: "linear", or "gated" for a small network on top of it.
        sectors: compass sectors S of the graph convolution; 1 can't tell where the weather comes from.
        modes: leading EOFs M in which errors are judged; by default those that hold 98 % of the variance, at
            most 40, and at most one for each 5 K steps.
        duration: about how many steps a regime may last; where the search begins, not where it ends.
        covariance: what is learned of the errors: "full" for each regime, one "shared" by all, or "spherical", one
            variance for all directions, as k-means takes it; for short records.
        restarts: number of starts; the likeliest result is kept.
        weights: (station,) weight of each station's variance, for example the cosine of latitude on a grid.
        check: also fit both halves of the record, to see whether the data support K regimes.

    Returns:
        The regimes, with a label for every time of the series.

    Raises:
        TypeError, ValueError: for another kind of series, missing values, a constant series, a graph of other
            stations, unsorted times, or more regimes than the record allows (20 steps for each).

    Source: Hamilton (1989), doi:10.2307/1912559; the neighbours partitioned by bearing after Yan et al. (2018),
        doi:10.1609/aaai.v32i1.12328.
    """
    options: dict[str, Any] = {"history": history, "expert": expert, "sectors": sectors, "modes": modes}
    options |= {"duration": duration, "covariance": covariance, "weights": weights}
    if num_regimes is None:
        _check_series(series, "series")
        candidates = [k for k in range(1, 7) if series.sizes["time"] // 2 >= LEAST_STEPS * k] or [1]
        chosen = choose_num_regimes(series, graph, candidates, seed, restarts, **options)
        num_regimes = int(chosen.idxmax())
    num_regimes = whole_number(num_regimes, "num_regimes")
    seed, restarts = whole_number(seed, "seed", least=0), whole_number(restarts, "restarts")
    x, breaks, settings = _prepare(series, graph, num_regimes, **options)
    model = settings.fit(x, breaks, [num_regimes], restarts, seed)[0]
    probability, _, density = model.smooth(x, breaks)
    counts = sorted({1, max(num_regimes - 1, 1), num_regimes})
    enough = check and num_regimes > 1 and len(x) // 2 >= LEAST_STEPS * num_regimes
    if enough:
        gains, error, stability = _halves(x, breaks, settings, counts, restarts, seed)
    else:
        gains, error, stability = np.full(len(counts), np.nan), np.full(len(counts), np.nan), float("nan")
    supported, verdict = _judge(counts, gains, error, stability, check)
    checked = xr.DataArray(gains, dims="num_regimes", coords={"num_regimes": counts}, attrs={"units": "nats per step"})
    return _described(series, x, model, probability, density, checked, float(stability), supported, verdict)


def _described(
    series: xr.DataArray,
    x: Array,
    model: _Model,
    probability: Array,
    density: Array,
    held_out: xr.DataArray,
    stability: float,
    supported: bool,
    verdict: str,
) -> Regimes:
    """What a fitted model says of the series, with names and coordinates."""
    num_regimes, sectors, history = len(model.experts.weights), len(model.operators), model.space.history
    share = np.maximum(probability.sum(axis=0), 1e-9)
    sources = ["self"] + [f"{360 * s / sectors:g}°" for s in range(sectors)]
    kernel = model.experts.weights.reshape(num_regimes, history, len(sources))
    with np.errstate(divide="ignore"):  # a single regime lasts for ever
        mean_duration = 1 / (1 - np.diag(model.experts.transition))
    return Regimes(
        labels=xr.DataArray(probability.argmax(axis=1), dims="time", coords={"time": series["time"]}, name="regime"),
        probabilities=_over_time(probability, series),
        transition_matrix=xr.DataArray(model.experts.transition, dims=("regime", "next")),
        mean_duration=xr.DataArray(mean_duration, dims="regime", attrs={"units": "steps"}),
        composites=xr.DataArray(
            probability.T @ x / share[:, None],
            dims=("regime", "station"),
            coords=_station_coords(series),
            attrs=series.attrs,
        ),
        weights=xr.DataArray(
            kernel,
            dims=("regime", "lag", "source"),
            coords={"lag": np.arange(1, history + 1), "source": sources},
        ),
        log_likelihood=float(density.mean()),
        held_out=held_out,
        stability=stability,
        supported=supported,
        verdict=verdict,
        _model=model,
    )


@_one_thread
def complete_regimes(
    series: xr.DataArray,
    graph: "Data",
    num_regimes: int,
    seed: int = 0,
    *,
    rounds: int = 15,
    pairs: int = 2,
    restarts: int = 5,
    **options: Any,
) -> tuple[xr.DataArray, Regimes]:
    """Fill the gaps of a series and find its regimes, each with the help of the other.

    To know the regime one needs the field, to fill the field one needs to know how it moves. So both are found in
    turn, from a first filling by kriging: (1) the experts and the regimes of the filled field, as in
    :func:`discover_regimes`; (2) the missing values that the experts find least surprising,
    ``min Σ_t Σ_k γ_k(t) r_k(t)ᵀ Σ_k^-1 r_k(t)``, r_k the error of expert k's forecast or, at an onset, the distance
    from the regime's climate. What is known before, after and around a gap counts in it. Not the one best filling is
    handed back to step (1) but several, drawn with its uncertainty: experts that take their own guesses for
    observations would find the weather more regular than it is.

    A station with hardly any values (fewer than 20, or than 2 % of the steps) can't tell how it moves. It takes no
    part in the turns, is filled by kriging from the completed others, and does not count in the regimes.

    Args:
        series: (time, station), NaN where missing, in any units; take out the seasonal cycle first. Stations,
            steps and breaks of the time axis as in :func:`discover_regimes`; a break is not filled across.
        graph: of the same stations, with ``pos``.
        num_regimes: K.
        seed: of the starts and the draws.
        rounds: number of turns at most; fewer where the filled values settle.
        pairs: fillings are drawn in pairs that lie opposite each other about the best one; how many.
        restarts, options: as in :func:`discover_regimes`; the experts are linear. The work grows with the cube of
            the number of values that are missing at one time, the memory with its square, for each step.

    Returns:
        The series without gaps, observed values untouched, with a coordinate ``spread`` (time, station): the standard
        deviation of what was filled, given the regimes, and 0 where observed; and the regimes, not checked on
        halves, as the filling knows both. Without gaps they are those of :func:`discover_regimes`.

    Raises:
        TypeError, ValueError: as :func:`discover_regimes`, and for a series without any value, or gated experts.

    Source: Ghahramani & Hinton (2000), doi:10.1162/089976600300015619, for the two turns in switching models; Wei &
        Tanner (1990), doi:10.1080/01621459.1990.10474930, for expectation over draws.
    """
    _check_series(series, "series")
    if unknown := set(options) - set(OPTIONS):
        raise TypeError(f"complete_regimes: unknown {sorted(unknown)}, expected some of {list(OPTIONS)}")
    if options.get("expert", "linear") == "gated":
        raise ValueError("expert: expected 'linear', found 'gated'; what a network adds can't be solved for the gaps")
    num_regimes, seed = whole_number(num_regimes, "num_regimes"), whole_number(seed, "seed", least=0)
    rounds, pairs = whole_number(rounds, "rounds"), whole_number(pairs, "pairs")
    restarts = whole_number(restarts, "restarts")
    known = series.notnull().values
    if not known.any():
        raise ValueError("series: expected some observed values, found none")
    first = series.fillna(series.mean()) if not known.all() else series
    x, breaks, settings = _prepare(first, graph, num_regimes, **options)
    spread = np.zeros(x.shape)
    if known.all():
        found = discover_regimes(series, graph, num_regimes, seed, restarts=restarts, check=False, **options)
        return series.assign_coords(spread=(series.dims, spread)), found
    rng = np.random.default_rng(seed)
    kriging = _first_law(x, known, graph)
    always = np.ones((len(x), 1))
    fillings, spread = _refill(x, known, kriging, 0 * always, always, pairs, rng)
    enough = known.sum(axis=0)
    part = enough >= min(max(LEAST_STEPS, 0.02 * len(x)), enough.max())
    if not part.all():
        inner = graph.subgraph(torch.from_numpy(part))
        settings = replace(
            settings, operators=directional_operators(inner, len(settings.operators)), scale=settings.scale[part]
        )
    fillings[:, :, part], spread[:, part], model, probability, density = _in_turn(
        x[:, part], known[:, part], fillings[:, :, part], breaks, settings, num_regimes, rounds, restarts, seed, rng
    )
    if not part.all():
        # Kriging from each completed field; what they differ by adds to the error of kriging itself.
        others = [_refill(filling, known | part, kriging, 0 * always, always, 0, rng) for filling in fillings]
        fillings = np.concatenate([filling for filling, _ in others])
        between = (fillings[1:] - fillings[0]).std(axis=0)
        spread[:, ~part] = np.hypot(others[0][1], between)[:, ~part]
        model = replace(model, space=model.space.widened(part, fillings[0].mean(axis=0)))
    values = np.where(known, series.values, fillings[0].astype(series.dtype))
    spread[known] = 0
    filled = series.copy(data=values).assign_coords(spread=(series.dims, spread))
    nothing = xr.DataArray([np.nan], dims="num_regimes", coords={"num_regimes": [num_regimes]})
    verdict = "Not checked: the filling knows both halves."
    return filled, _described(
        series, values.astype(float), model, probability, density, nothing, float("nan"), False, verdict
    )


def _in_turn(
    x: Array,
    known: NDArray[np.bool_],
    fillings: Array,
    breaks: NDArray[np.bool_],
    settings: _Settings,
    num_regimes: int,
    rounds: int,
    restarts: int,
    seed: int,
    rng: np.random.Generator,
) -> tuple[Array, Array, _Model, Array, Array]:
    """Experts and fillings in turn: fillings (1 + D, T, N), spread, model, probabilities and log density."""
    if known.all():
        model = settings.fit(x, breaks, [num_regimes], restarts, seed)[0]
        probability, _, density = model.smooth(x, breaks)
        return fillings, np.zeros(x.shape), model, probability, density
    most = max(1, len(x) // (5 * num_regimes))
    draw, stations = fillings[-1], x.shape[1]
    modes = _space(draw, settings.operators, settings.history, settings.modes, settings.scale, most).eofs.shape[1]
    every = _space(draw, settings.operators, settings.history, stations, settings.scale, stations)
    space = replace(every, eofs=every.eofs[:, :modes], lagged=[turned[:, :modes] for turned in every.lagged])
    # Where most is filled, the errors of kriging look like regimes: at first few EOFs, and one covariance for all.
    kind = "spherical" if settings.covariance == "spherical" else "shared"
    start = replace(settings, covariance=kind, modes=min(settings.modes or FIRST_MODES, FIRST_MODES, most))
    model = start.fit(fillings[0], breaks, [num_regimes], restarts, seed)[0]
    probability, goes, _ = model.smooth(fillings[0], breaks)
    experts: _Experts | None = None
    transition = model.experts.transition
    complete = _since(breaks) >= settings.history
    if not settings.history:
        goes = probability  # without dynamics every step tells of the experts
    typical, draws = fillings[0].std(), len(fillings) - 1
    for _ in range(rounds):
        records = [every.project(filling, breaks) for filling in fillings[1:]]
        z, inputs = np.concatenate([r.z for r in records]), np.concatenate([r.inputs for r in records])
        gamma, going = (np.tile(p, (draws, 1)) / draws for p in (probability, goes))
        columns = _columns(z[:, :modes], inputs[:, :modes])
        experts = _maximise(columns, gamma, going, transition, experts, settings.covariance)
        # Directions beyond the leading EOFs: one variance each, the same in all regimes.
        beyond = z[:, modes:, None] - inputs[:, modes:] @ experts.weights.T
        least = 1e-6 * z.var(axis=0).sum()
        error = np.einsum("tmk,tk->m", beyond**2, going) / (going.sum() + 1e-9) + least
        climate = (z[:, modes:] ** 2).mean(axis=0) + least
        law = _law(every, experts, error, climate, settings.operators)
        before = fillings[0]
        fillings, _ = _refill(x - every.mean, known, law, goes, probability - goes, draws // 2, rng)
        fillings += every.mean
        densities = [experts.densities(space.project(filling, breaks)) for filling in fillings[1:]]
        goes_on, begins = (np.stack(d) for d in zip(*densities, strict=True))
        chains = forward_backward(goes_on, begins, np.stack([transition] * draws), breaks)
        probability, goes, count, density = (each.mean(axis=0) for each in chains)
        goes = goes * complete[:, None] if settings.history else probability
        count += SEEN_BEFORE
        transition = count / count.sum(axis=1, keepdims=True)
        if np.sqrt(((fillings[0] - before)[~known] ** 2).mean()) < SETTLED * typical:
            break
    assert experts is not None  # there was at least one round
    fillings, spread = _refill(x - every.mean, known, law, goes, probability - goes, SPREAD_PAIRS, rng)
    fillings += every.mean
    experts, probability = _ordered(replace(experts, transition=transition), probability)
    return fillings[: 1 + draws], spread, _Model(space, experts, settings.operators), probability, density


@dataclass(frozen=True)
class _Law:
    """Experts in the space of the stations: what a filling has to obey. Every array begins with the regime."""

    steps: Array  # (K, 1 + H, N, N) so that the error is Σ_h steps_h x(t - h) - constant
    constant: Array  # (K, N)
    precision: Array  # (K, N, N) of the errors
    mean: Array  # (K, N)
    fresh: Array  # (K, N, N) precision of the fields at an onset


def _law(space: _Space, experts: _Experts, error: Array, climate: Array, operators: Sequence[Tensor]) -> _Law:
    stations, modes = space.mean.size, experts.constant.shape[1]
    leading, beyond = space.eofs[:, :modes], space.eofs[:, modes:]
    outside = np.eye(stations) - space.eofs @ space.eofs.T  # directions in which nothing varies

    def precision(covariance: Array, variances: Array) -> Array:
        rest = (beyond / variances) @ beyond.T + outside / (1e-6 * np.trace(covariance.mean(axis=0)))
        return (leading @ np.linalg.inv(covariance) @ leading.T + rest) * space.scale[:, None] * space.scale

    maps = np.stack([np.eye(stations)] + [operator.to_dense().double().numpy() for operator in operators])
    lags = np.einsum("khs,smn->khmn", experts.weights.reshape(len(experts.weights), space.history, len(maps)), maps)
    return _Law(
        np.concatenate([np.broadcast_to(maps[0], (len(lags), 1, stations, stations)), -lags], axis=1),
        experts.constant @ leading.T / space.scale,
        precision(experts.error, error),
        experts.mean @ leading.T / space.scale,
        precision(experts.climate, climate),
    )


def _first_law(x: Array, known: NDArray[np.bool_], graph: "Data") -> _Law:
    """Kriging: a correlation a·exp(-(d/L)^p) fitted to pairs of stations, no memory; d is the chord.

    A station's mean and variance count as much as its values, those of all stations as ten further values.
    """
    count, shown = known.sum(axis=0), np.where(known, x, 0)
    mean = (shown.sum(axis=0) + 10 * shown.sum() / count.sum()) / (count + 10)
    y = np.where(known, x - mean, 0)
    square = (y**2).sum(axis=0)
    size = np.sqrt((square + 10 * square.sum() / count.sum()) / (count + 10))
    both = known.T.astype(float) @ known
    product = (y / size).T @ (y / size)
    lon, lat = graph.pos.numpy().astype(np.float64).T
    # Straight through the earth: along its surface not every such function is a correlation.
    places = _unit_vectors(lat, lon)
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    pairs = both * ~np.eye(len(lat), dtype=bool)
    product *= pairs > 0
    best, correlation = np.inf, np.eye(len(lat))
    lengths = max(distance.max(), 1e-6) * np.geomspace(0.02, 20, 40)
    for power, length in itertools.product((1.0, 1.5, 2.0), lengths.tolist()):
        shape = np.exp(-((distance / length) ** power))
        height = np.clip((shape * product).sum() / max((pairs * shape**2).sum(), 1e-9), 0, 0.99)
        misfit = (pairs * (height * shape) ** 2 - 2 * height * shape * product).sum()
        if misfit < best:
            best, correlation = misfit, height * shape + (1 - height) * np.eye(len(lat))
    precision = np.linalg.inv(correlation * np.outer(size, size))[None].astype(np.float64)
    return _Law(np.eye(len(lat))[None, None], mean[None], precision, mean[None], precision)


def _refill(
    x: Array, known: NDArray[np.bool_], law: _Law, goes: Array, fresh: Array, pairs: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The least surprising values of the gaps, and draws about them: (1 + 2 pairs, T, N); spread (T, N).

    The surprise is a quadratic in the missing values, and couples each step only with the H steps before: block
    Cholesky from the first step to the last, substitution back. The variance is that of a step given all later
    ones, which is exact, and that of what the draws make of the later ones.
    """
    history, steps = law.steps.shape[1] - 1, range(len(x))
    ahead = np.zeros((*goes.shape, history + 1))  # (t, k, h): weight of the error at t + h
    for h in range(history + 1):
        ahead[: len(x) - h, :, h] = goes[h:]
    weighted, turned = law.precision[:, None] @ law.steps, law.steps.swapaxes(-1, -2)
    blocks, shares = [], []
    for j in range(history + 1):  # x(t) and x(t - j) meet in the errors at t + h, h = 0 ... H - j
        blocks.append((turned[:, : history + 1 - j] @ weighted[:, j:]).reshape(-1, *law.precision.shape[1:]))
        shares.append(ahead[:, :, : history + 1 - j].reshape(len(x), -1))
    blocks[0], shares[0] = np.concatenate([blocks[0], law.fresh]), np.concatenate([shares[0], fresh], axis=1)
    right = np.einsum("tkh,khnm,kn->tm", ahead, weighted, law.constant, optimize=True)
    right += np.einsum("tk,kmn,kn->tm", fresh, law.fresh, law.mean, optimize=True)
    gaps = [np.flatnonzero(~row) for row in known]
    shown = np.where(known, x, 0)

    roots: list[list[Array]] = []  # roots[t][j]: the block (t, t - j) of the Cholesky factor
    stretch = max(1, BLOCKS_AT_ONCE // blocks[0][0].size)
    for first in range(0, len(x), stretch):
        near = []
        for j in range(min(history, len(x) - 1) + 1):
            # the first j steps have no step t - j
            here = slice(max(first, j), max(first, j, min(first + stretch, len(x))))
            before = slice(here.start - j, here.stop - j)
            use = np.where(shares[j][here] > 1e-6, shares[j][here], 0)
            block = (use @ blocks[j].reshape(len(blocks[j]), -1)).reshape(-1, *blocks[j][0].shape)
            right[here] -= (block @ shown[before, :, None])[..., 0]
            if j:
                right[before] -= (shown[here, None] @ block)[:, 0]
            near.append(block)
        for t in range(first, min(first + stretch, len(x))):
            rows, row = gaps[t][:, None], []
            for j in range(min(t, history) + 1):
                row.append(near[j][t - max(first, j)][rows, gaps[t - j]])
            for j in range(len(row) - 1, 0, -1):
                for i in range(j + 1, len(row)):
                    row[j] -= row[i] @ roots[t - j][i - j].T
                row[j] = _substitute(roots[t - j][0], row[j].T).T
            for block in row[1:]:
                row[0] -= block @ block.T
            roots.append([_root(row[0]), *row[1:]])
    half: list[Array] = []
    for t in steps:
        rest = right[t, gaps[t]]
        for j in range(1, len(roots[t])):
            rest -= roots[t][j] @ half[t - j]
        half.append(_substitute(roots[t][0], rest))

    fillings, spread = np.repeat(shown[None], 1 + 2 * pairs, axis=0), np.zeros(x.shape)
    drawn: dict[int, Array] = {}
    for t in reversed(steps):
        size = gaps[t].size
        noise = rng.standard_normal((size, pairs))
        given = np.repeat(half[t][None], 1 + 2 * pairs, axis=0)
        for j in range(1, min(history, len(x) - 1 - t) + 1):
            given -= drawn[t + j] @ roots[t + j][j]
        given = _substitute(roots[t][0], given.T, trans=1).T  # the best, given what has been drawn for later steps
        inverse = _substitute(roots[t][0], np.eye(size))
        variance = (inverse**2).sum(axis=0) + ((given[1:] - given[0]) ** 2).sum(axis=0) / max(2 * pairs, 1)
        spread[t, gaps[t]] = np.sqrt(variance)
        away = noise.T @ inverse
        given[1 : 1 + pairs] += away
        given[1 + pairs :] -= away
        fillings[:, t, gaps[t]] = drawn[t] = given
    return fillings, spread


def _root(matrix: Array) -> Array:
    """The lower Cholesky factor, from LAPACK itself: for a dozen stations the checks around it take longer than it."""
    if not matrix.size:
        return matrix
    root, info = dpotrf(matrix, lower=True)
    if info:
        raise np.linalg.LinAlgError("Matrix is not positive definite")
    return root


def _substitute(root: Array, right: Array, trans: int = 0) -> Array:
    """Solve with a factor that :func:`_root` found, or with its transpose."""
    return dtrtrs(root, right, lower=True, trans=trans)[0] if right.size else right


@_one_thread
def choose_num_regimes(
    series: xr.DataArray,
    graph: "Data",
    candidates: Sequence[int] = (1, 2, 3, 4, 5, 6),
    seed: int = 0,
    restarts: int = 5,
    **options: Any,
) -> xr.DataArray:
    """How well each number of regimes foretells the half of the record that it was not fitted to.

    Each half is judged by the experts of the other. The maximum is the number to take; if that is 1, the data
    show no regimes.

    Args:
        series, graph, seed, restarts: as in :func:`discover_regimes`.
        candidates: numbers of regimes to try.
        options: history, expert, sectors, modes, duration, covariance and weights of :func:`discover_regimes`.

    Returns:
        (num_regimes,) mean log density of a step, above that of a single regime, in nats per step.

    Raises:
        TypeError, ValueError: as :func:`discover_regimes`, with 40 steps for each regime.
    """
    if not isinstance(candidates, Sequence) or not candidates:
        raise ValueError(f"candidates: expected numbers of regimes, such as (1, 2, 3, 4), found {candidates!r}")
    if unknown := set(options) - set(OPTIONS):
        raise TypeError(f"choose_num_regimes: unknown {sorted(unknown)}, expected some of {list(OPTIONS)}")
    seed = whole_number(seed, "seed", least=0)
    counts = sorted({1, *(whole_number(count, "candidates") for count in candidates)})
    x, breaks, settings = _prepare(series, graph, counts[-1], **options)
    if len(x) // 2 < LEAST_STEPS * counts[-1]:
        raise ValueError(
            f"candidates: {counts[-1]} regimes need {2 * LEAST_STEPS * counts[-1]} steps to be fitted to either half, "
            f"found {len(x)}; give fewer candidates or a longer series"
        )
    gains, _, _ = _halves(x, breaks, settings, counts, whole_number(restarts, "restarts"), seed)
    return xr.DataArray(gains, dims="num_regimes", coords={"num_regimes": counts}, attrs={"units": "nats per step"})


def _prepare(
    series: xr.DataArray,
    graph: "Data",
    num_regimes: int,
    history: int = 2,
    expert: str = "linear",
    sectors: int = 4,
    modes: int | None = None,
    duration: float = 30,
    covariance: str = "full",
    weights: ArrayLike | None = None,
) -> tuple[Array, NDArray[np.bool_], _Settings]:
    x, breaks = _values(series)
    nodes = getattr(graph, "num_nodes", None)
    if nodes != x.shape[1]:
        raise ValueError(f"graph: expected the {x.shape[1]} stations of the series as nodes, found {nodes}")
    if len(x) < LEAST_STEPS * num_regimes:
        raise ValueError(
            f"num_regimes: {num_regimes} regimes need at least {LEAST_STEPS * num_regimes} steps, the series has "
            f"{len(x)}; ask for fewer regimes or give a longer series"
        )
    if not x.std(axis=0).max() > 1e-12 * np.abs(x).max():
        raise ValueError("series: all stations are constant; there is no weather to sort into regimes")
    if expert not in ("linear", "gated"):
        raise ValueError(f"expert: expected 'linear' or 'gated', found {expert!r}")
    if covariance not in ("full", "shared", "spherical"):
        raise ValueError(f"covariance: expected 'full', 'shared' or 'spherical', found {covariance!r}")
    history = whole_number(history, "history", least=0)
    if expert == "gated" and history == 0:
        raise ValueError("history: expected at least 1 for gated experts, which forecast from the past, found 0")
    with_past = int((_since(breaks) >= history).sum())
    if with_past < LEAST_STEPS * num_regimes:
        raise ValueError(
            f"history: {num_regimes} regimes need {LEAST_STEPS * num_regimes} steps with a past of {history}, found "
            f"{with_past}; give a shorter history, or a series with fewer gaps in its time axis"
        )
    scale = np.ones(x.shape[1])
    if weights is not None:
        given = np.asarray(weights)
        if given.shape != scale.shape or given.dtype.kind not in "fiu" or not (np.isfinite(given) & (given > 0)).all():
            raise ValueError(
                f"weights: expected {scale.size} positive numbers, one for each station, found {weights!r}"
            )
        scale = np.sqrt(given.astype(float))
    if isinstance(duration, bool) or not isinstance(duration, Real) or not 1 < duration < np.inf:
        raise ValueError(f"duration: expected a number of steps above 1, found {duration!r}")
    modes = None if modes is None else whole_number(modes, "modes")
    operators = directional_operators(graph, whole_number(sectors, "sectors"))
    return x, breaks, _Settings(operators, history, expert, modes, scale, float(duration), covariance)


def _values(series: xr.DataArray) -> tuple[Array, NDArray[np.bool_]]:
    """Values (T, N), and which steps follow a break of the time axis (T,)."""
    _check_series(series, "series")
    x = series.values.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(
            f"series: found {int((~np.isfinite(x)).sum())} missing or infinite values; fill them or drop them"
        )
    breaks = np.zeros(len(x), dtype=bool)
    breaks[:1] = True
    if len(x) > 2:
        steps = np.diff(series["time"].values)
        if steps.dtype == object:  # calendars other than the usual one
            steps = np.array([step.total_seconds() for step in steps])
        steps = steps.astype(float)
        breaks[1:] = steps > 1.5 * np.median(steps)
    return x, breaks


def _over_time(probability: Array, series: xr.DataArray) -> xr.DataArray:
    return xr.DataArray(probability, dims=("time", "regime"), coords={"time": series["time"]}, name="probability")


def _halves(
    x: Array, breaks: NDArray[np.bool_], settings: _Settings, counts: Sequence[int], restarts: int, seed: int
) -> tuple[Array, Array, float]:
    """Each half judged by the experts of the other: mean gain over one regime, its standard error, stability."""
    middle = len(x) // 2
    if min(x[:middle].std(axis=0).max(), x[middle:].std(axis=0).max()) == 0:
        return np.full(len(counts), np.nan), np.full(len(counts), np.nan), float("nan")
    density = np.empty((len(counts), len(x)))
    labels = []
    starts = breaks.copy()
    starts[middle] = True  # the second half knows nothing of the first
    for fitted, judged in ((slice(0, middle), slice(middle, None)), (slice(middle, None), slice(0, middle))):
        models = settings.fit(x[fitted], starts[fitted], counts, restarts, seed)
        for j, model in enumerate(models):
            density[j, judged] = model.smooth(x[judged], starts[judged])[2]
        labels.append(models[-1].smooth(x, breaks)[0].argmax(axis=1))
    gain = density - density[0]
    # Neighbouring steps share their luck: the standard error is that of the means of twenty long blocks.
    blocks = np.stack([part.mean(axis=1) for part in np.array_split(gain - gain[-1], 20, axis=1)], axis=1)
    return gain.mean(axis=1), blocks.std(axis=1, ddof=1) / np.sqrt(blocks.shape[1]), adjusted_rand_score(*labels)


def _judge(counts: Sequence[int], gains: Array, error: Array, stability: float, check: bool) -> tuple[bool, str]:
    """Do the halves prefer the last count to all others, by two standard errors?"""
    if counts[-1] == 1:
        return True, "One regime: nothing to support."
    if not check:
        return False, "Not checked (check=False)."
    if not np.isfinite(gains).all():
        return False, f"Unknown: a half of the record is too short or constant to check {counts[-1]} regimes with."
    ahead = gains[-1] - gains[:-1]
    figures = ", ".join(
        f"{lead:+.3f} ± {2 * e:.3f} nats a step against {count}"
        for lead, e, count in zip(ahead, error[:-1], counts[:-1], strict=True)
    )
    if (ahead > 2 * error[:-1]).all():
        return True, f"Supported: held-out halves prefer {counts[-1]} regimes ({figures}); stability {stability:.2f}."
    return (
        False,
        f"Not supported: held-out halves do not prefer {counts[-1]} regimes ({figures}); stability {stability:.2f}.",
    )
