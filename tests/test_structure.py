"""The shape of the code: import direction, class rules, documentation, import cost, file sizes."""

import ast
import graphlib
import importlib
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import equinox as eqx
import pytest

import jinv

from .helpers import ADJOINTS, PROBLEMS, SOLVERS


ROOT = pathlib.Path(jinv.__file__).parent
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}

# A module may import what stands before it.
ORDER = "_tree _functional _result _loop _linear _progress _problem _solver _run"
ORDER = f"{ORDER} _adjoint _solve operators nn _composite prox data_terms splitting linear"
ORDER = f"{ORDER} _leaves train pde pretrained".split()
# Nothing above imports these; which of each other they import is said here.
LEAVES = {"data": [], "metrics": [], "plot": ["metrics"], "demo": ["data", "metrics", "plot"]}

# The reason for every file of more than 400 lines.
LONG = {
    "prox/_calculus.py": "one table of rules that are each other's inverses",
}

HEAVY = "flax orbax matplotlib diffrax skimage h5py"


def _imports(name):
    """The jinv modules that a file imports, anywhere in it, as dotted paths below `jinv`."""
    package = ["jinv", *name.split("/")[:-1]]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            head = ".".join([*base, *([node.module] if node.module else [])])
            # `from . import _tree` names modules, `from ._tree import norm` one module.
            found = [head] if node.module else [f"{head}.{alias.name}" for alias in node.names]
            if head == "jinv":
                found = [f"jinv.{alias.name}" for alias in node.names]
        else:
            continue
        for dotted in found:
            if dotted.split(".")[0] == "jinv":
                yield ".".join(dotted.split(".")[1:])


def _modules():
    for info in pkgutil.walk_packages(jinv.__path__, "jinv."):
        if not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def _classes(base=eqx.Module):
    found = {}
    for module in _modules():
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__.startswith("jinv"):
                if issubclass(value, base):
                    found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def _is_interface(cls):
    return cls.__name__.lstrip("_").startswith("Abstract")


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__.py"])
def test_imports_point_one_way(name):
    layer = name.split("/")[0].removesuffix(".py")
    assert layer in [*ORDER, *LEAVES], f"say in ORDER where {layer} belongs"
    before = ORDER + LEAVES[layer] if layer in LEAVES else ORDER[: ORDER.index(layer)]
    targets = {dotted.split(".")[0] for dotted in _imports(name)}
    assert targets <= {*before, layer}, targets


def test_no_cycles_inside_packages():
    names = {name.removesuffix(".py").replace("/", "."): name for name in FILES}
    graph = {dotted: set(_imports(name)) & set(names) for dotted, name in names.items()}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_every_class_is_abstract_or_final():
    for name, cls in _classes().items():
        for parent in cls.__mro__[1:]:
            ours = parent.__module__.startswith("jinv")
            assert not ours or _is_interface(parent), f"{name} extends the final {parent.__name__}"
        if not _is_interface(cls):
            assert not inspect.isabstract(cls), f"{name} misses {cls.__abstractmethods__}"


@pytest.mark.parametrize("name", FILES)
def test_forbidden_constructs(name):
    text = FILES[name].read_text()
    assert "super().__init__" not in text
    assert "from __future__" not in text
    assert name == "_loop.py" or "equinox.internal" not in text, "the engine's floor is _loop.py"
    lines = len(text.splitlines())
    assert lines <= 400 or name in LONG, f"{lines} lines: split it, or give a reason in LONG"


def test_registries_are_complete():
    pairs = [
        (jinv.AbstractSolver, SOLVERS),
        (jinv.AbstractAdjoint, ADJOINTS),
        (jinv.AbstractProblem, PROBLEMS),
    ]
    for base, registry in pairs:
        names = {cls.__name__ for cls in _classes(base).values() if not _is_interface(cls)}
        public = {name for name in names if not name.startswith("_")}
        assert public == set(registry), f"complete the registry of {base.__name__} in helpers.py"


def _public():
    packages = [m for m in vars(jinv).values() if inspect.ismodule(m)]
    packages = [m for m in packages if m.__name__.startswith("jinv.") and hasattr(m, "__path__")]
    for module in [jinv, *packages]:
        for name, value in vars(module).items():
            if not name.startswith("_") and not inspect.ismodule(value):
                yield f"{module.__name__}.{name}", value


@pytest.mark.parametrize("name, value", list(_public()))
def test_public_names_are_documented_with_an_example(name, value):
    text = (inspect.getdoc(value) or "") if inspect.isclass(value) or callable(value) else "data"
    assert text, f"{name} has no docstring"
    if text != "data" and not _is_interface(value):
        assert ">>>" in text, f"{name} has no example"


def test_importing_is_light():
    code = (
        "import sys, time; start = time.process_time(); import jax, lineax, optimistix;"
        "theirs = time.process_time(); import jinv; ours = time.process_time() - theirs;"
        f"print(ours / (theirs - start), *(set('{HEAVY}'.split()) & set(sys.modules)))"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(3)]
    ratio, *heavy = min((run.split() for run in runs), key=lambda r: float(r[0]))
    assert not heavy, f"`import jinv` imports {heavy}"
    assert float(ratio) < 1, f"`import jinv` takes {ratio} times what JAX and lineax take"


def test_importing_computes_nothing():
    code = (
        "import jax; from jax._src import xla_bridge; import jinv;"
        "assert not xla_bridge._backends, 'a device was touched'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
