"""Trains the graph network that corrects an incomplete factorisation of 2-D diffusion matrices.

    python scripts/train_neural_factor.py     # some minutes on two cores

Stops and goes on where it stopped (`results/train_neural_factor`). Writes
`jinv/pretrained/weights/neural_factor.npz` with its record, and prints steps to 1e-6 on held-out
coefficients at the size of the training and at larger ones, beside conjugate gradients with
other preconditioners. `--loss factor` trains with the loss of the paper instead, which needs
solutions and does not see the sweeps.
"""

import argparse
import subprocess

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax

import jinv


def system(shape, key):
    """A random system: ratios of the coefficient between 1 and 1000, smooth or with jumps."""
    keys = jax.random.split(key, 4)
    dtype = jnp.result_type(float)
    power = jax.random.uniform(keys[0])
    fields = [
        jinv.linear.random_coefficient(shape, key=keys[1], length=0.15, smooth=smooth, dtype=dtype)
        for smooth in (True, False)
    ]
    coefficient = jnp.where(jax.random.bernoulli(keys[2]), *fields) ** power
    operator = jinv.linear.heterogeneous_diffusion(coefficient)
    return operator, jax.random.normal(keys[3], shape, dtype)


def skeleton(shape, network, sweeps):
    return jinv.linear.NeuralFactor(jinv.linear.poisson(shape), network, sweeps=sweeps)


def make_loss(name, shape, network, sweeps):
    factor = skeleton(shape, network, sweeps)
    exact = jinv.linear.PCG(1e-10, 0.0, jinv.linear.Multigrid())

    def one(network, operator, vector):
        preconditioner = eqx.tree_at(lambda f: f.network, factor, network)
        if name == "convergence":
            return jinv.linear.convergence_loss(preconditioner, operator, vector, steps=15)
        value = jax.lax.stop_gradient(lx.linear_solve(operator, vector, exact).value)
        return jinv.linear.factor_loss(preconditioner, operator, value)

    def loss(network, batch, key):
        return jnp.mean(jax.vmap(one, in_axes=(None, 0, 0))(network, *batch))

    return loss


def preconditioners(shape, network, sweeps):
    """By name, with the products that an application costs."""
    exact = sum(shape)  # longer than any chain of dependences: IC(0) with triangular solves
    return {
        "none": (None, 0),
        "Jacobi": (jinv.linear.Jacobi(), 0),
        "IC(0), exact": (skeleton(shape, None, exact), 1),
        f"IC(0), {sweeps} sweeps": (skeleton(shape, None, sweeps), sweeps),
        f"learned, {sweeps} sweeps": (skeleton(shape, network, sweeps), sweeps),
        "learned, exact": (skeleton(shape, network, exact), 1),
        "multigrid": (jinv.linear.Multigrid(), 6),
    }


def compare(shape, network, sweeps, count=5):
    """Mean steps and products to 1e-6 on held-out systems."""
    found = {}
    for name, (preconditioner, cost) in preconditioners(shape, network, sweeps).items():
        solver = jinv.linear.PCG(1e-6, 0.0, preconditioner)

        @eqx.filter_jit
        def steps(solver, key):
            operator, vector = system(shape, key)
            return lx.linear_solve(operator, vector, solver).stats["num_steps"]

        mean = np.mean([int(steps(solver, jax.random.key(10_000 + i))) for i in range(count)])
        found[name] = {"steps": round(float(mean), 1), "products": round(float(mean) * (1 + cost))}
    return found


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=32, help="cells along each axis")
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--loss", choices=("convergence", "factor"), default="convergence")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-sizes", type=int, nargs="+", default=(32, 64, 128))
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    shape = (args.size, args.size)
    network = jinv.linear.FactorNetwork(key=jax.random.key(args.seed))
    name = "neural_factor" if args.loss == "convergence" else "neural_factor_supervised"

    def batches(key, step):
        return jax.vmap(lambda k: system(shape, k))(jax.random.split(key, args.batch_size))

    schedule = optax.cosine_decay_schedule(args.rate, args.steps)
    fitted = jinv.train.fit(
        make_loss(args.loss, shape, network, args.sweeps),
        network,
        batches,
        optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)),
        num_steps=args.steps,
        key=jax.random.key(args.seed + 1),
        checkpoint=f"results/train_{name}",
        save_every=250,
        log_every=50,
        max_skipped=20,
    )
    accuracy = {}
    for size in args.test_sizes:
        accuracy[str(size)] = compare((size, size), fitted.model, args.sweeps)
        print(f"{size} x {size}, steps (and products) to 1e-6")
        for title, row in accuracy[str(size)].items():
            print(f"  {title:20} {row['steps']:7} {row['products']:7}")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    record = {
        "script": f"scripts/train_neural_factor.py --loss {args.loss}",
        "seed": args.seed,
        "steps": args.steps,
        "commit": commit.stdout.strip(),
        "accuracy": accuracy,
        "loss": [fitted.history[0]["loss"], fitted.history[-1]["loss"]],
    }
    if args.loss == "convergence":
        narrow = jax.tree.map(
            lambda x: x.astype(jnp.float32), eqx.filter(fitted.model, eqx.is_array)
        )
        jinv.pretrained.save(f"jinv/pretrained/weights/{name}", narrow, record)


if __name__ == "__main__":
    main()
