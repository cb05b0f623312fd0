"""Explanations: what a forecast rests on, and whether that explanation can be trusted.

An attribution shares a forecast's difference from what the network says of a baseline (all stations as usual: zeros)
among the inputs. :func:`attribute` gives it for single windows, :func:`influence` and :func:`by_regime` for many:
which stations matter, and how long ago. A picture convinces whether it is true or not, so the other half of this
module puts explanations to the test: :func:`sanity_check` (do they change with the weights?), :func:`deletion` (does
the forecast change with the inputs that they name?), :func:`origin` and :func:`edge_recovery` (do they find what was
planted in made-up weather?). :func:`of_var` and :func:`lagged_correlation` answer the same questions without a network.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from torch import Tensor, nn
from torch_geometric.data import Data

from ._checks import whole_number
from .baselines import VAR, _check_series, _check_stations
from .forecasting import Forecaster
from .graphs import _stations, bearing, great_circle_distance
from .layers import AdaptiveAdjacency, Operators
from .training import _to_device

METHODS = ("integrated_gradients", "gradient_input", "occlusion", "gradient")
Array = NDArray[np.float64]
Forward = Callable[[Tensor], Tensor]


# ---------------------------------------------------------------------------- attributions


def attribute(
    model: nn.Module,
    x: Tensor,
    operator: Operators | None = None,
    *,
    station: int | None = None,
    lead: int = 1,
    feature: int = 0,
    method: str = "integrated_gradients",
    baseline: float | Tensor = 0.0,
    steps: int = 32,
    batch_size: int = 512,
) -> Tensor:
    """How much each input has moved one number of the output, window by window.

    With f the chosen output, x the window and b the baseline:

    - ``"integrated_gradients"``: ``a_i = (x_i - b_i) ∫_0^1 ∂f/∂x_i (b + s (x - b)) ds``, which adds up:
      ``Σ_i a_i = f(x) - f(b)``, within the error of the integral;
    - ``"gradient_input"``: ``a_i = (x_i - b_i) ∂f/∂x_i (x)``, the first order of the same, one gradient;
    - ``"occlusion"``: ``a_i = f(x) - f(x with x_i := b_i)``, with no gradient at all;
    - ``"gradient"``: ``∂f/∂x_i (x)``, the slope alone, whatever the input is.

    For a linear f the first three are the same, coefficient times ``x_i - b_i``.

    Args:
        model: called as ``model(x, operator)``. It is used as in a forecast, without dropout, and left as it was.
        x: (B, history, N, F), finite; gaps filled as the network was taught, with 0.
        operator: as the model takes it.
        station: which station's output is explained, counted from 0; None for a model with one output for all.
        lead: which lead time, in steps from 1.
        feature: which feature of the output, or which class.
        method: one of the four above.
        baseline: b, what "nothing happened" looks like: a number, or a tensor that broadcasts to x. For anomalies it
            is 0, the usual weather of the season.
        steps: points of the Gauss-Legendre integral. 32 leave about 1 % of an :class:`stgcn_lab.models.STGCN`
            unexplained; a :class:`stgcn_lab.models.STGCNClassifier`, whose norms are steep near a baseline of 0, needs
            some hundreds. Hold the sum against ``f(x) - f(b)``.
        batch_size: windows that pass through the model at once, points of the integral counted; bounds the memory.

    Returns:
        (B, history, N, F), in units of the output (the slope: per unit of input).

    Raises:
        ImportError: without captum.
        TypeError, ValueError: for an x of another kind or with NaN, an output that is not there, an unknown method,
            a baseline that does not fit, or settings out of range.

    Source: Sundararajan et al. (2017), arXiv 1703.01365; Zeiler & Fergus (2014), doi:10.1007/978-3-319-10590-1_53,
        for occlusion. Computed by captum, Kokhlikyan et al. (2020), arXiv 2009.07896.
    """
    explained = _Explained(model, x, operator, baseline, lead, feature, None if station is None else [station])
    parts = [a[:, 0] for _, a in explained.attributions(method, steps, batch_size)]
    return torch.cat(parts)


class _Explained:
    """A checked model with its windows and the outputs to explain."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        operator: Operators | None,
        baseline: float | Tensor,
        lead: int,
        feature: int,
        targets: Sequence[int] | str | None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, found {type(model).__name__}")
        if not torch.is_tensor(x) or not x.is_floating_point():
            found = x.dtype if torch.is_tensor(x) else type(x).__name__
            raise TypeError(f"x: expected a floating-point torch tensor, found {found}")
        if x.ndim != 4 or 0 in x.shape:
            raise ValueError(f"x: expected (batch, history, node, feature), none of them 0, found {tuple(x.shape)}")
        device = next((weight.device for weight in model.parameters()), x.device)
        self.model, self.operator = model, _to_device(operator, device)
        self.x = x.detach().to(device)
        if not torch.isfinite(self.x).all():
            raise ValueError("x: expected finite values, with gaps filled as the network was taught, found NaN")
        self.baseline = _baseline(baseline, self.x)
        with _in_use(model), torch.no_grad():
            output = model(self.x[:1], self.operator)
        self._choose(tuple(output.shape), lead, feature, targets)

    def _choose(self, shape: tuple[int, ...], lead: int, feature: int, targets: Sequence[int] | str | None) -> None:
        """Find the wanted outputs among (B, horizon, N, F_out), (B, N, classes) or (B, classes)."""
        if len(shape) not in (2, 3, 4):
            raise ValueError(
                "model: expected an output (batch, horizon, node, feature), (batch, node, class) or (batch, class), "
                f"found shape {shape}"
            )
        index: list[Any] = [_within(feature, "feature", shape[-1])]
        lead = whole_number(lead, "lead")
        if lead > (shape[1] if len(shape) == 4 else 1):
            most = f"the horizon of {shape[1]} steps" if len(shape) == 4 else "1, for a model of classes"
            raise ValueError(f"lead: expected at most {most}, found {lead}")
        self.targets: list[int] | None = None
        if len(shape) == 2:
            if targets not in (None, "all"):
                raise ValueError(f"station: expected None, the model has one output for all, found {targets!r}")
        else:
            if targets is None:
                raise ValueError(f"station: expected a number from 0 to {shape[-2] - 1}, found None")
            chosen = range(shape[-2]) if isinstance(targets, str) else targets
            if not isinstance(chosen, Iterable):
                raise TypeError(f"targets: expected a list of numbers of stations, found {type(chosen).__name__}")
            self.targets = [_within(target, "station", shape[-2]) for target in chosen]
            if not self.targets:
                raise ValueError("station: expected at least one, found none")
            index.insert(0, self.targets)
        # The latest step is `lead` steps before the time that is forecast; classes are of the stretch itself.
        self.first_lag = lead if len(shape) == 4 else 0
        self.index = (slice(None), lead - 1, *index) if len(shape) == 4 else (slice(None), *index)
        self.outputs = len(self.targets) if self.targets is not None else 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs)"""
        return self.model(x, self.operator)[self.index].view(len(x), self.outputs)

    def attributions(self, method: str, steps: int, batch_size: int) -> Iterator[tuple[slice, Tensor]]:
        """Windows and their attributions (windows, outputs, history, N, F), some at a time."""
        if method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")
        steps, batch_size = whole_number(steps, "steps"), whole_number(batch_size, "batch_size")
        rows = max(batch_size // steps, 1) if method == "integrated_gradients" else batch_size
        if method != "occlusion":
            with _in_use(self.model):
                if not self.forward(self.x[:1].clone().requires_grad_()).requires_grad:
                    raise ValueError(
                        "method: expected 'occlusion' for a model without gradients, such as one from an ONNX file, "
                        f"found {method!r}"
                    )
        run = _captum(method, self.forward, self.outputs, steps)
        for first in range(0, len(self.x), rows):
            part = slice(first, first + rows)
            with _in_use(self.model):
                a = run(self.x[part].clone().requires_grad_(method != "occlusion"), self.baseline[part])
            yield part, a.detach()


def _captum(method: str, forward: Forward, outputs: int, steps: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A function (x, baseline) -> (windows, outputs, *x.shape[1:])."""
    try:
        from captum.attr import FeatureAblation, IntegratedGradients, Saliency
    except ImportError as error:
        raise ImportError(
            'explanations are computed by captum, which is missing here: pip install "stgcn-lab[explain]"'
        ) from error

    if method == "occlusion":  # all outputs come from one pass
        ablation = FeatureAblation(forward)
        return lambda x, b: ablation.attribute(x, baselines=b).view(len(x), outputs, *x.shape[1:]).to(x.dtype)
    if method == "integrated_gradients":
        integrated = IntegratedGradients(forward)

        def one(x: Tensor, b: Tensor, k: int) -> Tensor:
            # captum makes float64 of the points between: back to the precision of the weights
            return integrated.attribute(x, baselines=b, target=k, n_steps=steps).to(x.dtype)
    else:
        saliency = Saliency(forward)

        def one(x: Tensor, b: Tensor, k: int) -> Tensor:
            slope = saliency.attribute(x, target=k, abs=False)
            return slope if method == "gradient" else slope * (x.detach() - b)

    return lambda x, b: torch.stack([one(x, b, k) for k in range(outputs)], dim=1)


@contextmanager
def _in_use(model: nn.Module) -> Iterator[None]:
    """The model as in a forecast, gradients allowed whatever the caller has set; afterwards as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _baseline(baseline: float | Tensor, x: Tensor) -> Tensor:
    if not torch.is_tensor(baseline):
        if isinstance(baseline, bool) or not isinstance(baseline, (int, float)):
            raise TypeError(f"baseline: expected a number or a torch tensor, found {type(baseline).__name__}")
        baseline = torch.tensor(float(baseline))
    try:
        full = baseline.detach().to(x).expand_as(x)
    except RuntimeError as error:
        raise ValueError(
            f"baseline: expected a shape that broadcasts to that of x, {tuple(x.shape)}, found {tuple(baseline.shape)}"
        ) from error
    if not torch.isfinite(full).all():
        raise ValueError("baseline: expected finite values, found NaN or infinite ones")
    return full


def _within(value: Any, name: str, size: int) -> int:
    number = whole_number(value, name, least=0)
    if number >= size:
        raise ValueError(f"{name}: expected a number from 0 to {size - 1}, found {value!r}")
    return number


# ---------------------------------------------------------------------------- influence


def influence(
    model: nn.Module,
    x: Tensor,
    operator: Operators | None = None,
    *,
    targets: Sequence[int] | None = None,
    lead: int = 1,
    feature: int = 0,
    method: str = "integrated_gradients",
    baseline: float | Tensor = 0.0,
    mask: Tensor | None = None,
    stations: Sequence[Any] | None = None,
    steps: int = 32,
    batch_size: int = 512,
) -> xr.Dataset:
    """Which stations, and how long ago, the forecasts of each station rest on: attributions of many windows.

    Over the windows w, with the attribution a of an input and its difference d from the baseline:

    - ``mean``: ``mean_w a``, which adds up to the mean change of the forecast and is near 0 for anomalies;
    - ``size``: ``mean_w |a|``, how much the input matters, in units of the output. Sizes of two networks agree without
      any training, since the graph says who can be heard at all: compare with :func:`randomised`;
    - ``weight``: ``Σ_w a d / Σ_w d²``, the line through the attributions: output per unit of input, with a sign.
      For a linear model it is the coefficient. (For ``method="gradient"`` it is the mean slope.)

    Args:
        model, x, operator, lead, feature, method, baseline, steps, batch_size: as in :func:`attribute`. A few hundred
            windows, spread over the record, are enough.
        targets: which stations' forecasts are explained, counted from 0; all if not given. The cost of gradients
            grows with their number, that of occlusion does not.
        mask: boolean of the shape of x, True where a value was observed: what was not is left out of the means.
        stations: (N,) labels.

    Returns:
        The three, each (target, lag, source), and (..., feature) where there are several. ``lag`` counts the steps
        from the input to the time that is forecast: the latest one has the lag ``lead``. For a model of classes it
        counts back from the end of the stretch, from 0, and ``target`` is "all" where there is one class for all.

    Raises:
        As in :func:`attribute`.
    """
    explained = _Explained(model, x, operator, baseline, lead, feature, "all" if targets is None else targets)
    everything = np.ones((len(x), 1))
    return _summary(explained, everything, method, mask, stations, steps, batch_size).isel(regime=0, drop=True)


def by_regime(
    model: nn.Module,
    x: Tensor,
    probabilities: ArrayLike | xr.DataArray,
    operator: Operators | None = None,
    *,
    targets: Sequence[int] | None = None,
    lead: int = 1,
    feature: int = 0,
    method: str = "integrated_gradients",
    baseline: float | Tensor = 0.0,
    mask: Tensor | None = None,
    stations: Sequence[Any] | None = None,
    steps: int = 32,
    batch_size: int = 512,
) -> xr.Dataset:
    """The influence within each regime: which neighbours matter when the wind is in the west.

    The sums of :func:`influence` with each window counted by the probability of the regime.

    Args:
        probabilities: (windows, regime), for each window, such as those of ``Regimes.probabilities`` at its last
            step; or (windows,) whole numbers, the regime of each.
        model, x, operator, targets, lead, feature, method, baseline, mask, stations, steps, batch_size: as there.

    Returns:
        As there, with ``regime`` as the first dimension; NaN for a regime without windows.

    Raises:
        TypeError, ValueError: as there; for probabilities of another number of windows, below 0, or not finite.
    """
    explained = _Explained(model, x, operator, baseline, lead, feature, "all" if targets is None else targets)
    share = np.asarray(probabilities)
    if share.ndim == 1 and share.dtype.kind in "iu" and (share >= 0).all() and share.size:
        share = np.eye(int(share.max()) + 1)[share]
    if share.ndim != 2 or len(share) != len(x) or share.dtype.kind not in "fiub" or not share.shape[1]:
        raise ValueError(
            f"probabilities: expected ({len(x)}, regimes), a row for each window, or {len(x)} whole numbers, "
            f"found shape {np.shape(probabilities)} of {np.asarray(probabilities).dtype}"
        )
    share = share.astype(float)
    if not np.isfinite(share).all() or (share < 0).any():
        raise ValueError("probabilities: expected finite values of at least 0, found others")
    return _summary(explained, share, method, mask, stations, steps, batch_size)


def _summary(
    explained: _Explained,
    share: Array,
    method: str,
    mask: Tensor | None,
    stations: Sequence[Any] | None,
    steps: int,
    batch_size: int,
) -> xr.Dataset:
    x = explained.x
    if mask is None:
        mask = torch.ones(x.shape, dtype=torch.bool)
    if not torch.is_tensor(mask) or mask.dtype != torch.bool or mask.shape != x.shape:
        found = f"{mask.dtype} {tuple(mask.shape)}" if torch.is_tensor(mask) else type(mask).__name__
        raise ValueError(f"mask: expected torch.bool of shape {tuple(x.shape)}, found {found}")
    nodes = x.shape[2]
    labels = np.arange(nodes) if stations is None else np.asarray(stations)
    if labels.shape != (nodes,):
        raise ValueError(f"stations: expected {nodes} labels, found shape {labels.shape}")
    offset = (x - explained.baseline).double()
    inputs = (share.shape[1], *x.shape[1:])  # (K, history, N, F)
    outputs = (inputs[0], explained.outputs, *inputs[1:])
    total, size, product = (x.new_zeros(outputs, dtype=torch.float64) for _ in range(3))
    square, count = (x.new_zeros(inputs, dtype=torch.float64) for _ in range(2))
    for part, a in explained.attributions(method, steps, batch_size):
        p = torch.from_numpy(share[part]).to(x.device)
        seen = mask[part].to(x.device).double()
        a = a.double() * seen[:, None]
        d = seen if method == "gradient" else offset[part] * seen
        total += torch.einsum("bk,bohnf->kohnf", p, a)
        size += torch.einsum("bk,bohnf->kohnf", p, a.abs())
        product += torch.einsum("bk,bohnf,bhnf->kohnf", p, a, d)
        square += torch.einsum("bk,bhnf->khnf", p, d.square())
        count += torch.einsum("bk,bhnf->khnf", p, seen)
    # 0 / 0, where nothing was seen, is NaN
    values = {"mean": total / count[:, None], "size": size / count[:, None], "weight": product / square[:, None]}
    dims = ("regime", "target", "lag", "source", "feature")
    target = ["all"] if explained.targets is None else labels[explained.targets]
    lags = explained.first_lag + np.arange(x.shape[1])
    coords = {"target": target, "lag": ("lag", lags, {"units": "steps"}), "source": labels}
    # The inputs are in order of time; lags count backwards.
    result = xr.Dataset({k: (dims, v.flip(2).cpu().numpy()) for k, v in values.items()}, coords=coords)
    return result.isel(feature=0) if x.shape[3] == 1 else result


def forecaster_windows(forecaster: Forecaster, series: xr.DataArray) -> tuple[Tensor, Operators | None, xr.DataArray]:
    """What the members of a forecaster see: its windows, standardised, and its graph operator.

    ``explain.influence(forecaster.members[0], x[::10], operator)`` then explains the first member. Its output is in
    standard deviations of each station; output feature 0 is the mean, 1 the logarithm of the spread.

    Args:
        forecaster: from :func:`stgcn_lab.forecasting.fit_forecaster`.
        series: (time, station) with its stations, in its units; a missing value counts as usual for the season.

    Returns:
        x (windows, history, N, 1); the operator; (windows,) the time of each window's last step.

    Raises:
        TypeError, ValueError: for another kind of series, other stations, or fewer steps than the history.
    """
    if not isinstance(forecaster, Forecaster):
        raise TypeError(f"forecaster: expected a forecasting.Forecaster, found {type(forecaster).__name__}")
    _check_series(series, "series")
    _check_stations(series, forecaster.stations)
    history = forecaster.members[0].network.history
    if series.sizes["time"] < history:
        raise ValueError(f"series: expected at least the {history} steps of one window, found {series.sizes['time']}")
    values = np.nan_to_num(forecaster._standardised(series)[0].transpose("time", "station").values)
    windows = torch.from_numpy(values.astype(np.float32)).unfold(0, history, 1).movedim(-1, 1).unsqueeze(-1)
    return windows.contiguous(), forecaster._operator, series["time"][history - 1 :]


def of_var(model: VAR) -> xr.DataArray:
    """The coefficients of a vector autoregression as an influence: what to hold a network's explanation against.

    Args:
        model: from :func:`stgcn_lab.baselines.fit_var` and its like.

    Returns:
        (target, lag, source), lags from 1.

    Raises:
        TypeError: for another kind of model.
    """
    if not isinstance(model, VAR):
        raise TypeError(f"model: expected a baselines.VAR, found {type(model).__name__}")
    lags = ("lag", np.arange(1, len(model.coefficients) + 1), {"units": "steps"})
    coords = {"lag": lags, "target": model.stations, "source": model.stations}
    values = xr.DataArray(model.coefficients, dims=("lag", "target", "source"), coords=coords, name="weight")
    return values.transpose("target", "lag", "source")


def lagged_correlation(series: xr.DataArray, longest: int) -> xr.DataArray:
    """Correlation of each station with every station some steps before: the simplest picture of who leads whom.

    ``r_ij(p) = corr(x_i(t), x_j(t - p))`` over the times at which both are observed. It does not tell a cause from a
    common cause, and it lasts as long as the weather's memory.

    Args:
        series: (time, station), season removed.
        longest: longest lag in steps.

    Returns:
        (target, lag, source), lags from 1; NaN where there is nothing to correlate.

    Raises:
        TypeError, ValueError: for another kind of series, or lags that are longer than it.
    """
    _check_series(series, "series")
    longest = whole_number(longest, "longest")
    x = series.values.astype(float)
    if len(x) < longest + 3:
        raise ValueError(f"series: expected at least {longest + 3} steps for lags up to {longest}, found {len(x)}")
    # In units of each station's own deviation: the moments below would lose the digits of 1e-6 kg/kg or of 1e5 Pa.
    there = np.maximum(np.isfinite(x).sum(axis=0), 1)
    mean = np.nan_to_num(x).sum(axis=0) / there
    scale = np.sqrt((np.nan_to_num(x - mean) ** 2).sum(axis=0) / there)
    x = (x - mean) / np.where(scale > 1e-9 * np.abs(mean), scale, np.nan)  # a constant has no correlation
    values = np.empty((x.shape[1], longest, x.shape[1]))
    for p in range(1, longest + 1):
        now, past = x[p:], x[:-p]
        a, b = np.isfinite(now).astype(float), np.isfinite(past).astype(float)
        y, z = np.nan_to_num(now), np.nan_to_num(past)
        with np.errstate(divide="ignore", invalid="ignore"):
            count = a.T @ b  # (target, source): times at which both are observed
            mean_y, mean_z = (y.T @ b) / count, (a.T @ z) / count
            covariance = (y.T @ z) / count - mean_y * mean_z
            variance = ((y**2).T @ b / count - mean_y**2) * (a.T @ z**2 / count - mean_z**2)
            values[:, p - 1] = covariance / np.sqrt(np.where(variance > 1e-12, variance, np.nan))
    names = series["station"].values
    coords = {"target": names, "lag": ("lag", np.arange(1, longest + 1), {"units": "steps"}), "source": names}
    return xr.DataArray(values, dims=("target", "lag", "source"), coords=coords, name="correlation")


# ---------------------------------------------------------------------------- the learned graph


def learned_adjacency(model: nn.Module | Forecaster, stations: Sequence[Any] | None = None) -> xr.DataArray:
    """The graph that a network with ``spatial="adaptive"`` has learned; of a forecaster, the mean over its members.

    Args:
        model: a network with one :class:`stgcn_lab.layers.AdaptiveAdjacency`, or a forecaster.
        stations: (N,) labels; those of the forecaster if not given.

    Returns:
        (target, source): how much of what a station hears comes from each; every row adds up to 1.

    Raises:
        TypeError, ValueError: for another kind of model, one without a learned graph, or other stations.
    """
    members: Sequence[nn.Module]
    if isinstance(model, Forecaster):
        members, stations = model.members, model.stations.tolist() if stations is None else stations
    elif isinstance(model, nn.Module):
        members = [model]
    else:
        raise TypeError(f"model: expected a torch.nn.Module or a Forecaster, found {type(model).__name__}")
    learned = [part for member in members for part in member.modules() if isinstance(part, AdaptiveAdjacency)]
    if len(learned) != len(members):
        raise ValueError(
            f"model: expected one learned graph, as of STGCN(spatial='adaptive'), found {len(learned)} "
            f"in {len(members)} network{'s' * (len(members) > 1)}"
        )
    with torch.no_grad():
        values = torch.stack([part().cpu().double() for part in learned]).mean(0).numpy()
    labels = np.arange(len(values)) if stations is None else np.asarray(stations)
    if labels.shape != (len(values),):
        raise ValueError(f"stations: expected {len(values)} labels, found shape {labels.shape}")
    coords = {"target": labels, "source": labels}
    return xr.DataArray(values, dims=("target", "source"), coords=coords, name="adjacency")


def learned_graph(model: nn.Module | Forecaster, lat: ArrayLike, lon: ArrayLike, k: int = 3) -> Data:
    """The strongest edges of the graph that a network has learned, for ``plots.graph_map``.

    Args, Raises:
        As in :func:`learned_adjacency` and :func:`influence_graph`.

    Returns:
        A graph of the k strongest sources of each station.
    """
    return influence_graph(learned_adjacency(model), lat, lon, k)


def influence_graph(influence: xr.DataArray, lat: ArrayLike, lon: ArrayLike, k: int = 3) -> Data:
    """The strongest influences as a graph: from each station's k most important others to the station.

    Args:
        influence: (target, source), or (target, lag, source), of which each pair's strongest lag counts. Signs are
            left out.
        lat, lon: (N,) degrees, of the sources.
        k: edges to each target, at most.

    Returns:
        Directed graph, edge_weight the size of the influence, ``pos`` = (lon, lat).

    Raises:
        TypeError, ValueError: for another kind of influence, or coordinates of another number of stations.
    """
    size = _strongest(influence)
    lat, lon = _places(size, lat, lon)
    k = whole_number(k, "k")
    target = _positions(size)
    values = size.values.copy()
    values[np.arange(len(target)), target] = 0
    best = np.argsort(-values, axis=1, kind="stable")[:, :k]
    row = np.repeat(np.arange(len(target)), best.shape[1])
    kept = values[row, best.ravel()] > 0
    source, row = best.ravel()[kept], row[kept]
    return Data(
        edge_index=torch.from_numpy(np.stack([source, target[row]]).astype(np.int64)),
        edge_weight=torch.from_numpy(values[row, source].astype(np.float32)),
        pos=torch.from_numpy(np.stack([lon, lat], axis=1).astype(np.float32)),
        num_nodes=len(lat),
    )


# ---------------------------------------------------------------------------- is it true?


def origin(influence: xr.DataArray, lat: ArrayLike, lon: ArrayLike, keep: str | Sequence[str] = ()) -> xr.Dataset:
    """From where, from how far and from how long ago an influence comes: its centre of mass.

    ``r = Σ w_ij (r_j - r_i) / Σ w_ij`` over targets i, sources j and lags p, and likewise the mean lag. With weights
    that have a sign this is the displacement of a smooth field that the weights carry: noise in single weights
    cancels. With sizes, which have none, noise draws the centre towards the middle of the map, so that the bearing
    may be right where the distance is too short.

    Args:
        influence: dims target, source, perhaps lag, perhaps others; of the labels of its sources.
        lat, lon: (N,) degrees, of the sources.
        keep: which of target, lag and feature to tell apart; other dimensions, such as regime, are always kept.

    Returns:
        ``bearing``, degrees clockwise from north, where the influence comes from (a wind that goes towards φ degrees
        from east, anticlockwise, comes from 270 - φ); ``distance``, km; with lags, ``lag``, steps, and ``speed``,
        km per step, displacement over lag. NaN where the weights do not add up to more than 0.

    Raises:
        TypeError, ValueError: for another kind of influence, or coordinates of another number of stations.
    """
    _check_influence(influence)
    lat, lon = _places(influence, lat, lon)
    keep = [keep] if isinstance(keep, str) else list(keep)
    if unknown := sorted(set(keep) - {"target", "lag", "feature"}):
        raise ValueError(f"keep: expected some of target, lag and feature, found {unknown}")
    i = _positions(influence)
    km = great_circle_distance(lat[i, None], lon[i, None], lat, lon)
    theta = np.radians(bearing(lat[i, None], lon[i, None], lat, lon))
    pair = ("target", "source")
    over = [d for d in ("target", "lag", "source", "feature") if d in influence.dims and d not in keep]
    total = influence.sum(over)
    total = total.where(total > 0)
    east = (influence * xr.DataArray(km * np.sin(theta), dims=pair)).sum(over) / total
    north = (influence * xr.DataArray(km * np.cos(theta), dims=pair)).sum(over) / total
    distance = (east**2 + north**2) ** 0.5
    found = xr.Dataset({"bearing": xr.apply_ufunc(np.arctan2, east, north) * 180 / np.pi % 360, "distance": distance})
    if "lag" in influence.dims and "lag" not in keep:
        lag = (influence * influence["lag"]).sum(over) / total
        found["lag"], found["speed"] = lag, distance / lag.where(lag > 0)
    units = {"bearing": "degrees", "distance": "km", "lag": "steps", "speed": "km per step"}
    for name in found.data_vars:
        found[name].attrs = {"units": units[str(name)]}
    return found


def angle_error(a: Any, b: Any) -> Any:
    """The angle between two bearings: 0 to 180 degrees, whichever way round is shorter."""
    return abs((a - b + 180) % 360 - 180)


def by_sector(influence: xr.DataArray, lat: ArrayLike, lon: ArrayLike, sectors: int = 4) -> xr.DataArray:
    """Influence summed by where the source lies: the station itself, or a compass sector.

    Args:
        influence: dims target, source and any others.
        lat, lon: (N,) degrees, of the sources.
        sectors: number of sectors, the first centred on north, the others clockwise, as in
            :func:`stgcn_lab.graphs.directional_operators`.

    Returns:
        The influence with ``sector`` in the place of ``source``: "self", "0°", "90°", ... as in ``Regimes.weights``.

    Raises:
        TypeError, ValueError: for another kind of influence, or coordinates of another number of stations.
    """
    _check_influence(influence)
    lat, lon = _places(influence, lat, lon)
    sectors = whole_number(sectors, "sectors")
    i = _positions(influence)
    theta = bearing(lat[i, None], lon[i, None], lat, lon)
    where = 1 + np.floor(theta / (360 / sectors) + 0.5).astype(int) % sectors
    where[np.arange(len(i)), i] = 0
    member = xr.DataArray(
        (where[:, :, None] == np.arange(1 + sectors)).astype(float),
        dims=("target", "source", "sector"),
        coords={"sector": ["self"] + [f"{360 * s / sectors:g}°" for s in range(sectors)]},
    )
    return (influence * member).sum("source")


def edge_recovery(influence: xr.DataArray, delay: xr.DataArray) -> dict[str, float]:
    """How well an influence finds planted edges and their delays, see :func:`stgcn_lab.simulate.delayed_influence`.

    All pairs of different stations are ranked by the size of their strongest influence.

    Args:
        influence: (target, source), or (target, lag, source) for the delays.
        delay: (target, source) planted delays in steps, 0 where there is no edge; the labels of the influence.

    Returns:
        ``auc``: probability that a true edge stands above a pair without one, 0.5 for guessing; ``precision``: share
        of true edges among the k strongest pairs, k the number of true edges; ``chance``: what guessing would reach
        there; with lags ``delays``: share of the true edges whose strongest lag is the planted one, and
        ``delay_error``: how far it is off on average, steps.

    Raises:
        TypeError, ValueError: for another kind of influence or of truth, other stations, or a truth in which every
            pair or none is an edge.
    """
    size = _strongest(influence)
    if not isinstance(delay, xr.DataArray) or set(delay.dims) != {"target", "source"}:
        what = delay.dims if isinstance(delay, xr.DataArray) else type(delay).__name__
        raise TypeError(f"delay: expected a DataArray (target, source), found {what}")
    truth = delay.transpose("target", "source")
    for name in ("target", "source"):
        if not np.array_equal(truth[name].values, size[name].values):
            raise ValueError(f"delay: expected the {name}s of the influence in their order, found others")
    own = _positions(size)[:, None] == np.arange(size.sizes["source"])
    edge = (truth.values > 0) & ~own
    if not edge.any() or (edge | own).all():
        raise ValueError("delay: expected pairs with an edge and pairs without, found only one kind")
    score, true = size.values[~own], edge[~own]
    rank = rankdata(score)
    ones, zeros = int(true.sum()), int((~true).sum())
    best = np.argsort(-score, kind="stable")[:ones]
    result = {
        "auc": float((rank[true].sum() - ones * (ones + 1) / 2) / (ones * zeros)),
        "precision": float(true[best].mean()),
        "chance": ones / (ones + zeros),
    }
    if "lag" in influence.dims:
        found = abs(influence).fillna(0).transpose("target", "lag", "source")
        late = found["lag"].values[found.values.argmax(axis=1)]
        off = np.abs(late - truth.values)[edge]
        result |= {"delays": float((off == 0).mean()), "delay_error": float(off.mean())}
    return result


def _check_influence(influence: Any) -> None:
    if not isinstance(influence, xr.DataArray):
        raise TypeError(
            "influence: expected a DataArray (target, lag, source), such as influence(...)['weight'], "
            f"found {type(influence).__name__}"
        )
    missing = [d for d in ("target", "source") if d not in influence.dims or d not in influence.coords]
    if missing or 0 in influence.shape:
        raise ValueError(
            f"influence: expected dims target and source with labels, none of length 0, found {dict(influence.sizes)}"
        )
    if not np.isfinite(influence.values).any():
        raise ValueError("influence: expected numbers, found only NaN")


def _positions(influence: xr.DataArray) -> NDArray[np.int64]:
    """(targets,) the number of each target among the sources."""
    found = influence.indexes["source"].get_indexer(influence.indexes["target"])
    if (found < 0).any():
        raise ValueError("influence: expected targets that are among its sources, found others")
    return found


def _places(influence: xr.DataArray, lat: ArrayLike, lon: ArrayLike) -> tuple[Array, Array]:
    lat, lon = _stations(lat, lon)
    if len(lat) != influence.sizes["source"]:
        raise ValueError(f"lat, lon: expected {influence.sizes['source']} stations, found {len(lat)}")
    return lat, lon


def _strongest(influence: xr.DataArray) -> xr.DataArray:
    """(target, source): the size at the lag where it is largest."""
    _check_influence(influence)
    size = abs(influence)
    size = (size.max("lag") if "lag" in size.dims else size).fillna(0)  # no number, no influence
    if set(size.dims) != {"target", "source"}:
        raise ValueError(f"influence: expected dims target, source and perhaps lag, found {influence.dims}")
    return size.transpose("target", "source")


# ---------------------------------------------------------------------------- can it be trusted?


def weight_layers(model: nn.Module) -> list[str]:
    """Names of the parts of a network that own weights, from the output downwards.

    In the reverse of the order in which the network sets them up; the linear part of a
    :class:`stgcn_lab.models.LinearSkip`, named "", comes last.

    Raises:
        TypeError, ValueError: for no network, or one without weights.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, found {type(model).__name__}")
    names = [name for name, part in model.named_modules() if _weights(part)]
    if not names:
        raise ValueError(f"model: expected a network with weights, found none in {type(model).__name__}")
    return names[::-1]


def _weights(part: nn.Module) -> list[Tensor]:
    """Weights of a module itself: what is trained, and what was fitted before and stored."""
    own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
    return [weight for weight in own if weight.is_floating_point()]


def randomised(model: nn.Module, seed: int = 0, layers: int | None = None) -> nn.Module:
    """A copy of a network with weights drawn anew, all or those of the layers nearest the output.

    A part that knows how to draw its first weights does so (``reset_parameters``); any other gets normal numbers of
    the same root mean square, so also the fitted coefficients of a :class:`stgcn_lab.models.LinearSkip`.

    Args:
        model: the network; it stays as it is.
        seed: of the drawing. The caller's random numbers are left alone.
        layers: how many of :func:`weight_layers`, from the output downwards; all if not given.

    Raises:
        TypeError, ValueError: for no network, one without weights, or more layers than there are.
    """
    names, seed = weight_layers(model), whole_number(seed, "seed", least=0)
    layers = len(names) if layers is None else whole_number(layers, "layers", least=0)
    if layers > len(names):
        raise ValueError(f"layers: expected at most {len(names)}, found {layers}")
    copy = deepcopy(model)
    parts = dict(copy.named_modules())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name in names[:layers]:
            part = parts[name]
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()
                continue
            for weight in _weights(part):
                weight.copy_(torch.randn(weight.shape) * float(weight.square().mean().sqrt()))
    return copy


def sanity_check(
    model: nn.Module,
    x: Tensor,
    operator: Operators | None = None,
    *,
    targets: Sequence[int] | None = None,
    lead: int = 1,
    feature: int = 0,
    method: str = "integrated_gradients",
    baseline: float | Tensor = 0.0,
    seeds: int = 3,
    steps: int = 32,
    batch_size: int = 512,
) -> xr.Dataset:
    """Does the explanation depend on what was learned? Draw the weights anew, layer by layer from the output.

    An explanation that stays the same when the network has forgotten everything explains the input, not the network.
    The rank correlation of attributions before and after, over the inputs of a window, mean over the windows:

    - ``signed``: of the attributions themselves; near 0, on average over seeds, is what a sound method gives at the
      end. A single draw may turn the sign of the last layer and with it the whole explanation: -1 is no new one;
    - ``size``: of their sizes, which looks at less. The input, where it is a factor of the attribution, and the graph
      shine through: whom a network cannot hear has no influence, trained or not, and even a network without any
      knowledge stays well above 0.

    Args:
        model, x, operator, lead, feature, method, baseline, steps, batch_size: as in :func:`attribute`. A few dozen
            windows are enough.
        targets: stations whose forecasts are explained; all if not given.
        seeds: how often the weights are drawn.

    Returns:
        ``signed`` and ``size``, each (layer, seed), the layers in the order in which they are drawn anew, each with
        all before it; the first, "trained", is the network itself, 1.

    Raises:
        As in :func:`attribute` and :func:`randomised`.

    Source: Adebayo et al. (2018), arXiv 1810.03292, the cascading randomisation.
    """
    seeds, names = whole_number(seeds, "seeds"), weight_layers(model)

    def explanation(network: nn.Module) -> Array:  # (windows x outputs, inputs)
        explained = _Explained(network, x, operator, baseline, lead, feature, "all" if targets is None else targets)
        return (
            torch.cat([a.flatten(0, 1) for _, a in explained.attributions(method, steps, batch_size)])
            .flatten(1)
            .cpu()
            .double()
            .numpy()
        )

    first = explanation(model)
    values = np.ones((2, 1 + len(names), seeds))
    for count in range(1, 1 + len(names)):
        for seed in range(seeds):
            again = explanation(randomised(model, seed, count))
            values[0, count, seed] = _rank_correlation(first, again).mean()
            values[1, count, seed] = _rank_correlation(np.abs(first), np.abs(again)).mean()
    layers = ["trained", *(name or "linear part" for name in names)]
    dims = ("layer", "seed")
    return xr.Dataset({"signed": (dims, values[0]), "size": (dims, values[1])}, coords={"layer": layers})


def similarity(a: ArrayLike, b: ArrayLike) -> float:
    """Rank correlation of two explanations of the same inputs: of two methods, two seeds, or method and truth.

    Args:
        a, b: numbers of one shape; NaN in either is left out.

    Returns:
        Spearman's coefficient, -1 to 1; 0 where one of them is the same everywhere.

    Raises:
        ValueError: for other shapes, or fewer than 3 pairs of numbers.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"a, b: expected one shape, found {a.shape} and {b.shape}")
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3:
        raise ValueError(f"a, b: expected at least 3 pairs of numbers, found {both.sum()}")
    return float(_rank_correlation(a[both][None], b[both][None])[0])


def _rank_correlation(a: Array, b: Array) -> Array:
    """(rows,) Spearman's coefficient over the columns; 0 where there is no order."""
    a, b = (rankdata(part, axis=1) for part in (a, b))
    a, b = (part - part.mean(axis=1, keepdims=True) for part in (a, b))
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), norm, out=np.zeros(len(a)), where=norm > 0)


def deletion(
    model: nn.Module,
    x: Tensor,
    attributions: Tensor,
    operator: Operators | None = None,
    *,
    station: int | None = None,
    lead: int = 1,
    feature: int = 0,
    baseline: float | Tensor = 0.0,
    shares: Sequence[float] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
    draws: int = 5,
    seed: int = 0,
    batch_size: int = 512,
) -> xr.Dataset:
    """Take inputs away, those called important first: does the forecast change sooner than by chance?

    ``D(q) = mean_w |f(x_w) - f(x_w without the share q of its inputs)|``; without means at the baseline.

    Args:
        model, x, operator, station, lead, feature, baseline, batch_size: as in :func:`attribute`.
        attributions: of the shape of x; the order is that of their sizes, in each window.
        shares: which part of the inputs is taken away, 0 to 1, rising.
        draws: how many random orders.
        seed: of these.

    Returns:
        (share,) ``important``: the most important first, ``random``: in random order, ``least``: the least important
        first, each in units of the output. A useful explanation has ``important`` far above and ``least`` below.

    Raises:
        TypeError, ValueError: as there; for attributions of another shape, or shares that do not rise within 0 to 1.
    """
    explained = _Explained(model, x, operator, baseline, lead, feature, None if station is None else [station])
    if not torch.is_tensor(attributions) or attributions.shape != x.shape or not torch.isfinite(attributions).all():
        found = tuple(attributions.shape) if torch.is_tensor(attributions) else type(attributions).__name__
        raise ValueError(f"attributions: expected finite numbers of shape {tuple(x.shape)}, found {found}")
    part = np.asarray(shares, dtype=float)
    if part.ndim != 1 or not part.size or not ((part >= 0) & (part <= 1)).all() or (np.diff(part) <= 0).any():
        raise ValueError(f"shares: expected rising numbers from 0 to 1, found {shares}")
    draws, seed = whole_number(draws, "draws"), whole_number(seed, "seed", least=0)
    batch_size = whole_number(batch_size, "batch_size")
    x, cells = explained.x, explained.x[0].numel()
    generator = torch.Generator().manual_seed(seed)
    important = attributions.detach().cpu().abs().flatten(1)
    scores = {
        "important": [important],
        "random": [torch.rand(important.shape, generator=generator) for _ in range(draws)],
        "least": [-important],
    }
    curves = {}
    with _in_use(model), torch.no_grad():

        def forecast(windows: Tensor) -> Tensor:
            return torch.cat([explained.forward(rows)[:, 0] for rows in windows.split(batch_size)])

        whole = forecast(x)
        for name, orders in scores.items():
            change = np.zeros(len(part))
            for score in orders:
                place = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1).view(x.shape).to(x.device)
                for s, share in enumerate(part):
                    without = torch.where(place < round(share * cells), explained.baseline, x)
                    change[s] += float((forecast(without) - whole).abs().mean()) / len(orders)
            curves[name] = ("share", change)
    return xr.Dataset(curves, coords={"share": part})
