"""The training loop: it learns a planted law, repeats bit for bit, survives every kind of end, and keeps the best."""

import functools
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hiding import Hiding
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm, t
from torch import nn

from stgcn_lab import training
from stgcn_lab.graphs import directional_operators, gcn_operator, grid_graph
from stgcn_lab.models import STGCN
from stgcn_lab.training import (
    History,
    evaluate,
    event_loss,
    fit,
    gaussian_crps,
    gaussian_nll,
    huber,
    masked_mse,
    pinball_loss,
    predict,
    save_atomically,
    student_t,
)
from stgcn_lab.verification import crps_gaussian
from stgcn_lab.windows import Batch, WindowDataset

RING = grid_graph([50.0], np.arange(0, 360, 36), neighbours=4)  # ten stations round a circle of latitude
OPERATORS = directional_operators(RING, 4)


def advection(steps: int, seed: int) -> WindowDataset:
    """Air that moves one station east a step: x(t, i) = 0.9 x(t - 1, i - 1) + noise, variance 1."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(10)]
    for _ in range(steps - 1):
        x.append(0.9 * np.roll(x[-1], 1) + np.sqrt(1 - 0.9**2) * rng.standard_normal(10))
    series = xr.DataArray(np.array(x), dims=("time", "station"), coords={"time": pd.date_range("2000", periods=steps)})
    return WindowDataset(series.to_dataset(name="air"), "air", "air", history=3, horizon=1)


TRAIN, VALIDATION = advection(150, 1), advection(80, 2)


def network(dropout: float = 0.2, width: int = 4) -> STGCN:
    torch.manual_seed(7)
    options = {"channels": (width, width, width), "blocks": 1, "kernel_size": 2, "dropout": dropout}
    return STGCN(1, 1, history=3, horizon=1, spatial="directional", order=4, **options)


def run(model: nn.Module, **options) -> History:
    options = {"operator": OPERATORS, "epochs": 5, "learning_rate": 1e-2, "progress": False} | options
    return fit(model, options.pop("train", TRAIN), options.pop("validation", VALIDATION), **options)


def weights(model: nn.Module) -> dict:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(history: History) -> tuple:
    return history.train_loss, history.validation_loss, history.best_epoch, history.stopped_early


class Ending:
    """A loss that ends the run in the middle of an epoch: at the n-th training step."""

    def __init__(self, step: int, error: type[BaseException] = RuntimeError):
        self.left, self.error = step, error

    def __call__(self, prediction, target, mask):
        if prediction.requires_grad:
            self.left -= 1
            if self.left == 0:
                self.end()
        return masked_mse(prediction, target, mask)

    def end(self):
        raise self.error("power cut")


class Killing(Ending):
    """The same without a chance to tidy up."""

    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Scripted:
    """A loss that returns given values in validation, and remembers the model's weights at each."""

    def __init__(self, model: nn.Module, values: list[float]):
        self.model, self.values, self.seen = model, iter(values), []

    def __call__(self, prediction, target, mask):
        if prediction.requires_grad:
            return masked_mse(prediction, target, mask)
        self.seen.append(weights(self.model))
        return torch.tensor(next(self.values), dtype=torch.float64)


STEPS = -(-len(TRAIN) // 32)  # training steps in an epoch
ONE_BATCH = advection(20, 3)


# ---------------------------------------------------------------------------- the loss


def test_masked_mse_by_hand():
    prediction, target = torch.tensor([1.0, 2, 3, 4]), torch.tensor([0.0, 2, 1, 99])
    assert masked_mse(prediction, target, torch.tensor([True, True, True, False])).item() == pytest.approx(5 / 3)


@pytest.mark.parametrize("hidden", [1e9, float("inf"), float("nan")])
def test_masked_values_influence_neither_loss_nor_gradient(hidden):
    prediction = torch.randn(2, 3, 4, requires_grad=True)
    target, mask = torch.randn(2, 3, 4), torch.rand(2, 3, 4) > 0.4
    results = []
    for value in (0.0, hidden):
        loss = masked_mse(prediction, torch.where(mask, target, torch.tensor(value)), mask)
        results.append((loss, torch.autograd.grad(loss, prediction)[0]))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert (results[1][1][~mask] == 0).all() and (results[1][1][mask] != 0).all()


def test_masked_mse_of_nothing_is_zero():
    prediction = torch.ones(3, requires_grad=True)
    loss = masked_mse(prediction, torch.zeros(3), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and (prediction.grad == 0).all()


@pytest.mark.parametrize("shapes", [((4, 1), (4,), (4,)), ((4,), (4, 1), (4,)), ((4,), (4,), (1,))])
def test_masked_mse_does_not_broadcast(shapes):
    prediction, target, mask = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError) as error:
        masked_mse(prediction, target, mask.bool())
    assert "prediction, target, mask" in str(error.value) and str(shapes[0]) in str(error.value)


# ---------------------------------------------------------------------------- learning


def test_training_learns_advection_and_beats_persistence():
    """The best forecast has an error of 0.19, persistence about 2, the mean 1."""
    model = network(dropout=0.0, width=8)
    history = run(model, train=advection(600, 1), epochs=10)
    test = advection(300, 3)
    batch = test.batch(range(len(test)))
    persistence = (batch.x[:, -1:] - batch.y).square().mean().item()
    error = evaluate(model, test, operator=OPERATORS)
    assert error < 0.5 < 1.5 < persistence
    assert history.train_loss[-1] < 0.6 * history.train_loss[0]
    assert len(history.train_loss) == len(history.validation_loss) == 10
    assert history.seconds > 0


def test_training_takes_sparse_operators():
    results = []
    for sparse in (True, False):
        model = network(0.0)
        history = run(model, operator=directional_operators(RING, 4, sparse=sparse), epochs=2)
        results.append(history.validation_loss)
    np.testing.assert_allclose(*results, rtol=1e-3)


def test_training_repeats_bit_for_bit_with_its_seed_and_only_then():
    results = []
    for noise, seed in ((0, 3), (1, 3), (1, 4)):
        model = network()
        torch.manual_seed(noise)  # the caller's random state is of no consequence
        results.append((losses(run(model, seed=seed)), weights(model)))
    (first, first_weights), (second, second_weights), (third, _) = results
    assert first == second and same(first_weights, second_weights)
    assert first != third


def test_dropout_is_on_in_training_and_off_in_validation():
    model, modes = network(), []

    def loss(prediction, target, mask):
        modes.append((prediction.requires_grad, model.training))
        return masked_mse(prediction, target, mask)

    run(model, loss=loss, epochs=2)
    assert set(modes) == {(True, True), (False, False)}
    assert not model.training


def test_learning_rate_falls_along_a_cosine(monkeypatch):
    made, rates = [], []
    adamw = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *a, **k: made.append(adamw(*a, **k)) or made[0])

    def loss(*arguments):
        if not arguments[0].requires_grad:
            rates.append(made[0].param_groups[0]["lr"])
        return masked_mse(*arguments)

    run(network(), validation=ONE_BATCH, loss=loss, epochs=4, learning_rate=0.1)
    assert rates == pytest.approx([0.1 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)])


@pytest.mark.parametrize("ending", [None, RuntimeError])
def test_training_leaves_the_callers_random_numbers_alone(ending):
    model = network()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    if ending is None:
        run(model, epochs=1)
    else:
        with pytest.raises(RuntimeError):
            run(model, loss=Ending(2, ending))
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_masked_targets_do_not_reach_the_weights():
    """Two data sets that differ only where the mask hides them give the same network."""
    results = []
    for hidden in (0.0, 1e6):
        windows = advection(150, 1)
        windows._record["air"][::3, 2] = torch.nan
        model = network()
        run(model, train=Hiding(windows, hidden), epochs=2)
        results.append(weights(model))
    assert same(*results)


# ---------------------------------------------------------------------------- stretches


def stretchable(**options) -> STGCN:
    torch.manual_seed(3)
    return STGCN(1, 1, history=3, horizon=1, channels=(4, 4, 4), blocks=1, kernel_size=2, norm=True, **options)


@pytest.mark.parametrize("stretch", [2, 5, 16, 1000])
def test_a_step_by_stretches_has_the_loss_and_the_gradient_of_its_windows(stretch):
    ds, _ = holed(3, 60)
    windows = WindowDataset(ds, "air", "air", history=3, horizon=1)
    model, operator = stretchable(), gcn_operator(RING)
    (batch,) = windows.batches(10_000, stretch=stretch)
    loss = masked_mse(model.forecast_series(batch.x, operator), batch.y, batch.y_mask)
    one_by_one = windows.batch(range(len(windows)))
    expected = masked_mse(model(one_by_one.x, operator), one_by_one.y, one_by_one.y_mask)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert batch.y_mask.sum() == one_by_one.y_mask.sum()
    weights_of = list(model.parameters())
    pairs = zip(torch.autograd.grad(loss, weights_of), torch.autograd.grad(expected, weights_of), strict=True)
    for mine, wanted in pairs:
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("gaps", [False, True])
def test_evaluate_and_predict_by_stretches_equal_window_by_window(gaps):
    windows = WindowDataset(holed(5)[0], "air", "air", history=3, horizon=1) if gaps else advection(150, 5)
    model, operator = stretchable().eval(), gcn_operator(RING)
    windows.starts = windows.starts[(windows.starts < 40) | (windows.starts > 70)]  # as over a gap in time
    by_windows = Hiding(windows, 0.0)  # which knows of no stretches
    assert training._by_stretches(model, windows) and not training._by_stretches(model, by_windows)
    found, wanted = (predict(model, part, operator=operator, batch_size=64) for part in (windows, by_windows))
    assert found.shape == (len(windows), 1, 10, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    found, wanted = (evaluate(model, part, operator=operator) for part in (windows, by_windows))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_a_record_of_a_single_window_is_a_stretch_of_one():
    windows, model, operator = advection(4, 5), stretchable().eval(), gcn_operator(RING)
    assert len(windows) == 1 and training._by_stretches(model, windows)
    by_windows = Hiding(windows, 0.0)
    assert evaluate(model, windows, operator=operator) == pytest.approx(evaluate(model, by_windows, operator=operator))
    found, wanted = (predict(model, part, operator=operator) for part in (windows, by_windows))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert len(run(stretchable(), operator=operator, train=windows, epochs=1, stretch=8).train_loss) == 1


def test_training_by_stretches_learns_as_well():
    """The planted law: both ways come to the same validation loss, near the noise that nobody can foresee."""
    reached = {}
    for stretch in (1, 8):
        model = network(dropout=0.0)
        history = run(model, train=advection(600, 1), epochs=15, stretch=stretch)
        reached[stretch] = min(history.validation_loss)
    assert reached[8] == pytest.approx(reached[1], rel=0.1) and reached[8] < 0.5, "1 is the loss of climatology"


def test_stretches_repeat_bit_for_bit_and_resume(tmp_path):
    whole = network()
    expected = run(whole, epochs=4, stretch=8)
    broken = network()
    with pytest.raises(RuntimeError):
        run(broken, epochs=4, stretch=8, checkpoint=tmp_path / "c.pt", loss=Ending(12))
    resumed = network()
    found = run(resumed, epochs=4, stretch=8, checkpoint=tmp_path / "c.pt", resume=True)
    assert losses(found) == losses(expected) and same(weights(resumed), weights(whole))
    with pytest.raises(ValueError, match="checkpoint: expected a run with"):
        run(network(), epochs=4, checkpoint=tmp_path / "c.pt", resume=True)


@pytest.mark.parametrize(
    ("model", "windows", "stretch"),
    [
        (nn.Linear(1, 1), TRAIN, 2),
        (stretchable(), Hiding(TRAIN, 0.0), 2),
        (STGCN(1, 1, history=4, horizon=1, channels=(4, 4, 4), blocks=1, kernel_size=2), TRAIN, 2),
        (stretchable(), TRAIN, 0),
        (stretchable(), TRAIN, 1.5),
    ],
)
def test_stretches_that_cannot_be_are_refused(model, windows, stretch):
    with pytest.raises((ValueError, TypeError), match="stretch: expected"):
        run(model, train=windows, stretch=stretch)


# ---------------------------------------------------------------------------- stopping and the best weights


@pytest.mark.parametrize(
    ("values", "patience", "epochs_done", "best", "stopped"),
    [
        ([5.0, 4, 3, 3.5, 3.2, 3.1, 2, 1], 3, 6, 2, True),
        ([5.0, 4, 3, 3.5, 3.2, 3.1, 2, 1], 4, 8, 7, False),
        ([1.0, 1, 1, 1, 1, 1, 1, 1], 2, 3, 0, True),  # the same again is no improvement
        ([8.0, 7, 6, 5, 4, 3, 2, 1], 1, 8, 7, False),
        ([1.0, 2, 3, 4, 5, 6, 7, 8], 1, 2, 0, True),
    ],
)
def test_early_stop_keeps_the_best_weights(values, patience, epochs_done, best, stopped):
    model = network()
    script = Scripted(model, values)
    history = run(model, validation=ONE_BATCH, loss=script, epochs=8, patience=patience)
    assert history.validation_loss == values[:epochs_done]
    assert (history.best_epoch, history.stopped_early) == (best, stopped)
    assert same(weights(model), script.seen[best])
    assert not same(weights(model), script.seen[(best + 1) % epochs_done])
    assert not model.training


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_best_weights(where, poison, tmp_path):
    model = network()
    script = Scripted(model, [3.0, 2.0, 2.5, poison if where == "validation" else 1.0])
    calls = []

    def loss(prediction, target, mask):
        calls.append(prediction.requires_grad)
        value = script(prediction, target, mask)
        return value * poison if where == "training" and sum(calls) == 3 * STEPS + 2 else value

    with pytest.raises(FloatingPointError) as error:
        run(model, validation=ONE_BATCH, loss=loss, epochs=8, checkpoint=tmp_path / "run.pt")
    assert all(part in str(error.value) for part in ["loss", "epoch 3", "learning_rate"])
    assert same(weights(model), script.seen[1])
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert state["history"]["validation_loss"] == [3.0, 2.0, 2.5], "the checkpoint holds the last good epoch"
    assert all(torch.isfinite(value).all() for value in state["model"].values())


@pytest.mark.parametrize("ending", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_the_best_weights(ending):
    model = network()
    script, left = Scripted(model, [3.0, 1.0, 2.0]), Ending(3 * STEPS + 2, ending)

    def loss(*arguments):
        left(*arguments)
        return script(*arguments)

    with pytest.raises(ending):
        run(model, validation=ONE_BATCH, loss=loss)
    assert same(weights(model), script.seen[1]) and not model.training


# ---------------------------------------------------------------------------- checkpoint and resume


@functools.cache
def uninterrupted() -> tuple:
    model = network()
    history = run(model)
    return losses(history), weights(model)


@pytest.mark.parametrize("steps", [STEPS, STEPS + 1, 3 * STEPS - 1, 4 * STEPS + 2])
def test_resume_after_an_exception_equals_an_uninterrupted_run(steps, tmp_path):
    """Dropout, shuffling, the optimiser's moments, the best weights: all must be where they were."""
    path = tmp_path / "run.pt"
    with pytest.raises(RuntimeError, match="power cut"):
        run(network(), loss=Ending(steps), checkpoint=path)
    assert path.exists() == (steps > STEPS)
    model = network()
    if path.exists():  # whatever was in the new model is replaced
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
    torch.manual_seed(999)
    history = run(model, checkpoint=str(path), resume=True)
    assert losses(history) == uninterrupted()[0]
    assert same(weights(model), uninterrupted()[1])
    assert os.listdir(tmp_path) == ["run.pt"]


def test_resume_after_several_breaks(tmp_path):
    path = tmp_path / "run.pt"
    for _ in range(4):  # each life is long enough for one epoch and a bit
        with pytest.raises(RuntimeError, match="power cut"):
            run(network(), loss=Ending(STEPS + 2), checkpoint=path, resume=True)
    model = network()
    assert losses(run(model, checkpoint=path, resume=True)) == uninterrupted()[0]
    assert same(weights(model), uninterrupted()[1])


def train_until_killed(path: str) -> None:
    """Called in a process of its own."""
    run(network(), loss=Killing(2 * STEPS + 2), checkpoint=path)


def test_resume_after_a_kill_equals_an_uninterrupted_run(tmp_path):
    path = tmp_path / "run.pt"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import torch; "
        f"torch.set_num_threads({torch.get_num_threads()}); "
        f"import test_training; test_training.train_until_killed({str(path)!r})"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert os.listdir(tmp_path) == ["run.pt"]
    assert len(torch.load(path, weights_only=True)["history"]["train_loss"]) == 2
    model = network()
    history = run(model, checkpoint=path, resume=True)
    assert losses(history) == uninterrupted()[0]
    assert same(weights(model), uninterrupted()[1])


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    path, model = tmp_path / "run.pt", network()
    history = run(model, checkpoint=path)
    again = network()
    assert losses(run(again, checkpoint=path, resume=True)) == losses(history)
    assert same(weights(again), weights(model))


def test_resume_of_an_early_stopped_run_stays_stopped(tmp_path):
    path, model = tmp_path / "run.pt", network()
    first = run(model, validation=ONE_BATCH, loss=Scripted(model, [1.0, 2, 3, 4]), patience=2, checkpoint=path)
    assert first.stopped_early
    again = network()
    history = run(again, validation=ONE_BATCH, loss=Scripted(again, []), patience=2, checkpoint=path, resume=True)
    assert losses(history) == losses(first) and same(weights(again), weights(model))


def test_without_resume_a_checkpoint_is_overwritten(tmp_path):
    path = tmp_path / "run.pt"
    path.write_text("something old")
    run(network(), checkpoint=path, epochs=1)
    assert len(torch.load(path, weights_only=True)["history"]["train_loss"]) == 1


def test_checkpoint_holds_plain_data_only(tmp_path):
    run(network(), checkpoint=tmp_path / "run.pt", epochs=1)
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert {"settings", "model", "best", "optimizer", "shuffle", "random", "history"} <= state.keys()


@pytest.mark.parametrize(
    "setting", [{"learning_rate": np.logspace(-3, -2, 2)[0]}, {"seed": np.int64(1)}, {"batch_size": np.int64(32)}]
)
def test_resume_with_settings_from_numpy(setting, tmp_path):
    """A learning rate from np.logspace is no Python float; the checkpoint must be readable all the same."""
    options = {"checkpoint": tmp_path / "run.pt", "epochs": 2, **setting}
    first = run(network(), **options)
    assert losses(run(network(), resume=True, **options)) == losses(first)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how.endswith("%"):
        path.write_bytes(content[: len(content) * int(how[:-1]) // 100])
    elif how == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif how == "another pickle":
        path.write_bytes(pickle.dumps({"settings": {}}))
    elif how == "other data":
        torch.save({"weights": torch.ones(3)}, path)
    elif how == "a tensor":
        torch.save(torch.ones(3), path)
    elif how == "parts missing":
        torch.save({"settings": torch.load(path, weights_only=True)["settings"]}, path)
    elif how == "code":
        torch.save({"settings": run}, path)


@pytest.mark.parametrize(
    "how",
    ["0%", "1%", "50%", "90%", "99%", "noise", "another pickle", "other data", "a tensor", "parts missing", "code"],
)
def test_a_damaged_checkpoint_is_named_and_nothing_is_lost(how, tmp_path):
    path = tmp_path / "run.pt"
    run(network(), checkpoint=path, epochs=2)
    damage(path, how)
    content, model = path.read_bytes(), network()
    before = weights(model)
    with pytest.raises(ValueError) as error:
        run(model, checkpoint=path, epochs=2, resume=True)
    assert "checkpoint" in str(error.value) and str(path) in str(error.value)
    assert path.read_bytes() == content and os.listdir(tmp_path) == ["run.pt"]
    assert same(weights(model), before)


@pytest.mark.parametrize(
    "change", [{"seed": 9}, {"learning_rate": 0.5}, {"batch_size": 8}, {"weight_decay": 0.1}, {"epochs": 7}]
)
def test_a_checkpoint_of_other_settings_is_refused(change, tmp_path):
    path, model = tmp_path / "run.pt", network()
    run(network(), checkpoint=path, epochs=1)
    before = weights(model)
    with pytest.raises(ValueError) as error:
        run(model, checkpoint=path, resume=True, **({"epochs": 1} | change))
    assert all(part in str(error.value) for part in ["checkpoint", *map(str, *change.items())])
    assert same(weights(model), before)


@pytest.mark.parametrize("other", [lambda: network(width=5), lambda: nn.Sequential(network())])
def test_a_checkpoint_of_another_network_is_refused(other, tmp_path):
    path, model = tmp_path / "run.pt", other()
    run(network(), checkpoint=path, epochs=1)
    before = weights(model)
    with pytest.raises(ValueError, match="checkpoint.*another network"):
        run(model, checkpoint=path, epochs=1, resume=True)
    assert same(weights(model), before), "half of the wrong weights were loaded"


class Counting:
    """Windows that count how often they are asked for."""

    def __init__(self, windows):
        self.windows, self.asked = windows, 0

    def batches(self, *arguments):
        self.asked += 1
        return self.windows.batches(*arguments)


def test_a_missing_folder_is_noticed_before_the_first_epoch(tmp_path):
    """Not after an epoch of an hour."""
    train = Counting(TRAIN)
    with pytest.raises(FileNotFoundError) as error:
        run(network(), train=train, checkpoint=tmp_path / "nowhere" / "run.pt")
    assert "checkpoint" in str(error.value) and "nowhere" in str(error.value)
    assert train.asked == 0


def test_a_folder_is_no_checkpoint(tmp_path):
    train = Counting(TRAIN)
    with pytest.raises((ValueError, OSError), match="checkpoint"):
        run(network(), train=train, checkpoint=tmp_path)
    assert train.asked == 0
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*")) and os.listdir(tmp_path) == []


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save_atomically({"a": torch.ones(3)}, path)

    def disk_full(state, file):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_atomically({"a": torch.zeros(3)}, path)
    assert os.listdir(tmp_path) == ["state.pt"]
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))


# ---------------------------------------------------------------------------- evaluate and predict


class GivenWindows:
    """Windows of the values given; the model below predicts x itself."""

    def __init__(self, x, y, mask):
        self.parts = [torch.as_tensor(part)[:, None, :, None] for part in (x, y, torch.ones_like(mask), mask)]

    def batches(self, batch_size, generator=None):
        for i in range(0, len(self.parts[0]), batch_size):
            yield Batch(*(part[i : i + batch_size] for part in self.parts))


class Echo(nn.Linear):
    """y = x, with a weight of 1 so that there is something to train."""

    def __init__(self):
        super().__init__(1, 1)
        nn.init.ones_(self.weight), nn.init.zeros_(self.bias)

    def forward(self, x, operator=None):
        return super().forward(x)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 256])
def test_evaluate_does_not_overweigh_the_last_small_batch(batch_size):
    y = torch.tensor([[1.0], [1], [1], [1], [10]])
    windows = GivenWindows(torch.zeros(5, 1), y, torch.ones(5, 1, dtype=torch.bool))
    assert evaluate(Echo(), windows, batch_size=batch_size) == pytest.approx((4 + 100) / 5)


def test_evaluate_does_not_depend_on_the_batch_size_where_values_are_missing():
    y = torch.tensor([[10.0, 0, 0], [0, 0, 0], [0, 0, 0]])
    mask = torch.tensor([[True, False, False], [True, True, True], [True, True, True]])
    windows = GivenWindows(torch.zeros(3, 3), y, mask)
    found = [evaluate(Echo(), windows, batch_size=size) for size in (1, 2, 3)]
    assert found == pytest.approx([found[0]] * 3)


def test_predict_gives_all_windows_in_order_of_time():
    model = network()
    found = predict(model, TRAIN, operator=OPERATORS, batch_size=11)
    batch = TRAIN.batch(range(len(TRAIN)))
    assert found.shape == (len(TRAIN), 1, 10, 1) and not found.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(found, model.eval()(batch.x, OPERATORS), atol=1e-6, rtol=1e-5)
    error = (found - batch.y).square().mean().item()
    assert evaluate(model, TRAIN, operator=OPERATORS) == pytest.approx(error, rel=1e-5)


# ---------------------------------------------------------------------------- what the reader sees


def test_progress_is_silent_when_asked_to_be(capfd):
    run(network(), epochs=2, progress=False)
    assert capfd.readouterr() == ("", "")


def test_progress_shows_losses_and_time_left(capfd):
    run(network(), epochs=2, progress=True)
    out, shown = capfd.readouterr()
    assert out == "" and all(part in shown for part in ["2/2", "<", "train", "validation"])


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"epochs": 0}, ["epochs", "at least 1", "0"]),
        ({"epochs": 2.0}, ["epochs", "whole number", "2.0"]),
        ({"batch_size": -1}, ["batch_size", "at least 1", "-1"]),
        ({"patience": 0}, ["patience", "at least 1", "0"]),
        ({"patience": True}, ["patience", "True"]),
        ({"learning_rate": 0}, ["learning_rate", "above 0", "0"]),
        ({"learning_rate": float("nan")}, ["learning_rate", "nan"]),
        ({"learning_rate": "fast"}, ["learning_rate", "fast"]),
        ({"weight_decay": -1.0}, ["weight_decay", "-1"]),
        ({"resume": True}, ["resume", "checkpoint", "None"]),
        ({"operator": None}, ["operators", "4 matrices"]),
        ({"operator": gcn_operator(RING)}, ["operators", "4 matrices"]),
        ({"train": [1, 2]}, ["train", "list"]),
        ({"operator": RING}, ["operator", "tensor", "Data"]),
        ({"operator": gcn_operator(RING).numpy()}, ["operator", "tensor", "ndarray"]),
    ],
)
def test_fit_refuses_bad_settings(options, parts):
    with pytest.raises((TypeError, ValueError)) as error:
        run(network(), **options)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_fit_refuses_a_model_without_weights():
    with pytest.raises((TypeError, ValueError), match="model"):
        run(nn.Identity())


def test_fit_refuses_a_prediction_of_another_shape():
    with pytest.raises(ValueError, match="expected one shape"):
        run(Echo(), operator=None)  # three time steps out where one is asked for


@pytest.mark.parametrize("model", ["network", STGCN])
def test_fit_refuses_what_is_no_network(model):
    with pytest.raises(TypeError, match="model: expected a torch.nn.Module"):
        run(model)


@pytest.mark.parametrize("function", [evaluate, predict])
def test_judging_takes_windows_only(function):
    with pytest.raises(TypeError, match="windows: expected a WindowDataset.*list"):
        function(network(), [1, 2], operator=OPERATORS)


def test_masked_mse_takes_a_boolean_mask():
    with pytest.raises(TypeError, match="mask: expected torch.bool.*float32"):
        masked_mse(torch.ones(3), torch.zeros(3), torch.ones(3))


# ---------------------------------------------------------------------------- losses of probability forecasts

numbers = st.floats(-5, 5)


def one(mean, log_spread, y, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.tensor([[mean, log_spread]], dtype=dtype), torch.tensor([[y]], dtype=dtype), torch.tensor([[True]])


@given(mean=numbers, log_spread=st.floats(-2, 2), y=numbers)
def test_crps_is_the_integral_of_its_definition(mean, log_spread, y):
    """The integral of (F(x) - 1{x >= y})^2 over all x."""
    law = norm(mean, np.exp(log_spread))
    far = 12 * np.exp(log_spread) + 11
    below, _ = quad(lambda x: law.cdf(x) ** 2, mean - far, y, points=[mean] if mean < y else None, limit=200)
    above, _ = quad(lambda x: law.sf(x) ** 2, y, mean + far, points=[mean] if mean > y else None, limit=200)
    assert gaussian_crps(*one(mean, log_spread, y)).item() == pytest.approx(below + above, rel=1e-6, abs=1e-9)


@given(mean=numbers, log_spread=st.floats(-3, 3), y=numbers)
def test_nll_is_the_density_of_scipy(mean, log_spread, y):
    expected = -norm(mean, np.exp(log_spread)).logpdf(y)
    assert gaussian_nll(*one(mean, log_spread, y)).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def probability_forecasts(seed=0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    prediction = torch.randn(6, 2, 5, 2, generator=draw, dtype=dtype)
    target = torch.randn(6, 2, 5, 1, generator=draw, dtype=dtype)
    return prediction, target, torch.rand(6, 2, 5, 1, generator=draw) > 0.3


def test_crps_equals_the_score_of_verification():
    prediction, target, mask = (part[:, 0].numpy() for part in probability_forecasts())
    coords = {"time": pd.date_range("2000", periods=6), "station": list("abcde")}

    def series(values) -> xr.DataArray:
        return xr.DataArray(values, dims=("time", "station"), coords=coords)

    observed = series(np.where(mask, target, np.nan)[..., 0])
    spread = series(np.exp(prediction[..., 1]))
    expected = crps_gaussian(series(prediction[..., 0]), spread, observed, dim=("time", "station"))
    found = gaussian_crps(*(part[:, 0] for part in probability_forecasts())).item()
    assert found == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("loss", [gaussian_crps, gaussian_nll])
def test_means_come_first_and_log_spreads_after(loss, features):
    prediction = torch.randn(4, 2 * features, dtype=torch.float64)
    target, mask = torch.randn(4, features, dtype=torch.float64), torch.rand(4, features) > 0.3
    single = [
        loss(*one(prediction[b, f].item(), prediction[b, features + f].item(), target[b, f].item())).item()
        for b in range(4)
        for f in range(features)
        if mask[b, f]
    ]
    assert loss(prediction, target, mask).item() == pytest.approx(np.mean(single))


@pytest.mark.parametrize("loss", [gaussian_crps, gaussian_nll, pinball_loss([0.1, 0.6])])
def test_gradients_of_the_probability_losses(loss):
    prediction, target, mask = probability_forecasts()
    assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), prediction.requires_grad_())


@pytest.mark.parametrize("hidden", [0.0, 1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("loss", [gaussian_crps, gaussian_nll, pinball_loss([0.1, 0.6])])
def test_what_is_masked_reaches_no_probability_loss(loss, hidden):
    """Windows hold 0 there; another's windows may hold NaN."""
    results = []
    for value in (0.5, hidden):
        prediction, target, mask = probability_forecasts(dtype=torch.float32)
        prediction.requires_grad_()
        found = loss(prediction, torch.where(mask, target, torch.tensor(value)), mask)
        results.append((found, torch.autograd.grad(found, prediction)[0]))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    seen = mask[..., 0]
    assert (results[1][1][~seen] == 0).all() and (results[1][1][seen] != 0).any(-1).all()


@pytest.mark.parametrize("loss", [gaussian_crps, gaussian_nll, pinball_loss([0.1, 0.6])])
def test_probability_losses_of_nothing_are_zero(loss):
    prediction, target, mask = probability_forecasts()
    found = loss(prediction.requires_grad_(), target, torch.zeros_like(mask))
    found.backward()
    assert found.item() == 0 and (prediction.grad == 0).all()


@pytest.mark.parametrize("loss", [gaussian_crps, gaussian_nll])
def test_a_mean_and_a_spread_are_learned_from_draws(loss):
    """Proper scores: the best constant forecast is the law that the values come from."""
    y = 3 + 0.5 * torch.randn(4000, 1)
    forecast = torch.tensor([0.0, 1.0], requires_grad=True)
    optimizer = torch.optim.Adam([forecast], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(forecast.expand(4000, 2), y, torch.ones_like(y, dtype=torch.bool)).backward()
        optimizer.step()
    mean, log_spread = forecast.tolist()
    assert mean == pytest.approx(y.mean().item(), abs=0.02)
    assert np.exp(log_spread) == pytest.approx(y.std().item(), rel=0.03)


@pytest.mark.parametrize(("mean", "log_spread"), [(0.0, 8.0), (0.0, -12.0), (1e4, 0.0), (1e4, -6.0)])
def test_crps_of_extreme_forecasts_is_finite_with_its_gradient(mean, log_spread):
    """A network at the start, or gone astray, must find back. Far off it is the absolute error."""
    prediction, y, mask = one(mean, log_spread, 1.0, torch.float32)
    found = gaussian_crps(prediction.requires_grad_(), y, mask)
    found.backward()
    assert found.isfinite() and prediction.grad.isfinite().all()
    if log_spread <= 0:
        spread = np.exp(log_spread)
        assert found.item() == pytest.approx(abs(mean - 1) - spread / np.sqrt(np.pi), rel=1e-4)
        assert prediction.grad[0, 0].item() == pytest.approx(np.sign(mean - 1), abs=1e-4)


@pytest.mark.parametrize("level", [0.05, 0.3, 0.5, 0.9])
def test_the_pinball_loss_is_smallest_at_the_quantile(level):
    y = torch.tensor(np.random.default_rng(0).gamma(2, size=(999, 1)))
    seen = torch.ones_like(y, dtype=torch.bool)
    candidates = torch.cat([y.sort(dim=0).values, torch.linspace(0, 8, 300, dtype=y.dtype)[:, None]])
    losses = torch.stack([pinball_loss([level])(c.expand(999, 1), y, seen) for c in candidates])
    best = candidates[losses.argmin()].item()
    assert best == pytest.approx(np.quantile(y, level, method="inverted_cdf"), abs=1e-9)


def test_pinball_by_hand():
    prediction, target = torch.tensor([[1.0, 3.0], [0.0, 9.0]]), torch.tensor([[2.0], [1.0]])
    loss = pinball_loss((0.1, 0.9))
    # y - q: 1, -1 -> 0.1, 0.1; masked
    assert loss(prediction, target, torch.tensor([[True], [False]])).item() == pytest.approx(0.1)
    # second row: 1, -8 -> 0.1, 0.8
    assert loss(prediction, target, torch.tensor([[True], [True]])).item() == pytest.approx((0.1 + 0.45) / 2)
    half = pinball_loss([0.5])(prediction[:, :1], target, torch.tensor([[True], [True]]))
    assert half.item() == pytest.approx(0.5 * 1)  # half the mean absolute error


def event_forecasts(dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, whether the event took place, and whether anybody saw."""
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 2, 5, 1, generator=draw, dtype=dtype)
    target = (torch.rand(6, 2, 5, 1, generator=draw) < 0.4).to(dtype)
    return logits, target, torch.rand(6, 2, 5, 1, generator=draw) > 0.3


@pytest.mark.parametrize("event_weight", [1, 0.5, 20.0])
def test_the_event_loss_without_focus_is_weighted_cross_entropy(event_weight):
    logits, target, mask = event_forecasts()
    weight = torch.tensor(event_weight, dtype=torch.float64)
    expected = nn.functional.binary_cross_entropy_with_logits(logits[mask], target[mask], pos_weight=weight)
    assert event_loss(event_weight)(logits, target, mask).item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_focal_loss_by_hand():
    p, seen = np.array([0.9, 0.9, 0.2, 0.2]), torch.ones(4, 1, dtype=torch.bool)
    logits = torch.tensor(np.log(p / (1 - p)))[:, None]
    target = torch.tensor([[1.0], [0.0], [1.0], [0.0]], dtype=torch.float64)
    # weight, what was wrong to the power of the focus, minus the logarithm of what was given to what happened
    by_hand = [-3 * 0.1**2 * np.log(0.9), -(0.9**2) * np.log(0.1), -3 * 0.8**2 * np.log(0.2), -(0.2**2) * np.log(0.8)]
    assert event_loss(3, 2)(logits, target, seen).item() == pytest.approx(np.mean(by_hand), rel=1e-12)


@pytest.mark.parametrize("event_weight", [1.0, 7.0])
@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_a_weight_moves_the_best_logit_by_its_logarithm(event_weight, rate):
    """Of a thousand times with nothing to tell them apart; only without a weight is the rate itself the best."""
    happened = torch.zeros(1000, 1)
    happened[: round(1000 * rate)] = 1
    seen = torch.ones(1000, 1, dtype=torch.bool)
    candidates = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    losses = [event_loss(event_weight)(z.expand(1000, 1), happened.double(), seen).item() for z in candidates]
    best = candidates[int(np.argmin(losses))].item()
    assert best == pytest.approx(np.log(rate / (1 - rate)) + np.log(event_weight), abs=0.005)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_a_focus_draws_the_best_probability_towards_one_half(rate):
    happened, seen = (torch.arange(1000)[:, None] < 1000 * rate).double(), torch.ones(1000, 1, dtype=torch.bool)
    candidates = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    losses = [event_loss(1, 2)(z.expand(1000, 1), happened, seen).item() for z in candidates]
    best = torch.sigmoid(candidates[int(np.argmin(losses))]).item()
    assert abs(best - 0.5) < abs(rate - 0.5) - 0.02 and (best < 0.5) == (rate < 0.5)


@pytest.mark.parametrize("loss", [event_loss(), event_loss(20), event_loss(1, 2)])
def test_event_losses_have_their_gradients_and_do_not_look_behind_the_mask(loss):
    logits, target, mask = event_forecasts()
    assert torch.autograd.gradcheck(lambda z: loss(z, target, mask), logits.requires_grad_())
    found = [loss(logits, torch.where(mask, target, torch.tensor(hidden)), mask) for hidden in (0.0, 1e30, np.nan)]
    assert found[0] == found[1] == found[2]
    gradient = torch.autograd.grad(found[2], logits)[0]
    assert (gradient[~mask] == 0).all() and (gradient[mask] != 0).all()
    assert loss(logits, target, torch.zeros_like(mask)).item() == 0


@pytest.mark.parametrize("sure", [300.0, 1e5])
@pytest.mark.parametrize("loss", [event_loss(), event_loss(20), event_loss(1, 2), event_loss(5, 0.5)])
def test_event_losses_of_a_network_that_is_quite_sure_are_finite(loss, sure):
    logits = torch.tensor([[sure], [-sure], [sure], [-sure], [0.0]], requires_grad=True)
    target = torch.tensor([[1.0], [0.0], [0.0], [1.0], [1.0]])
    found = loss(logits, target, torch.ones(5, 1, dtype=torch.bool))
    found.backward()
    assert found.isfinite() and logits.grad.isfinite().all()
    assert (logits.grad[:2] == 0).all() and logits.grad[2] > 0 > logits.grad[3]


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_weights_of_events_may_be_numpys(kind):
    assert event_loss(kind(20), kind(2))(*event_forecasts()) == event_loss(20, 2)(*event_forecasts())


# ---------------------------------------------------------------------------- losses for wild values and gaps

ROBUST = [huber(), huber(0.1), student_t(), student_t(0.5)]


def robust_case(loss, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What goes into the loss: two numbers a value for Student's t, of Huber's loss one."""
    prediction, target, mask = probability_forecasts(dtype=dtype)
    return (prediction if takes_scale(loss) else prediction[..., :1]).contiguous(), target, mask


def takes_scale(loss) -> bool:
    return loss in ROBUST[2:]


@pytest.mark.parametrize("delta", [0.1, 1, np.float32(2.5), 40])
def test_huber_is_the_loss_of_torch_over_what_is_observed(delta):
    prediction, target, mask = robust_case(ROBUST[0])
    expected = nn.functional.huber_loss(prediction[mask], target[mask], delta=float(delta))
    assert huber(delta)(prediction, target, mask).item() == pytest.approx(expected.item(), rel=1e-12)


def test_huber_by_hand_and_its_limits():
    prediction, target = torch.tensor([0.5, 5.0, -3.0, 9.0]), torch.zeros(4)
    mask = torch.tensor([True, True, True, False])
    # ½ 0.5², 2 (5 - 1), 2 (3 - 1)
    assert huber(2)(prediction, target, mask).item() == pytest.approx((0.125 + 8 + 4) / 3)
    assert huber(100)(prediction, target, mask).item() == pytest.approx(masked_mse(prediction, target, mask).item() / 2)
    assert huber(1e-4)(prediction, target, mask).item() / 1e-4 == pytest.approx((0.5 + 5 + 3) / 3, rel=1e-4)


@given(mean=numbers, log_scale=st.floats(-3, 3), y=numbers, df=st.floats(0.2, 200))
def test_student_t_is_the_density_of_scipy(mean, log_scale, y, df):
    expected = -t(df, mean, np.exp(log_scale)).logpdf(y)
    assert student_t(df)(*one(mean, log_scale, y)).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_student_t_with_many_degrees_of_freedom_is_gaussian(dtype):
    prediction, target, mask = robust_case(ROBUST[2], dtype)
    prediction[..., 1] = prediction[..., 1].clamp(min=-0.5)
    expected = gaussian_nll(prediction, target, mask).item()
    assert student_t(1e6)(prediction, target, mask).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("features", [1, 3])
def test_student_t_takes_locations_first_and_log_scales_after(features):
    draw = torch.Generator().manual_seed(0)
    prediction = torch.randn(4, 2 * features, generator=draw, dtype=torch.float64)
    target = torch.randn(4, features, generator=draw, dtype=torch.float64)
    location, scale = prediction[:, :features].numpy(), prediction[:, features:].exp().numpy()
    expected = -t(3, location, scale).logpdf(target.numpy()).mean()
    found = student_t(3)(prediction, target, torch.ones(4, features, dtype=torch.bool)).item()
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", ROBUST)
def test_robust_losses_have_their_gradients(loss):
    prediction, target, mask = robust_case(loss)
    assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), prediction.requires_grad_())


@pytest.mark.parametrize("hidden", [0.0, 1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("loss", ROBUST)
def test_what_is_masked_reaches_no_robust_loss(loss, hidden):
    results = []
    for value in (0.5, hidden):
        prediction, target, mask = robust_case(loss, torch.float32)
        found = loss(prediction.requires_grad_(), torch.where(mask, target, torch.tensor(value)), mask)
        results.append((found, torch.autograd.grad(found, prediction)[0]))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    seen = mask[..., 0]
    assert (results[1][1][~seen] == 0).all() and (results[1][1][seen] != 0).any(-1).all()


@pytest.mark.parametrize("loss", ROBUST)
def test_robust_losses_of_nothing_are_zero(loss):
    prediction, target, mask = robust_case(loss)
    found = loss(prediction.requires_grad_(), target, torch.zeros_like(mask))
    found.backward()
    assert found.item() == 0 and (prediction.grad == 0).all()


@pytest.mark.parametrize("outlier", [1e3, 1e20, -9.97e36])
@pytest.mark.parametrize("loss", ROBUST)
def test_a_wild_value_pulls_no_harder_than_the_loss_allows(loss, outlier):
    """Fill values such as 1e20 that somebody forgot to mark: finite, in 32 bits too."""
    prediction = torch.zeros(1, 2 if takes_scale(loss) else 1, requires_grad=True)
    found = loss(prediction, torch.tensor([[outlier]]), torch.ones(1, 1, dtype=torch.bool))
    found.backward()
    assert found.isfinite() and prediction.grad.isfinite().all() and prediction.grad[0, 0].abs() <= 1
    if takes_scale(loss):
        df = {ROBUST[2]: 4, ROBUST[3]: 0.5}[loss]
        assert prediction.grad[0, 0].abs() < 2e-3 * df + 2e-3  # next to no pull on the location
        assert prediction.grad[0, 1].item() == pytest.approx(-df, rel=1e-4)  # 1 - (ν + 1): the scale would be wider


@pytest.mark.parametrize("seed", range(3))
def test_one_outlier_moves_the_mean_far_and_the_robust_fits_little(seed):
    """The best constant for 50 values, with and without one of them a thousand deviations off."""
    clean = torch.randn(50, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wild = torch.cat([clean[1:], torch.full((1, 1), 1000.0, dtype=torch.float64)])

    def best(loss, values, outputs):
        constant = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([constant], max_iter=200, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            value = loss(constant.expand(50, outputs), values, torch.ones(50, 1, dtype=torch.bool))
            value.backward()
            return value

        optimizer.step(closure)
        return constant[0].item()

    moved = {
        name: abs(best(loss, wild, outputs) - best(loss, clean, outputs))
        for name, loss, outputs in [("mse", masked_mse, 1), ("huber", huber(), 1), ("t", student_t(), 2)]
    }
    assert moved["mse"] == pytest.approx(20, abs=0.1)
    assert moved["huber"] < 0.1 and moved["t"] < 0.1


def holed(seed: int, steps: int = 150) -> tuple[xr.Dataset, np.ndarray]:
    """The ring of stations with single values, a run and the end of a record missing."""
    rng = np.random.default_rng(seed)
    air = advection(steps, seed)._record["air"].numpy().astype(float)
    hole = rng.random(air.shape) < 0.3
    hole[20:60, 4] = hole[-30:, 7] = True
    times = pd.date_range("2000", periods=steps)
    series = xr.DataArray(np.where(hole, np.nan, air), dims=("time", "station"), coords={"time": times})
    return series.to_dataset(name="air"), hole


@pytest.mark.parametrize("loss", [masked_mse, ROBUST[0], ROBUST[2]])
def test_gaps_of_a_dataset_reach_the_loss_as_its_mask(loss):
    """From NaN in xarray to the weights: what stands where nothing was observed changes nothing."""
    ds, hole = holed(1)
    results, seen = [], []
    outputs = 2 if takes_scale(loss) else 1

    def watched(prediction, target, mask):
        seen.append(int(mask.sum()))
        assert prediction.isfinite().all()
        return loss(prediction, target, mask)

    for hidden in (0.0, 1e6, float("nan")):
        windows = WindowDataset(ds, "air", "air", history=3, horizon=1)
        assert torch.equal(windows._record["air"].isfinite(), torch.from_numpy(~hole))
        windows = Hiding(windows, hidden)
        torch.manual_seed(7)
        options = {"channels": (4, 4, 4), "blocks": 1, "kernel_size": 2, "spatial": "directional", "order": 4}
        model = STGCN(1, outputs, history=3, horizon=1, **options)
        run(model, train=windows, validation=windows, epochs=2, loss=watched)
        results.append(weights(model))
    assert same(results[0], results[1]) and same(results[0], results[2])
    assert all(value.isfinite().all() for value in results[0].values())
    # two epochs, each a pass to learn and one to judge: every observed value of a window counts once in each
    assert sum(seen) == 3 * 2 * 2 * int((~hole[3:]).sum())


@pytest.mark.parametrize("loss", [ROBUST[0], ROBUST[2]])
def test_robust_losses_learn_from_a_record_with_wild_values_and_squares_do_not(loss):
    """One value in a hundred is a wrong one. The law is learned nonetheless; the clean record judges."""
    ds, _ = holed(1, 400)
    rng = np.random.default_rng(3)
    spoilt = ds.copy(deep=True)
    spoilt["air"].values[rng.random(spoilt["air"].shape) < 0.01] = 60.0
    # The network looks at the clean values and is told the spoilt ones: only the loss is on trial.
    both = ds.rename(air="seen").assign(told=spoilt["air"])
    windows = WindowDataset(both, "seen", "told", history=3, horizon=1)
    error = []
    for one_loss in (loss, masked_mse):
        torch.manual_seed(7)
        options = {"channels": (8, 8, 8), "blocks": 1, "kernel_size": 2, "spatial": "directional", "order": 4}
        model = STGCN(1, 2 if takes_scale(one_loss) else 1, history=3, horizon=1, **options)
        run(model, train=windows, validation=None, epochs=15, loss=one_loss)
        clean = predict(model, VALIDATION, operator=OPERATORS)[..., :1]
        truth = VALIDATION.batch(range(len(VALIDATION)))
        error.append(masked_mse(clean, truth.y, truth.y_mask).item())
    assert error[0] < 0.7 * error[1] and error[0] < 0.8  # of a variance of 1


MASK, O = torch.ones(4, 1, dtype=torch.bool), torch.zeros


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: gaussian_crps(O(4, 1), O(4, 1), MASK), ValueError, ["prediction", "(4, 2)", "(4, 1)"]),
        (lambda: gaussian_nll(O(4, 3), O(4, 1), MASK), ValueError, ["prediction", "(4, 2)", "(4, 3)"]),
        (lambda: gaussian_crps(O(1, 2), O(4, 1), MASK), ValueError, ["prediction", "(4, 2)"]),
        (lambda: gaussian_crps(O(4, 2), O(4, 1), MASK[:1]), TypeError, ["mask", "(4, 1)", "(1, 1)"]),
        (lambda: gaussian_crps(O(4, 2), O(4, 1), MASK[:, 0]), TypeError, ["mask", "(4, 1)"]),
        (lambda: gaussian_crps(O(4, 2), O(4, 1), MASK.float()), TypeError, ["mask", "bool", "float32"]),
        (lambda: gaussian_nll(O(4, 2), O(4, 1), MASK.int()), TypeError, ["mask", "bool", "int32"]),
        (lambda: pinball_loss([]), ValueError, ["levels", "between 0 and 1"]),
        (lambda: pinball_loss([0.5, 1.0]), ValueError, ["levels", "1.0"]),
        (lambda: pinball_loss([0.0]), ValueError, ["levels", "0.0"]),
        (lambda: pinball_loss([float("nan")]), ValueError, ["levels", "nan"]),
        (lambda: pinball_loss([0.5])(O(4, 2), O(4, 1), MASK), ValueError, ["(..., 1)", "(4, 2)"]),
        (lambda: pinball_loss([0.5])(O(4, 1), O(4, 2), MASK), ValueError, ["target", "(4, 2)"]),
        (lambda: pinball_loss([0.5])(O(1, 1), O(4, 1), MASK), ValueError, ["(1, 1)", "(4, 1)"]),
        (lambda: pinball_loss([0.5])(O(4, 1), O(4, 1), MASK.int()), TypeError, ["mask", "int32"]),
        (lambda: huber(0), ValueError, ["delta", "above 0", "0"]),
        (lambda: huber(-1.0), ValueError, ["delta", "-1.0"]),
        (lambda: huber(float("nan")), ValueError, ["delta", "nan"]),
        (lambda: huber("1"), ValueError, ["delta", "'1'"]),
        (lambda: huber(True), ValueError, ["delta", "True"]),
        (lambda: huber()(O(4, 2), O(4, 1), MASK), ValueError, ["one shape", "(4, 2)", "(4, 1)"]),
        (lambda: huber()(O(1, 1), O(4, 1), MASK), ValueError, ["one shape", "(1, 1)"]),
        (lambda: huber()(O(4, 1), O(4, 1), MASK[:1]), ValueError, ["one shape", "(1, 1)"]),
        (lambda: huber()(O(4, 1), O(4, 1), MASK.int()), TypeError, ["mask", "bool", "int32"]),
        (lambda: student_t(0), ValueError, ["df", "above 0", "0"]),
        (lambda: student_t(float("inf")), ValueError, ["df", "inf"]),
        (lambda: student_t("4"), ValueError, ["df", "'4'"]),
        (lambda: student_t()(O(4, 1), O(4, 1), MASK), ValueError, ["prediction", "(4, 2)", "(4, 1)"]),
        (lambda: student_t()(O(4, 2), O(4, 1), MASK[:1]), TypeError, ["mask", "(4, 1)", "(1, 1)"]),
        (lambda: student_t()(O(4, 2), O(4, 1), MASK.float()), TypeError, ["mask", "bool", "float32"]),
        (lambda: event_loss(0), ValueError, ["event_weight", "above 0", "0"]),
        (lambda: event_loss(float("nan")), ValueError, ["event_weight", "nan"]),
        (lambda: event_loss(float("inf")), ValueError, ["event_weight", "inf"]),
        (lambda: event_loss(focusing=-1), ValueError, ["focusing", "at least 0", "-1"]),
        (lambda: event_loss(focusing="2"), ValueError, ["focusing", "'2'"]),
        (lambda: event_loss("2"), ValueError, ["event_weight", "'2'"]),
        (lambda: event_loss(True), ValueError, ["event_weight", "True"]),
        (lambda: event_loss(1, True), ValueError, ["focusing", "True"]),
        (lambda: event_loss()(O(4, 2), O(4, 1), MASK), ValueError, ["one shape", "(4, 2)", "(4, 1)"]),
        (lambda: event_loss()(O(1, 1), O(4, 1), MASK), ValueError, ["(1, 1)", "(4, 1)"]),
        (lambda: event_loss()(O(4, 1), O(4, 1), MASK[:1]), TypeError, ["mask", "(4, 1)", "(1, 1)"]),
        (lambda: event_loss()(O(4, 1), O(4, 1), MASK.int()), TypeError, ["mask", "int32"]),
    ],
)
def test_probability_losses_refuse_what_does_not_fit(call, error, parts):
    with pytest.raises(error) as raised:
        call()
    assert all(part in str(raised.value) for part in parts), str(raised.value)


# ---------------------------------------------------------------------------- without a validation part


def test_without_validation_all_epochs_run_and_the_last_weights_stay():
    seen, model = [], network()

    def loss(prediction, target, mask):
        assert prediction.requires_grad, "nothing is judged"
        seen.append(weights(model))
        return masked_mse(prediction, target, mask)

    history = run(model, validation=None, loss=loss, patience=1)
    assert len(history.train_loss) == 5 and history.validation_loss == []
    assert (history.best_epoch, history.stopped_early) == (4, False)
    assert len(seen) == 5 * STEPS and not any(same(weights(model), one) for one in seen)  # stepped after the last
    assert not model.training


def test_validation_does_not_touch_the_training():
    """The same steps with and without it: with every epoch an improvement the weights are the same too."""
    free, judged = network(), network()
    script = Scripted(judged, [5.0, 4, 3, 2, 1])
    without, with_it = run(free, validation=None), run(judged, validation=ONE_BATCH, loss=script)
    assert without.train_loss == with_it.train_loss and same(weights(free), weights(judged))


@pytest.mark.parametrize("steps", [STEPS + 1, 3 * STEPS - 1])
def test_resume_without_validation_equals_an_uninterrupted_run(steps, tmp_path):
    path, whole, model = tmp_path / "run.pt", network(), network()
    history = run(whole, validation=None)
    with pytest.raises(RuntimeError, match="power cut"):
        run(network(), validation=None, loss=Ending(steps), checkpoint=path)
    again = run(model, validation=None, checkpoint=path, resume=True)
    assert losses(again) == losses(history) and same(weights(model), weights(whole))
    finished = network()
    run(finished, validation=None, checkpoint=path, resume=True)
    assert same(weights(finished), weights(whole))


@pytest.mark.parametrize("ending", ["interrupt", "no number"])
def test_without_validation_a_broken_run_keeps_the_last_whole_epoch(ending):
    model, calls, states = network(), [], []  # states: the weights at the start of each epoch

    def loss(prediction, target, mask):
        if len(calls) % STEPS == 0:
            states.append(weights(model))
        calls.append(None)
        if len(calls) == 2 * STEPS + 2:
            if ending == "interrupt":
                raise KeyboardInterrupt
            return masked_mse(prediction, target, mask) * float("nan")
        return masked_mse(prediction, target, mask)

    with pytest.raises(KeyboardInterrupt if ending == "interrupt" else FloatingPointError):
        run(model, validation=None, loss=loss)
    assert same(weights(model), states[2])


def test_without_validation_the_bar_shows_the_training_loss_alone(capfd):
    run(network(), validation=None, epochs=2, progress=True)
    _, shown = capfd.readouterr()
    assert "train" in shown and "validation" not in shown
