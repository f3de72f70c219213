"""The command line of the demo."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from .. import data
from ._evaluate import evaluate
from ._learned import deblur_learned
from ._pressure import solve_pressure
from ._report import (
    Finished,
    table,
    write_learned,
    write_panels,
    write_pressure,
    write_surrogate,
    write_tuning,
)
from ._surrogate import predict_flow
from ._task import TASKS, Task
from ._tune import tune


_SMALLEST = 32  # pixels; below, crops, blur and SSIM windows are as large as the picture


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo as `python -m jinv.demo` does.

    It needs the extra `images`, and about a minute of one processor core. What is finished is
    on disk already when it is interrupted.

    **Arguments:**

    - `arguments`: of the command line, by default those of this process. `--image` is a picture
        to test on instead of the photographs: of any size, made grey, shrunk to at most 256
        pixels (128 for tomography). `--output` is the folder of the figures and of `table.md`.

    **Returns:** the exit code: 0; 2 for unusable input, with one line on stderr; 130 after Ctrl-C.

    !!! example
        ```python
        >>> import jinv.demo
        >>> jinv.demo.main(["--image", "there_is_no_such_picture.png"])
        2

        ```
    """
    told = _parser().parse_args(arguments)
    try:
        _require_extras()
        if told.image is not None:
            _picture(told.image, 256)
        told.output.mkdir(parents=True, exist_ok=True)
    except (ImportError, OSError, ValueError) as error:
        print(f"jinv.demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    smoke = told.smoke or bool(os.environ.get("JINV_SMOKE"))
    done: list[Finished] = []
    try:
        # The weights are learnt in float64; pictures are reconstructed in float32.
        with _double_precision():
            for task in TASKS:
                done.append(_run(task, told.image, smoke))
                for path in write_panels(done[-1], told.output):
                    print(f"wrote {path}")
                (told.output / "table.md").write_text(table(done), encoding="utf-8")
        write_tuning(done, told.output)
        learned = deblur_learned(64 if smoke else 128, max_steps=20 if smoke else 500)
        write_learned(learned, told.output)
        (told.output / "table.md").write_text(table(done, learned), encoding="utf-8")
        pressure = solve_pressure(64 if smoke else 256)
        write_pressure(pressure, told.output)
        (told.output / "table.md").write_text(table(done, learned, pressure), encoding="utf-8")
        surrogate = predict_flow()
        write_surrogate(surrogate, told.output)
        tables = table(done, learned, pressure, surrogate)
        (told.output / "table.md").write_text(tables, encoding="utf-8")
    except KeyboardInterrupt:
        names = ", ".join(item.task.name for item in done) or "nothing"
        print(f"\njinv.demo: interrupted; finished: {names}", file=sys.stderr)
        return 130
    written = [f"{name}.png" for name in ("tuning", "learned", "pressure", "surrogate")]
    names = ", ".join(str(told.output / name) for name in (*written, "table.md"))
    print(f"\n{tables}\nwrote {names}")
    return 0


def _run(task: Task, image: Path | None, smoke: bool) -> Finished:
    crop, num_steps, max_steps = (32, 4, 400) if smoke else (64, 12, 8000)
    size = 64 if smoke else task.size
    tuning = tune(task, crop=crop, num_steps=num_steps, max_steps=max_steps)
    learnt = tuning.weights[tuning.best]
    weights = {f"fixed weight {task.noise:.3g}": task.noise, f"learnt weight {learnt:.3g}": learnt}
    evaluations = []
    for name, look_at in list(task.testing.items())[: 1 if smoke else None]:
        if name == "phantom":
            truth = data.shepp_logan(size, dtype=jnp.float32)
        elif image is not None:
            name, truth = "yours", _picture(image, size)
        else:
            truth = data.photograph(name, shape=size, dtype=jnp.float32)
        settings = {"look_at": look_at, "max_steps": max_steps}
        evaluations.append(evaluate(task, name, truth, weights, **settings))
    return Finished(task, tuning, evaluations)


def _picture(path: Path, size: int):
    truth = data.read_image(path, max_size=size, dtype=jnp.float32)
    if min(truth.shape) < _SMALLEST:
        raise ValueError(
            f"{path}: expected at least {_SMALLEST} pixels on the short side (once the long one "
            f"is at most {size}); got {truth.shape[0]} x {truth.shape[1]}."
        )
    return truth


def _double_precision():
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return jax.experimental.enable_x64(True)  # pyright: ignore  # JAX before 0.8


def _require_extras() -> None:
    missing = [name for name in ("skimage", "matplotlib") if not importlib.util.find_spec(name)]
    if missing:
        raise ImportError(
            f"the demo needs pictures and figures, but {' and '.join(missing)} is not installed: "
            'pip install "jinv[images]"'
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jinv.demo",
        description="Deblurs, fills in and reconstructs pictures with total variation, whose "
        "weight is learnt by the derivative of the solution; deblurs with a learned prior; solves "
        "for the pressure of a fluid among obstacles; and predicts flow in a porous medium. "
        "Writes figures and a table.",
    )
    parser.add_argument("--image", type=Path, help="a picture of your own to test on")
    parser.add_argument("--output", type=Path, default=Path("results/demo"), help="folder")
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    return parser
