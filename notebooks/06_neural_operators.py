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
# # Neural operators
#
# **Question.** A network has learnt the map from the coefficient of an equation to its solution.
# How good is it, on which grids, and what are its derivatives worth?
#
# The equation is Darcy flow, $-\nabla\cdot(a\nabla u) = 1$ in the unit square with $u = 0$ on the
# boundary, in a medium $a$ of two phases.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import matplotlib.pyplot as plt
import numpy as np
import optax
import optimistix as optx

import jinv


small = bool(os.environ.get("JINV_SMOKE"))

# %% [markdown]
# ## Five lines
#
# A medium that no network has seen, a solver, and a shipped multigrid operator (MgNO).

# %%
data = jinv.pde.darcy_two_phase(8, 127, key=jax.random.key(99), stride=2, progress=False)
media = jnp.asarray(data.inputs, jnp.float32)
solutions = jnp.asarray(data.outputs, jnp.float32)
model = jinv.pretrained.operator("mgno")
predict = eqx.filter_jit(lambda model, a: model(a))
found, truth = predict(model, media[0]), solutions[0]
top = float(truth.max())
pictures = {
    "medium": (media[0] - 3) / 9,
    "solver": truth / top,
    "operator": found / top,
    "10 x error": 10 * abs(found - truth) / top,
}
jinv.plot.images(pictures, cmap="viridis")

# %% [markdown]
# The boundary values are built in ([`jinv.nn.Dirichlet`]): they are met to the last bit. Errors in
# the norm of $L^2$ and in that of $H^1$, which sees the gradient, over eight media, for the three
# shipped networks:

# %%
names = ["mgno", "fno", "multionet"]
models = {name: jinv.pretrained.operator(name) for name in names}
on_all = eqx.filter_jit(lambda model, a: jax.lax.map(model, a))


def errors(model, media, solutions):
    found = on_all(model, media)
    norms = (jinv.train.relative_l2, jinv.train.relative_h1)
    return [float(jnp.mean(jax.vmap(norm)(found, solutions))) for norm in norms]


print("boundary:", float(jnp.abs(found.at[1:-1, 1:-1].set(0)).max()))
for name, network in models.items():
    l2, h1 = errors(network, media, solutions)
    weights = sum(x.size for x in jax.tree.leaves(network) if eqx.is_inexact_array(x))
    print(f"{name:10} {weights:9,} weights, L2 {l2:.2%}, H1 {h1:.2%}")

# %% [markdown]
# What that took on one core, from the records beside the weights (compilation included); the error
# is that on 100 samples that were kept back:

# %%
curves = {}
for name in names:
    rows = jinv.pretrained.read_record(f"operator_{name}")["history"]
    seconds, error = zip(
        *((row["validation_cpu_seconds"], row["validation_l2"]) for row in rows), strict=True
    )
    curves[name] = (np.array(seconds), np.array(error))
jinv.plot.convergence(curves, xlabel="CPU time of training, s", ylabel="relative error in L2")

# %% [markdown]
# ## Other grids
#
# All of them take any grid, with the same weights. That they *accept* a grid does not mean that
# they know it. The same media on finer and coarser grids, from one solve on 253 x 253 nodes:


# %%
def on_grids(strides, num):
    for stride in strides:
        options = {"key": jax.random.key(99), "stride": stride, "progress": False}
        made = jinv.pde.darcy_two_phase(num, 253, **options)
        inputs, outputs = (jnp.asarray(x, jnp.float32) for x in (made.inputs, made.outputs))
        yield inputs.shape[1], inputs, outputs


strides = [4, 6] if small else [2, 3, 4, 6, 7]
curves = {name: {} for name in names}
for size, inputs, outputs in on_grids(strides, 2 if small else 4):
    for name, network in models.items():
        curves[name][size] = errors(network, inputs, outputs)[0]
for name, curve in curves.items():
    plt.loglog(list(curve), list(curve.values()), "o-", label=name)
plt.axvline(64, color="0.8")
plt.xlabel("nodes along each side")
plt.ylabel("relative L2 error")
plt.legend()
plt.show()

# %% [markdown]
# Training was at 64. The Fourier operator has the same modes on every grid, and the sensors of the
# MultiONet stay where they are: their errors hardly change. The kernels of the multigrid operator
# have a width in pixels, so that on another grid it is another operator, which it was not trained
# to be: best at home, useless elsewhere. A network for several grids has to be trained on them.

# %% [markdown]
# ## Train one yourself
#
# A small one on a coarse grid, with the same functions that `scripts/train_operators.py` has.

# %%
coarse = {"stride": 4, "progress": False}
made = jinv.pde.darcy_two_phase(30 if small else 200, 61, key=jax.random.key(0), **coarse)
inputs, outputs = (jnp.asarray(x, jnp.float32) for x in (made.inputs, made.outputs))
levels = [(1, 0), (1, 0), (2, 0)]
network = jinv.nn.mgno(channels=8, num_layers=3, smoothing=levels, key=jax.random.key(1))
start = jinv.nn.Dirichlet(jinv.train.Normalised(network, inputs, outputs))
matching = jinv.train.OperatorMatching(jinv.train.relative_h1, {"l2": jinv.train.relative_l2})
fitted = jinv.train.fit(
    matching,
    start,
    jinv.train.Epochs((inputs, outputs), 10, jax.random.key(2)),
    optimiser=optax.adam(optax.cosine_onecycle_schedule(30 if small else 1000, 3e-3)),
    num_steps=30 if small else 1000,
    key=jax.random.key(3),
    progress=False,
)
held = jinv.pde.darcy_two_phase(20, 61, key=jax.random.key(4), **coarse)
held = [jnp.asarray(x, jnp.float32) for x in (held.inputs, held.outputs)]
l2, h1 = errors(fitted.model, *held)
print(f"{network.num_weights} weights, kept back: L2 {l2:.2%}, H1 {h1:.2%}")

# %% [markdown]
# ## Derivatives
#
# $J(a) = \int u$, with respect to the medium. The exact derivative goes through jinv's own solver,
# multigrid under conjugate gradients, in one call; the surrogate's through its network.


# %%
def flow(a):
    """The mean of the solution, by the solver; the boundary is no unknown."""
    operator = jinv.pde.darcy_operator(a)
    source = jnp.ones(operator.in_structure().shape, a.dtype)
    solver = jinv.linear.PCG(1e-6, 0.0, jinv.linear.Multigrid())
    return jnp.sum(lx.linear_solve(operator, source, solver).value) / a.size


exact = jax.jit(jax.grad(flow))(media[0])
through = {
    name: jax.jit(jax.grad(lambda a, m=m: m(a).mean()))(media[0]) for name, m in models.items()
}
scale = float(jnp.abs(exact).max())
pictures = {"exact": exact, **through}
jinv.plot.images({k: 0.5 + 0.5 * g / scale for k, g in pictures.items()}, cmap="RdBu_r")

# %%
for name, gradient in through.items():
    inner = float(jnp.vdot(gradient, exact))
    cosine = inner / float(jnp.linalg.norm(gradient) * jnp.linalg.norm(exact))
    print(f"{name:10} cosine with the exact derivative: {cosine:.3f}")

# %% [markdown]
# A small error of the values says little about derivatives with respect to single pixels: the
# networks have seen media of two values only, never one between. The shape comes out of the
# operators on grids, the size does not; the MultiONet looks at 29 x 29 sensors, and at nothing
# between them.

# %% [markdown]
# ## Inversion
#
# The medium from noisy values of $u$ at all nodes, as a field whose sign says which phase it is.
# The operator is a function like any other, so `jinv.solve` minimises through it.

# %%
noise = 0.01 * top * jax.random.normal(jax.random.key(5), truth.shape)
observed = truth + noise
side = 32


def medium(z):
    wide = jax.image.resize(z, truth.shape, "cubic")
    return 3 + 9 * jax.nn.sigmoid(4 * wide)


def misfit(z, observed):
    fit = jnp.sum((model(medium(z)) - observed) ** 2) / jnp.sum(observed**2)
    slope = jnp.sum(jnp.diff(z, axis=0) ** 2) + jnp.sum(jnp.diff(z, axis=1) ** 2)
    return 1e4 * fit + 2e-2 * slope


problem = jinv.Minimise(misfit)
solver = optx.LBFGS(rtol=1e-4, atol=1e-4)
guess = jnp.zeros((side, side), jnp.float32)
sol = jinv.solve(problem, solver, guess, observed, max_steps=10 if small else 200, throw=False)
recovered = medium(sol.value)
agree = float(jnp.mean((recovered > 7.5) == (media[0] > 7.5)))
print(f"pixels of the right phase: {agree:.0%}")
jinv.plot.images(
    {"truth": (media[0] - 3) / 9, "data": observed / top, "recovered": (recovered - 3) / 9},
    cmap="viridis",
)

# %% [markdown]
# ## In time
#
# An operator for one step in time, applied again and again by `lax.scan`: Burgers' equation on a
# ring, where the circular boundary makes the network commute with shifts.

# %%
frames = 8
made = jinv.pde.burgers(
    20 if small else 200,
    256,
    key=jax.random.key(6),
    viscosity=0.02,
    num_frames=frames,
    stride=4,
    progress=False,
)
path = jnp.concatenate([made.inputs[:, None], made.outputs], 1).astype(jnp.float32)
kept, path = path[:10], path[10:]
pairs = tuple(x.reshape(-1, x.shape[-1]) for x in (path[:, :-1], path[:, 1:]))
step = jinv.nn.mgno(
    1,
    1,
    channels=12,
    num_layers=3,
    smoothing=levels,
    ndim=1,
    boundary="circular",
    key=jax.random.key(7),
)
num_steps = 30 if small else 2000
fitted = jinv.train.fit(
    jinv.train.OperatorMatching(),
    jinv.train.Normalised(step, *pairs),
    jinv.train.Epochs(pairs, 20, jax.random.key(8)),
    optimiser=optax.adam(optax.cosine_onecycle_schedule(num_steps, 3e-3)),
    num_steps=num_steps,
    key=jax.random.key(9),
    progress=False,
)


@jax.jit
def roll(u):
    return jax.lax.scan(lambda u, _: (fitted.model(u),) * 2, u, length=frames)[1]


rolled = jax.vmap(roll)(kept[:, 0])
growth = jax.vmap(jax.vmap(jinv.train.relative_l2))(rolled, kept[:, 1:]).mean(0)
print("error after each step:", np.round(np.asarray(growth), 4))
for frame, colour in {0: "C0", 3: "C1", 7: "C2"}.items():
    plt.plot(kept[0, 1 + frame], color=colour, label=f"step {frame + 1}")
    plt.plot(rolled[0, frame], "--", color=colour)
plt.legend()
plt.show()

# %% [markdown]
# ## What can go wrong
#
# - **Another grid, another operator.** See above; look at the error on your grid first.
# - **Another distribution.** The networks know media of the values 3 and 12 with one correlation
#   length:

# %%
smoother = jinv.pde.GaussianField(3, 3)
for label, options in {
    "as trained": {},
    "smoother interfaces": {"field": smoother},
    "values 24 and 6": {"values": (24, 6)},
}.items():
    options = {"key": jax.random.key(10), "stride": 2, "progress": False, **options}
    made = jinv.pde.darcy_two_phase(2 if small else 4, 127, **options)
    pair = [jnp.asarray(x, jnp.float32) for x in (made.inputs, made.outputs)]
    print(f"{label:20}", {name: f"{errors(m, *pair)[0]:.1%}" for name, m in models.items()})

# %% [markdown]
# - **A derivative is not trained for.** Where it matters, compare it with the solver's, or train
#   on derivatives too.
