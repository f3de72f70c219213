"""What the demo leaves behind: a panel for each picture, and a table."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import plot
from ._evaluate import Evaluation
from ._learned import Learned
from ._pressure import Pressure
from ._surrogate import Surrogate
from ._task import Task
from ._tune import Tuning


class Finished(NamedTuple):
    """A task that is done."""

    task: Task
    tuning: Tuning
    evaluations: list[Evaluation]


def write_panels(finished: Finished, folder: Path) -> list[Path]:
    """A figure for each picture: the truth, what was there before, and two reconstructions."""
    paths = []
    for evaluation in finished.evaluations:
        truth = evaluation.pictures["truth"]
        figure = plot.images(evaluation.pictures, reference=truth, zoom=evaluation.zoom)
        name = f"{finished.task.name}_{evaluation.image}.png"
        paths.append(plot.save(figure, folder / name))
    return paths


def write_tuning(done: list[Finished], folder: Path) -> Path:
    """A figure of the loss of each task while its weight is learnt."""
    curves = {
        item.task.name: [loss / item.tuning.losses[0] for loss in item.tuning.losses]
        for item in done
    }
    figure = plot.convergence(
        curves, xlabel="step of Adam", ylabel="training loss / first loss", logy=False
    )
    return plot.save(figure, folder / "tuning.png")


def write_learned(learned: Learned, folder: Path) -> Path:
    """The photograph, the data, and what each method made of them."""
    restored = {name: found.picture for name, found in learned.methods.items()}
    pictures = {"truth": learned.truth, "blurred": learned.data, **restored}
    return plot.save(plot.images(pictures, reference=learned.truth), folder / "learned.png")


def write_pressure(pressure: Pressure, folder: Path) -> Path:
    """A figure of the residuals of the linear solves."""
    curves = {name: solve.residuals for name, solve in pressure.solves.items()}
    figure = plot.convergence(curves, xlabel="step", ylabel="relative residual", logx=True)
    return plot.save(figure, folder / "pressure.png")


def write_surrogate(surrogate: Surrogate, folder: Path) -> Path:
    """The medium, its pressure, the prediction, and ten times the error."""
    low, high = (float(f(surrogate.medium)) for f in (np.min, np.max))
    largest = float(np.max(surrogate.solution))
    pictures = {
        "medium": (surrogate.medium - low) / (high - low),
        "solver": surrogate.solution / largest,
        "operator": surrogate.prediction / largest,
        "10 x error": 10 * abs(surrogate.prediction - surrogate.solution) / largest,
    }
    return plot.save(plot.images(pictures, cmap="viridis"), folder / "surrogate.png")


def table(
    done: list[Finished],
    learned: Learned | None = None,
    pressure: Pressure | None = None,
    surrogate: Surrogate | None = None,
) -> str:
    """Markdown tables: the reconstructions, the tuning with its gradient check, the learned prior,
    the linear solves, and the prediction of an operator."""
    lines = [
        "Total variation with a fixed and with a learnt weight; each cell is PSNR in dB / SSIM.",
        "",
        "| task | picture | before | fixed weight | learnt weight | steps | solve | compile |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(item.task, evaluation) for item in done for evaluation in item.evaluations]
    lines += [
        "",
        "The weight is learnt on crops of other pictures, by the derivative of their mean squared",
        "error through the solver; the check compares it with a central difference, in float64.",
        "",
        "| task | weight | training loss | derivative | central difference | relative error |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_tuning_row(item) for item in done]
    if learned is not None:
        lines += [
            "",
            "Deblurring with a learned proximal network; certified: the convergence theorem holds.",
            "",
            "| task | method | PSNR in dB / SSIM | steps | certified | solve and compile |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_learned_row(name, found) for name, found in learned.methods.items()]
    if pressure is not None:
        lines += [
            "",
            "The pressure equation of a fluid among obstacles; each cell is steps / relative",
            "residual / solve / compile.",
            "",
            "| task | " + " | ".join(["cells", *pressure.solves]) + " |",
            "|---|---|" + "---|" * len(pressure.solves),
            _pressure_row(pressure),
        ]
    if surrogate is not None:
        lines += [
            "",
            "Darcy flow in a new medium, predicted by the multigrid operator.",
            "",
            "| task | nodes | relative error | solver | operator | compile |",
            "|---|---|---|---|---|---|",
            _surrogate_row(surrogate),
        ]
    return "\n".join(lines) + "\n"


def _row(task: Task, evaluation: Evaluation) -> str:
    cells = [f"{q.psnr:.2f} / {q.ssim:.3f}" for q in evaluation.qualities.values()]
    height, width = evaluation.pictures["truth"].shape
    picture = f"{evaluation.image} ({height} x {width})"
    steps = f"{evaluation.num_steps}" + ("" if evaluation.converged else " (not converged)")
    costs = [f"{evaluation.solve_seconds:.2f} s", f"{evaluation.compile_seconds:.1f} s"]
    return "| " + " | ".join([task.name, picture, *cells, steps, *costs]) + " |"


def _tuning_row(item: Finished) -> str:
    t, best = item.tuning, item.tuning.best
    cells = [
        item.task.name,
        f"{t.weights[0]:.3g} -> {t.weights[best]:.3g}",
        f"{t.losses[0]:.3e} -> {t.losses[best]:.3e}",
        f"{t.derivative:.6e}",
        f"{t.difference:.6e}",
        f"{t.error:.1e}",
    ]
    return "| " + " | ".join(cells) + " |"


def _learned_row(name, found):
    certified = {None: "-", True: "yes", False: "no"}[found.certified]
    quality = f"{found.psnr:.2f} / {found.ssim:.3f}"
    steps = f"{found.num_steps}" + ("" if found.converged else " (not converged)")
    cells = ["learned", name, quality, steps, certified, f"{found.seconds:.1f} s"]
    return "| " + " | ".join(cells) + " |"


def _pressure_row(pressure: Pressure) -> str:
    cells = []
    for s in pressure.solves.values():
        steps = f"{s.num_steps}" + ("" if s.converged else " (not converged)")
        costs = f"{1000 * s.solve_seconds:.3g} ms / {s.compile_seconds:.1f} s"
        cells.append(f"{steps} / {s.residual:.1e} / {costs}")
    height, width = pressure.shape
    return "| " + " | ".join(["pressure", f"{height} x {width}", *cells]) + " |"


def _surrogate_row(surrogate: Surrogate) -> str:
    height, width = surrogate.medium.shape
    cells = [
        "surrogate",
        f"{height} x {width}",
        f"{surrogate.error:.2%}",
        f"{1000 * surrogate.solver_seconds:.3g} ms",
        f"{1000 * surrogate.operator_seconds:.3g} ms",
        f"{surrogate.compile_seconds:.1f} s",
    ]
    return "| " + " | ".join(cells) + " |"
