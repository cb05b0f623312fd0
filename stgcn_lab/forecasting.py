"""Forecasts with a graph network: season, linear part, network, ensemble and spread in one object.

What every forecast needs beside the network stands here once: a smooth season and a scale for each station, learned
from the training years; a linear forecast to start from; several networks from different seeds; and, for any method,
the running corrections of mean and spread that weather services use.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch_geometric.data import Data

from ._checks import whole_number
from .baselines import (
    GNAR,
    VAR,
    _check_dates,
    _check_nodes,
    _check_series,
    _check_stations,
    climatology,
    fit_gnar,
    fit_var,
)
from .graphs import directional_operators, gcn_operator, scaled_laplacian
from .layers import SPATIAL, Operators
from .models import STGCN, LinearSkip
from .training import History, _device, _to_device, fit, gaussian_crps, masked_mse
from .windows import WindowDataset


@dataclass(frozen=True)
class Forecaster:
    """A fitted ensemble of graph networks, see :func:`fit_forecaster`.

    Attributes:
        members: the networks, one for each seed.
        histories: how each was trained.
        horizon: the longest lead time in steps.
        stations: (station,) labels of the stations it was fitted or moved to.
        linear: the linear forecast of standardised anomalies, where all stations share it; None otherwise.
    """

    members: tuple[LinearSkip, ...]
    histories: tuple[History, ...]
    horizon: int
    stations: np.ndarray
    linear: GNAR | None
    _train: xr.DataArray = field(repr=False)
    _harmonics: int
    _scale: xr.DataArray = field(repr=False)
    _operator: Operators | None = field(repr=False)
    _spatial: str
    _graph: Data | None = field(repr=False)  # of a shared fit alone
    _shared: bool

    def forecast(self, series: xr.DataArray, lead: int = 1) -> xr.DataArray:
        """The ensemble's mean forecast of every time of a series, from the steps up to ``lead`` before it.

        Args:
            series: (time, station) with the stations of the fit, in the units of the fit. A missing value counts
                as usual for the season.
            lead: lead time in steps, up to ``horizon``.

        Returns:
            (time, station) at valid times; the first steps, which have no full history, are NaN.

        Raises:
            TypeError, ValueError: for another kind of series, other stations, or a lead out of range.
        """
        return self.distribution(series, lead)["mean"].rename(series.name)

    def distribution(self, series: xr.DataArray, lead: int = 1) -> xr.Dataset:
        """The Gaussian forecast of every time of a series, and what each member says.

        The ensemble is a mixture: its variance is the mean of the members' variances and the variance of their
        means, ``σ² = mean σ_m² + var μ_m``.

        Args, Raises:
            As in :meth:`forecast`.

        Returns:
            ``mean``, ``spread`` (time, station) and ``members`` (member, time, station), at valid times.
        """
        _check_series(series, "series")
        lead = whole_number(lead, "lead")
        if lead > self.horizon:
            raise ValueError(f"lead: expected at most the horizon of the fit, {self.horizon} steps, found {lead}")
        _check_stations(series, self.stations)
        anomaly, season = self._standardised(series)
        scale = self._scale.values
        values = _run_all(self.members, anomaly.values[:, :, None], lead, lead, self._operator)
        mean = values[:, 0] * scale + season.values
        variance = (np.exp(values[:, 1]) * scale) ** 2
        spread = np.sqrt(variance.mean(axis=0) + mean.var(axis=0))
        return xr.Dataset(
            {
                "mean": series.copy(data=mean.mean(axis=0)),
                "spread": series.copy(data=spread),
                "members": series.copy(data=mean[0]).expand_dims(member=len(mean)).copy(data=mean),
            }
        )

    def _standardised(self, series: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
        """What the networks see of a series, anomalies in units of each station's scale; and the season taken off."""
        season = climatology(self._train, series["time"], self._harmonics)
        return (series - season) / self._scale, season

    def move(self, train: xr.DataArray, graph: Data) -> "Forecaster":
        """The same weights at other stations, however many: a forecaster that was never trained there.

        Only what needs no training comes from there: the season and the scale of each station.

        Args:
            train: (time, station), the record of the new stations that tells season and scale, with steps as long as
                those of the fit. A single year will do, but then it passes for the usual one.
            graph: of the new stations, made in the same way as that of the fit.

        Returns:
            A forecaster for the new stations, with copies of the networks. The histories are those of the fit.

        Raises:
            TypeError, ValueError: for a forecaster that was not fitted with ``shared=True``, another kind of series, a
                station that never varies, or a graph that is missing or of other stations.
        """
        if not self._shared:
            raise ValueError(
                "move: expected a forecaster fitted with shared=True, found one whose linear forecast belongs to "
                f"its {len(self.stations)} stations"
            )
        _check_series(train, "train")
        operator = _operator(graph, self._spatial, train.sizes["station"])
        linear = _on_graph(self.linear, graph, train)
        coefficients, intercept = _linear_maps(linear, train.sizes["station"], self.horizon)
        kept = train.copy(deep=True)
        scale = _scale(train, climatology(train, train["time"], self._harmonics))
        return replace(
            self,
            members=_with_linear(self.members, coefficients, intercept),
            stations=kept["station"].values,
            _train=kept,
            _scale=scale,
            _operator=operator,
            _graph=_copied(graph),
        )

    def finetune(
        self,
        train: xr.DataArray,
        validation: xr.DataArray | None = None,
        *,
        ridge: float | None = None,
        seed: int = 0,
        epochs: int = 10,
        learning_rate: float = 5e-4,
        weight_decay: float = 1e-2,
        batch_size: int = 64,
        patience: int = 5,
        progress: bool = False,
    ) -> "Forecaster":
        """Go on training copies of the networks at the stations where they are, as after :meth:`move`.

        Season and scale stay those of the fit or the move. The one asked stays as it is.

        Args:
            train: (time, station), with the stations of this forecaster and in its units.
            validation: the part that decides in which epoch each copy is best; None trains through all epochs.
            ridge: None leaves the linear forecast alone. A number fits it to ``train`` under that penalty on what it
                differs from the present one, see :func:`stgcn_lab.baselines.fit_gnar`; 0 forgets the present one.
            seed: of the first copy's order of windows and dropout; the others count on from it.
            epochs, learning_rate, weight_decay, batch_size, patience, progress: see :func:`stgcn_lab.training.fit`.

        Returns:
            The tuned forecaster, with the histories of this training.

        Raises:
            TypeError, ValueError: for another kind of series, other stations, a ``validation`` with times of
                ``train``, settings out of range, or a ``ridge`` where stations share no linear forecast.
        """
        _check_series(train, "train")
        _check_dates(train["time"], "train")
        _check_stations(train, self.stations, "train", "the forecaster")
        if validation is not None:
            _check_validation(validation, train)

        def anomaly(part: xr.DataArray) -> xr.DataArray:
            return self._standardised(part)[0]

        network, linear, members = self.members[0].network, self.linear, deepcopy(self.members)
        if ridge is not None:
            if linear is None or self._graph is None:
                raise ValueError(
                    "ridge: expected None where the stations share no linear forecast (shared=True with lags), "
                    f"found {ridge!r}"
                )
            order, sectors = linear.neighbours.shape
            linear = fit_gnar(anomaly(train), self._graph, order, sectors, ridge, prior=linear)
            maps = _linear_maps(linear.on(self._graph, self.stations), len(self.stations), self.horizon)
            members = _with_linear(members, *maps)
        networks, histories = _fit_members(
            iter(members).__next__,
            len(members),
            seed,
            _windows(anomaly(train), network.history, self.horizon),
            None if validation is None else _windows(anomaly(validation), network.history, self.horizon),
            operator=self._operator,
            loss=_mean_and_spread,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            patience=patience,
            progress=progress,
        )
        return replace(self, members=networks, histories=histories, linear=linear)


def _run_all(
    members: Sequence[LinearSkip], x: np.ndarray, output: int, lead: int, operator: Operators | None
) -> np.ndarray:
    """(member, F_out, T, N): what every member says of every time of x (T, N, F), NaN before the first.

    ``output`` counts the lead times of the network, from 1; the forecast made at t stands at t + lead.
    """
    network = members[0].network
    values = np.full((len(members), network.out_features, *x.shape[:2]), np.nan)
    windows = len(x) - network.history - lead + 1
    if windows > 0:
        stretch = torch.from_numpy(np.nan_to_num(x).astype(np.float32))[: windows + network.history - 1]  # 0: the usual
        for m, member in enumerate(members):
            values[m, :, network.history + lead - 1 :] = _run(member, stretch, network.history, output, operator)
    return values


@torch.no_grad()
def _run(member: LinearSkip, stretch: Tensor, history: int, output: int, operator: Operators | None) -> np.ndarray:
    """(F_out, windows, N): what a member says at one of its lead times for every window of a stretch."""
    member.eval()
    device = _device(member)  # wherever its reader has moved it
    operator = _to_device(operator, device)
    at_once = max(1, min(512, 60_000 // stretch.shape[1]))  # thousands of stations fit into memory in smaller parts
    parts = (stretch[first : first + at_once + history - 1] for first in range(0, len(stretch) - history + 1, at_once))
    said = [member.forecast_series(part[None].to(device), operator)[0, :, output - 1].cpu() for part in parts]
    return torch.cat(said).movedim(-1, 0).double().numpy()


def fit_forecaster(
    train: xr.DataArray,
    validation: xr.DataArray | None = None,
    graph: Data | None = None,
    *,
    horizon: int = 1,
    history: int = 3,
    lags: int = 3,
    spatial: str = "directional",
    channels: Sequence[int] = (32, 32, 32),
    blocks: int = 1,
    kernel_size: int = 2,
    dropout: float = 0.3,
    harmonics: int = 1,
    ridge: float | None = None,
    shared: bool = False,
    members: int = 5,
    seed: int = 0,
    epochs: int = 10,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
    batch_size: int = 64,
    patience: int = 5,
    progress: bool = False,
) -> Forecaster:
    """Fit an ensemble of spatio-temporal graph networks, each on top of the same linear forecast.

    Everything is learned from ``train`` alone: the season (annual harmonics at each station), the scale of each
    station, a vector autoregression (its forecasts for all lead times become the linear skip), and ``members``
    networks that learn what it leaves over. Each gives a Gaussian forecast: squared error trains its mean, the
    continuous ranked probability score its spread.

    Args:
        train: (time, station), in any units in which a Gaussian is a fair picture (the square root of wind speed).
            Missing values are left out of the loss. Rows are taken as steps of one length.
        validation: the part that decides in which epoch each member is best. Without it training runs through all
            epochs: for the last fit, on all training years, when everything is chosen.
        graph: the stations' graph, for every ``spatial`` but ``"none"`` and ``"adaptive"``, and for ``shared``.
        horizon: longest lead time in steps; all lead times come from one network.
        history, channels, blocks, kernel_size, dropout: of :class:`stgcn_lab.models.STGCN`.
        lags, ridge: of the linear forecast, see :func:`stgcn_lab.baselines.fit_var`; without lags (0) there is none.
            The penalty is 0.03 if not given, and 0 for ``shared``, where few weights are fitted to many values.
        spatial: ``"none"``, ``"gcn"``, ``"cheb"``, ``"directional"`` (four compass sectors) or ``"adaptive"``.
        harmonics: of the season; 0 for a constant.
        shared: let no weight belong to a station, so that :meth:`Forecaster.move` can take the forecaster to others:
            the linear forecast is that of :func:`stgcn_lab.baselines.fit_gnar` with four compass sectors.
        members: number of networks.
        seed: the first member's; the others count on from it.
        epochs, learning_rate, weight_decay, batch_size, patience, progress: see :func:`stgcn_lab.training.fit`.

    Returns:
        The fitted ensemble.

    Raises:
        TypeError, ValueError: for another kind of series, a ``validation`` of other stations or with times of
            ``train``, a graph that is missing or of another size, settings out of range, or ``shared`` with a
            learned graph, which belongs to its stations.
    """
    _check_series(train, "train")
    if not isinstance(shared, bool):
        raise TypeError(f"shared: expected True or False, found {shared!r}")
    if shared and spatial == "adaptive":
        raise ValueError("spatial: expected a given graph with shared=True, found 'adaptive', learned for its stations")
    horizon, history = whole_number(horizon, "horizon"), whole_number(history, "history")
    lags = whole_number(lags, "lags", least=0)
    if history < lags:
        raise ValueError(f"history: expected at least the {lags} lags of the linear forecast, found {history}")
    operator = _operator(graph, spatial, train.sizes["station"])
    season = climatology(train, train["time"], harmonics)
    scale = _scale(train, season)

    anomaly = (train - season) / scale
    fit_windows = _windows(anomaly, history, horizon)
    judge_windows = None
    if validation is not None:
        _check_validation(validation, train)
        usual = climatology(train, validation["time"], harmonics)
        judge_windows = _windows((validation - usual) / scale, history, horizon)
    gnar: GNAR | None = None
    linear: VAR | None = None
    if shared:
        if lags:
            gnar = fit_gnar(anomaly, graph, lags, 4, 0.0 if ridge is None else ridge)
        linear = _on_graph(gnar, graph, train)
    elif lags:
        linear = fit_var(anomaly, lags, 0.03 if ridge is None else ridge)
    coefficients, intercept = _linear_maps(linear, train.sizes["station"], horizon)
    adaptive = train.sizes["station"] if spatial == "adaptive" else None

    def member() -> LinearSkip:
        network = STGCN(
            1,
            2,  # mean and log spread
            history,
            horizon,
            channels,
            blocks,
            kernel_size,
            spatial,
            dropout=dropout,
            norm=False,
            num_nodes=adaptive,
        )
        return LinearSkip(network, coefficients.clone(), intercept.clone())

    networks, histories = _fit_members(
        member,
        members,
        seed,
        fit_windows,
        judge_windows,
        operator=operator,
        loss=_mean_and_spread,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        patience=patience,
        progress=progress,
    )
    kept = train.copy(deep=True)  # the season is worked out again for every forecast
    return Forecaster(
        networks,
        histories,
        horizon,
        kept["station"].values,
        gnar,
        kept,
        harmonics,
        scale,
        operator,
        spatial,
        _copied(graph) if shared else None,
        shared,
    )


def _windows(anomaly: xr.DataArray, history: int, horizon: int) -> WindowDataset:
    return WindowDataset(anomaly.reset_coords(drop=True).to_dataset(name="x"), "x", "x", history, horizon)


def _copied(graph: Any) -> Data | None:
    return graph.clone() if isinstance(graph, Data) else None


def _scale(train: xr.DataArray, season: xr.DataArray) -> xr.DataArray:
    """(station,) standard deviation of what the season leaves over, above 0 everywhere."""
    scale = (train - season).std("time")
    varies = (scale > 1e-9 * abs(season).max("time")).values  # rounding leaves a constant a little variance
    if not varies.all():
        poor = train["station"].values[~varies].tolist()
        raise ValueError(f"train: expected values that vary at every station, found a constant or nothing at {poor}")
    return scale


def _fit_members(
    make: Callable[[], LinearSkip],
    members: int,
    seed: int,
    train: WindowDataset,
    validation: WindowDataset | None,
    **options: Any,
) -> tuple[tuple[LinearSkip, ...], tuple[History, ...]]:
    """Make and train one network for each seed, and leave the caller's random numbers alone."""
    members, seed = whole_number(members, "members"), whole_number(seed, "seed", least=0)
    networks, histories = [], []
    for number in range(seed, seed + members):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            networks.append(make())
        histories.append(fit(networks[-1], train, validation, seed=number, **options))
    return tuple(networks), tuple(histories)


def _check_validation(validation: xr.DataArray, train: xr.DataArray) -> None:
    _check_series(validation, "validation")
    _check_dates(validation["time"], "validation")
    _check_stations(validation, train["station"].values, "validation", "train")
    if np.isin(validation["time"].values, train["time"].values).any():
        raise ValueError("validation: expected times that are not in train, found some that are")


def _mean_and_spread(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error for the mean, and the CRPS around that mean, left as it is, for the spread.

    The CRPS alone would draw the mean of skewed weather towards its median, and forecasts are judged by their
    squared error too.
    """
    mean, log_spread = prediction.chunk(2, dim=-1)
    return masked_mse(mean, target, mask) + gaussian_crps(torch.cat([mean.detach(), log_spread], -1), target, mask)


def _operator(graph: Data | None, spatial: str, stations: int, order: int | None = None) -> Operators | None:
    if spatial not in (*SPATIAL, "adaptive"):
        raise ValueError(f"spatial: expected one of {', '.join(SPATIAL)} or adaptive, found {spatial!r}")
    if spatial in ("none", "adaptive"):
        return None
    if not isinstance(graph, Data):
        raise TypeError(
            f"graph: expected a graph of the stations for spatial={spatial!r}, such as "
            f"graphs.knn_graph(lat, lon, k=4), found {type(graph).__name__}"
        )
    if graph.num_nodes != stations:
        raise ValueError(f"graph: expected {stations} nodes, one a station, found {graph.num_nodes}")
    if spatial == "directional":
        return directional_operators(graph, 4 if order is None else order)
    return scaled_laplacian(graph) if spatial == "cheb" else gcn_operator(graph)


def _on_graph(linear: GNAR | None, graph: Any, series: xr.DataArray) -> VAR | None:
    """The shared linear forecast at the stations of a series, the graph being held against their number and places."""
    if isinstance(graph, Data):
        _check_nodes(graph, series)
    return None if linear is None else linear.on(graph, series["station"].values)


def _linear_maps(linear: VAR | None, stations: int, horizon: int) -> tuple[Tensor, Tensor]:
    """A vector autoregression's forecasts for lead times 1 ... horizon, each as one linear map of the last steps.

    ``x̂(t + h) = b_h + Σ_p W_{h,p} x(t - p)``: feeding the forecast back is linear again, so that
    ``W_h = Σ_p Φ_p W_{h-p}``, where W for a time that has been observed simply picks it.
    """
    if linear is None:
        return torch.zeros(horizon, 1, stations, stations), torch.zeros(horizon, stations)
    weights = linear._weights()
    lags = len(weights)
    pick = np.eye(lags * stations).reshape(lags, stations, lags * stations)  # x(t), x(t - 1), ...
    past = [(pick[p], np.zeros(stations)) for p in range(lags)]
    maps = []
    for _ in range(horizon):
        effect = sum(phi @ w for phi, (w, _) in zip(weights, past, strict=True))
        offset = linear.intercept + sum(phi @ b for phi, (_, b) in zip(weights, past, strict=True))
        past = [(effect, offset), *past[:-1]]
        maps.append((effect.reshape(stations, lags, stations).swapaxes(0, 1), offset))
    coefficients, intercept = (np.stack(part) for part in zip(*maps, strict=True))
    return torch.tensor(coefficients, dtype=torch.float32), torch.tensor(intercept, dtype=torch.float32)


def _with_linear(members: Sequence[LinearSkip], coefficients: Tensor, intercept: Tensor) -> tuple[LinearSkip, ...]:
    """Copies of the members, their networks unchanged, on top of another linear forecast."""
    copies = deepcopy(tuple(members))
    for member in copies:
        member.coefficients, member.intercept = coefficients.clone(), intercept.clone()
    return copies


def running_correction(
    forecast: xr.DataArray, observed: xr.DataArray, lead: int = 1, memory: float = 90
) -> xr.DataArray:
    """Take off the error that a forecast has lately been making at each station: the decaying-average correction.

    ``f'(t) = f(t) - c(t)`` with ``c(t + 1) = (1 - 1/τ) c(t) + e(t)/τ`` and the error ``e = f - x``. Only errors that
    were known when the forecast was made are used, those up to ``t - lead``. Instruments are moved, trees grow,
    climates drift: a forecast fitted to old years carries their mean into the new ones, and this takes it out. It
    serves a linear forecast as well as a network.

    Args:
        forecast: (time, station) at valid times; NaN where there is none.
        observed: (time, station), the same times and stations; NaN is missing, and changes nothing.
        lead: lead time in steps.
        memory: τ in steps.

    Returns:
        (time, station), the corrected forecast. It begins uncorrected.

    Raises:
        TypeError, ValueError: for other kinds or times of series, a lead below 1 or a memory below 1.

    Source: Cui, Toth, Zhu & Hou (2012), doi:10.1175/WAF-D-11-00011.1.
    """
    error = _check_pair(forecast, observed)
    return forecast.copy(data=forecast.values - _decaying(error, np.zeros(error.shape[1]), lead, memory))


def running_spread(
    mean: xr.DataArray, spread: xr.DataArray, observed: xr.DataArray, lead: int = 1, memory: float = 365
) -> xr.DataArray:
    """Widen or narrow a spread as lately needed: the decaying average of the squared standardised errors.

    ``σ'(t) = σ(t) √v(t)`` with ``v(t + 1) = (1 - 1/τ) v(t) + z²(t)/τ`` and ``z = (x - μ) / σ``. A network is surer of
    the years it was trained on than of later ones; v, which begins at 1, finds out by how much.

    Args:
        mean, spread: (time, station) at valid times, of a Gaussian forecast.
        observed, lead, memory: as in :func:`running_correction`.

    Returns:
        (time, station), the corrected spread.

    Raises:
        TypeError, ValueError: as in :func:`running_correction`, and for a spread that is not above 0.
    """
    error = _check_pair(mean, observed)
    _check_series(spread, "spread")
    if (spread <= 0).any():
        raise ValueError(f"spread: expected standard deviations above 0, found {float(spread.min()):g}")
    z = error / _aligned(spread, mean, "spread")
    return spread.copy(data=spread.values * np.sqrt(_decaying(z**2, np.ones(z.shape[1]), lead, memory)))


def _check_pair(forecast: xr.DataArray, observed: xr.DataArray) -> np.ndarray:
    _check_series(forecast, "forecast")
    _check_series(observed, "observed")
    return forecast.values - _aligned(observed, forecast, "observed")


def _aligned(other: xr.DataArray, series: xr.DataArray, name: str) -> np.ndarray:
    for dim in ("time", "station"):
        if not np.array_equal(other[dim].values, series[dim].values):
            raise ValueError(f"{name}: expected the {dim} values of the forecast, each in its place")
    return other.values


def _decaying(values: np.ndarray, start: np.ndarray, lead: int, memory: float) -> np.ndarray:
    """What the decaying average knows when the forecast for each row is made, ``lead`` rows earlier."""
    lead = whole_number(lead, "lead")
    if isinstance(memory, bool) or not isinstance(memory, (int, float, np.number)) or not memory >= 1:
        raise ValueError(f"memory: expected a number of steps of at least 1, found {memory!r}")
    average, known = np.empty_like(values, dtype=float), start.astype(float)
    for t, row in enumerate(values):
        average[t] = known  # from rows 0 ... t - 1
        known = np.where(np.isnan(row), known, known + (row - known) / memory)
    return np.concatenate([np.tile(start, (lead - 1, 1)), average])[: len(values)]
