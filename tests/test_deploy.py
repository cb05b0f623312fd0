"""Networks in files and small networks taught by large: the file says what the network says, or there is no file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hiding import Hiding
from torch import nn

pytest.importorskip("onnxruntime")

import stgcn_lab
from stgcn_lab.deploy import distil, load_onnx, quantise, size_mb, to_onnx
from stgcn_lab.graphs import directional_operators, gcn_operator, grid_graph, scaled_laplacian
from stgcn_lab.models import STGCN, LinearSkip
from stgcn_lab.training import evaluate, fit, gaussian_crps, masked_mse, predict
from stgcn_lab.windows import WindowDataset

RING = grid_graph([50.0], np.arange(0, 360, 36), neighbours=4)  # ten stations round a circle of latitude
OPERATORS = directional_operators(RING, 4, sparse=True)


def windows(seed: int, steps: int, gaps: float = 0.0, history: int = 3, features: str | list = "air") -> WindowDataset:
    """Air that moves one station east a step: x(t, i) = 0.9 x(t - 1, i - 1) + noise, variance 1."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(10)]
    for _ in range(steps - 1):
        x.append(0.9 * np.roll(x[-1], 1) + np.sqrt(1 - 0.9**2) * rng.standard_normal(10))
    air = np.where(rng.random((steps, 10)) < gaps, np.nan, np.array(x))
    series = xr.DataArray(air, dims=("time", "station"), coords={"time": pd.date_range("2000", periods=steps)})
    ds = xr.Dataset({"air": series, "rain": series**2})
    return WindowDataset(ds, features, "air", history=history, horizon=1)


TRAIN, VALIDATION, TEST = windows(1, 150), windows(2, 80), windows(3, 80)
X = TEST.batch(range(6)).x


def network(width: int = 4, outputs: int = 1, **options) -> STGCN:
    torch.manual_seed(7)
    options = {"channels": (width, width, width), "blocks": 1, "kernel_size": 2} | options
    return STGCN(options.pop("features", 1), outputs, history=options.pop("history", 3), horizon=1, **options)


@pytest.fixture(scope="module")
def trained() -> STGCN:
    model = network(width=8, spatial="directional", order=4)
    fit(model, TRAIN, VALIDATION, operator=OPERATORS, epochs=8, learning_rate=1e-2, progress=False)
    return model


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory) -> Path:
    return to_onnx(trained, X, OPERATORS, tmp_path_factory.mktemp("onnx") / "network.onnx")


# ---------------------------------------------------------------------------- export

KINDS = {
    "gcn": (lambda: network(spatial="gcn", features=2), gcn_operator(RING)),
    "sparse gcn, two blocks": (lambda: network(history=6, blocks=2, features=2), gcn_operator(RING, sparse=True)),
    "cheb": (lambda: network(spatial="cheb", features=2), scaled_laplacian(RING)),
    "no graph": (lambda: network(spatial="none", features=2, dropout=0.5), None),
    "learned graph": (lambda: network(spatial="adaptive", num_nodes=10, features=2), None),
    "linear skip": (
        lambda: LinearSkip(network(spatial="directional", features=2), torch.randn(1, 2, 10, 10), torch.randn(1, 10)),
        directional_operators(RING, 4),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_says_what_the_network_says(kind, tmp_path):
    make, operator = KINDS[kind]
    model = make().train()
    history = 6 if "two blocks" in kind else 3
    x = windows(4, 40, history=history, features=["air", "rain"]).batch(range(9)).x
    found = to_onnx(model, x, operator, tmp_path / "model.onnx")
    assert found == tmp_path / "model.onnx" and os.listdir(tmp_path) == ["model.onnx"]
    assert all(part.training for part in model.modules()), "the model is left as it was"
    exported = load_onnx(found)
    model.eval()
    for batch in (x, x[:1], x[3:5], 10 * torch.randn(23, history, 10, 2)):
        with torch.no_grad():
            torch.testing.assert_close(exported(batch), model(batch, operator), atol=1e-5, rtol=1e-5)


def test_the_file_tells_nothing_of_the_machine_that_wrote_it(file):
    content = file.read_bytes()
    for path in (stgcn_lab.deploy.__file__, torch.__file__):
        assert str(Path(path).parent).encode() not in content
    assert b"pkg.torch" not in content


def test_an_exported_network_stands_where_a_model_can(trained, file):
    exported = load_onnx(file, threads=1)
    assert evaluate(exported, TEST) == pytest.approx(evaluate(trained, TEST, operator=OPERATORS), rel=1e-5)
    torch.testing.assert_close(
        predict(exported, TEST), predict(trained, TEST, operator=OPERATORS), atol=1e-5, rtol=1e-5
    )


def test_the_file_runs_without_pytorch(file, tmp_path):
    x = tmp_path / "x.npy"
    np.save(x, X.numpy())
    code = (
        "import sys, numpy as np, onnxruntime as ort; "
        f"y, = ort.InferenceSession({str(file)!r}).run(None, {{'x': np.load({str(x)!r})}}); "
        f"np.save({str(x)!r}, y); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.from_numpy(np.load(x)), load_onnx(file)(X))


def test_an_export_replaces_the_old_file_and_a_failed_one_keeps_it(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_text("old")

    def disk_full(*arguments, **options):
        Path(arguments[2]).write_text("half of it")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", disk_full)
        with pytest.raises(ValueError, match="No space left"):
            to_onnx(network(spatial="none"), X, None, path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["model.onnx"]


def test_a_file_that_says_something_else_is_not_kept(file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda model, x, name, **options: shutil.copy(file, name))
    with pytest.raises(RuntimeError, match="model.*off by"):
        to_onnx(network(), X, gcn_operator(RING), tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == []


class DataDependent(nn.Module):
    """What no exporter can follow: as many steps as the values say."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x, operator=None):
        for _ in range(int(x.abs().sum().item()) % 7):
            x = x * self.weight + 1
        return x


# ---------------------------------------------------------------------------- eight bits


def test_eight_bits_stay_near_and_are_eight_bits(trained, file, tmp_path):
    import onnx

    out = quantise(file, TRAIN, tmp_path / "int8.onnx", batches=4)
    assert out == tmp_path / "int8.onnx" and os.listdir(tmp_path) == ["int8.onnx"]
    held = {onnx.TensorProto.DataType.Name(one.data_type) for one in onnx.load(out).graph.initializer}
    assert "INT8" in held
    full, small = load_onnx(file), load_onnx(out)
    y, z = full(X), small(X)
    assert not torch.equal(y, z)
    assert (y - z).square().mean().sqrt() < 0.1 * y.std()
    assert evaluate(small, TEST) < evaluate(full, TEST) + 0.05


def test_eight_bits_repeat(file, tmp_path):
    a, b = (quantise(file, TRAIN, tmp_path / name, batches=2) for name in ("a.onnx", "b.onnx"))
    assert torch.equal(load_onnx(a)(X), load_onnx(b)(X))


def test_eight_bits_of_eight_bits_are_refused(file, tmp_path):
    """ONNX Runtime would look for ever for names that are not taken."""
    small = quantise(file, TRAIN, tmp_path / "small.onnx", batches=1)
    with pytest.raises(ValueError, match="8 bits already"):
        quantise(small, TRAIN, tmp_path / "smaller.onnx")
    assert os.listdir(tmp_path) == ["small.onnx"]


def test_large_networks_shrink_to_a_quarter(tmp_path):
    model = network(width=96, spatial="none")
    path = to_onnx(model, X, None, tmp_path / "large.onnx")
    out = quantise(path, TRAIN, tmp_path / "int8.onnx", batches=1)
    assert size_mb(path) == pytest.approx(path.stat().st_size / 1e6)
    assert size_mb(path) > size_mb(model)
    assert size_mb(out) < 0.45 * size_mb(path)


def test_the_size_of_a_network_counts_weights_and_buffers():
    skip = LinearSkip(network(), torch.zeros(1, 2, 10, 10), torch.zeros(1, 10))
    weights = sum(parameter.numel() for parameter in skip.parameters())
    assert size_mb(skip) == pytest.approx(4 * (weights + 200 + 10) / 1e6)


# ---------------------------------------------------------------------------- a teacher and a student


class Oracle(nn.Module):
    """Knows the law: 0.9 times the western neighbour's last value."""

    def forward(self, x, operator=None):
        return 0.9 * x[:, -1:].roll(1, dims=2)


def teach(share: float, teacher, train=TRAIN, **options):
    student = network(spatial="directional", order=4, outputs=options.pop("outputs", 1))
    options = {"operator": OPERATORS, "epochs": 4, "learning_rate": 1e-2, "progress": False} | options
    return student, distil(student, teacher, train, options.pop("validation", VALIDATION), share=share, **options)


def test_a_share_of_nothing_is_plain_training():
    student, history = teach(0.0, Oracle())
    plain = network(spatial="directional", order=4)
    expected = fit(plain, TRAIN, VALIDATION, operator=OPERATORS, epochs=4, learning_rate=1e-2, progress=False)
    assert history.validation_loss == pytest.approx(expected.validation_loss, rel=1e-4)
    assert history.train_loss == pytest.approx(expected.train_loss, rel=1e-4)


def test_a_teacher_without_a_share_is_not_asked():
    def nothing(x, operator):
        raise AssertionError("asked")

    _, history = teach(0.0, nothing, epochs=1)
    assert np.isfinite(history.train_loss[0])


def test_the_loss_is_the_mix_that_the_equation_says():
    """One batch, one step: the first training loss is that of the untrained student."""
    student = network(spatial="directional", order=4)
    batch = TRAIN.batch(range(len(TRAIN)))
    with torch.no_grad():
        prediction, said = student(batch.x, OPERATORS), Oracle()(batch.x)
    expected = 0.7 * masked_mse(prediction, batch.y, batch.y_mask) + 0.3 * (prediction - said).square().mean()
    _, history = teach(0.3, Oracle(), epochs=1, batch_size=len(TRAIN))
    assert history.train_loss[0] == pytest.approx(expected.item(), rel=1e-5)


def test_a_good_teacher_helps_where_the_truth_is_noise():
    """Targets that are the truth and much noise: the teacher has seen through it."""
    rng = np.random.default_rng(5)
    noisy = windows(1, 150)
    noise = 3 * rng.standard_normal((150, 10)).astype(np.float32)
    noisy._record["noisy"] = noisy._record["air"] + torch.from_numpy(noise)
    noisy.targets = ["noisy"]
    options = {"train": noisy, "validation": None, "epochs": 20}
    error = [evaluate(teach(share, Oracle(), **options)[0], TEST, operator=OPERATORS) for share in (0.0, 1.0)]
    assert error[1] < 0.8 * error[0]


def test_the_teacher_is_not_changed_and_may_have_another_graph(trained):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    student = network(spatial="gcn")
    options = {"operator": gcn_operator(RING), "teacher_operator": OPERATORS, "epochs": 2, "progress": False}
    history = distil(student, trained, TRAIN, VALIDATION, **options)
    assert len(history.validation_loss) == 2
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert all(parameter.grad is None or not parameter.requires_grad for parameter in Oracle().parameters())


def test_a_teacher_may_be_a_function_and_the_loss_another():
    def both(x, operator):
        mean = Oracle()(x)
        return torch.cat([mean, torch.full_like(mean, -0.8)], dim=-1)

    student, history = teach(0.5, both, outputs=2, loss=gaussian_crps)
    judged = evaluate(student, VALIDATION, operator=OPERATORS, loss=gaussian_crps)
    assert judged == pytest.approx(min(history.validation_loss), rel=1e-5)


def test_what_is_missing_reaches_no_student():
    results = []
    for hidden in (0.0, 1e6, float("nan")):
        holed = Hiding(windows(1, 150, gaps=0.4), hidden)
        student, _ = teach(0.5, Oracle(), train=holed, epochs=1)
        results.append(student.state_dict())
    assert all(torch.equal(results[0][name], one[name]) for one in results[1:] for name in one)
    assert all(value.isfinite().all() for value in results[0].values())


def test_the_teacher_counts_where_its_own_variable_was_observed():
    """Of two targets with gaps of their own, the one that was observed does not let the teacher speak on the other."""
    air = np.random.default_rng(5).standard_normal((60, 10))
    rain = np.where(np.arange(10) < 5, air, np.nan)  # never measured at half of the stations
    times = {"time": pd.date_range("2000", periods=60)}
    ds = xr.Dataset({"air": (("time", "station"), air), "rain": (("time", "station"), rain)}, times)
    both = WindowDataset(ds, ["air", "rain"], ["air", "rain"], history=3, horizon=1)
    results = []
    for lie in (0.0, 1e3):

        def teacher(x, operator, lie=lie):
            return x[:, -1:, :, :1] + lie * torch.tensor([0.0, 1.0]) * (torch.arange(10) >= 5)[:, None]

        student = network(features=2, outputs=2, spatial="none")
        distil(student, teacher, both, None, epochs=1, progress=False)
        results.append(student.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_distilling_resumes_like_any_training(tmp_path):
    path = tmp_path / "run.pt"
    student, history = teach(0.5, Oracle(), checkpoint=path)
    again = network(spatial="directional", order=4)
    options = {"operator": OPERATORS, "epochs": 4, "learning_rate": 1e-2, "progress": False}
    found = distil(again, Oracle(), TRAIN, VALIDATION, checkpoint=path, resume=True, **options)
    assert found.train_loss == history.train_loss
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in student.state_dict().items())


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda path, file: to_onnx("network", X, None, path), TypeError, ["model", "str"]),
        (lambda path, file: to_onnx(network(), X.numpy(), None, path), TypeError, ["x", "ndarray"]),
        (lambda path, file: to_onnx(network(), X[:0], gcn_operator(RING), path), ValueError, ["x", "one window"]),
        (lambda path, file: to_onnx(network(), X[:, :2], gcn_operator(RING), path), ValueError, ["x", "3 time steps"]),
        (
            lambda path, file: to_onnx(network(), X[:, :, :0], gcn_operator(RING), path),
            ValueError,
            ["x", "one station", "(6, 3, 0, 1)"],
        ),
        (lambda path, file: to_onnx(network(), X.double(), gcn_operator(RING), path), TypeError, ["x", "float64"]),
        (lambda path, file: to_onnx(network(), X / 0 * 0, gcn_operator(RING), path), ValueError, ["x", "finite"]),
        (lambda path, file: to_onnx(network(), X[0, 0, 0], gcn_operator(RING), path), ValueError, ["x", "(1,)"]),
        (lambda path, file: to_onnx(network(), X, "graph", path), TypeError, ["operator", "str"]),
        (lambda path, file: to_onnx(network(), X, None, path), TypeError, ["operator", "NoneType"]),
        (lambda path, file: to_onnx(DataDependent(), X, None, path), ValueError, ["model", "DataDependent", "export"]),
        (lambda path, file: to_onnx(network(), X, None, path.parent / "no" / "m"), FileNotFoundError, ["path", "no/m"]),
        (lambda path, file: to_onnx(network(), X, None, path.parent), FileNotFoundError, ["path"]),
        (lambda path, file: load_onnx(path), FileNotFoundError, ["path", "none at"]),
        (lambda path, file: load_onnx(__file__), ValueError, ["path", "ONNX"]),
        (lambda path, file: load_onnx(file, threads=0), ValueError, ["threads", "0"]),
        (lambda path, file: load_onnx(file)(X[:, :2]), ValueError, ["x", "(batch, 3, 10, 1)", "(6, 2, 10, 1)"]),
        (lambda path, file: load_onnx(file)(X[:, :, :0]), ValueError, ["x", "(6, 3, 0, 1)"]),
        (lambda path, file: load_onnx(file)(X[0]), ValueError, ["x", "(3, 10, 1)"]),
        (lambda path, file: load_onnx(file)(X.double()), TypeError, ["x", "float64"]),
        (lambda path, file: load_onnx(file)(X.numpy()), TypeError, ["x", "ndarray"]),
        (lambda path, file: quantise(path, TRAIN, path), FileNotFoundError, ["path", "none at"]),
        (lambda path, file: quantise(file, [1], path), TypeError, ["windows", "list"]),
        (lambda path, file: quantise(file, TRAIN, path, batches=0), ValueError, ["batches", "0"]),
        (lambda path, file: quantise(file, windows(1, 40, history=5), path), ValueError, ["x", "5, 10, 1"]),
        (lambda path, file: quantise(file, TRAIN, path.parent), FileNotFoundError, ["path"]),
        (lambda path, file: size_mb(3), TypeError, ["network", "int"]),
        (lambda path, file: size_mb(path), FileNotFoundError, ["path"]),
        (lambda path, file: size_mb(load_onnx(file)), TypeError, ["network", "OnnxNetwork", "path"]),
        (lambda path, file: teach(1.5, Oracle()), ValueError, ["share", "1.5"]),
        (lambda path, file: teach(float("nan"), Oracle()), ValueError, ["share", "nan"]),
        (lambda path, file: teach(0.5, "teacher"), TypeError, ["teacher", "str"]),
        (lambda path, file: teach(0.5, Oracle(), train=[1]), TypeError, ["train", "list"]),
        (lambda path, file: teach(0.5, lambda x, operator: 3), TypeError, ["teacher", "tensor", "int"]),
        (lambda path, file: teach(0.5, lambda x, operator: x), ValueError, ["teacher", "(32, 3, 10, 1)"]),
        (
            lambda path, file: teach(0.5, lambda x, operator: x[:, -1:].expand(-1, -1, -1, 2)),
            ValueError,
            ["teacher", "student's output", "(32, 1, 10, 2)"],
        ),
        (lambda path, file: teach(0.5, Oracle(), outputs=2, loss=gaussian_crps), ValueError, ["teacher", "student's"]),
    ],
)
def test_what_does_not_fit_is_an_error_and_leaves_no_file(call, error, parts, tmp_path, file):
    with pytest.raises(error) as raised:
        call(tmp_path / "model.onnx", file)
    assert all(part in str(raised.value) for part in parts), str(raised.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("function", ["to_onnx", "load_onnx", "quantise"])
def test_without_the_extra_the_error_names_it(function, file, tmp_path, monkeypatch):
    for module in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    calls = {
        "to_onnx": lambda: to_onnx(network(), X, gcn_operator(RING), tmp_path / "a"),
        "load_onnx": lambda: load_onnx(file),
        "quantise": lambda: quantise(file, TRAIN, tmp_path / "a"),
    }
    with pytest.raises(ImportError, match=r'pip install "stgcn-lab\[scale\]"'):
        calls[function]()
