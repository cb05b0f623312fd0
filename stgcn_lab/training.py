"""One plain training loop, for every network of the book."""

import ctypes
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ._checks import number, whole_number
from .layers import Operators
from .streaming import StreamedWindows
from .windows import WindowDataset

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def reuse_memory() -> bool:
    """Let this process keep freed memory for the next tensor, instead of handing it back to the system.

    The C library of Linux (glibc) maps every large tensor anew and unmaps it when it is freed; each of its pages is
    then cleared and entered again, at every step of a training, which can take longer than the arithmetic. The price:
    the process stays as large as it has ever been, and a little larger.

    Returns:
        Whether it took effect: False on other systems, and where the environment already sets one of the same options
        (``MALLOC_MMAP_MAX_``, ``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_TOP_PAD_``), which is left as it is.

    Source: mallopt(3) of the Linux manual pages.
    """
    options = {"MMAP_MAX": (-4, 0), "TRIM_THRESHOLD": (-1, -1), "TOP_PAD": (-2, 64 << 20)}  # M_... of malloc.h
    if sys.platform != "linux" or any(f"MALLOC_{name}_" in os.environ for name in options):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(*option) for option in options.values())


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the observed values: ``Σ m (ŷ - y)² / Σ m``.

    Args:
        prediction, target: tensors of one shape.
        mask: of the same shape, True where the target was observed.

    Returns:
        A scalar; 0 where nothing was observed.

    Raises:
        TypeError, ValueError: if the mask is not boolean, or the shapes differ (broadcasting would average
            over wrong pairs).
    """
    return _masked_error(prediction, target, mask).square().sum() / mask.sum().clamp(min=1)


def huber(delta: float = 1.0) -> Loss:
    """A loss that one wild value cannot rule: the error e counts ``½ e²`` up to ``δ`` and ``δ (|e| - ½ δ)`` beyond.

    The mean over the observed values. No value pulls harder than one that is δ off. With a large δ this is half of
    :func:`masked_mse`, with a small one δ times the mean absolute error, which is smallest at the median.

    Args:
        delta: δ, in the units of the target, which are standard deviations in standardised windows.

    Returns:
        ``loss(prediction, target, mask)``, all of one shape.

    Raises:
        ValueError: for a delta that is not above 0; the loss raises the errors of :func:`masked_mse`.

    Source: Huber (1964), doi:10.1214/aoms/1177703732.
    """
    delta = number(delta, "delta", least=0, open_end=True)

    def loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        error = _masked_error(prediction, target, mask)
        return F.huber_loss(error, torch.zeros_like(error), reduction="sum", delta=delta) / mask.sum().clamp(min=1)

    return loss


def gaussian_crps(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Continuous ranked probability score of Gaussian forecasts, the mean over the observed values.

    ``CRPS = σ [ z (2Φ(z) - 1) + 2φ(z) - 1/√π ]`` with ``z = (y - μ) / σ``: the mean absolute error of a forecast
    that knows its own uncertainty, in the units of y. Smallest, on average, for the true μ and σ.

    Args:
        prediction: (..., 2 F): μ, then log σ, of the F features. The logarithm keeps σ positive.
        target: (..., F).
        mask: of the shape of the target, True where it was observed.

    Returns:
        A scalar; 0 where nothing was observed.

    Raises:
        TypeError, ValueError: if the mask is not boolean, or the shapes do not belong together.

    Source: Gneiting & Raftery (2007), doi:10.1198/016214506000001437, equation 21.
    """
    log_spread, z = _log_spread_and_z(prediction, target, mask)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = torch.exp(log_spread) * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return _masked_mean(score, mask)


def gaussian_nll(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Negative log likelihood of Gaussian forecasts: ``½ z² + log σ + ½ log 2π``.

    Harder than :func:`gaussian_crps` on a forecast that was sure and wrong. Arguments, returns and errors as there.
    """
    log_spread, z = _log_spread_and_z(prediction, target, mask)
    return _masked_mean(0.5 * z.square() + log_spread + 0.5 * math.log(2 * math.pi), mask)


def student_t(df: float = 4.0) -> Loss:
    """Negative log likelihood of forecasts with heavy tails: Student's t with location μ and scale s.

    ``½ (ν + 1) log(1 + z²/ν) + log s + ½ log νπ + log Γ(½ ν) - log Γ(½ (ν + 1))`` with ``z = (y - μ) / s``, the mean
    over the observed values. A value far off costs only the logarithm of its distance and pulls the less the
    farther off it is. With a large ν this is :func:`gaussian_nll`.

    Args:
        df: ν, degrees of freedom: the fewer, the heavier the tails. The standard deviation is
            ``s √(ν / (ν - 2))`` for ν above 2, and there is none below.

    Returns:
        ``loss(prediction, target, mask)``, the prediction (..., 2 F) holding μ, then log s, of the F features, the
        target (..., F).

    Raises:
        ValueError: for a df that is not above 0; the loss raises the errors of :func:`gaussian_crps`.

    Source: Lange, Little & Taylor (1989), doi:10.1080/01621459.1989.10478852.
    """
    df = number(df, "df", least=0, open_end=True)
    constant = 0.5 * math.log(df * math.pi) + math.lgamma(0.5 * df) - math.lgamma(0.5 * (df + 1))

    def loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        log_scale, z = _log_spread_and_z(prediction, target, mask)
        # log(1 + z²/ν) by way of log |z|: the square would overflow for an outlier such as 1e20 for a lost value
        tail = F.softplus(2 * torch.log(z.abs().clamp(min=1e-15)) - math.log(df))
        return _masked_mean(0.5 * (df + 1) * tail + log_scale + constant, mask)

    return loss


def pinball_loss(levels: Sequence[float]) -> Loss:
    """A loss that teaches quantiles: ``max(q (y - ŷ), (q - 1) (y - ŷ))``, the mean over levels and observed values.

    Args:
        levels: q, each between 0 and 1.

    Returns:
        ``loss(prediction, target, mask)``, the prediction (..., Q) holding one value a level, the target (..., 1).

    Raises:
        ValueError: for levels outside 0 to 1; the loss raises it for other shapes.

    Source: Koenker & Bassett (1978), doi:10.2307/1913643.
    """
    levels = tuple(levels)
    if not levels or not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels: expected numbers between 0 and 1, found {levels}")

    def loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        if prediction.shape[-1] != len(levels) or (*prediction.shape[:-1], 1) != tuple(target.shape):
            raise ValueError(
                f"prediction, target: expected (..., {len(levels)}) and (..., 1), "
                f"found {tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        q = torch.tensor(levels, dtype=prediction.dtype, device=prediction.device)
        error = target - prediction
        return _masked_mean(torch.maximum(q * error, (q - 1) * error).mean(dim=-1, keepdim=True), mask)

    return loss


def event_loss(event_weight: float = 1.0, focusing: float = 0.0) -> Loss:
    """A loss for the probability p of a rare event: binary cross-entropy of its logit z, ``p = 1 / (1 + e^-z)``.

    ``-[w y (1 - p)^γ log p + (1 - y) p^γ log(1 - p)]``, the mean over the observed values. A weight w above 1 and a
    focus γ above 0 make the network look at events and at hard cases more. Both have their price: only w = 1 with
    γ = 0 is smallest, on average, for the true probability. With w it is smallest at ``logit p + log w``, a warning
    too many, with γ at something closer to 1/2; calibrate what such a network says.

    Args:
        event_weight: w, how much an event counts against its absence.
        focusing: γ of the focal loss.

    Returns:
        ``loss(prediction, target, mask)``, all of one shape: logits, 1 for the event and 0 without, and True where
        that was observed.

    Raises:
        ValueError: for a weight that is not above 0 or a focus below 0; the loss raises it for other shapes.

    Source: Lin et al. (2017), doi:10.1109/ICCV.2017.324.
    """
    event_weight = number(event_weight, "event_weight", least=0, open_end=True)
    focusing = number(focusing, "focusing", least=0)

    def loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        if prediction.shape != target.shape:
            raise ValueError(
                "prediction, target: expected one shape, a logit for each event, "
                f"found {tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        _check_mask(mask, target)
        y = torch.where(mask, target, torch.zeros_like(prediction))
        log_p, log_not_p = F.logsigmoid(prediction), F.logsigmoid(-prediction)  # log(1 - p) without rounding
        happened = event_weight * y * torch.exp(focusing * log_not_p) * log_p
        return _masked_mean(-happened - (1 - y) * torch.exp(focusing * log_p) * log_not_p, mask)

    return loss


def _masked_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    if not prediction.shape == target.shape == mask.shape:
        raise ValueError(
            "prediction, target, mask: expected one shape, found "
            f"{tuple(prediction.shape)}, {tuple(target.shape)}, {tuple(mask.shape)}"
        )
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected torch.bool, True where the target was observed, found {mask.dtype}")
    # where, not a product: 0 times NaN would still be NaN
    return torch.where(mask, prediction - target, torch.zeros_like(prediction))


def _log_spread_and_z(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != (*target.shape[:-1], 2 * target.shape[-1]):
        raise ValueError(
            "prediction: expected a mean and the logarithm of a spread for each target, "
            f"{(*target.shape[:-1], 2 * target.shape[-1])}, found {tuple(prediction.shape)}"
        )
    _check_mask(mask, target)
    mean, log_spread = prediction.chunk(2, dim=-1)
    # where comes first: a NaN that reached the exponential would come back in the gradient, mask or not
    error = torch.where(mask, target - mean, torch.zeros_like(mean))
    return log_spread, error * torch.exp(-log_spread)


def _check_mask(mask: Tensor, values: Tensor) -> None:
    if mask.dtype != torch.bool or mask.shape != values.shape:
        raise TypeError(
            f"mask: expected torch.bool of shape {tuple(values.shape)}, found {mask.dtype} {tuple(mask.shape)}"
        )


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    _check_mask(mask, values)
    return torch.where(mask, values, torch.zeros_like(values)).sum() / mask.sum().clamp(min=1)


@dataclass
class History:
    """What happened in a training run.

    Attributes:
        train_loss, validation_loss: one value for each epoch; the second stays empty without a validation part.
        best_epoch: number, from 0, of the epoch with the lowest validation loss; its weights are in the model.
        stopped_early: whether patience ran out before the last epoch.
        seconds: time spent.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = -1
    stopped_early: bool = False
    seconds: float = 0.0


def fit(
    model: nn.Module,
    train: WindowDataset,
    validation: WindowDataset | None,
    *,
    operator: Operators | None = None,
    loss: Loss = masked_mse,
    epochs: int = 50,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    patience: int = 5,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    stretch: int = 1,
    progress: bool = True,
    fabric: Any = None,
) -> History:
    """Train a network with Adam; keep the weights of the epoch that did best on the validation part.

    Args:
        model: called as ``model(x, operator)``; trained in place, on the device where its weights are, or on that of
            the fabric, where it stays.
        train, validation: windows, or anything with ``batches(batch_size, generator)`` that yields
            (x, y, x_mask, y_mask). Without a validation part (None) training runs through all epochs and keeps
            the last weights: for the last fit, on all years, after everything has been chosen.
        operator: the graph, passed on to the model: a tensor, several, or a dict of them, one for each relation.
        loss: ``loss(prediction, y, y_mask)`` -> scalar, a mean over what is observed, 0 where nothing is; where the
            record may hold wild values, :func:`huber` or :func:`student_t`.
        epochs: passes over the training windows, at most; the learning rate falls to 0 along a cosine over them.
        batch_size: windows in a step.
        learning_rate, weight_decay: of AdamW; the rate at the start.
        patience: stop when the validation loss has not improved for so many epochs.
        seed: decides the order of the windows and the dropout, not the model's initial weights.
        checkpoint: file to keep the whole state in after each epoch. It is replaced at once, never half written.
        resume: go on from ``checkpoint`` if it is there; the result is the same, bit for bit, as without a break.
        stretch: S. Above 1 a step takes ``batch_size // S`` stretches of S windows that follow each other, and the
            model's ``forecast_series`` makes their S forecasts in one pass, which shares the inner work. The loss is
            the same mean over all observed values; the windows of a step resemble each other more.
        progress: show a bar with the losses and the time left.
        fabric: a launched ``lightning_fabric.Fabric`` for other devices and precisions, and for several processes that
            all call fit with the same arguments. Each takes its share of every batch, the windows i, i + P, i + 2 P ...
            of the P processes' i-th, and the gradients are added up so that the result is that of one process but
            for rounding; only dropout draws other numbers. Every process reads every batch, and the first one alone
            writes the checkpoint and shows the bar. A run may be resumed by another number of processes.

    Returns:
        The losses and the best epoch, the same in every process.

    Raises:
        TypeError, ValueError: for arguments of another kind, settings out of range, ``resume`` without
            ``checkpoint``, a checkpoint of another run, or a fabric that is not launched or splits the network itself.
        FloatingPointError: if the loss is no longer a number; the model keeps its best weights so far.
    """
    # Plain numbers from here on: a checkpoint cannot hold NumPy's.
    epochs, batch_size = whole_number(epochs, "epochs"), whole_number(batch_size, "batch_size")
    patience, stretch = whole_number(patience, "patience"), whole_number(stretch, "stretch")
    try:
        learning_rate, weight_decay, seed = float(learning_rate), float(weight_decay), int(seed)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "learning_rate, weight_decay, seed: expected numbers, "
            f"found {learning_rate!r}, {weight_decay!r} and {seed!r}"
        ) from error
    if not learning_rate > 0:
        raise ValueError(f"learning_rate: expected a number above 0, found {learning_rate!r}")
    _check_windows(train, "train")
    if validation is not None:
        _check_windows(validation, "validation")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, found {model!r}")
    if not any(True for _ in model.parameters()):
        raise ValueError(f"model: expected a network with weights to train, found none in {type(model).__name__}")
    if stretch > 1 and not _by_stretches(model, train):
        raise ValueError(
            "stretch: expected 1, or a model with forecast_series on a WindowDataset or StreamedWindows with its "
            f"history, found {stretch} for {type(model).__name__} on {type(train).__name__}"
        )
    if resume and checkpoint is None:
        raise ValueError("resume: expected the checkpoint to resume from, found checkpoint=None")
    if checkpoint is not None:
        _check_path(Path(checkpoint))
    engine = _Alone() if fabric is None else _check_fabric(fabric)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    device = _device(model) if fabric is None else fabric.device
    on_graph = _OnGraph(model, _to_device(operator, device))
    network, step = engine.setup(on_graph, optimizer)  # the same weights, under a cover that knows of the others
    shuffle = torch.Generator().manual_seed(seed)
    history = History()
    best = deepcopy(model.state_dict())
    settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    settings |= {"weight_decay": weight_decay, "seed": seed}
    if stretch > 1:  # older checkpoints know nothing of it
        settings["stretch"] = stretch

    judged_by = STRETCH if _by_stretches(model, validation) else 1
    cuda = [device.index or 0] if device.type == "cuda" else []
    silent = not (progress and engine.is_global_zero)
    with torch.random.fork_rng(devices=cuda), tqdm(total=epochs, unit="epoch", disable=silent) as bar:
        # Forked above: the caller's random numbers are left alone. Each process drops other values.
        torch.manual_seed(seed + engine.global_rank)
        if resume and checkpoint is not None:
            history, best = _load(Path(checkpoint), model, optimizer, shuffle, settings, engine) or (history, best)
            bar.update(len(history.train_loss))
        try:
            for epoch in range(len(history.train_loss), epochs):
                history.stopped_early = validation is not None and epoch - 1 - history.best_epoch >= patience
                if history.stopped_early:
                    break
                began = time.perf_counter()
                for group in optimizer.param_groups:  # a cosine from learning_rate down towards 0
                    group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
                train_loss = _one_epoch(network, train, loss, batch_size, step, shuffle, engine, stretch)
                judged = train_loss  # stands in where there is no validation part
                if validation is not None:
                    judged = _mean_loss(network, validation, loss, batch_size, engine, judged_by)
                if not (math.isfinite(train_loss) and math.isfinite(judged)):
                    raise FloatingPointError(
                        f"loss: expected a finite number in epoch {epoch}, found {train_loss} in training and "
                        f"{judged} in validation; lower learning_rate or look for wild values in the data"
                    )
                if validation is None or judged < min(history.validation_loss, default=math.inf):
                    history.best_epoch, best = epoch, deepcopy(model.state_dict())
                history.train_loss.append(train_loss)
                if validation is not None:
                    history.validation_loss.append(judged)
                history.seconds += time.perf_counter() - began
                if checkpoint is not None:
                    _save(Path(checkpoint), model, optimizer, shuffle, history, best, settings, engine)
                note = f"train {train_loss:.4f}" + ("" if validation is None else f", validation {judged:.4f}")
                bar.set_postfix_str(note, refresh=False)
                bar.update()
        finally:  # whatever ended the loop, an interrupt included, the best weights are not lost
            model.load_state_dict(best)
            model.eval()
    return history


def _one_epoch(
    network: nn.Module,
    train: WindowDataset,
    loss: Loss,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    shuffle: torch.Generator,
    engine: Any,
    stretch: int,
) -> float:
    device = _device(network)
    network.train()
    total, observed = 0.0, 0
    for batch in _batches(train, batch_size, shuffle, stretch):
        x, y, y_mask, weight = _share(batch, device, engine)
        optimizer.zero_grad(set_to_none=True)
        value = loss(network(x, stretch > 1), y, y_mask)
        engine.backward(value * weight)
        # one wild window must not throw the weights away
        engine.clip_gradients(network, optimizer, max_norm=5.0, error_if_nonfinite=False)
        optimizer.step()
        count = int(y_mask.sum())
        total, observed = total + value.item() * count, observed + count
    return _overall(total, observed, engine)


STRETCH = 32  # windows in a stretch where a network is only asked, not trained


def _by_stretches(model: nn.Module, windows: Any) -> bool:
    """Whether the model makes the forecasts of windows that follow each other in one pass."""
    same_history = getattr(model, "history", None) == getattr(windows, "history", -1)
    return same_history and hasattr(model, "forecast_series") and isinstance(windows, WindowDataset | StreamedWindows)


def _batches(windows: Any, batch_size: int, generator: torch.Generator | None, stretch: int) -> Iterator[Any]:
    """Batches of windows, which whatever has ``batches`` can give, or of stretches."""
    if stretch == 1:
        return windows.batches(batch_size, generator)
    return windows.batches(batch_size, generator, stretch)


def _share(batch: Any, device: torch.device, engine: Any) -> tuple[Any, Tensor, Tensor, float]:
    """Inputs, targets and mask of this process's windows, and the weight of their loss.

    With n_r of the batch's n observed values in process r of P, its mean loss l_r counts ``P n_r / n``: the mean over
    the processes, which is what they take of their gradients, is then ``Σ n_r l_r / n``, the loss of the whole batch.
    """
    x, y, y_mask, weight = batch.x, batch.y, batch.y_mask, 1.0
    rank, processes = engine.global_rank, engine.world_size
    if processes > 1:
        everywhere = int(y_mask.sum())
        # All have to take part in each step: who gets no window takes the first one, with nothing observed in it.
        rows = slice(rank, None, processes) if rank < len(y) else slice(1)
        x, y, y_mask = x[rows], y[rows], y_mask[rows] & (rank < len(y))
        weight = processes * int(y_mask.sum()) / max(everywhere, 1)
    return x.to(device), y.to(device), y_mask.to(device), weight


def _overall(total: float, observed: int, engine: Any) -> float:
    """The mean of what all processes have seen."""
    if engine.world_size > 1:
        sums = torch.tensor([total, observed], dtype=torch.float64)
        total, observed = engine.all_reduce(sums, reduce_op="sum").tolist()
    return total / max(observed, 1)


class _OnGraph(nn.Module):
    """A model with its graph in hand.

    A Fabric turns inputs of a network into the precision of its choice. The operator is none of them, and keeps its
    own: the CPU has no sparse product in 16 bits.
    """

    def __init__(self, model: nn.Module, operator: Operators | None) -> None:
        super().__init__()
        self.model, self.operator = model, operator

    def forward(self, x: Any, stretches: bool = False) -> Tensor:
        forecast: Any = self.model.forecast_series if stretches else self.model
        return forecast(x, self.operator)


class _Alone:
    """What the training asks of a Fabric, for one process without it."""

    global_rank, world_size, is_global_zero = 0, 1, True

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        return model, optimizer

    def backward(self, value: Tensor) -> None:
        value.backward()

    def clip_gradients(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), **options)

    def all_gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def broadcast(self, value: Any) -> Any:
        return value


def _check_fabric(fabric: Any) -> Any:
    # By name: the same classes come from two packages, lightning and lightning_fabric.
    strategy = type(getattr(fabric, "strategy", None)).__name__
    if strategy == "NoneType" or isinstance(fabric, type):
        raise TypeError(f"fabric: expected a lightning_fabric.Fabric or None, found {type(fabric).__name__}")
    if strategy not in ("SingleDeviceStrategy", "DDPStrategy"):
        raise ValueError(
            f"fabric: expected strategy='ddp' or a single device, the whole network in each process, found {strategy}"
        )
    if strategy == "DDPStrategy" and not torch.distributed.is_initialized():
        raise ValueError("fabric: expected a launched Fabric, found one without its processes; call fabric.launch()")
    started = os.environ.get("WORLD_SIZE", "1")  # as torchrun and its like tell each process
    if fabric.world_size == 1 and started != "1":
        raise ValueError(
            f"fabric: expected one of the {started} processes that were started, found one that knows of no other; "
            "give Fabric(devices=...) the number of processes on a machine"
        )
    return fabric


@torch.no_grad()
def evaluate(
    model: nn.Module,
    windows: WindowDataset,
    *,
    operator: Operators | None = None,
    loss: Loss = masked_mse,
    batch_size: int = 256,
) -> float:
    """Mean loss of a model over all windows, without training it.

    Args:
        model, operator, loss, batch_size: as in :func:`fit`.
        windows: the windows to judge it on.

    Returns:
        The loss, each observed value weighted alike.
    """
    _check_windows(windows, "windows")
    network = _OnGraph(model, _to_device(operator, _device(model)))
    stretch = STRETCH if _by_stretches(model, windows) else 1
    return _mean_loss(network, windows, loss, batch_size, _Alone(), stretch)


@torch.no_grad()
def _mean_loss(
    network: nn.Module, windows: WindowDataset, loss: Loss, batch_size: int, engine: Any, stretch: int
) -> float:
    device = _device(network)
    network.eval()
    total, observed = 0.0, 0
    for batch in _batches(windows, batch_size, None, stretch):
        x, y, y_mask, _ = _share(batch, device, engine)
        value = loss(network(x, stretch > 1), y, y_mask).item()
        count = int(y_mask.sum())
        total, observed = total + value * count, observed + count
    return _overall(total, observed, engine)


@torch.no_grad()
def predict(
    model: nn.Module, windows: WindowDataset, *, operator: Operators | None = None, batch_size: int = 256
) -> Tensor:
    """The model's output for all windows, in order of time.

    Args:
        model, operator, batch_size: as in :func:`fit`.
        windows: the windows to predict.

    Returns:
        (windows, horizon, N, F_out) on the CPU, standardised as the windows are.
    """
    _check_windows(windows, "windows")
    device = _device(model)
    operator = _to_device(operator, device)
    model.eval()
    if not _by_stretches(model, windows):
        return torch.cat([model(batch.x.to(device), operator).cpu() for batch in windows.batches(batch_size)])
    forecast: Any = model.forecast_series
    said = []
    for batch in windows.batches(batch_size, stretch=STRETCH):
        counts = batch.y_mask.flatten(2).any(dim=2)  # (B, S): a window has a target that was observed
        said.append(forecast(batch.x.to(device), operator).cpu()[counts])
    return torch.cat(said)


def _check_windows(windows: WindowDataset, name: str) -> None:
    if not hasattr(windows, "batches"):
        raise TypeError(f"{name}: expected a WindowDataset or the like, found {type(windows).__name__}")


def _device(model: nn.Module) -> torch.device:
    """Where the weights are; the CPU for a model without any, such as one of :mod:`stgcn_lab.deploy`."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def _to_device(operator: Operators | None, device: torch.device) -> Operators | None:
    if operator is None:
        return None
    if isinstance(operator, Tensor):
        return operator.to(device)
    if isinstance(operator, Mapping) and all(torch.is_tensor(part) for part in operator.values()):
        return {relation: part.to(device) for relation, part in operator.items()}
    if not isinstance(operator, (tuple, list)) or not all(torch.is_tensor(part) for part in operator):
        raise TypeError(
            "operator: expected a torch tensor (node, node) or several of them, such as gcn_operator(graph), "
            f"found {type(operator).__name__}"
        )
    return tuple(part.to(device) for part in operator)


# ---------------------------------------------------------------------------- checkpoints

_KEPT = ("settings", "model", "best", "optimizer", "shuffle", "random", "random_cuda", "history")


def save_atomically(state: Any, path: str | Path) -> None:
    """Write a state with ``torch.save`` so that the file is either the old one or the new one, never half.

    Args:
        state: what ``torch.load(weights_only=True)`` can read: tensors, numbers, strings, lists, dictionaries.
        path: the file; its folder must exist.

    Raises:
        FileNotFoundError: if the folder is not there.
    """
    path = Path(path)
    _check_path(path)
    with _replacing(path) as name, open(name, "wb") as file:
        torch.save(state, file)


@contextmanager
def _replacing(path: Path) -> Iterator[str]:
    """The name of a new file that takes the place of ``path`` if all goes well, and is taken away if not."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        name = os.path.join(folder, path.name)
        yield name
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(name, path)


def _check_path(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"checkpoint: expected an existing folder, found none at {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"checkpoint: expected the name of a file, found the folder {path}")


def _save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    shuffle: torch.Generator,
    history: History,
    best: dict[str, Tensor],
    settings: dict[str, Any],
    engine: Any,
) -> None:
    def of_all(state: Tensor) -> Tensor:  # (processes, bytes)
        return engine.all_gather(state).cpu().reshape(-1, len(state))

    device = _device(model)
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "best": best,
        "optimizer": optimizer.state_dict(),
        "shuffle": shuffle.get_state(),
        "random": of_all(torch.get_rng_state()),  # dropout draws from it
        "random_cuda": of_all(torch.cuda.get_rng_state(device)) if device.type == "cuda" else [],
        "history": asdict(history),
    }
    if engine.is_global_zero:
        save_atomically(state, path)


def _load(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    shuffle: torch.Generator,
    settings: dict[str, Any],
    engine: Any,
) -> tuple[History, dict[str, Tensor]] | None:
    """Set everything to where the checkpoint was; None if there is none. The first process reads for all."""
    state = engine.broadcast(_read(path) if engine.is_global_zero else None)
    if state is None:
        return None
    found, best, history = state["settings"], state["best"], History(**state["history"])
    if found != settings:
        raise ValueError(f"checkpoint: expected a run with {settings}, found one with {found}; delete it to start anew")
    # Compare before loading: PyTorch would copy the weights that fit before it complains about the others.
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    held = {name: tuple(tensor.shape) for name, tensor in state["model"].items()}
    if wanted != held:
        different = sorted(name for name in wanted | held if wanted.get(name) != held.get(name))
        raise ValueError(
            f"checkpoint: {path} holds the weights of another network: expected "
            f"{different[0]} {wanted.get(different[0])}, found {held.get(different[0])}"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    shuffle.set_state(state["shuffle"])
    rank, device = engine.global_rank, _device(model)
    if rank < len(state["random"]):  # else a process more than before, with the seed of a new one
        torch.set_rng_state(state["random"][rank].clone())  # PyTorch wants memory of its own
    if device.type == "cuda" and rank < len(state["random_cuda"]):
        torch.cuda.set_rng_state(state["random_cuda"][rank].clone(), device)
    return history, best


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        History(**state["history"])
        return {key: state[key] for key in _KEPT}
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise ValueError(f"checkpoint: expected a file written by fit, found something unreadable at {path}") from error
