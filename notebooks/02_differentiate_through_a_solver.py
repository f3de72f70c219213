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
# # Differentiate through a solver
#
# **Question.** Every reconstruction depends on numbers that somebody chose: the weight of the
# regulariser, the width of the blur. Can they be learnt from a few examples, by gradient descent
# *through* the solver? And which of the ways to differentiate a solver is right?
#
# The data are scan lines of photographs, blurred by a Gaussian whose width we pretend not to know.
# For parameters $\theta = (\log w, \log s)$,
#
# $$x_\theta(b) = \arg\min_x \tfrac12 \|A_s x - b\|^2 + w \|K x\|_1, \qquad
#   \mathcal{L}(\theta) = \frac1N \sum_j \|x_\theta(b_j) - x_j\|^2 .$$

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import jinv


# Gradient checks deserve double precision. The library itself never sets this.
jax.config.update("jax_enable_x64", True)
small = bool(os.environ.get("JINV_SMOKE"))

# %% [markdown]
# ## The problem
#
# Lines of one photograph to learn from, lines of another one to test on; the true width is 2.

# %%
length, num = 128, (4 if small else 6)
differences = jinv.operators.FiniteDifference((length,), boundary="circular")


def blur(width):
    kernel = jinv.operators.gaussian_kernel(width, 13, ndim=1)
    return jinv.operators.Convolution(kernel, (length,))


def scan_lines(name, key):
    lines = jinv.data.photograph(name, shape=length)[:: length // num][:num]
    noise = 0.01 * jax.random.normal(key, lines.shape)
    return lines, jax.vmap(blur(2.0).mv)(lines) + noise


training = scan_lines("coins", jax.random.key(0))
testing = scan_lines("camera", jax.random.key(1))

# %% [markdown]
# ## Five lines
#
# A reconstruction as a function of the parameters. Weight and width enter as arrays, so they are
# differentiable like any other input.

# %%
solver = jinv.splitting.ADMM(rtol=jnp.asarray(1e-9), atol=jnp.asarray(1e-11))


def reconstruct(theta, data, adjoint=None, solver=solver):
    term = jinv.data_terms.least_squares(blur(jnp.exp(theta["log_width"])), data)
    penalty = jinv.prox.L1(jnp.exp(theta["log_weight"]))
    problem = jinv.Composite(term, penalty=penalty, operator=differences)
    return jinv.solve(problem, solver, data, max_steps=20_000, adjoint=adjoint)


@eqx.filter_jit
def loss(theta, lines, data, adjoint=None, solver=solver):
    values = jax.vmap(lambda b: reconstruct(theta, b, adjoint, solver).value)(data)
    return jnp.mean((values - lines) ** 2)


theta = {"log_weight": jnp.log(0.05), "log_width": jnp.log(1.2)}

# %% [markdown]
# ## Look inside

# %%
first = reconstruct(theta, training[1][0])
for name in ("num_steps", "residual", "objective"):
    print(f"{name:10} {float(first.stats[name]):.3g}")

# %% [markdown]
# ## Differentiate
#
# How a solve is differentiated is an argument of its own, and each rule works with every solver:
#
# - `ImplicitAdjoint` solves a linear system with the optimality condition at the solution. No
#   iterate is stored; the result is that of an exactly converged solve.
# - `UnrollAdjoint` differentiates the iterates: exact for what was computed, in reverse mode with
#   checkpoints, or in forward mode with no memory at all (the cheapest for two numbers).
# - `OneStepAdjoint` differentiates one more step, for free, and is biased by the convergence rate.
#   It is meant for iterations that contract fast; we try it with FISTA, whose step sees the blur
#   and the weight directly.
#
# The truth is a central difference.


# %%
def central_difference(name, h=1e-4):
    at = lambda t: loss({**theta, name: t}, *training)
    return (at(theta[name] + h) - at(theta[name] - h)) / (2 * h)


rows = {"central difference": {name: central_difference(name) for name in theta}}
gradient = eqx.filter_jit(jax.grad(loss))
rows["implicit"] = gradient(theta, *training, None, solver)
rows["unrolled, reverse"] = gradient(theta, *training, jinv.UnrollAdjoint(), solver)
by_forward_mode = lambda t, s: loss(t, *training, jinv.UnrollAdjoint(mode="forward"), s)
forward = eqx.filter_jit(jax.jacfwd(by_forward_mode))
rows["unrolled, forward"] = forward(theta, solver)


@jax.jit
@jax.grad
def one_step(theta):
    def value(data):
        term = jinv.data_terms.least_squares(blur(jnp.exp(theta["log_width"])), data)
        tv = jinv.prox.TotalVariation(jnp.exp(theta["log_weight"]), boundary="circular", rtol=1e-9)
        problem = jinv.Composite(term, tv)
        fista, adjoint = jinv.splitting.FISTA(rtol=1e-6), jinv.OneStepAdjoint()
        return jinv.solve(problem, fista, data, adjoint=adjoint, throw=False).value

    return jnp.mean((jax.vmap(value)(training[1]) - training[0]) ** 2)


rows["one step (FISTA)"] = one_step(theta)

# %%
truth = rows["central difference"]
for name, row in rows.items():
    cells = [f"{float(row[k]):+.8f} ({abs(float(row[k] / truth[k]) - 1):.0e})" for k in truth]
    print(f"{name:20}", "   ".join(cells))

# %% [markdown]
# Implicit and unrolled agree with each other and with the difference. Deblurring is badly
# conditioned, so FISTA contracts slowly, and one step knows little about the solution: good for
# Newton-like iterations, wrong here.
#
# ### Learn the weight and the width
#
# Any optimiser of optax follows the gradient; two numbers, so we take forward mode. Dividing by the
# loss makes it the gradient of its logarithm, which has no scale.

# %%
num_updates = 10 if small else 30
optimiser = optax.adam(optax.cosine_decay_schedule(0.3, num_updates))
quick = jinv.splitting.ADMM(rtol=jnp.asarray(1e-5), atol=jnp.asarray(0.0))
learnt, state, losses = theta, optimiser.init(theta), []
for _ in range(num_updates):
    value, slopes = loss(learnt, *training, None, quick), forward(learnt, quick)
    change, state = optimiser.update(jax.tree.map(lambda g: g / value, slopes), state)  # noqa: B023
    learnt = optax.apply_updates(learnt, change)
    losses.append(value)
print({name[4:]: round(float(jnp.exp(value)), 4) for name, value in learnt.items()})
print(f"loss on the other photograph: {loss(theta, *testing, None, quick):.2e}", end=" -> ")
print(f"{loss(learnt, *testing, None, quick):.2e}")

# %%
jinv.plot.convergence({"training loss": losses}, xlabel="update", ylabel="mean squared error")

# %% [markdown]
# The width comes out close to the true one, which nobody told the program. One of the lines that
# took no part in the training, before and after:

# %%
line, data = testing[0][num // 2], testing[1][num // 2]
curves = {
    "truth": line,
    "blurred": data,
    "start": reconstruct(theta, data, solver=quick).value,
    "learnt": reconstruct(learnt, data, solver=quick).value,
}
jinv.plot.convergence(curves, xlabel="pixel", ylabel="grey value", logy=False)

# %% [markdown]
# ### Train the solver itself
#
# A different question: which *step size* makes ten steps of proximal gradient best? The solution
# does not depend on the step size, but the tenth iterate does. So the iterates are differentiated.

# %%
lines, blurred = training
exact_blur = blur(2.0)


def tenth_iterate(step_size, data, adjoint):
    term = jinv.data_terms.least_squares(exact_blur, data)
    problem = jinv.Composite(term, jinv.prox.NonNegative())
    gradient_steps = jinv.splitting.ProximalGradient(step_size=step_size, rtol=0.0, atol=0.0)
    sol = jinv.solve(problem, gradient_steps, data, max_steps=10, throw=False, adjoint=adjoint)
    return sol.value


def short_loss(log_step, adjoint):
    values = jax.vmap(lambda b: tenth_iterate(jnp.exp(log_step), b, adjoint))(blurred)
    return jnp.mean((values - lines) ** 2)


slope = jax.jit(jax.value_and_grad(lambda t: short_loss(t, jinv.UnrollAdjoint())))
log_step = jnp.asarray(0.0)
for _ in range(15):
    value, derivative = slope(log_step)
    log_step = log_step - 2.0 * derivative / value
before, after = slope(jnp.asarray(0.0))[0], slope(log_step)[0]
print(f"step size 1 -> {jnp.exp(log_step):.3f}, loss {before:.3e} -> {after:.3e}")

# %% [markdown]
# Ten steps are too few to converge, so longer ones are better: the classical step of $1 / L$ is
# made for the worst case. Even a step beyond $2 / L$ (here $L = 1$), with which the iteration would
# diverge in the long run, may win a race of ten.

# %% [markdown]
# ## What can go wrong
#
# **The wrong question.** Under the implicit rule the step size has no derivative. A silent zero
# would look like a trained solver, so it is an error with a name:

# %%
try:
    jax.grad(lambda t: short_loss(t, jinv.ImplicitAdjoint()))(jnp.asarray(0.0))
except Exception as failure:
    message = str(failure).split("\n")[0]
    print(type(failure).__name__, ":", message[:300])

# %% [markdown]
# **An unconverged point.** The implicit rule assumes a solution. Stop early, and its derivative is
# biased, silently; the residual is the warning. The unrolled one is then exactly the derivative of
# what was computed (which also is not that of the solution).

# %%
print("rtol     residual   implicit      unrolled      (central difference at convergence)")
for rtol in (1e-2, 1e-3, 1e-5):
    loose = jinv.splitting.ADMM(rtol=jnp.asarray(rtol), atol=jnp.asarray(0.0))
    residual = float(reconstruct(theta, training[1][0], solver=loose).stats["residual"])
    rules = (None, jinv.UnrollAdjoint())
    both = [float(gradient(theta, *training, rule, loose)["log_weight"]) for rule in rules]
    print(f"{rtol:.0e}    {residual:.1e}    {both[0]:+.6f}     {both[1]:+.6f}", end="     ")
    print(f"({float(truth['log_weight']):+.6f})")

# %% [markdown]
# **Kinks.** The solution of a TV problem is only piecewise smooth in the weight: where two pixels
# merge, the derivative jumps. Central differences over a long distance average over such jumps;
# that is why the check above uses a short one, in double precision.
#
# ## References
#
# - M. Blondel et al., Efficient and modular implicit differentiation, 2022.
# - J. Lorraine, P. Vicol, D. Duvenaud, Optimizing millions of hyperparameters by implicit
#   differentiation, 2020.
# - J. Bolte, E. Pauwels, S. Vaiter, One-step differentiation of iterative algorithms, 2023.
