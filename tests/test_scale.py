"""Training on two processes: the losses of one, one writer, and a kill in the middle that changes nothing.

The file is also the script that torchrun starts: the processes leave what they found in files, and the tests read them.
"""

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn

from stgcn_lab import training
from stgcn_lab.graphs import directional_operators, grid_graph
from stgcn_lab.models import STGCN
from stgcn_lab.training import evaluate, fit, gaussian_crps, masked_mse
from stgcn_lab.windows import WindowDataset

Fabric = pytest.importorskip("lightning_fabric").Fabric

OPERATORS = directional_operators(grid_graph([50.0], np.arange(0, 360, 36), neighbours=4), 4, sparse=True)


def windows(seed: int, steps: int) -> WindowDataset:
    """Air that moves along a ring of ten stations. The record grows thinner: every part of a batch has other gaps."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(10)]
    for _ in range(steps - 1):
        x.append(0.9 * np.roll(x[-1], 1) + np.sqrt(1 - 0.9**2) * rng.standard_normal(10))
    air = np.where(rng.random((steps, 10)) < np.linspace(0, 0.9, steps)[:, None], np.nan, np.array(x))
    series = xr.DataArray(air, dims=("time", "station"), coords={"time": pd.date_range("2000", periods=steps)})
    return WindowDataset(series.to_dataset(name="air"), "air", "air", history=3, horizon=1)


TRAIN, VALIDATION = windows(1, 100), windows(2, 44)
WINDOWS = len(TRAIN)
STEPS = -(-WINDOWS // 16)  # training steps in an epoch of the runs that are killed

# Batches that two processes cannot halve; a last batch with a single window; batches that leave one of them idle.
CASES = {
    "odd batches": {"batch_size": 7},
    "last batch of one": {"batch_size": WINDOWS - 1},
    "single windows": {"batch_size": 1, "epochs": 2},
    "other loss": {"batch_size": 32, "loss": gaussian_crps},
    "no validation": {"batch_size": 32, "validation": None},
}


def run(dropout: float = 0.0, **options) -> dict:
    """Losses and weights of one training run."""
    options = {"validation": VALIDATION, "batch_size": 16, "epochs": 4, "learning_rate": 1e-2} | options
    outputs = 2 if options.get("loss") is gaussian_crps else 1
    torch.manual_seed(7)
    shape = {"channels": (4, 4, 4), "blocks": 1, "kernel_size": 2, "spatial": "directional", "order": 4}
    model = STGCN(1, outputs, history=3, horizon=1, dropout=dropout, **shape)
    history = fit(model, TRAIN, options.pop("validation"), operator=OPERATORS, progress=False, **options)
    curves = {"train": history.train_loss, "validation": history.validation_loss, "best": history.best_epoch}
    return curves | {"weights": model.state_dict()}


class Killing:
    """A loss during which the last process dies, in the middle of the third epoch, without a chance to tidy up."""

    def __init__(self, fabric):
        self.left, self.dies = 2 * STEPS + 3, fabric.global_rank == fabric.world_size - 1

    def __call__(self, prediction, target, mask):
        self.left -= prediction.requires_grad
        if self.left == 0 and self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return masked_mse(prediction, target, mask)


# ---------------------------------------------------------------------------- what each process does


def work(life: str, folder: Path) -> None:
    """First life: train until killed. Second life, in new processes: go on from there, and everything else."""
    faulthandler.dump_traceback_later(180, exit=True)  # whatever happens, no process stays behind
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2)
    fabric.launch()
    if not fabric.is_global_zero:
        training.save_atomically = lambda *_: os.abort()  # the first one alone may write
    if life == "first":
        run(dropout=0.2, loss=Killing(fabric), checkpoint=folder / "killed.pt", fabric=fabric)
    if fabric.is_global_zero:
        shutil.copy(folder / "killed.pt", folder / "killed-copy.pt")
    found = {name: run(fabric=fabric, **options) for name, options in CASES.items()}
    found["resumed"] = run(dropout=0.2, checkpoint=folder / "killed.pt", resume=True, fabric=fabric)
    found["unbroken"] = run(dropout=0.2, checkpoint=folder / "unbroken.pt", fabric=fabric)
    found["taken over"] = run(checkpoint=folder / "one.pt", resume=True, fabric=fabric)
    found["finished"] = run(checkpoint=folder / "finished.pt", fabric=fabric)
    with pytest.raises(RuntimeError, match="power cut"):
        run(checkpoint=folder / "two.pt", loss=power_cut(), fabric=fabric)
    half = Fabric(accelerator="cpu", devices=2, precision="bf16-mixed")
    half.launch()
    found["bf16"] = run(fabric=half)
    try:
        run(fabric=Fabric(accelerator="cpu", devices=1))
    except ValueError as error:
        found["alone"] = str(error)
    torch.save(found, folder / f"found-{fabric.global_rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes leave behind that are started, killed and started again."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.raises(RuntimeError, match="power cut"):
        run(checkpoint=folder / "one.pt", loss=power_cut())
    status, said = torchrun("first", folder)
    assert status == 1 and "SIGKILL" in said, said
    assert set(os.listdir(folder)) == {"killed.pt", "one.pt"}, said
    status, said = torchrun("second", folder)
    assert status == 0, said
    return folder


def torchrun(life: str, folder: Path) -> tuple[int, str]:
    options = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, __file__, life, str(folder)]
    network = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | network
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = process.communicate(timeout=200)
    finally:
        process.terminate()  # torchrun passes it on
    return process.returncode, said


def power_cut():
    """A loss that ends the run in the middle of its third epoch."""
    steps = iter(range(2 * STEPS + 3))

    def loss(prediction, target, mask):
        if prediction.requires_grad and next(steps, None) is None:
            raise RuntimeError("power cut")
        return masked_mse(prediction, target, mask)

    return loss


@pytest.fixture(scope="module")
def found(folder) -> list[dict]:
    """What each of the two processes found."""
    return [torch.load(folder / f"found-{rank}.pt", weights_only=True) for rank in range(2)]


def assert_same(a: dict, b: dict) -> None:
    assert [a[key] for key in ("train", "validation", "best")] == [b[key] for key in ("train", "validation", "best")]
    assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"] | b["weights"])


def assert_close(a: dict, b: dict, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(a["train"], b["train"], rtol=tolerance)
    np.testing.assert_allclose(a["validation"], b["validation"], rtol=tolerance)
    for name, value in a["weights"].items():
        torch.testing.assert_close(value, b["weights"][name], rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------- one process and two


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_losses_of_one(found, case):
    one = run(**CASES[case])
    assert len(one["train"]) >= 2 and one["train"][-1] < one["train"][0]
    assert_close(found[0][case], one)


def test_both_processes_hold_the_same_result(found):
    assert found[0].keys() == found[1].keys()
    for name in found[0].keys() - {"alone"}:
        assert_same(found[0][name], found[1][name])


def test_a_share_weighs_as_much_as_is_observed_in_it():
    """The equation of the weights: the mean over the processes is the loss of the whole batch, and so its gradient."""

    class Process:
        world_size = 3

        def __init__(self, rank):
            self.global_rank = rank

    for size in (1, 2, 3, 8):
        batch = TRAIN.batch(range(60, 60 + size))
        shares = [training._share(batch, torch.device("cpu"), Process(rank)) for rank in range(3)]
        assert sum(int(mask.sum()) for _, _, mask, _ in shares) == int(batch.y_mask.sum())
        parts = [weight * masked_mse(0.5 * x[:, -1:], y, mask) for x, y, mask, weight in shares]
        whole = masked_mse(0.5 * batch.x[:, -1:], batch.y, batch.y_mask)
        torch.testing.assert_close(sum(parts) / 3, whole)


def test_dropout_differs_between_processes(folder):
    state = torch.load(folder / "unbroken.pt", weights_only=True)["random"]
    assert state.shape[0] == 2 and not torch.equal(state[0], state[1])


def test_a_fabric_of_one_process_changes_no_bit():
    results = []
    for options in ({"fabric": Fabric(accelerator="cpu", devices=1)}, {}):
        results.append((run(dropout=0.2, **options), torch.get_rng_state()))
    assert_same(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1]), "the caller's random numbers"


# ---------------------------------------------------------------------------- kill and resume


def test_a_killed_run_of_two_processes_resumes_to_the_bit(folder, found):
    """With dropout: the random numbers of each process are where they were."""
    killed = torch.load(folder / "killed-copy.pt", weights_only=True)
    assert len(killed["history"]["train_loss"]) == 2 and len(killed["random"]) == 2
    assert_same(found[0]["resumed"], found[0]["unbroken"])


@pytest.mark.parametrize("kinds", [(True, True), (True, False), (False, True)])
def test_a_broken_run_of_one_process_resumes_to_the_bit_with_fabric_or_without(tmp_path, kinds):
    """A kill of one process is in test_training."""
    before, after = ({"fabric": Fabric(accelerator="cpu", devices=1)} if kind else {} for kind in kinds)
    with pytest.raises(RuntimeError, match="power cut"):
        run(dropout=0.2, checkpoint=tmp_path / "run.pt", loss=power_cut(), **before)
    assert_same(run(dropout=0.2, checkpoint=tmp_path / "run.pt", resume=True, **after), run(dropout=0.2))


def test_two_processes_take_over_from_one(found):
    assert_close(found[0]["taken over"], run())


def test_one_process_takes_over_from_two(folder, tmp_path):
    path = tmp_path / "two.pt"
    shutil.copy(folder / "two.pt", path)
    state = torch.load(path, weights_only=True)
    assert len(state["history"]["train_loss"]) == 2 and len(state["random"]) == 2
    assert_close(run(checkpoint=path, resume=True), run())
    assert len(torch.load(path, weights_only=True)["random"]) == 1


def test_a_finished_run_of_two_processes_is_read_by_one(folder, found):
    assert_same(run(checkpoint=folder / "finished.pt", resume=True), found[0]["finished"])


def test_one_file_for_all_processes(folder):
    """The second process aborts when it writes; and nothing half written lies about."""
    checkpoints = {"killed.pt", "killed-copy.pt", "unbroken.pt", "one.pt", "two.pt", "finished.pt"}
    assert set(os.listdir(folder)) == checkpoints | {"found-0.pt", "found-1.pt"}


# ---------------------------------------------------------------------------- precision and errors


def test_bf16_runs_on_two_processes_and_stays_near(found):
    half, full = found[0]["bf16"], run()
    assert half["train"] != full["train"]
    np.testing.assert_allclose(half["validation"], full["validation"], rtol=0.05)
    assert all(value.dtype == torch.float32 for value in half["weights"].values())


def test_processes_that_know_nothing_of_each_other_are_an_error(found):
    assert all(part in found[0]["alone"] for part in ["fabric", "2 processes", "devices"])


class Sharded:
    """Stands in for a Fabric that splits the network itself."""

    strategy = type("FSDPStrategy", (), {})()


@pytest.mark.parametrize(
    ("fabric", "error", "parts"),
    [
        (lambda: Fabric(accelerator="cpu", devices=2), ValueError, ["fabric", "launched", "fabric.launch()"]),
        (Sharded, ValueError, ["fabric", "strategy='ddp'", "FSDPStrategy"]),
        (lambda: "ddp", TypeError, ["fabric", "lightning_fabric.Fabric", "str"]),
        (lambda: Fabric, TypeError, ["fabric", "lightning_fabric.Fabric", "type"]),
    ],
)
def test_a_fabric_that_cannot_do_is_refused(fabric, error, parts, tmp_path):
    model = nn.Linear(1, 1)
    with pytest.raises(error) as raised:
        fit(model, TRAIN, VALIDATION, fabric=fabric(), checkpoint=tmp_path / "run.pt")
    assert all(part in str(raised.value) for part in parts), str(raised.value)
    assert os.listdir(tmp_path) == []


def test_evaluate_takes_a_model_without_weights():
    class Last(nn.Module):
        def forward(self, x, operator=None):
            return x[:, -1:]

    batch = VALIDATION.batch(range(len(VALIDATION)))
    expected = masked_mse(batch.x[:, -1:], batch.y, batch.y_mask).item()
    assert evaluate(Last(), VALIDATION) == pytest.approx(expected, rel=1e-5)


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
