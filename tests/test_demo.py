"""The demo: its files, its figures in the table, and its answers to unusable input."""

import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jinv.demo import _main, main
from jinv.demo._report import table
from jinv.demo._task import TASKS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One tiny run on a picture of odd size, with what each task and the linear solves returned."""
    folder = tmp_path_factory.mktemp("demo")
    picture = folder / "mine.png"
    rows, columns = np.mgrid[0:113, 0:81]
    colour = np.stack([rows // 20 % 2, columns // 16 % 2, (rows + columns) // 40 % 2], axis=-1)
    Image.fromarray((40 + 170 * colour).astype("uint8")).save(picture)
    finished, pressures = [], []

    def recorded(*args, original=_main._run):
        finished.append(original(*args))
        return finished[-1]

    def recorded_pressure(*args, original=_main.solve_pressure):
        pressures.append(original(*args))
        return pressures[-1]

    # optax adds an integer count to floats, which strict promotion refuses.
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(_main, "_run", recorded)
        patch.setattr(_main, "solve_pressure", recorded_pressure)
        code = main(["--smoke", "--image", str(picture), "--output", str(folder / "out")])
    return code, folder / "out", finished, pressures[0]


def test_files(run):
    code, folder, *_ = run
    assert code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "deblurring_yours.png",
        "inpainting_yours.png",
        "learned.png",
        "pressure.png",
        "surrogate.png",
        "table.md",
        "tomography_yours.png",
        "tuning.png",
    ]
    for path in folder.glob("*.png"):
        with Image.open(path) as figure:
            assert min(figure.size) > 300


def test_table_says_what_was_measured(run):
    _, folder, finished, _ = run
    text = (folder / "table.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| (deblur|inpaint|tomo)", line)]
    assert len(rows) == 3 + 3  # pictures, weights
    assert "yours (64 x 46)" in rows[0]
    for item in finished:
        for evaluation in item.evaluations:
            for quality in evaluation.qualities.values():
                assert f"{quality.psnr:.2f} / {quality.ssim:.3f}" in text


def test_reconstructions_are_better_than_the_data(run):
    finished = run[2]
    assert [item.task.name for item in finished] == [task.name for task in TASKS]
    for item in finished:
        for evaluation in item.evaluations:
            before, fixed, learnt = (q.psnr for q in evaluation.qualities.values())
            assert learnt > before + 0.5
            assert np.isfinite(fixed)


def test_tuning_lowers_the_loss_and_its_derivative_is_right(run):
    for item in run[2]:
        tuning = item.tuning
        assert tuning.losses[tuning.best] < tuning.losses[0]
        # The central difference crosses pixels that become flat: it is the less exact of the two.
        assert tuning.error < 1e-2


def test_learned_prior(run):
    _, folder, _, _ = run
    text = (folder / "table.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| learned |")]
    assert [row.split(" | ")[1] for row in rows] == ["total variation", "learned prior"]
    assert [row.split(" | ")[4] for row in rows] == ["-", "yes"]


def test_pressure(run):
    _, folder, _, pressure = run
    plain, multigrid = pressure.solves.values()
    for solve in (plain, multigrid):
        assert solve.converged and solve.residual <= 1e-5
        assert len(solve.residuals) == solve.num_steps + 1
        # The recursion's residual and the true one.
        np.testing.assert_allclose(solve.residuals[-1], solve.residual, rtol=0.1)
    assert multigrid.num_steps < 10 < 100 < plain.num_steps
    text = (folder / "table.md").read_text(encoding="utf-8")
    [row] = [line for line in text.splitlines() if line.startswith("| pressure |")]
    assert "| 64 x 64 |" in row
    for name, solve in pressure.solves.items():
        assert f"{solve.num_steps} / {solve.residual:.1e} / " in row
        assert name in text
    unfinished = plain._replace(converged=False)
    assert "(not converged)" in table([], None, pressure._replace(solves={"plain": unfinished}))


def test_surrogate(run):
    text = (run[1] / "table.md").read_text(encoding="utf-8")
    [row] = [line for line in text.splitlines() if line.startswith("| surrogate |")]
    _, nodes, error, *_ = row.strip("| ").split(" | ")
    assert nodes == "64 x 64" and 0 < float(error.rstrip("%")) < 5


def test_interruption_keeps_what_is_finished(run, tmp_path, monkeypatch, capsys):
    results = [run[2][0]]

    def interrupted(*_):
        if not results:
            raise KeyboardInterrupt
        return results.pop()

    monkeypatch.setattr(_main, "_run", interrupted)
    assert main(["--smoke", "--output", str(tmp_path)]) == 130
    assert "finished: deblurring" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"deblurring_yours.png", "table.md"}


def _broken(folder, kind):
    path = folder / "picture.png"
    if kind == "damaged":
        path.write_bytes(b"not a picture")
    if kind == "folder":
        path.mkdir()
    if kind == "small":
        Image.fromarray(np.zeros((20, 300), "uint8")).save(path)
    return path


@pytest.mark.parametrize("kind", ["missing", "damaged", "folder", "small"])
def test_unusable_pictures_are_refused_before_any_work(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_main, "_run", None)
    picture, output = _broken(tmp_path, kind), tmp_path / "out"
    assert main(["--image", str(picture), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jinv.demo: ") and error.count("\n") == 1 and "picture.png" in error
    assert not output.exists()


def test_output_that_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert main(["--output", str(tmp_path / "out")]) == 2
    assert "out" in capsys.readouterr().err


def test_missing_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_main.importlib.util, "find_spec", lambda name: None)
    assert main(["--output", str(tmp_path / "out")]) == 2
    assert 'pip install "jinv[images]"' in capsys.readouterr().err


def test_command(tmp_path):
    command = [sys.executable, "-m", "jinv.demo", "--image", str(tmp_path / "none.png")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2
    assert done.stderr.startswith("jinv.demo: ") and done.stderr.count("\n") == 1
