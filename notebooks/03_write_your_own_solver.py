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
# # Write your own solver
#
# **Question.** You have an algorithm of your own. What do you have to write, so that it can be
# jitted, batched, differentiated and watched like every other solver here?
#
# The answer is one class with four methods. The algorithm of this notebook is Polyak's heavy ball,
#
# $$x_{k+1} = x_k - \alpha \nabla f(x_k) + \beta\,(x_k - x_{k-1}),$$
#
# and the problem is one whose solution is known in closed form: deblurring with a quadratic
# penalty,
#
# $$f(x) = \tfrac12 \|A x - b\|^2 + \tfrac{w}{2} \|K x\|^2, \qquad
#   x^\star = (A^\ast A + w K^\ast K)^{-1} A^\ast b .$$

# %%
import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import jinv


small = bool(os.environ.get("JINV_SMOKE"))
size = 64 if small else 128

# %% [markdown]
# ## The problem

# %%
truth = jinv.data.photograph("camera", shape=size)
blur = jinv.operators.Convolution(jinv.operators.gaussian_kernel(1.5, 9), truth.shape)
blurred = blur.mv(truth) + 0.02 * jax.random.normal(jax.random.key(0), truth.shape)
differences = jinv.operators.FiniteDifference(truth.shape, boundary="circular")


def objective(x, args):
    data, weight = args
    fit = jnp.sum((blur.mv(x) - data) ** 2)
    return 0.5 * fit + 0.5 * weight * jnp.sum(differences.mv(x) ** 2)


problem = jinv.Minimise(objective)


# %% [markdown]
# ## The solver
#
# `init` makes the state, `step` does one iteration, `terminate` says when to stop, `postprocess`
# reports. There is no loop, no derivative and no batch axis to write. `problem.optimality` is the
# gradient, so the same class serves every smooth problem.


# %%
class HeavyBall(jinv.AbstractSolver):
    step_size: Any
    momentum: Any
    rtol: Any = 1e-4
    atol: Any = 1e-6
    check_every: int = eqx.field(static=True, default=1)

    def init(self, problem, point, args, options):
        gradient = problem.optimality(point, args)
        return jnp.zeros_like(point), gradient, jnp.linalg.norm(gradient)

    def step(self, problem, point, args, options, state):
        velocity, gradient, first = state
        velocity = self.momentum * velocity - self.step_size * gradient
        new = point + velocity
        return new, (velocity, problem.optimality(new, args), first)

    def terminate(self, problem, point, args, options, state):
        _, gradient, first = state
        done = jnp.linalg.norm(gradient) <= self.atol + self.rtol * first
        return done, jinv.RESULTS.successful

    def postprocess(self, problem, point, args, options, state):
        _, gradient, first = state
        return point, {"residual": jnp.linalg.norm(gradient) / first}


# %% [markdown]
# For a quadratic with eigenvalues between $\mu$ and $L$ the best constants are Polyak's:
# $\alpha = 4 / (\sqrt L + \sqrt\mu)^2$ and $\beta = ((\sqrt L - \sqrt\mu)/(\sqrt L + \sqrt\mu))^2$.
# Both operators are diagonal in Fourier space, where we can read off the eigenvalues.

# %%
weight = jnp.asarray(0.005)
point = jnp.zeros_like(truth).at[0, 0].set(1.0)
symbol = jnp.real(jnp.fft.fft2(blur.T.mv(blur.mv(point))))
laplacian = jnp.real(jnp.fft.fft2(differences.T.mv(differences.mv(point))))
eigenvalues = symbol + weight * laplacian
largest, smallest = jnp.sqrt(eigenvalues.max()), jnp.sqrt(eigenvalues.min())
momentum = ((largest - smallest) / (largest + smallest)) ** 2
solver = HeavyBall(4 / (largest + smallest) ** 2, momentum)

# %%
start = jnp.zeros_like(truth)
solution = jinv.solve(problem, solver, start, (blurred, weight), max_steps=2000, save_history=True)

# %% [markdown]
# ## Look inside
#
# First the test that matters: is it the solution?


# %%
def closed_form(data, weight):
    spectrum = jnp.fft.fft2(blur.T.mv(data)) / (symbol + weight * laplacian)
    return jnp.real(jnp.fft.ifft2(spectrum))


exact = closed_form(blurred, weight)
print("relative error :", float(jinv.metrics.relative_error(solution.value, exact)))
print("steps          :", int(solution.stats["num_steps"]))
print("residual       :", float(solution.stats["residual"]))
assert jinv.metrics.relative_error(solution.value, exact) < 1e-2

# %%
pictures = {"truth": truth, "blurred": blurred, "heavy ball": solution.value, "closed form": exact}
jinv.plot.images(pictures, reference=truth)

# %% [markdown]
# Does the momentum pay? Plain gradient descent is the same class with $\beta = 0$. The history came
# for free.

# %%
plain = HeavyBall(2 / (largest**2 + smallest**2), jnp.asarray(0.0))
slow = jinv.solve(
    problem, plain, start, (blurred, weight), max_steps=1000, throw=False, save_history=True
)
curves = {
    "heavy ball": solution.stats["history"]["residual"],
    "gradient descent": slow.stats["history"]["residual"],
}
jinv.plot.convergence(curves, ylabel="gradient norm, relative")

# %% [markdown]
# A batch: four weights at once. Each lane stops by itself, at the same gradient norm. That is not
# the same error: the smaller the weight, the flatter the valley.

# %%
weights = jnp.array([0.001, 0.002, 0.005, 0.02])
one = lambda w: jinv.solve(problem, solver, start, (blurred, w), max_steps=4000)
lanes = jax.jit(jax.vmap(one))(weights)
print("steps of each lane:", lanes.stats["num_steps"])
wanted = jax.vmap(closed_form, (None, 0))(blurred, weights)
errors = jax.vmap(jinv.metrics.relative_error)(lanes.value, wanted)
print("relative errors   :", errors)

# %% [markdown]
# Progress, for solves that take a while:

# %%
meter = jinv.TqdmProgressMeter(refresh_steps=20)
arguments = (blurred, weight)
watched = jinv.solve(problem, solver, start, arguments, max_steps=300, progress_meter=meter)
print(int(watched.stats["num_steps"]), "steps")

# %% [markdown]
# ## Differentiate
#
# The derivative belongs to the problem, not to the algorithm, so the new solver has one already:
# the implicit function theorem at $\nabla f(x) = 0$. We ask for the weight that gives the best
# picture, and compare the gradient with that of the closed form.


# %%
def loss(weight, solve):
    return jnp.mean((solve(blurred, weight) - truth) ** 2)


def by_solver(data, weight):
    tight = eqx.tree_at(lambda s: s.rtol, solver, jnp.asarray(1e-5))
    return jinv.solve(problem, tight, start, (data, weight), max_steps=4000).value


implicit = jax.grad(loss)(weight, by_solver)
reference = jax.grad(loss)(weight, closed_form)
print(f"implicit {implicit:.6e}   closed form {reference:.6e}")
assert abs(implicit - reference) < 1e-2 * abs(reference)

# %% [markdown]
# ## What can go wrong
#
# **A step that is too long** diverges. The engine looks at every iterate, and says so:

# %%
wild = HeavyBall(4 * solver.step_size, solver.momentum)
lost = jinv.solve(problem, wild, start, (blurred, weight), max_steps=2000, throw=False)
print(jinv.RESULTS[lost.result])

# %% [markdown]
# **A state that changes its structure.** What `step` returns must look like what `init` returned;
# this is checked before anything runs.


# %%
class Forgetful(HeavyBall):
    def step(self, problem, point, args, options, state):
        velocity, gradient, first = state
        return point, (velocity, gradient, first > 0)


try:
    jinv.solve(problem, Forgetful(0.1, 0.1), start, (blurred, weight))
except ValueError as failure:
    print(str(failure)[:160], "...")

# %% [markdown]
# **A residual that lies.** The implicit derivative is exact only at a solution. If your
# `terminate` stops early, the derivative is biased, silently; so report an honest `residual`.
#
# ## References
#
# - B. T. Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
# - M. Blondel et al., Efficient and modular implicit differentiation, 2022.
