"""Networks at work: a file that runs without PyTorch, in 8 bits if wanted, and small networks that learn from large.

What is exported is a network together with its graph, since the weather stations stay where they are. The file is in
the open format ONNX, for which engines exist in most languages; here it is ONNX Runtime that runs it.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import number, whole_number
from .layers import Operators
from .training import History, _check_windows, _device, _OnGraph, _replacing, _to_device, fit, masked_mse
from .windows import WindowDataset


def to_onnx(model: nn.Module, x: Tensor, operator: Operators | None, path: str | Path) -> Path:
    """Write a network with its graph as an ONNX file, and make sure that the file says what the network says.

    The file takes any number of windows at once; all other sizes, and the graph, are fixed in it. The format knows no
    sparse matrices: a sparse operator is written as a dense one, of N² numbers.

    Args:
        model: any network of one input that is called as ``model(x, operator)``, such as
            :class:`stgcn_lab.models.STGCN` or :class:`stgcn_lab.models.LinearSkip`. It is left as it is.
        x: (B, history, N, F) an example; B is of no consequence.
        operator: the graph as the model takes it, None for a model without one.
        path: the file, ``.onnx`` by custom; replaced at once, never half written.

    Returns:
        The path.

    Raises:
        ImportError: without the extra ``scale``.
        TypeError, ValueError: for arguments of another kind, an example that the model does not take, or a model that
            PyTorch cannot export.
        RuntimeError: if the file gives other forecasts than the model; it is not kept then.
    """
    _need("onnx", "onnxscript", "onnxruntime")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, found {type(model).__name__}")
    if not torch.is_tensor(x):
        raise TypeError(f"x: expected a torch tensor (batch, time, node, feature), found {type(x).__name__}")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x: expected at least one window and one station, found shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError("x: expected finite values, with gaps filled as the network was taught, found others")
    path = Path(path)
    device, was_training = _device(model), [part.training for part in model.modules()]
    whole = _OnGraph(model, _dense(_to_device(operator, device))).eval()
    # Two different windows: a size of 1 would be taken for a constant.
    example = torch.cat([x[:1], x[:1].flip(1)]).to(device)
    try:
        with torch.no_grad(), _replacing(_check_new(path)) as name:
            expected = whole(example)  # errors about shapes are clearer here
            try:
                with _quiet():
                    torch.onnx.export(
                        whole,
                        (example,),
                        name,
                        input_names=["x"],
                        output_names=["y"],
                        # without a largest size PyTorch 2.6 refuses: it tells no batch from one without end
                        dynamic_shapes=({0: torch.export.Dim("batch", max=2**31 - 1)},),
                        dynamo=True,
                        external_data=False,
                        verbose=False,
                    )
            except Exception as error:  # the exporter has many kinds of its own
                raise ValueError(f"model: PyTorch cannot export {type(model).__name__} to ONNX: {error}") from error
            _forget_origin(name)
            exported = OnnxNetwork(name)
            if isinstance(exported.session.get_inputs()[0].shape[0], int):  # PyTorch 2.6 then only records one run
                what = f"{type(model).__name__} to ONNX with any number of windows"
                raise ValueError(f"model: PyTorch cannot export {what}, it fixed the number of this example")
            for batch, right in ((example, expected), (example[:1], expected[:1])):
                found = exported(batch.cpu())
                worst = (found - right.cpu()).abs().max().item()
                if not worst <= 1e-4 * max(1.0, right.abs().max().item()):
                    raise RuntimeError(f"model: the file is off by up to {worst:.2g} from {type(model).__name__}")
    finally:
        for part, training in zip(model.modules(), was_training, strict=True):
            part.training = training
    return path


class OnnxNetwork(nn.Module):
    """A network in an ONNX file, see :func:`load_onnx`."""

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        super().__init__()
        onnxruntime = _need("onnxruntime")
        path = _check_file(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else whole_number(threads, "threads")
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            (taken,), self.names = self.session.get_inputs(), [out.name for out in self.session.get_outputs()]
        except Exception as error:
            raise ValueError(f"path: expected an ONNX file with one input, found {path}: {error}") from error
        self.input, self.shape = taken.name, tuple(taken.shape[1:])  # the first size, of the batch, is free

    def forward(self, x: Tensor, operator: Any = None) -> Tensor:
        if not torch.is_tensor(x) or x.dtype != torch.float32:
            found = x.dtype if torch.is_tensor(x) else type(x).__name__
            raise TypeError(f"x: expected a torch tensor of float32, found {found}")
        if x.ndim != 1 + len(self.shape) or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x: expected (batch, {', '.join(map(str, self.shape))}), found shape {tuple(x.shape)}")
        x = x.detach().cpu().contiguous()
        return torch.from_numpy(self.session.run(self.names[:1], {self.input: x.numpy()})[0])


def load_onnx(path: str | Path, threads: int | None = None) -> OnnxNetwork:
    """A network from an ONNX file, run by ONNX Runtime on the CPU.

    Args:
        path: a file by :func:`to_onnx` or :func:`quantise`.
        threads: processor cores to use; as many as PyTorch if not given.

    Returns:
        A network without weights to train, called as ``network(x)`` with x (B, history, N, F) in float32. It can stand
        where a model can in :func:`stgcn_lab.training.evaluate` and :func:`stgcn_lab.training.predict`; its graph is
        in it, and an operator given to it is not looked at.

    Raises:
        ImportError: without the extra ``scale``.
        FileNotFoundError: if there is no file.
        ValueError: if it is no ONNX file, or for threads below 1; the network raises it for x of another shape.
    """
    return OnnxNetwork(path, threads)


def quantise(path: str | Path, windows: WindowDataset, out: str | Path, *, batches: int = 16) -> Path:
    """A network in 8 bits: weights and what flows between its layers as whole numbers from -128 to 127.

    A value r is kept as ``q = round(r / s) + z``. Each channel of the weights has a step s of its own; for what flows
    between the layers s and z are fixed beforehand from the range of values that some windows give ("static"). The
    file shrinks to about a quarter as far as it is weights. Whether it is also faster depends on the processor and on
    the size of the layers, and how much worse it is only a measurement tells: score it as any other network.

    Args:
        path: a file by :func:`to_onnx`.
        windows: windows of the training years, standardised as the network's own. Never of the test years.
        out: the file to write; replaced at once, never half written.
        batches: how many batches of 32 of the windows, spread over them by chance, are looked at.

    Returns:
        The path of the new file.

    Raises:
        ImportError: without the extra ``scale``.
        FileNotFoundError, TypeError, ValueError: if there is no such file, or one that is in 8 bits already, or for
            windows of another kind or shape.

    Source: Jacob et al. (2018), doi:10.1109/CVPR.2018.00286.
    """
    onnx = _need("onnx", "onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = _check_file(path)
    _check_windows(windows, "windows")
    batches = whole_number(batches, "batches")
    network = OnnxNetwork(path)
    if any(node.op_type == "QuantizeLinear" for node in onnx.load(str(path)).graph.node):
        raise ValueError(f"path: expected a file by to_onnx, found one that is in 8 bits already, {path}")
    taken = []
    for _, batch in zip(range(batches), windows.batches(32, torch.Generator().manual_seed(0)), strict=False):
        network(batch.x)  # a clear error for windows of another shape
        taken.append({network.input: batch.x.numpy()})
    feed = iter(taken)

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feed, None)

    with _quiet(), tempfile.TemporaryDirectory() as folder, _replacing(_check_new(Path(out))) as name:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            name,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    return Path(out)


def size_mb(network: nn.Module | str | Path) -> float:
    """Megabytes (10⁶ bytes) of a network's weights and fixed numbers, or of a file.

    Args:
        network: a network in PyTorch, or the path of a file.

    Raises:
        FileNotFoundError, TypeError: if there is no such file, or for another kind of argument.
    """
    if isinstance(network, OnnxNetwork):
        raise TypeError(
            "network: expected a network in PyTorch or a path, found OnnxNetwork; give the path of its file"
        )
    if isinstance(network, nn.Module):
        tensors = [value for value in network.state_dict().values() if torch.is_tensor(value)]
        return sum(value.numel() * value.element_size() for value in tensors) / 1e6
    if not isinstance(network, (str, Path)):
        raise TypeError(f"network: expected a torch.nn.Module or a path, found {type(network).__name__}")
    return _check_file(network).stat().st_size / 1e6


# ---------------------------------------------------------------------------- a teacher and a student


def distil(
    student: nn.Module,
    teacher: Callable[..., Tensor],
    train: WindowDataset,
    validation: WindowDataset | None,
    *,
    share: float = 0.5,
    operator: Operators | None = None,
    teacher_operator: Operators | None = None,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = masked_mse,
    **options: Any,
) -> History:
    """Train a small network on a mix of the truth and of what a larger one says.

    ``L = (1 - a) loss(ŷ, y) + a mean (ŷ - t)²`` over the observed values, with t the teacher's output: the law that
    the teacher has seen behind the noise is a calmer target than the noisy truth. The validation part is judged on
    the truth alone, with ``loss``.

    Args:
        student: the network to train, in place.
        teacher: called as ``teacher(x, operator)``: a larger network, which is not changed, or a function, such as
            the mean of several. Its output has the shape of the student's.
        train, validation: as in :func:`stgcn_lab.training.fit`.
        share: a, from 0, where the teacher is not asked, to 1, where the truth of the training years is not.
        operator: the student's graph.
        teacher_operator: the teacher's graph; the student's if not given.
        loss: what the truth is compared with, see :func:`stgcn_lab.training.fit`.
        options: other settings of :func:`stgcn_lab.training.fit`.

    Returns:
        The losses and the best epoch.

    Raises:
        TypeError, ValueError: for a share outside 0 to 1, a teacher whose output has another shape than the student's,
            and as :func:`stgcn_lab.training.fit`.

    Source: Hinton, Vinyals & Dean (2015), arXiv:1503.02531, for classes; here for values.
    """
    share = number(share, "share", least=0)
    if share > 1:
        raise ValueError(f"share: expected a number from 0 to 1, found {share!r}")
    if not callable(teacher):
        raise TypeError(f"teacher: expected a network or a function of (x, operator), found {type(teacher).__name__}")
    _check_windows(train, "train")
    if share == 0:  # a teacher that is not asked may say anything, NaN included
        return fit(student, train, validation, operator=operator, loss=loss, **options)

    taught = _Taught(train, teacher, operator if teacher_operator is None else teacher_operator)

    def mixed(prediction: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        if y.shape[-1] == taught.features:  # in validation the truth stands alone
            return loss(prediction, y, mask)
        truth, said = y[..., : taught.features], y[..., taught.features :]
        if said.shape != prediction.shape:
            raise ValueError(
                f"teacher: expected the student's output, {tuple(prediction.shape)}, found {tuple(said.shape)}"
            )
        seen, heard = mask[..., : taught.features], mask[..., taught.features :]
        return (1 - share) * loss(prediction, truth, seen) + share * masked_mse(prediction, said, heard)

    return fit(student, taught, validation, operator=operator, loss=mixed, **options)  # type: ignore[arg-type]


class _Taught:
    """Windows whose target is the truth and, behind it on the last axis, what a teacher says."""

    def __init__(self, windows: WindowDataset, teacher: Callable[..., Tensor], operator: Operators | None) -> None:
        self.windows, self.teacher = windows, teacher
        self.device = _device(teacher) if isinstance(teacher, nn.Module) else torch.device("cpu")
        self.operator = _to_device(operator, self.device)
        self.features = 0  # of the truth, known with the first batch

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Any]:
        if isinstance(self.teacher, nn.Module):
            self.teacher.eval()
        for batch in self.windows.batches(batch_size, generator):
            self.features = batch.y.shape[-1]
            with torch.no_grad():
                said = self.teacher(batch.x.to(self.device), self.operator)
            if not torch.is_tensor(said):
                raise TypeError(f"teacher: expected to return a torch tensor, found {type(said).__name__}")
            said = said.to(batch.y.device, batch.y.dtype)
            if said.shape[:-1] != batch.y.shape[:-1]:
                raise ValueError(
                    f"teacher: expected an output {tuple(batch.y.shape[:-1])} and features, found {tuple(said.shape)}"
                )
            # The teacher counts where the truth does: what weighs a batch is how much of it was observed. An output of
            # all targets, then once more for their spreads, has the mask twice.
            copies, other = divmod(said.shape[-1], self.features)
            if other:
                seen = batch.y_mask.any(dim=-1, keepdim=True).expand(said.shape)
            else:
                seen = torch.cat([batch.y_mask] * copies, dim=-1)
            yield batch._replace(y=torch.cat([batch.y, said], -1), y_mask=torch.cat([batch.y_mask, seen], -1))


# ---------------------------------------------------------------------------- files and libraries


def _need(*modules: str) -> Any:
    """The first of the modules; an ImportError that names the extra if any is missing."""
    from importlib import import_module

    try:
        return [import_module(module) for module in modules][0]
    except ImportError as error:
        raise ImportError(f'{modules[0]}: not installed; pip install "stgcn-lab[scale]"') from error


def _check_file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: expected a file, found none at {path}")
    return Path(path)


def _check_new(path: Path) -> Path:
    if not path.parent.is_dir() or path.is_dir():
        raise FileNotFoundError(f"path: expected the name of a file in an existing folder, found {path}")
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings about themselves, none of which a reader can do anything about."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _forget_origin(name: str) -> None:
    """Take out the exporter's stack traces: half of the file, with the paths of the machine that wrote it."""
    import onnx

    proto = onnx.load(name)
    graph = proto.graph
    parts = (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output, *proto.functions)
    for part in parts:
        del part.metadata_props[:]
    onnx.save(proto, name)


def _dense(operator: Any) -> Any:
    if torch.is_tensor(operator):
        return operator if operator.layout == torch.strided else operator.to_dense()
    if isinstance(operator, dict):
        return {relation: _dense(part) for relation, part in operator.items()}
    return None if operator is None else tuple(_dense(part) for part in operator)
