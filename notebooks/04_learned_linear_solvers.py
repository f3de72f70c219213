# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Linear solvers inside a simulation
#
# **Question.** A simulation of an incompressible fluid solves one large linear system per time
# step, for the pressure. Which solver keeps its number of steps when the grid is refined, what can
# a trained one add, and can one differentiate through the whole simulation?
#
# The system is $A p = b$ with
#
# $$(A p)_i = s_i\, p_i + \sum_{j \sim i} w_{ij}\, (p_i - p_j) ,$$
#
# a sum over the neighbours of each cell. $A$ is *minus* the Laplacian, so it is positive
# semi-definite. The weight $w$ of a face is 1 between two fluid cells and 0 at a solid (no flow
# through it: Neumann); beyond an open side the pressure is zero (Dirichlet). Solid cells have an
# identity row, $s_i = 1$, and stay at zero.

# %%
import io
import os
import time

import equinox as eqx
import IPython.display
import jax
import jax.numpy as jnp
import lineax as lx
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates
from PIL import Image

import jinv
from jinv.linear import DCDM, PCG, Chebyshev, FastPoisson, Jacobi, Multigrid


small = bool(os.environ.get("JINV_SMOKE"))

# %% [markdown]
# ## The pressure equation among obstacles
#
# `pressure_poisson` makes a lineax operator from a picture of the cells, and a solver of
# `jinv.linear` is a lineax solver.


# %%
def among_obstacles(size):
    cells = jinv.linear.random_obstacles((size, size), key=jax.random.key(1))
    operator = jinv.linear.pressure_poisson(cells, open_sides=[(0, 1)])
    return cells, operator, jinv.linear.random_source(operator, key=jax.random.key(2))


@eqx.filter_jit
def solve(operator, source, solver):
    return lx.linear_solve(operator, source, solver, throw=False)


def timed(operator, source, solver):
    jax.block_until_ready(solve(operator, source, solver).value)  # compiles
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        solution = solve(operator, source, solver)
        jax.block_until_ready(solution.value)
        seconds.append(time.perf_counter() - begin)
    return solution, min(seconds)


size = 32 if small else 256
cells, operator, source = among_obstacles(size)
rtol = jnp.asarray(1e-5)  # an array: another tolerance does not compile anew
multigrid = PCG(rtol, 0.0, preconditioner=Multigrid(), max_steps=4000, history=True)
solution = solve(operator, source, multigrid)
scaled = solution.value / jnp.max(jnp.abs(solution.value))
pictures = {"solid cells": cells, "pressure, scaled": 0.5 + 0.5 * scaled}
jinv.plot.images(pictures, cmap="viridis")

# %% [markdown]
# Left: the obstacles; the last row at the bottom is open. Right: the pressure of a random source.
#
# ### The number of steps and the size of the grid
#
# Conjugate gradients need more steps on a finer grid, in the worst case in proportion to the number
# of cells per side. With a multigrid cycle as preconditioner the number stays the same.

# %%
curves, conjugate_gradients = {}, PCG(rtol, 0.0, max_steps=4000, history=True)
print(f"{'cells':>9}  {'CG':>16}  {'PCG, multigrid':>16}")
for n in (32,) if small else (64, 128, 256, 512):
    _, A, b = among_obstacles(n)
    row = f"{n:>4}^2   "
    for name, solver in (("CG", conjugate_gradients), ("multigrid", multigrid)):
        found, seconds = timed(A, b, solver)
        num_steps = int(found.stats["num_steps"])
        curves[f"{name}, {n}"] = np.asarray(found.stats["residuals"])[: num_steps + 1]
        row += f"  {num_steps:>5} {1000 * seconds:>7.1f} ms"
    print(row)
jinv.plot.convergence(curves, xlabel="step", ylabel="relative residual", logx=True)

# %% [markdown]
# The figure shows the residual after each step, relative to the right-hand side. The multigrid
# cycle eliminates every second cell first, so its curves start below one.
#
# ### Preconditioners side by side
#
# - `Jacobi` divides by the diagonal: next to nothing per step, and next to no gain.
# - `Chebyshev` is a polynomial in $A$: fewer inner products, not less work.
# - `FastPoisson` inverts the box without obstacles by cosine transforms.
# - `Multigrid` corrects the error on coarser and coarser grids. A V cycle visits each grid once;
#   an F cycle (the default) and a W cycle visit some of the coarse ones more often.

# %%
ends = (("neumann", "dirichlet"), ("neumann", "neumann"))
preconditioners = {
    "none": None,
    "Jacobi": Jacobi(),
    "Chebyshev(4)": Chebyshev(4),
    "FastPoisson": FastPoisson(ends),
    "Multigrid V": Multigrid(cycle="V"),
    "Multigrid F": Multigrid(),
    "Multigrid W": Multigrid(cycle="W"),
}
if small:
    del preconditioners["Multigrid V"], preconditioners["Multigrid W"]
for name, preconditioner in preconditioners.items():
    solver = PCG(rtol, 0.0, preconditioner=preconditioner, max_steps=4000, history=True)
    found, seconds = timed(operator, source, solver)
    num_steps, residual = int(found.stats["num_steps"]), float(found.stats["residual"])
    print(f"{name:13} {num_steps:5} steps {1000 * seconds:8.1f} ms   residual {residual:.1e}")

# %% [markdown]
# All to the same relative residual, checked with the true $b - A p$ at the end; compilation is left
# out.
#
# ### A search direction from a model
#
# `DCDM` takes any map from a residual to a direction, and makes it conjugate to the previous two:
# right whatever the map, where PCG needs a symmetric positive definite one. With the multigrid
# cycle as the map both are the same method in exact arithmetic, so this shows what the generality
# costs. PCG works on every second cell only; DCDM keeps all of them, and stores directions.

# %%
direct = DCDM(1e-5, 0.0, Multigrid())
found, seconds = timed(operator, source, direct)
print(f"DCDM {int(found.stats['num_steps']):2} steps {1000 * seconds:6.1f} ms")
found, seconds = timed(operator, source, multigrid)
print(f"PCG  {int(found.stats['num_steps']):2} steps {1000 * seconds:6.1f} ms")

# %% [markdown]
# ## Trained numbers
#
# The relaxation factors and the coarsening of the cycle are functions of the local weights with a
# few numbers each. The stored ones were trained on random geometries and coefficients; the cycle
# stays symmetric and positive definite whatever they are. Here they meet new coefficients that jump
# by $10^3$, in $-\nabla \cdot (k \nabla x) = b$.

# %%
record = jinv.pretrained.read_record("multigrid_2d")
untrained = Multigrid()
trained = jinv.pretrained.multigrid(2)
print("trained by", record["script"], "in", record["steps"], "steps;", record["bytes"], "bytes")


def with_jumps(key, size=32 if small else 128):
    keys = jax.random.split(key)
    coefficient = jinv.linear.random_coefficient((size, size), key=keys[0], contrast=1e3)
    operator = jinv.linear.heterogeneous_diffusion(coefficient)
    return operator, jinv.linear.random_source(operator, key=keys[1])


@eqx.filter_jit
def count(keys, preconditioner):
    solver = PCG(1e-5, 0.0, preconditioner=preconditioner)
    one = lambda key: lx.linear_solve(*with_jumps(key), solver, throw=False).stats
    stats = jax.lax.map(one, keys)
    return stats["num_steps"], stats["residual"]


keys = jax.random.split(jax.random.key(7), 4 if small else 16)
for name, preconditioner in {"untrained": untrained, "trained": trained}.items():
    num_steps, residuals = count(keys, preconditioner)
    print(f"{name:10} steps {num_steps}, mean {num_steps.mean():.2f}, {residuals.max():.1e}")

# %% [markdown]
# Training saves two steps of seven or eight. A step costs the same; the set-up costs twice
# as much, so this pays for many right-hand sides.
#
# ## float32 and below
#
# A solution that is stored in float32 has a residual of about $\varepsilon \|A\| \|x\|$, whatever
# the solver. `PCG` stops there. `Refinement` solves for corrections in float32 and computes
# residuals in float64; the cycles stay as fast as they were.

# %%
shape = 2 * (size,)
strict = PCG(jnp.asarray(1e-7), 0.0, preconditioner=Multigrid(), max_steps=4000, history=True)
single = solve(jinv.linear.poisson(shape), jnp.ones(shape), strict)
inner = PCG(1e-3, 0.0, preconditioner=Multigrid())
with jax.enable_x64(True):
    operator, ones = jinv.linear.poisson(shape, dtype=jnp.float64), jnp.ones(shape)
    double = solve(operator, ones, jinv.linear.Refinement(inner, 1e-11, 0.0))
    for name, found in {"float32, asked 1e-07": single, "refined, asked 1e-11": double}.items():
        left = ones - operator.mv(found.value.astype(jnp.float64))
        residual = jnp.linalg.norm(left) / jnp.linalg.norm(ones)
        print(f"{name}: {int(found.stats['num_steps'])} steps, true residual {residual:.1e}")

# %% [markdown]
# ## Differentiate
#
# A solve is differentiable with respect to the right-hand side and the operator, by one more solve
# with the same matrix; no iterates are stored. Here $L(k) = \sum_i x_i^2$ with
# $-\nabla \cdot (k \nabla x) = 1$, and the derivative with respect to the coefficient in one cell,
# against a central difference in double precision.

# %%
with jax.enable_x64(True):
    keys = jax.random.split(jax.random.key(3))
    field = jinv.linear.random_coefficient((32, 32), key=keys[0], contrast=50.0, smooth=True)
    field = field.astype(jnp.float64)
    tight = PCG(1e-11, 0.0, preconditioner=Multigrid())

    @jax.jit
    @jax.value_and_grad
    def energy(k):
        A = jinv.linear.heterogeneous_diffusion(k, spacing=1 / 32)
        return jnp.sum(lx.linear_solve(A, jnp.ones_like(k), tight).value ** 2)

    slope = energy(field)[1][12, 20]
    h = 1e-4 * field[12, 20]
    bump = jnp.zeros_like(field).at[12, 20].set(h)
    central = (energy(field + bump)[0] - energy(field - bump)[0]) / (2 * h)
    print(f"implicit {slope:.9e}   central difference {central:.9e}")

# %% [markdown]
# A batch is a `jax.vmap`; the set-up of the multigrid is part of the solve, so that each lane may
# have a geometry of its own. Lanes stop one by one.

# %%
side = 16 if small else 64


@jax.jit
@jax.vmap
def each(key):
    cells = jinv.linear.random_obstacles((side, side), key=key)
    A = jinv.linear.pressure_poisson(cells, open_sides=[(0, 1)])
    b = jinv.linear.random_source(A, key=key)
    stats = lx.linear_solve(A, b, PCG(1e-5, 0.0, preconditioner=Multigrid())).stats
    return stats["num_steps"], stats["residual"]


num_steps, residuals = each(jax.random.split(jax.random.key(4), 8))
print("steps", num_steps, "largest residual", f"{residuals.max():.1e}")

# %% [markdown]
# ## Smoke around obstacles
#
# The grid is staggered: pressure and smoke live in cells, the velocity on the faces between them,
# one array per axis, of the shapes of `operator.faces`. A time step
#
# 1. carries velocity and smoke along the flow (semi-Lagrangian: the value at a point is the one a
#    time step upstream);
# 2. sets the velocity on closed faces: zero at solids and walls, the given speed at the inflow;
# 3. projects: solves $A p = -\operatorname{div} u$ and replaces $u$ by $u - \operatorname{flux} p$.
#
# The signs: `operator.flux(p)` is the weighted difference across each face, from low to high index,
# and $A p = -\operatorname{div} \operatorname{flux} p$ in fluid cells. So
# $\operatorname{div}(u - \operatorname{flux} p) = \operatorname{div} u + A p = 0$. Closed faces
# have weight zero, so the projection leaves them alone. The pressure of the last step is the first
# guess.

# %%
height, width, num_times = (32, 48, 20) if small else (64, 96, 60)
unit = height / 64  # cells per unit of length
centre, staggered = (0.5, 0.5), ((0.0, 0.5), (0.5, 0.0))
projection = PCG(1e-5, 0.0, preconditioner=Multigrid())


def points(shape, offset, dtype):
    axes = [jnp.arange(n, dtype=dtype) + o for n, o in zip(shape, offset, strict=True)]
    return jnp.meshgrid(*axes, indexing="ij")


def sample(field, offset, at):
    where = [x - o for x, o in zip(at, offset, strict=True)]
    return map_coordinates(field, where, order=1, mode="nearest")


def advect(field, offset, velocity, dt):
    at = points(field.shape, offset, field.dtype)
    speeds = [sample(u, o, at) for u, o in zip(velocity, staggered, strict=True)]
    return sample(field, offset, [x - dt * u for x, u in zip(at, speeds, strict=True)])


def divergence(velocity):
    return sum(jnp.diff(u, axis=axis) for axis, u in enumerate(velocity))


def close(operator, velocity, inflow):
    down, right = (w * u for w, u in zip(operator.faces, velocity, strict=True))
    return down, right.at[:, 0].set(inflow)


def project(operator, velocity, guess, solver):
    source = jnp.where(operator.active(), -divergence(velocity), 0)
    guess = {"y0": jax.lax.stop_gradient(guess)}
    found = lx.linear_solve(operator, source, solver, options=guess)
    flux = operator.flux(found.value)
    return tuple(u - f for u, f in zip(velocity, flux, strict=True)), found


def simulate(operator, inflow, dye, num_times, *, dt=2.0, solver=projection, warm=True):
    def step(carry, _):
        velocity, smoke, pressure = carry
        moved = [advect(u, o, velocity, dt) for u, o in zip(velocity, staggered, strict=True)]
        moved = close(operator, moved, inflow)
        guess = jnp.where(warm, pressure, 0)
        velocity, found = project(operator, moved, guess, solver)
        smoke = advect(smoke, centre, velocity, dt).at[:, 0].set(dye)
        before, after = (jnp.linalg.norm(divergence(u)) for u in (moved, velocity))
        stats = {"steps": found.stats["num_steps"], "before": before, "after": after}
        return (velocity, smoke, found.value), (smoke, stats)

    still = tuple(jnp.zeros_like(w) for w in operator.faces)
    empty = jnp.zeros_like(operator.sink)
    velocity, found = project(operator, close(operator, still, inflow), empty, solver)
    start = velocity, empty, found.value
    (velocity, smoke, _), (frames, stats) = jax.lax.scan(step, start, None, num_times)
    return smoke, velocity, frames, stats


# %%
y, x = (a / unit for a in points((height, width), centre, jnp.float32))
ball = (y - 30) ** 2 + (x - 30) ** 2 < 9**2
plate = (jnp.abs(x - 62) < 2) & (jnp.abs(y - 46) < 12)
pipe = (y - 12) ** 2 + (x - 64) ** 2 < 6**2
solid = ball | plate | pipe
tunnel = jinv.linear.pressure_poisson(solid.astype(int), open_sides=[(1, 1)])
inflow, dye = jnp.ones(height), jnp.exp(-(((y[:, 0] - 32) / 7) ** 2))

run = jax.jit(lambda warm: simulate(tunnel, inflow, dye, num_times, warm=warm))
for warm in (False, True):
    jax.block_until_ready(run(warm))  # compiles
    begin = time.perf_counter()
    smoke, velocity, frames, stats = jax.block_until_ready(run(warm))
    seconds = time.perf_counter() - begin
    left = float(jnp.max(stats["after"] / stats["before"]))
    total = int(stats["steps"].sum())
    print(f"first guess {'previous' if warm else 'zero':8} {total} steps of PCG in all,", end=" ")
    print(f"{1000 * seconds:.0f} ms, divergence after / before at most {left:.1e}")

# %% [markdown]
# The loop is one `lax.scan` under `jit`. The first guess saves some of the steps. What is left of
# the divergence is the tolerance of the solve, $10^{-5}$, plus the rounding of float32 velocities.


# %%
def show(frames, solids, names, mark=None):
    figure, axes = plt.subplots(1, len(frames), figsize=(3.2 * len(frames), 2.4))
    for panel, frame, solid, name in zip(axes, frames, solids, names, strict=True):
        panel.imshow(np.where(solid, np.nan, frame), cmap="magma", vmin=0, vmax=1)
        if mark is not None:
            panel.plot(mark[1], mark[0], "c+", markersize=14)
        panel.set(title=name, xticks=[], yticks=[], facecolor="tab:gray")
    figure.tight_layout()
    plt.close(figure)
    return figure


chosen = [num_times // 4 - 1, num_times // 2 - 1, num_times - 1]
show([frames[i] for i in chosen], 3 * [solid], [f"time step {i + 1}" for i in chosen])

# %% [markdown]
# Smoke enters at the left, and the fluid leaves at the right; solids are grey. The same as an
# animation:


# %%
def animation(frames, solid, scale=4):
    colours = (255 * plt.get_cmap("magma")(np.asarray(frames))[..., :3]).astype("uint8")
    colours[:, np.asarray(solid)] = 128
    large = colours.repeat(scale, axis=1).repeat(scale, axis=2)
    pictures = [Image.fromarray(frame).quantize(32) for frame in large]
    stream = io.BytesIO()
    settings = {"save_all": True, "append_images": pictures[1:], "duration": 100, "loop": 0}
    pictures[0].save(stream, format="GIF", **settings)
    return IPython.display.Image(stream.getvalue(), format="gif")


animation(frames[::4], solid)

# %% [markdown]
# ## Steer the smoke
#
# The whole run is a differentiable function. To move an obstacle by gradient descent its geometry
# must enter smoothly: the weight of a face is a sigmoid of the distance to a disc, near 0 inside
# and 1 outside, and the disc's centre is the unknown. The velocity is multiplied with the same
# weights as the gradient of the pressure, which keeps the projection exact. The loss is
# $-\log$ of the mean amount of smoke near a target.


# %%
def from_disc(at, place):
    return jnp.sqrt(sum((a / unit - c) ** 2 for a, c in zip(at, place, strict=True)) + 1e-3) - 8


def with_disc(place):
    faces = []
    for axis, offset in enumerate(staggered):
        shape = height + (axis == 0), width + (axis == 1)
        distance = unit * from_disc(points(shape, offset, place.dtype), place)
        faces.append(jax.nn.sigmoid(distance))
    down, right = faces
    return jinv.linear.Diffusion([down.at[0].set(0).at[-1].set(0), right.at[:, 0].set(0)])


target = np.array([18.0, 70.0])


def miss(place, solver=projection):
    at = [a / unit for a in points((height, width), centre, place.dtype)]
    inflow, dye = jnp.ones_like(at[0][:, 0]), jnp.exp(-(((at[0][:, 0] - 32) / 7) ** 2))
    smoke = simulate(with_disc(place), inflow, dye, round(40 * unit), solver=solver)[0]
    near = jnp.exp(-sum((a - c) ** 2 for a, c in zip(at, target, strict=True)) / 8**2)
    return -jnp.log(jnp.sum(near * smoke) / jnp.sum(near)), smoke


# %% [markdown]
# First the derivative against a central difference, in double precision and solved to $10^{-11}$;
# then the same derivative at $10^{-5}$, which is good enough to descend.

# %%
with jax.enable_x64(True):
    tight, loose = (PCG(jnp.asarray(t), 0.0, preconditioner=Multigrid()) for t in (1e-11, 1e-5))
    descend = eqx.filter_jit(jax.value_and_grad(miss, has_aux=True))
    first, h = jnp.array([28.0, 30.0]), jnp.array([1e-5, 0.0])
    (_, before), slope = descend(first, tight)
    above, below = (descend(first + d, tight)[0][0] for d in (h, -h))
    print(f"d loss / d row: {slope[0]:.7f}, central difference {(above - below) / 2e-5:.7f}")
    print(f"at tolerance 1e-5: {descend(first, loose)[1][0]:.7f}")

    optimiser, place, losses = optax.adam(1.0), first, []
    state = optimiser.init(place)
    for _ in range(8 if small else 40):
        (loss, _), slope = descend(place, loose)
        change, state = optimiser.update(slope, state)
        place = optax.apply_updates(place, change)
        losses.append(loss)
    (loss, after), _ = descend(place, loose)
    losses.append(loss)
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}", end="; ")
print(f"smoke near the target {np.exp(-losses[0]):.2f} -> {np.exp(-losses[-1]):.2f}")
print("disc (row, column):", first, "->", place)
jinv.plot.convergence({"loss": losses}, xlabel="update", ylabel="loss", logy=False)

# %%
at = points((height, width), centre, np.float32)
discs = [np.asarray(from_disc(at, c.astype(np.float32)) < 0) for c in (first, place)]
show([before, after], discs, ["start", "end"], mark=unit * target)

# %% [markdown]
# The disc moves to where it turns the stream towards the target (the cross). Each update costs 40
# projections and 40 adjoint projections.
#
# ## What can go wrong
#
# **A singular system.** Without an open side the pressure is determined up to a constant, and the
# sources must sum to zero. A source that does not is reported as a failure, not as an answer:

# %%
closed = jinv.linear.pressure_poisson(jnp.zeros((16, 16), int))
plain = PCG(1e-5, 0.0, max_steps=500)
failed = solve(closed, jnp.ones((16, 16)), plain)
print(lx.RESULTS[failed.result][:90])
constants = PCG(1e-5, 0.0, null_space=jinv.linear.null_space(closed))
found = solve(closed, jnp.ones((16, 16)).at[3, 4].set(5.0), constants)
print("with the null space:", bool(found.result == lx.RESULTS.successful), end=", ")
print(f"projected away {found.stats['incompatible']:.2f} of the source")

# %% [markdown]
# **Derivatives at a loose tolerance.** The implicit derivative assumes that the system is solved.
# The two tolerances above say how much is lost at $10^{-5}$; check it for your own loss.
#
# **An obstacle that is only penalised.** The disc above lets a little fluid through, and its
# surface is a cell wide. For a sharp obstacle take `pressure_poisson`.
#
# ## References
#
# - M. Hestenes, E. Stiefel, Methods of conjugate gradients for solving linear systems, 1952.
# - U. Trottenberg, C. Oosterlee, A. Schueller, Multigrid, 2001.
# - A. Kaneda et al., A deep conjugate direction method for iteratively solving linear systems,
#   2023.
# - J. Stam, Stable fluids, 1999.
# - R. Bridson, Fluid simulation for computer graphics, 2015.
