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
# # A first inverse problem: deblurring a photograph
#
# **Question.** A photograph is out of focus and noisy. How much of it can be recovered, how does
# one know that the answer is the solution of the problem that was posed, and which algorithm
# gets there first?
#
# The blurred picture $b = A x + \varepsilon$ does not determine $x$: the blur $A$ has erased fine
# detail. We look for the picture that explains the data and has little *total variation*:
#
# $$\min_x \; \tfrac12 \|A x - b\|^2 + w \sum_{i} \|(K x)_i\|_2 ,$$
#
# where $K x$ are the differences between neighbouring pixels.

# %%
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

import jinv


small = bool(os.environ.get("JINV_SMOKE"))
size = 64 if small else 192

# %% [markdown]
# ## The problem
#
# The forward model is a linear operator with an exact adjoint: a circular convolution with a
# Gaussian kernel.

# %%
truth = jinv.data.photograph("camera", shape=size)
blur = jinv.operators.Convolution(jinv.operators.gaussian_kernel(2.0, 9), truth.shape)
noise = 0.02 * jax.random.normal(jax.random.key(0), truth.shape)
blurred = blur.mv(truth) + noise

# %% [markdown]
# ## Five lines

# %%
data_term = jinv.data_terms.least_squares(blur, blurred)
differences = jinv.operators.FiniteDifference(truth.shape, boundary="circular")
total_variation = jinv.prox.GroupL2(2.5e-3, axis=0)
problem = jinv.Composite(data_term, penalty=total_variation, operator=differences)
solution = jinv.solve(problem, jinv.splitting.ADMM(), blurred)

# %%
pictures = {"truth": truth, "blurred": blurred, "deblurred": solution.value}
jinv.plot.images(pictures, reference=truth, zoom=(size // 4, 2 * size // 5, size // 5))

# %% [markdown]
# ## Look inside
#
# A solution says how it ended and what it cost. `residual` is the larger of the primal and the
# dual residual, each relative to its scale.

# %%
print("converged:", bool(solution.result == jinv.RESULTS.successful))
for name, value in solution.stats.items():
    print(f"{name:16} {float(value):.3g}")

# %% [markdown]
# ### Three algorithms, one problem
#
# The problem does not know how it is solved, so the algorithm is one argument. `save_history`
# keeps the statistics at every check. Which terms a method takes is part of how it works:
#
# - **ADMM** solves a linear system in each step, here exactly by two Fourier transforms;
# - **PDHG** needs only products with $A$, $K$ and their adjoints (and here the proximal map of the
#   data term, again by Fourier transforms);
# - **FISTA** takes the proximal map of the total variation itself, which is an iteration inside
#   the iteration: its steps are few, and much more expensive.

# %%
steps = 100 if small else 400
tv = jinv.prox.TotalVariation(2.5e-3, boundary="circular")
methods = {
    "ADMM": (problem, jinv.splitting.ADMM(rtol=0.0, atol=0.0)),
    "PDHG": (
        jinv.Composite(proximable=data_term, penalty=total_variation, operator=differences),
        jinv.splitting.PDHG(rtol=0.0, atol=0.0, check_every=10),
    ),
    "FISTA": (jinv.Composite(data_term, tv), jinv.splitting.FISTA(rtol=0.0, atol=0.0)),
}
settings = {"max_steps": steps, "save_history": True, "throw": False}
runs, seconds = {}, {}
for name, (p, s) in methods.items():
    jinv.solve(p, s, blurred, **settings).value.block_until_ready()  # compiles
    begin = time.perf_counter()
    runs[name] = jax.block_until_ready(jinv.solve(p, s, blurred, **settings))
    seconds[name] = time.perf_counter() - begin

# %% [markdown]
# With tolerances of zero no run can "converge", so we say `throw=False` and read the histories. All
# three approach the same value: three different algorithms agree on the answer. Steps of different
# methods cost differently, so the fair abscissa is time; compilation, once per problem and shape,
# is left out.

# %%
best = min(float(jnp.nanmin(run.stats["history"]["objective"])) for run in runs.values())
curves = {}
for name, run in runs.items():
    objective = np.asarray(run.stats["history"]["objective"], np.float64)
    # Below this, float32 sums of the objective are rounding.
    gap = np.maximum((objective - best) / best, 1e-7)
    curves[name] = (seconds[name] * np.arange(1, gap.size + 1) / gap.size, gap)
jinv.plot.convergence(curves, xlabel="seconds", logx=True, ylabel="relative objective gap")

# %% [markdown]
# ### Many problems at once
#
# Signatures are unbatched, and a batch is a `jax.vmap`. Sixteen realisations of the noise tell how
# far the answer depends on it; each of them stops on its own.


# %%
def deblur(key):
    noise = 0.02 * jax.random.normal(key, truth.shape)
    term = jinv.data_terms.least_squares(blur, blur.mv(truth) + noise)
    batch_problem = jinv.Composite(term, penalty=total_variation, operator=differences)
    solution = jinv.solve(batch_problem, jinv.splitting.ADMM(), blurred)
    return solution.value, solution.stats["num_steps"]


keys = jax.random.split(jax.random.key(1), 4 if small else 16)
samples, num_steps = jax.jit(jax.vmap(deblur))(keys)
print("steps of each:", num_steps)
mean, spread = jnp.mean(samples, axis=0), jnp.std(samples, axis=0)
error = jnp.abs(mean - truth)

# %%
maps = {"std over the noise": spread, "error of the mean": error}
jinv.plot.images(maps, limits=(0.0, 0.15), cmap="magma")

# %% [markdown]
# The two maps answer different questions. The spread is small, and largest at edges; most of the
# error is *bias*, and sits where the picture has fine detail, which total variation takes for
# noise.

# %% [markdown]
# ## Differentiate
#
# How would the picture change with the weight? A solve is a differentiable function; for one number
# forward mode is the cheapest. Here is the derivative of the PSNR with respect to $\log w$, against
# a central difference.

# %%
adjoint = jinv.UnrollAdjoint(mode="forward")


@jax.jit
def quality(log_weight):
    penalty = jinv.prox.GroupL2(jnp.exp(log_weight), axis=0)
    weighted = jinv.Composite(data_term, penalty=penalty, operator=differences)
    solver = jinv.splitting.ADMM(rtol=2e-5)
    value = jinv.solve(weighted, solver, blurred, adjoint=adjoint, max_steps=3000).value
    return jinv.metrics.psnr(value, truth)


at, h = jnp.log(0.01), 0.05
_, slope = jax.jvp(quality, (at,), (jnp.ones_like(at),))
central = (quality(at + h) - quality(at - h)) / (2 * h)
print(f"d PSNR / d log w at w = 0.01: {slope:.4f} dB, central difference {central:.4f} dB")

# %% [markdown]
# The slope is negative: a smaller weight is better. The second notebook follows it.
#
# ## What can go wrong
#
# **A method that does not fit.** FISTA has no use for a `penalty` behind an operator, and says so
# before anything runs:

# %%
try:
    jinv.solve(problem, jinv.splitting.FISTA(), blurred)
except ValueError as failure:
    print(failure)

# %% [markdown]
# **Too few steps.** By default that is an error. In a batch one rather looks at `result`, lane by
# lane, and keeps what is good:

# %%
short = jinv.solve(problem, jinv.splitting.ADMM(), blurred, max_steps=20, throw=False)
print(jinv.RESULTS[short.result])
print("relative residual:", float(short.stats["residual"]))

# %% [markdown]
# **A wrong model.** Everything here trusts that the blur is known and the noise is white. With the
# wrong blur the solver converges just as well, to a worse picture: a small residual says that the
# *posed* problem was solved, not that it was the right one.
#
# ## References
#
# - L. Rudin, S. Osher, E. Fatemi, Nonlinear total variation based noise removal algorithms, 1992.
# - S. Boyd, N. Parikh, E. Chu, B. Peleato, J. Eckstein, Distributed optimization and statistical
#   learning via the alternating direction method of multipliers, 2011.
# - A. Chambolle, T. Pock, A first-order primal-dual algorithm for convex problems with applications
#   to imaging, 2011.
# - A. Beck, M. Teboulle, Fast gradient-based algorithms for constrained total variation image
#   denoising and deblurring problems, 2009.
