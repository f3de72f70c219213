"""Figures: the right words on them, the right numbers in them, and nothing global left behind."""

import json
import subprocess
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from jinv import metrics, plot
from jinv.plot import _profile, _style


def words(figure):
    """Every text of a figure that a reader sees."""
    import matplotlib.text

    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def record(method, problem="blur", run_s: float | list[float] = 1.0, **rest):
    return {
        "method": {"name": method, "params": rest.pop("params", {})},
        "problem": {"name": problem, "size": rest.pop("size", 64)},
        "seed": rest.pop("seed", 0),
        "result": rest.pop("result", "successful"),
        "metrics": {"relative_error": rest.pop("error", 0.1)},
        "run_s": run_s,
        **rest,
    }


@pytest.fixture
def all_figures():
    return make_figures()


def make_figures():
    x = np.random.default_rng(0).random((16, 16))
    records = [
        record(m, size=n, run_s=[f * n, 1.1 * f * n], params={"n": n}, error=1 / n)
        for m, f in (("CG", 1e-6), ("FISTA", 1e-5))
        for n in (10, 100, 1000)
    ]
    return {
        "images": plot.images({"truth": x, "noisy": x + 0.1}, reference=x),
        "convergence": plot.convergence({"CG": 0.5 ** np.arange(9.0)}),
        "work_precision": plot.work_precision(records),
        "performance_profile": plot.performance_profile(records),
        "scaling": plot.scaling(records),
    }


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_save_writes_every_figure_and_again_the_same(tmp_path, suffix):
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    again = make_figures()
    for name, figure in make_figures().items():
        path = plot.save(figure, tmp_path / "new" / f"{name}{suffix}", dpi=60)
        first = path.read_bytes()
        assert first.startswith(starts[suffix]) and len(first) > 1000
        assert plot.save(again[name], path, dpi=60).read_bytes() == first


def test_save_refuses_other_suffixes(all_figures, tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in \.png, \.pdf or \.svg; got .*doc"):
        plot.save(all_figures["images"], tmp_path / "figure.doc")


def test_labels_of_the_standard_figures(all_figures):
    def labels(name):
        axes = all_figures[name].axes[0]
        return axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale(), axes.get_yscale()

    assert labels("convergence") == ("iteration", "relative error", "linear", "log")
    assert labels("work_precision") == ("time (s)", "relative error", "log", "log")
    assert labels("scaling") == ("number of unknowns $n$", "time (s)", "log", "log")
    expected = (r"factor $\tau$ over the best time", "share of problems", "log", "linear")
    assert labels("performance_profile") == expected
    assert {"CG", "FISTA"} <= set(words(all_figures["work_precision"]))
    assert {"CG", "FISTA"} <= set(words(all_figures["performance_profile"]))
    assert {"CG  $n^{1.00}$", "FISTA  $n^{1.00}$", "$n^{1}$"} <= set(words(all_figures["scaling"]))


def test_figures_show_themselves_in_notebooks(all_figures):
    assert all_figures["images"]._repr_png_().startswith(b"\x89PNG")


def test_the_users_settings_stay_untouched(rng):
    before = dict(matplotlib.rcParams)
    plot.images([rng.random((8, 8))])
    plot.convergence({"a": [1.0, 0.5]})
    assert dict(matplotlib.rcParams) == before


def test_no_import_of_matplotlib_before_a_figure_is_made():
    code = "import sys, jinv.plot, jinv.data, jinv.metrics; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "jinv.plot" in modules
    for absent in ("'matplotlib'", "'skimage'", "'sklearn'", "'h5py'", "'PIL'", "'tifffile'"):
        assert absent not in modules


def test_missing_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "jinv\[images\]"'):
        plot.convergence({"a": [1.0]})


# Pictures


def test_titles_carry_the_psnr(rng):
    x = rng.random((16, 16))
    y = x + 0.05 * rng.standard_normal((16, 16))
    figure = plot.images({"truth": x, "noisy": y}, reference=x)
    decibels = float(metrics.psnr(y, x))
    assert [axes.get_title() for axes in figure.axes] == [
        "truth\nPSNR",
        f"noisy\n{decibels:.2f} dB",
    ]


def test_the_range_of_the_psnr_is_that_of_the_limits(rng):
    x = 255 * rng.random((16, 16))
    figure = plot.images({"y": x + 2.55}, reference=x, limits=(0.0, 255.0))
    assert figure.axes[0].get_title() == "y\n40.00 dB"


def test_pictures_share_one_grey_scale():
    dark, bright = jnp.full((8, 9), 2.0), jnp.full((8, 9, 3), 6.0)
    figure = plot.images([dark, bright], limits=None)
    assert [axes.get_title() for axes in figure.axes] == ["1", "2"]
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert np.all(shown[0] == 0) and np.all(shown[1] == 1)
    clipped = plot.images([dark]).axes[0].images[0]
    assert np.all(np.asarray(clipped.get_array()) == 1) and clipped.get_clim() == (0.0, 1.0)


@pytest.mark.parametrize("count, rows, columns", [(1, 1, 1), (5, 1, 5), (6, 2, 3), (11, 3, 4)])
def test_layout(count, rows, columns):
    figure = plot.images([np.zeros((4, 4))] * count)
    grid = figure.axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)
    assert sum(bool(axes.images) for axes in figure.axes) == count


@pytest.mark.parametrize("row, column", [(0, 0), (0, 12), (8, 0), (8, 12)])
def test_zoom_shows_the_square_in_the_far_corner(row, column):
    x = np.arange(16 * 20).reshape(16, 20) / 320
    axes = plot.images([x], zoom=(row, column, 8)).axes[0]
    (inset,) = axes.child_axes
    assert np.array_equal(inset.images[0].get_array(), x[row : row + 8, column : column + 8])
    left, bottom = inset.get_position().x0, inset.get_position().y0
    box = axes.get_position()
    assert (left < box.x0 + box.width / 2) == (column == 12)
    assert (bottom < box.y0 + box.height / 2) == (row == 0)


def test_bad_pictures():
    x = np.zeros((4, 4))
    with pytest.raises(ValueError, match="at least one picture"):
        plot.images({})
    with pytest.raises(ValueError, match=r"pictures\['a'\]` must have shape .* got \(4, 4, 2\)"):
        plot.images({"a": np.zeros((4, 4, 2))})
    with pytest.raises(ValueError, match="must be real"):
        plot.images([x + 1j])
    with pytest.raises(ValueError, match=r"`reference` must have the shape .* got \(4, 5\)"):
        plot.images([x], reference=np.zeros((4, 5)))
    with pytest.raises(ValueError, match="`zoom` must be .* inside 4 x 4"):
        plot.images([x], zoom=(2, 2, 3))
    with pytest.raises(ValueError, match="black < white"):
        plot.images([x], limits=(1.0, 1.0))


# Convergence


def test_convergence_draws_medians_bands_and_names(rng):
    runs = np.exp(rng.standard_normal((5, 7)))
    figure = plot.convergence({"a": runs, "b": ([0.0, 2.0, 3.0], [1.0, 0.1, 0.01])}, ylabel="gap")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert np.allclose(lines["a"].get_ydata(), np.median(runs, axis=0))
    assert np.array_equal(lines["b"].get_xdata(), [0.0, 2.0, 3.0])
    assert len(axes.collections) == 1
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert np.isclose(band.min(), runs.min()) and np.isclose(band.max(), runs.max())
    assert {"a", "b", "gap", "iteration"} <= set(words(figure))


def test_a_history_ends_where_it_stops_being_finite():
    history = np.array([1.0, 0.1, 0.0, np.nan, np.inf])
    (axes,) = plot.convergence({"a": history}).axes
    assert np.array_equal(axes.lines[0].get_ydata(), [1.0, 0.1])
    (axes,) = plot.convergence({"a": history}, logy=False).axes
    assert np.array_equal(axes.lines[0].get_ydata(), [1.0, 0.1, 0.0])


def test_histories_from_records_of_different_lengths():
    records = [record("CG", history=[1.0, 0.5]), record("CG", history=[3.0, 1.5, 1.0], seed=1)]
    (axes,) = plot.convergence(records).axes
    assert np.array_equal(axes.lines[0].get_ydata(), [2.0, 1.0, 1.0])


def test_bad_histories():
    with pytest.raises(ValueError, match="at least one history"):
        plot.convergence({})
    with pytest.raises(ValueError, match=r"histories\['a'\]` must have shape"):
        plot.convergence({"a": ([1.0, 2.0], [1.0])})
    with pytest.raises(ValueError, match="field 'history'"):
        plot.convergence([record("CG")])


# Benchmark figures


def test_work_precision_points_are_medians_and_failures_are_hollow():
    records = [
        record("CG", run_s=[1.0, 2.0, 3.0], error=1e-2, params={"rtol": 1e-2}),
        record("CG", run_s=[3.0, 4.0, 5.0], error=3e-2, params={"rtol": 1e-2}, seed=1),
        record("CG", run_s=9.0, error=1e-4, params={"rtol": 1e-4}, result="max_steps_reached"),
    ]
    figure = plot.work_precision(records, title="Blur")
    axes = figure.axes[0]
    line, *markers = axes.lines
    assert np.array_equal(line.get_xdata(), [3.0, 9.0])
    assert np.allclose(line.get_ydata(), [2e-2, 1e-4])
    faces = [to_hex(marker.get_markerfacecolor()) for marker in markers]
    assert faces == [_style.COLOURS[0].lower(), "#ffffff"]
    assert {"CG", "some solves failed", "Blur"} <= set(words(figure))


def test_work_precision_gives_each_problem_a_panel():
    figure = plot.work_precision([record("CG"), record("CG", problem="CT", run_s=2.0)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["blur", "CT"]
    figure = plot.work_precision(
        [record("CG", psnr=30.0, num_steps=7)], metric="psnr", cost="num_steps"
    )
    assert figure.axes[0].get_ylabel() == "PSNR (dB)"
    assert figure.axes[0].get_xlabel() == "iterations"


def test_performance_ratios_by_hand():
    records = [
        record("a", problem="1", run_s=[1.0, 1.0, 9.0]),
        record("b", problem="1", run_s=2.0),
        record("a", problem="2", run_s=6.0),
        record("a", problem="2", run_s=3.0),
        record("b", problem="2", run_s=1.0),
        record("a", problem="3", run_s=1.0, result="failed"),
        record("b", problem="3", run_s=4.0),
        record("a", problem="4", run_s=1.0),
        record("a", problem="5", run_s=1.0, result="failed"),
    ]
    ratios = _profile.performance_ratios(records)
    assert np.array_equal(ratios["a"], [1, 3, np.inf, 1, np.inf])
    assert np.array_equal(ratios["b"], [2, 1, 1, np.inf, np.inf])
    axes = plot.performance_profile(records).axes[0]
    a, b = axes.lines
    assert np.array_equal(a.get_xdata()[:-1], [1, 3]) and np.allclose(
        a.get_ydata(), [0.4, 0.6, 0.6]
    )
    assert np.array_equal(b.get_xdata()[:-1], [1, 2]) and np.allclose(
        b.get_ydata(), [0.4, 0.6, 0.6]
    )


def test_a_profile_starts_at_zero_for_a_method_that_is_never_best():
    records = [record("a", run_s=1.0), record("b", run_s=3.0)]
    _, b = plot.performance_profile(records, max_ratio=8.0).axes[0].lines
    assert np.array_equal(b.get_ydata(), [0, 1, 1]) and np.allclose(b.get_xdata(), [1, 3, 8.32])


def test_scaling_reports_the_exponent_of_the_larger_sizes():
    sizes = [(8, 8), (16, 16), (32, 32), (64, 64)]
    records = [record("CG", size=s, run_s=1e-3 + 1e-7 * np.prod(s) ** 1.5) for s in sizes[:2]]
    records += [record("CG", size=s, run_s=1e-7 * np.prod(s) ** 1.5) for s in sizes[2:]]
    figure = plot.scaling(records, guides=(1, 1.5))
    assert {"CG  $n^{1.50}$", "$n^{1}$", "$n^{1.5}$"} <= set(words(figure))
    assert np.array_equal(figure.axes[0].lines[0].get_xdata(), [64, 256, 1024, 4096])


def test_bad_records():
    for fn in (plot.work_precision, plot.performance_profile, plot.scaling):
        with pytest.raises(ValueError, match="at least one benchmark record"):
            fn([])
        with pytest.raises(ValueError, match="needs 'method' with a name"):
            fn([{"problem": {"name": "blur", "size": 4}, "run_s": 1.0}])
        with pytest.raises(ValueError, match="neither a field nor a metric 'joules'"):
            fn([record("CG")], cost="joules")
    with pytest.raises(ValueError, match="at least one successful solve"):
        plot.performance_profile([record("CG", result="failed")])
    with pytest.raises(ValueError, match="positive 'run_s'"):
        plot.performance_profile([record("CG", run_s=0.0)])
    with pytest.raises(ValueError, match="size"):
        plot.scaling([record("CG", size=0)])


def test_records_survive_json():
    records = [
        record("CG", size=[8, 8], run_s=[0.1, 0.2]),
        record("CG", size=[16, 16], run_s=[0.3]),
    ]
    figure = plot.scaling(json.loads(json.dumps(records)))
    assert np.array_equal(figure.axes[0].lines[0].get_xdata(), [64, 256])


def test_nested_records_and_failures_without_measurements():
    nested = [
        {
            "method": {"name": "CG", "params": {}},
            "problem": {"name": "blur", "size": n},
            "outcome": {"result": "successful", "metrics": {"gap": 1e-3}},
            "cost": {"cpu_s": [n * 1e-3], "run_s": []},
        }
        for n in (10, 100)
    ]
    absent = {**nested[1], "method": {"name": "other", "params": {}}}
    absent |= {"outcome": {"result": "crashed", "metrics": {}}, "cost": {"cpu_s": []}}
    figure = plot.work_precision([*nested, absent], metric="gap", cost="cpu_s")
    assert {"CG", "other", "CPU time (s)", "gap"} <= set(words(figure))
    figure = plot.scaling([*nested, absent], cost="cpu_s")
    assert "CG  $n^{1.00}$" in words(figure)
    figure = plot.performance_profile([*nested, absent], cost="cpu_s")
    assert {"CG", "other", r"factor $\tau$ over the best CPU time"} <= set(words(figure))
    with pytest.raises(ValueError, match="neither a field nor a metric 'run_s'"):
        plot.scaling(nested)


# The look


def test_many_methods_stay_distinct():
    looks = _style.looks(f"method {i}" for i in range(20))
    assert len(set(looks.values())) == 20


def test_colours_have_contrast_on_white():
    for colour in _style.COLOURS:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        assert 0.2125 * red + 0.7154 * green + 0.0721 * blue < 0.72


@pytest.mark.parametrize("count, gap", [(1, 0.1), (4, 0.1), (9, 0.05), (30, 0.06)])
def test_spread_keeps_order_distance_and_room(rng, count, gap):
    wanted = list(np.clip(rng.standard_normal(count), 0, 1))
    placed = _style.spread(wanted, gap)
    order = np.argsort(wanted, kind="stable")
    assert np.all(np.diff(np.array(placed)[order]) >= gap - 1e-12)
    if gap * (count - 1) <= 1:
        assert min(placed) >= 0 and max(placed) <= 1 + 1e-12
    assert _style.spread([0.2, 0.9, 0.5], 0.1) == pytest.approx([0.2, 0.9, 0.5])
    assert _style.spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
