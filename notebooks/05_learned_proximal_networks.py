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
# # Learned proximal networks
#
# **Question.** Plug-and-play puts a denoiser where a solver has a prox. Which functional does it
# then minimise, if any, and does it converge?
#
# The gradient $f = \nabla\psi$ of a convex network is the prox of some functional $R$, whatever its
# weights are. So there is an objective, $R$ can be evaluated, and theorems of convergence hold
# whose conditions a solver can check.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import jinv


small = bool(os.environ.get("JINV_SMOKE"))

# %% [markdown]
# ## Five lines
#
# A photograph that no network has seen, blurred and noisy; a prior; a solver.

# %%
size = 48 if small else 96
truth = jinv.data.photograph("camera", shape=size)
blur = jinv.operators.Convolution(jinv.operators.gaussian_kernel(1.0, 5), truth.shape)
data = blur.mv(truth) + 0.02 * jax.random.normal(jax.random.key(0), truth.shape)

fit = jinv.data_terms.least_squares(blur, data)
prior = jinv.pretrained.lpn("photographs", noise=0.02, objective=False)
solver = jinv.splitting.ProximalGradient(rtol=1e-3)
sol = jinv.solve(jinv.Composite(fit, prior), solver, data, throw=False)
print(f"{float(jinv.metrics.psnr(data, truth)):.1f} dB -> ", end="")
print(f"{float(jinv.metrics.psnr(sol.value, truth)):.1f} dB, certified:", sol.stats["certified"])
jinv.plot.images({"truth": truth, "data": data, "restored": sol.value}, reference=truth)

# %% [markdown]
# `certified` says that the theorem on proximal gradient descent covers this run: the step is below
# $1/L$, and it is at most that of the network, so that its prox is exact. A longer step is taken,
# but not certified; neither is a denoiser that is no prox.

# %%
problem = jinv.Composite(fit, prior)
long = jinv.splitting.ProximalGradient(step_size=1.2)
print("longer step:", jinv.solve(problem, long, data, max_steps=20, throw=False).stats["certified"])
denoiser = jinv.pretrained.denoiser("convolutional", noise=0.02)
other = jinv.Composite(fit, denoiser)
unknown = jinv.solve(other, solver, data, max_steps=20 if small else 200, throw=False)
print("denoiser:", unknown.stats["certified"], end=", ")
print(f"{float(jinv.metrics.psnr(unknown.value, truth)):.1f} dB")

# %% [markdown]
# ## Learn $|x|$ from samples
#
# The prior of Laplace samples is $|x|$, its prox at noise 1 the soft threshold. The squared error
# teaches the mean of $x$ given $y$, the absolute error the median; proximal matching, whose
# width $\gamma$ falls during the training, the mode. `noise=` pools the samples of a batch.


# %%
class Laplace(eqx.Module):
    def __call__(self, key, step):
        return jax.random.laplace(key, (1000, 1))


steps = 40 if small else 1500
gamma = jinv.train.GammaSchedule(
    1, pretrain=steps // 3, stage_steps=max(steps // 12, 1), stages=6, least=0.15, factor=1.5
)
fitted = jinv.train.fit(
    jinv.train.ProximalMatching("l1", noise=1.0),
    jinv.nn.dense_icnn(1, [50] * 3, beta=10.0, key=jax.random.key(1)),
    jinv.train.NoisyBatches(Laplace(), 1.0, gamma, num_noisy=128),
    optimiser=optax.chain(
        optax.adam(optax.cosine_decay_schedule(3e-3, steps, 0.01)), jinv.nn.keep_nonnegative()
    ),
    num_steps=steps,
    key=jax.random.key(2),
    ema_decay=0.99,
    progress=False,
)
print(fitted.history[-1])

# %% [markdown]
# The shipped network had six times the steps. $R$ is found by inverting $f$; what is out of its
# range is proven to be so, and gets no number.

# %%
trained = jinv.pretrained.lpn("laplacian", step_size=1.0)
grid = jnp.linspace(-4, 4, 41 if small else 161)
maps = {"this notebook": fitted.model, "shipped": trained.potential}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
for name, potential in maps.items():
    network = jinv.prox.LearnedProximalNetwork(potential)
    left.plot(grid, jax.vmap(potential.gradient)(grid[:, None])[:, 0], label=name)
    values, results = jax.jit(jax.vmap(network.prior))(grid[:, None])
    right.plot(grid, values - jnp.nanmin(values), label=name)
    print(name, "- inverted:", int(jnp.sum(results == jinv.RESULTS.successful)), "of", grid.size)
left.plot(grid, jnp.sign(grid) * jnp.maximum(jnp.abs(grid) - 1, 0), "k:", label="soft threshold")
right.plot(grid, jnp.abs(grid), "k:", label="|x|")
left.set_title("prox")
right.set_title("R")
left.legend()
figure.tight_layout()

# %% [markdown]
# ## Read a prior on images
#
# $R$ of digits that were not in the training, with more and more noise or blur: less and less
# likely. (Blurred by half a pixel, digits with broad strokes can be likelier; and photographs are
# another matter: smooth ones are likely.) `invert` says how well it went:
# the residual, the number of products with the network, and a bound of the error of $R$ by the
# Fenchel-Young inequality.

# %%
digits, _ = jinv.data.digits()
held_out = digits[1500 : 1500 + (5 if small else 50)]
of_digits = jinv.pretrained.lpn("digits", step_size=1.0)
noise = jax.random.normal(jax.random.key(3), held_out.shape)
levels = jnp.array([0.0, 0.1, 0.2, 0.3])
noisy = held_out + levels[:, None, None, None] * noise
values, results = jax.jit(jax.vmap(jax.vmap(of_digits.prior)))(noisy)
blur = lambda width: jinv.operators.Convolution(
    jinv.operators.gaussian_kernel(width, 7), held_out.shape[1:], boundary="zero"
)
blurred = jnp.stack([held_out, *(jax.vmap(blur(width).mv)(held_out) for width in (1.0, 2.0))])
for kind, worse in {"noise": noisy, "blur": blurred}.items():
    values, results = jax.jit(jax.vmap(jax.vmap(of_digits.prior)))(worse)
    rises = jnp.all(values[1:] > values[:-1], 0)
    print(f"R rises with {kind} for {float(jnp.mean(rises)):.0%} of the digits")
inverse = of_digits.invert(held_out[0])
print({name: float(inverse.stats[name]) for name in ("residual", "num_products", "gap")})

# %% [markdown]
# ## Differentiate
#
# The solution depends on the data, on the strength of the prior and on the blur; the implicit
# derivative of all three is one linear solve. Against central differences, in double precision:

# %%
with jax.enable_x64(True):
    few = jinv.data.digits(dtype=jnp.float64)[0][1500]
    fine = jinv.splitting.ProximalGradient(rtol=1e-12, atol=1e-14)

    @jax.jit
    def outcome(level, width):
        kernel = jinv.operators.gaussian_kernel(width, 5, dtype=jnp.float64)
        operator = jinv.operators.Convolution(kernel, few.shape)
        term = jinv.data_terms.least_squares(operator, few)
        functional = jinv.pretrained.lpn("digits", noise=level, objective=False)
        found = jinv.solve(jinv.Composite(term, functional), fine, few, max_steps=20_000)
        return jnp.mean((found.value - few) ** 2)

    point = jnp.array([0.1, 1.0])
    slopes = jax.grad(outcome, (0, 1))(*point)
    for index, name in enumerate(("noise level", "width of the blur")):
        step = 1e-5 * point * (jnp.arange(2) == index)
        central = (outcome(*(point + step)) - outcome(*(point - step))) / (2 * step[index])
        print(f"{name}: {float(slopes[index]):.8e}, central difference {float(central):.8e}")

# %% [markdown]
# ## What can go wrong
#
# **Patches without a border.** The published code averages patches by how often each pixel is
# covered: less often at the border, and the map is no gradient any more. `jinv.nn.Tiling` continues
# the image such that all pixels are covered equally.

# %%
patch = jinv.nn.dense_icnn((4, 4), (8,), quadratic=True, key=jax.random.key(4))
tiled = jinv.nn.Tiled(patch, 2)


def uncovered(y):
    def whole(y):
        starts = [(i, j) for i in range(0, 7, 2) for j in range(0, 7, 2)]
        return jnp.stack([y[i : i + 4, j : j + 4] for i, j in starts])

    back = lambda parts: jax.linear_transpose(whole, y)(parts)[0]
    return back(jax.vmap(patch.gradient)(whole(y))) / back(jnp.ones((16, 4, 4)))


point = jax.random.normal(jax.random.key(5), (10, 10))
for name, fn in {"tiled": tiled.gradient, "averaged": uncovered}.items():
    jacobian = jax.jacobian(fn)(point).reshape(100, 100)
    asymmetry = jnp.linalg.norm(jacobian - jacobian.T) / jnp.linalg.norm(jacobian)
    print(f"{name}: asymmetry {float(asymmetry):.0e}")

# %% [markdown]
# **Other step sizes.** A prox away from the network's own step size is an inversion: exact, but up
# to a hundred evaluations in place of one. Leave the steps to the solver.
#
# **The noise of training.** $R$ is $-\sigma^2 \log p$ for that noise. `noise=` rescales the
# network, which is another prior, not the same at another weight.
#
# **Clamping the output** to $[0, 1]$ makes it no prox; add `jinv.prox.Box` as a term of its own.
#
# **A mode is not a mean.** The estimate of largest posterior density can have a lower PSNR than
# a denoiser trained for that; what it has is an objective.
#
# ## References
#
# Fang, Buchanan, Sulam, *What's in a prior? Learned proximal networks for inverse problems*, 2024.
# Gribonval, Nikolova, *A characterization of proximity operators*, 2020. Attouch, Bolte, Svaiter,
# *Convergence of descent methods for semi-algebraic and tame problems*, 2013.
