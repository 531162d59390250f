"""From a PyTorch model to an ONNX file: import it, load its weights, export it, compare the two.

The one file that imports torch, and only when it is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg.export.opset import NEWEST_OPSET
from vidseg.runtime.engines.onnxruntime import import_onnxruntime
from vidseg.runtime.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUT_NAME = "image"
MAX_DIFFERENCE = 1e-3
"""Largest difference between ONNX Runtime and PyTorch, as a share of the output's range. Rounding stays below 1e-5."""
OLDEST = (2, 6)
"""Before this version of PyTorch a weights file could run code in spite of `weights_only` (CVE-2025-32434)."""

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_reference(model: Path | str) -> bool:
    """Whether a model is a text as `package.module:function`, and no file of that name exists."""
    return isinstance(model, str) and _REFERENCE.fullmatch(model) is not None and not Path(model).is_file()


def onnx_from_torch(reference: str, weights: Path | None, size_wh: tuple[int, int], folder: Path) -> Path:
    """Export a PyTorch model: float32 (1, 3, height, width) in, one named output for each tensor it returns.

    The function is imported as `python -m` would, with the current folder first on the path; afterwards `sys.path` is
    as before, and modules of that folder are forgotten. Of a dict with `out` (torchvision) that one output is exported,
    of another dict each tensor under its key, of a tuple `output0`, `output1` and so on.

    Args:
        reference: `package.module:function`; the function takes nothing and returns a `torch.nn.Module`.
        weights: file of a state dict, or of a dict that has one under `state_dict` or `model`; loaded without running
            any code in it. None where the function loads them.
        size_wh: the input's size in pixels.
        folder: where the file goes, and files with its weights where it is larger than 2 GB.

    Returns:
        The ONNX file, opset 17, input `image`.

    Raises:
        ConfigurationError: PyTorch is missing, or too old to load weights safely.
        ModelError: a fault in the function, weights that do not fit, an operator that cannot be exported, or an export
            that computes something else than PyTorch does.
    """
    _check_torch()
    import_onnxruntime()  # exporters, and the user's code, import it too, with its telemetry
    import torch

    with _current_folder_first(), torch.no_grad():
        module = _built(reference)
        if weights is not None:
            _load_weights(module, weights, reference)
        module.eval()
        example = torch.zeros(1, 3, size_wh[1], size_wh[0])
        try:
            answer = module(example)
        except (Exception, SystemExit) as error:  # a user's code raises whatever it likes
            raise _fault(reference, f"running it on an image of {size_wh[0]}x{size_wh[1]}", error) from error
        names = list(_named_tensors(answer))
        if not names:
            raise ModelError(f"{reference}: the model returns no tensor", type(answer).__name__)
        module.register_forward_hook(lambda _module, _inputs, output: tuple(_named_tensors(output).values()))
        path = folder / "model.onnx"
        _write(module, example, names, path, reference)
        _check_same(module, path, size_wh, reference)
    return path


def _check_torch() -> None:
    try:
        import torch
    except ImportError as error:
        raise ConfigurationError(
            "exporting a PyTorch model needs PyTorch", "no torch", "Install it: pip install torch."
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST:
        raise ConfigurationError(
            "this PyTorch cannot load weights safely", torch.__version__, 'Update it: pip install "torch>=2.6".'
        )


@contextmanager
def _current_folder_first() -> Iterator[None]:
    path, modules, without_bytecode = list(sys.path), set(sys.modules), sys.dont_write_bytecode
    here = Path.cwd()
    sys.path.insert(0, str(here))
    sys.dont_write_bytecode = True  # leave no __pycache__ in the user's folder
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, without_bytecode
        new = [name for name in sys.modules if name not in modules]
        own = {name for name in new if _lies_in(here, sys.modules.get(name.partition(".")[0]))}
        for name in own:
            del sys.modules[name]


def _lies_in(folder: Path, module: object) -> bool:
    """Whether a module or package stands in a folder itself, not deeper, as site-packages of a `.venv` there would."""
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    return all(Path(place).parent == folder for place in spec.submodule_search_locations or [spec.origin or ""])


def _built(reference: str) -> nn.Module:
    from torch import jit, nn

    path, _, name = reference.partition(":")
    try:
        module = importlib.import_module(path)
    except (Exception, SystemExit) as error:  # a user's code raises whatever it likes
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{path}.".startswith(f"{missing}."):
            raise ModelError(
                f"{reference}: there is no module {missing}, here or installed",
                "",
                f"The current folder is {Path.cwd()}; write package.module:function, without .py.",
            ) from error
        raise _fault(reference, f"importing {path}", error) from error
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        raise ModelError(f"{reference}: {path} has no {name}", ", ".join(own[:8]) or "an empty module")
    function = getattr(module, name)
    if not callable(function) or isinstance(function, nn.Module):
        raise ModelError(
            f"{reference}: {name} is not callable without arguments",
            f"a {type(function).__name__}",
            "Name a function that returns the torch.nn.Module.",
        )
    try:
        built = function()
        usable = isinstance(built, nn.Module) and not isinstance(built, jit.ScriptModule)
        if usable:
            built = built.cpu().float()
    except (Exception, SystemExit) as error:  # see above
        raise _fault(reference, f"calling {name}()", error) from error
    if not usable:
        raise ModelError(
            f"{reference}: {name}() returns no torch.nn.Module",
            f"a {type(built).__name__}",
            "Return the module itself, not TorchScript.",
        )
    network: nn.Module = built
    return network


def _fault(reference: str, doing: str, error: BaseException) -> ModelError:
    """What a user's code raised, with the last line of theirs that it went through."""
    here = Path.cwd()
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(here)
        and not Path(frame.filename).is_relative_to(Path(__file__).parent)
        and "site-packages" not in frame.filename
    ]
    place = f" ({Path(frames[-1].filename).relative_to(here)}, line {frames[-1].lineno})" if frames else ""
    return ModelError(f"{reference}: {doing} failed", f"{type(error).__name__}: {_text(error)}{place}")


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(". ")


def _load_weights(module: nn.Module, weights: Path, reference: str) -> None:
    from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present as take_off

    state = _state_dict(weights)
    prefix = "module."  # of DataParallel
    if all(key.startswith(prefix) for key in state) and not all(key.startswith(prefix) for key in module.state_dict()):
        take_off(state, prefix)
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except Exception as error:  # RuntimeError for shapes; a user's own loading raises whatever it likes
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"{weights}: the weights do not fit {reference}",
            f"{type(error).__name__}: {lines[min(1, len(lines) - 1)].strip()[:200].rstrip('. ')}",
        ) from error
    if missing or unexpected:
        found = [
            f"{kind} {keys[0]} ({len(keys)} in all)"
            for kind, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise ModelError(f"{weights}: the weights do not fit {reference}", ", ".join(found))


def _state_dict(weights: Path) -> dict[str, Any]:
    import torch

    if not weights.is_file():
        raise ModelError(f"{weights}: there is no such file", "nothing", "Check --weights.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: Any = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch.load raise anything from KeyError to EOFError
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused or "TorchScript" in str(error):
            raise ModelError(
                f"{weights}: the file holds code, and was not loaded",
                refused[1] if refused else "a TorchScript archive",
                "Save a state_dict: torch.save(model.state_dict(), ...).",
            ) from error
        raise ModelError(
            f"{weights}: not a checkpoint of PyTorch, or a damaged one",
            f"{weights.stat().st_size} bytes",
            "Save a state_dict: torch.save(model.state_dict(), ...).",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ModelError(
            f"{weights}: the file holds no state_dict",
            f"a {type(loaded).__name__}",
            "Save a state_dict: torch.save(model.state_dict(), ...).",
        )
    return loaded


def _named_tensors(answer: object, name: str = "") -> dict[str, Tensor]:
    """What a model returns, as tensors by name; what is no tensor is left out."""
    import torch

    if isinstance(answer, torch.Tensor):
        return {name or "output": answer}
    if isinstance(answer, tuple) and hasattr(answer, "_asdict"):
        answer = answer._asdict()
    if isinstance(answer, Mapping):
        parts = {f"{name}.{key}" if name else str(key): value for key, value in answer.items()}
        if not name and isinstance(answer.get("out"), torch.Tensor):
            parts = {"out": answer["out"]}
    elif isinstance(answer, (list, tuple)):
        parts = {f"{name}.{number}" if name else f"output{number}": part for number, part in enumerate(answer)}
    else:
        parts = {}
    found: dict[str, Tensor] = {}
    for key, part in parts.items():
        found |= _named_tensors(part, key)
    return found


def _write(module: nn.Module, example: Tensor, names: list[str], path: Path, reference: str) -> None:
    """Write ONNX with the exporter that traces, which needs nothing else; with the newer one where that fails."""
    try:
        _write_with(module, example, names, path, newer=False)
    except Exception as error:  # exporter and model raise their own kinds
        if importlib.util.find_spec("onnxscript"):
            with suppress(Exception):  # then the first fault is the one to tell
                _write_with(module, example, names, path, newer=True)
                return
        line = (str(error).strip().splitlines() or [""])[0].partition("[Caused by")[0][:300].rstrip(". ")
        raise ModelError(
            f"{reference}: PyTorch cannot export the model to ONNX, opset {NEWEST_OPSET}",
            f"{type(error).__name__}: {line}",
            "Write that part of the model with other operators.",
        ) from error


def _write_with(module: nn.Module, example: Tensor, names: list[str], path: Path, *, newer: bool) -> None:
    import torch

    with _silence():
        torch.onnx.export(
            module,
            (example,),
            str(path),
            opset_version=NEWEST_OPSET,
            input_names=[INPUT_NAME],
            output_names=names,
            dynamo=newer,
        )


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings, log lines or prints; the exporter's C++ part writes to the process's own output, around Python."""
    disabled = logging.root.manager.disable
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, disabled)
        logging.disable(logging.CRITICAL)
        nowhere = stack.enter_context(Path(os.devnull).open("w"))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number in (1, 2):
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(nowhere.fileno(), number)
        stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(redirect_stderr(nowhere))
        yield


def _check_same(module: nn.Module, path: Path, size_wh: tuple[int, int], reference: str) -> None:
    """Compare ONNX Runtime with PyTorch on one random image; the export saw a black one."""
    import torch

    onnxruntime = import_onnxruntime()
    image = torch.rand(1, 3, size_wh[1], size_wh[0], generator=torch.Generator().manual_seed(0))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        wanted = module(image)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {value.name: image.numpy() for value in session.get_inputs()})
    except Exception as error:  # the library's exceptions have no common base
        raise ModelError(f"{reference}: ONNX Runtime cannot run the export", _text(error)) from error
    for value, ours, theirs in zip(session.get_outputs(), found, wanted, strict=True):
        if not theirs.is_floating_point():
            continue  # class ids may differ where two scores are equal
        expected = theirs.double().numpy()
        if ours.shape != expected.shape:
            difference = f"{value.name} {ours.shape} instead of {expected.shape}"
        elif not np.isfinite(expected).all():
            raise ModelError(
                f"{reference}: the model gives values that are no numbers", f"NaN or infinity in {value.name}"
            )
        else:
            spread, largest = float(np.ptp(expected)), float(np.abs(expected).max())
            worst = float(np.abs(ours - expected).max())
            if worst <= MAX_DIFFERENCE * spread + 1e-5 * largest:  # the last term for an output that is constant
                continue
            difference = f"{value.name} differs by {worst:.3g}, of a range of {spread:.3g}"
        raise ModelError(
            f"{reference}: the exported model computes something else than PyTorch",
            difference,
            "A forward that branches on values, or draws random numbers, cannot be exported.",
        )
