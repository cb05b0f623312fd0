"""The probability of an event: read off a forecast of values, learned by a network, and calibrated.

An event is a series (time, station) of 1 and 0, with NaN where nobody knows: a gale, a frost, a dry month. A
probability forecast stands under its valid time, as all forecasts here do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from scipy.special import expit, logit, ndtr
from torch_geometric.data import Data

from ._checks import whole_number
from .baselines import (
    Logistic,
    _as_probability,
    _check_dates,
    _check_events_of,
    _check_series,
    _check_stations,
    _logistic_regression,
    climatology,
    fit_logistic,
)
from .forecasting import _check_validation, _fit_members, _operator, _run_all, _scale
from .layers import Operators
from .models import STGCN, LinearSkip
from .training import History, event_loss
from .verification import _check_spread, _probability_and_event
from .windows import WindowDataset


def exceedance_probability(mean: xr.DataArray, spread: xr.DataArray, threshold: float | xr.DataArray) -> xr.DataArray:
    """The probability that a Gaussian forecast gives to values above a threshold: ``Φ((μ - u) / σ)``.

    Every forecast with a spread is a forecast of events, for all thresholds at once, learned from all days and not
    from the few with an event alone.

    Args:
        mean: (time, station) μ.
        spread: (time, station), or (station,) if it is the same at all times; σ, above 0.
        threshold: u in the units of the mean: a number, (station,) or (time, station).

    Returns:
        (time, station), NaN where there is no forecast or no threshold.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, other units of the threshold, a
            threshold that is no number, or a spread that is not above 0.
    """
    _check_series(mean, "mean")
    sigma, u = _like(spread, mean, "spread"), _like(threshold, mean, "threshold")
    _check_spread(sigma, "spread")
    units = mean.attrs.get("units")
    for part, name in ((spread, "spread"), (threshold, "threshold")):
        found = part.attrs.get("units") if isinstance(part, xr.DataArray) else None
        if None not in (units, found) and units != found:
            raise ValueError(f"{name}: expected the units of the mean, {units!r}, found {found!r}")
    return _as_probability(mean, ndtr((mean.values - u) / sigma))


def _like(part: float | xr.DataArray, mean: xr.DataArray, name: str) -> np.ndarray:
    """A spread or a threshold in the shape of the mean, each value in its place."""
    if name == "threshold" and isinstance(part, (int, float, np.number)) and not isinstance(part, bool):
        part = xr.DataArray(part)
    if not isinstance(part, xr.DataArray) or part.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected numbers in an xarray DataArray, found {type(part).__name__}")
    if np.isinf(part.values).any():
        raise ValueError(f"{name}: expected finite values, found infinite ones")
    if part.dims not in ((), ("station",), ("time", "station")):
        raise ValueError(f"{name}: expected dims (station) or (time, station), found {part.dims}")
    for dim in part.dims:
        if not np.array_equal(part[dim].values, mean[dim].values):
            raise ValueError(f"{name}: expected the {dim} values of the mean, each in its place")
    return np.broadcast_to(part.values.astype(float), mean.shape)


@dataclass(frozen=True)
class Calibration:
    """What is meant where a probability is said, see :func:`fit_calibration`.

    Attributes:
        method: "platt" or "isotonic".
        values: for Platt's method (2,) intercept and slope; for isotonic regression (2, knots), what is said, in
            rising order, above what is meant.
    """

    method: str
    values: np.ndarray

    def apply(self, probability: xr.DataArray) -> xr.DataArray:
        """The calibrated probability.

        Args:
            probability: of the event, of any shape, such as (time, station) or (member, time, station).

        Returns:
            The same form; NaN stays NaN.

        Raises:
            TypeError, ValueError: for something else than probabilities from 0 to 1.
        """
        if not isinstance(probability, xr.DataArray):
            raise TypeError(f"probability: expected an xarray DataArray, found {type(probability).__name__}")
        said = probability.values.astype(float)
        if (said < 0).any() or (said > 1).any():
            raise ValueError(f"probability: expected from 0 to 1, found {np.nanmin(said):g} to {np.nanmax(said):g}")
        if self.method == "platt":
            return probability.copy(data=expit(self.values[0] + self.values[1] * _logit(said)))
        return probability.copy(data=np.interp(said, *self.values))


def _logit(probability: np.ndarray) -> np.ndarray:
    """Finite where a network is quite sure: beyond a part in a million nothing can be learned from a few years."""
    return logit(np.clip(probability, 1e-6, 1 - 1e-6))


def fit_calibration(probability: xr.DataArray, event: xr.DataArray, method: str = "platt") -> Calibration:
    """Learn from forecasts and what followed what a probability is worth; all stations together.

    Platt's method fits ``logit p' = a + b logit p``: two numbers, enough for a network that was trained with a
    weight, and safe with few events. Isotonic regression fits any rising steps to the pairs, needs more of them, and
    may say 0 or 1 outright. Fit on years that the forecasts were not trained on.

    Args:
        probability: (time, station) forecasts, from 0 to 1.
        event: (time, station), whether it took place: 1 or 0, NaN if nobody knows.
        method: "platt" or "isotonic".

    Returns:
        The calibration; its ``apply`` serves any forecast of the same kind.

    Raises:
        TypeError, ValueError: for another kind of series, other times or stations, values that are no probabilities
            or no events, an unknown method, or pairs without an event or without its absence.

    Source: Platt (1999), with his targets, which lie a little inside 0 and 1; Niculescu-Mizil & Caruana (2005),
        doi:10.1145/1102351.1102430.
    """
    if method not in ("platt", "isotonic"):
        raise ValueError(f"method: expected platt or isotonic, found {method!r}")
    probability, event = _probability_and_event(probability, event)
    there = event.notnull().values
    said, happened = probability.values[there].astype(float), event.values[there].astype(float)
    events, others = happened.sum(), (1 - happened).sum()
    if events == 0 or others == 0:
        raise ValueError(f"event: expected some that took place and some that did not, found {events:g} and {others:g}")
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression  # slow to load

        steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(said, happened)
        return Calibration(method, np.stack([steps.X_thresholds_, steps.y_thresholds_]))
    design = np.stack([np.ones(len(said)), _logit(said)], axis=1)
    target = np.where(happened == 1, (events + 1) / (events + 2), 1 / (others + 2))
    return Calibration(method, _logistic_regression(design, target, np.zeros(2), "the calibration"))


@dataclass(frozen=True)
class EventForecaster:
    """A fitted ensemble of graph networks for the probability of an event, see :func:`fit_event_network`.

    Attributes:
        members: the networks, one for each seed.
        histories: how each was trained.
        logistic: the logistic regression that they start from.
    """

    members: tuple[LinearSkip, ...]
    histories: tuple[History, ...]
    logistic: Logistic
    _train: xr.DataArray = field(repr=False)
    _scale: xr.DataArray = field(repr=False)
    _harmonics: int
    _operator: Operators | None = field(repr=False)

    def probability(self, series: xr.DataArray) -> xr.DataArray:
        """The ensemble's probability of the event at every time of a series: the mean over the members.

        Args:
            series: (time, station) with the stations of the fit, in the units of the fit. A missing value counts
                as usual for the season.

        Returns:
            (time, station) at valid times; the first steps, which have no full history, are NaN.

        Raises:
            TypeError, ValueError: for another kind of series or other stations.
        """
        return self.each(series).mean("member", skipna=False, keep_attrs=True)

    def each(self, series: xr.DataArray) -> xr.DataArray:
        """(member, time, station), what every member says; as :meth:`probability`."""
        _check_series(series, "series")
        _check_dates(series["time"], "series")
        _check_stations(series, self.logistic.stations)
        x = _inputs(series, self._train, self._scale, self._harmonics, self.logistic)
        skipped = self.logistic.coefficients.shape[0] - 1  # rows without a logistic regression to start from
        values = np.full((len(self.members), *series.shape), np.nan)
        if len(x) > skipped:
            said = _run_all(self.members, x[skipped:], 1, self.logistic.lead, self._operator)
            values[:, skipped:] = expit(said[:, 0])
        return _as_probability(series, values[0]).expand_dims(member=len(values)).copy(data=values)


def _inputs(
    series: xr.DataArray,
    train: xr.DataArray,
    scale: xr.DataArray,
    harmonics: int,
    logistic: Logistic,
) -> np.ndarray:
    """(time, station, 2): what a network sees at each time.

    First the logit of the logistic regression for ``lead`` steps later, less its mean over the year: it knows the
    season of that time; then the standardised anomaly.
    """
    logits = logistic._logits(series) - logistic.season[0]
    ahead = np.full_like(logits, np.nan)
    ahead[: max(len(logits) - logistic.lead, 0)] = logits[logistic.lead :]
    anomaly = (series - climatology(train, series["time"], harmonics)) / scale
    return np.stack([ahead, anomaly.values], axis=-1)


def fit_event_network(
    train: xr.DataArray,
    train_event: xr.DataArray,
    validation: xr.DataArray | None = None,
    validation_event: xr.DataArray | None = None,
    graph: Data | None = None,
    *,
    lead: int = 1,
    event_weight: float = 1.0,
    focusing: float = 0.0,
    history: int = 3,
    lags: int = 3,
    spatial: str = "directional",
    channels: Sequence[int] = (32, 32, 32),
    blocks: int = 1,
    kernel_size: int = 2,
    dropout: float = 0.3,
    harmonics: int = 1,
    ridge: float = 0.001,
    members: int = 5,
    seed: int = 0,
    epochs: int = 5,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
    batch_size: int = 64,
    patience: int = 5,
    progress: bool = False,
) -> EventForecaster:
    """Fit an ensemble of graph networks for the probability of an event, each on top of a logistic regression.

    ``logit p = logit p_logistic + network``: training begins at the logistic regression, as
    :func:`stgcn_lab.forecasting.fit_forecaster` begins at the vector autoregression, and with the same networks.
    Each sees, at every station, the logits of the regression and the standardised anomalies of the last steps.

    Args:
        train: (time, station), in any units. Rows are taken as steps of one length.
        train_event: (time, station), whether the event took place: 1 or 0, NaN if nobody knows; the same times.
        validation, validation_event: the part that decides in which epoch each member is best, by the loss it is
            trained with. Without it training runs through all epochs: for the last fit.
        graph: the stations' graph, for every ``spatial`` but ``"none"`` and ``"adaptive"``.
        lead: lead time in steps.
        event_weight, focusing: of the loss, see :func:`stgcn_lab.training.event_loss`. Others than 1 and 0 give
            warnings in place of probabilities: calibrate them with :func:`fit_calibration`.
        lags, harmonics, ridge: of the logistic regression, see :func:`stgcn_lab.baselines.fit_logistic`; and
            ``harmonics`` of the season that is taken off.
        history, spatial, channels, blocks, kernel_size, dropout, members, seed, epochs, learning_rate, weight_decay,
            batch_size, patience, progress: see :func:`stgcn_lab.forecasting.fit_forecaster`.

    Returns:
        The fitted ensemble.

    Raises:
        TypeError, ValueError: for another kind of series, events of other times or stations, a station without
            events, a ``validation`` without its events, of other stations or with times of ``train``, a graph that
            is missing or of another size, or settings out of range.
    """
    logistic = fit_logistic(train, train_event, lags, ridge, harmonics, lead)
    history = whole_number(history, "history")
    stations = train.sizes["station"]
    operator = _operator(graph, spatial, stations)
    scale = _scale(train, climatology(train, train["time"], harmonics))

    def windows(part: xr.DataArray, event: xr.DataArray) -> WindowDataset:
        x = _inputs(part, train, scale, harmonics, logistic)
        variables = {"logit": x[..., 0], "anomaly": x[..., 1], "event": event.astype(float).shift(time=1 - lead).values}
        ds = xr.Dataset({name: (part.dims, values) for name, values in variables.items()}, {"time": part["time"]})
        return WindowDataset(ds.isel(time=slice(lags - 1, None)), ["logit", "anomaly"], "event", history, 1)

    fit_windows = windows(train, train_event)
    judge_windows = None
    if validation is None and validation_event is not None:
        raise ValueError("validation: expected the series of validation_event, found None")
    if validation is not None:
        _check_validation(validation, train)
        if validation_event is None:
            raise ValueError("validation_event: expected the events of validation, found None")
        _check_events_of(validation_event, validation, "validation_event", "validation")
        judge_windows = windows(validation, validation_event)
    intercept = torch.tensor(logistic.season[:1], dtype=torch.float32)
    adaptive = stations if spatial == "adaptive" else None

    def member() -> LinearSkip:
        network = STGCN(
            2, 1, history, 1, channels, blocks, kernel_size, spatial, dropout=dropout, norm=False, num_nodes=adaptive
        )
        return LinearSkip(network, torch.eye(stations)[None, None], intercept)

    networks, histories = _fit_members(
        member,
        members,
        seed,
        fit_windows,
        judge_windows,
        operator=operator,
        loss=event_loss(event_weight, focusing),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        patience=patience,
        progress=progress,
    )
    kept = train.copy(deep=True)  # the season is worked out again for every forecast
    return EventForecaster(networks, histories, logistic, kept, scale, harmonics, operator)
