"""Trains the numbers of the multigrid cycle on random geometries and coefficients.

    python scripts/train_multigrid.py --ndim 2     # about ten minutes on two cores
    python scripts/train_multigrid.py --ndim 3

Stops and goes on where it stopped (`results/train_multigrid_{ndim}d`). Writes
`jinv/pretrained/weights/multigrid_{ndim}d.npz` with its record. Unsupervised: the loss is the
logarithm of the reduction of the residual per step of conjugate gradients. A third of the systems
is a fluid among obstacles, a third has a coefficient with jumps, a third a smooth one; ratios of
the coefficient go up to a thousand.
"""

import argparse
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax

import jinv


def system(shape, key, kind):
    """A random system: the operator and a right-hand side in its range."""
    keys = jax.random.split(key, 4)
    dtype = jnp.result_type(float)
    cells = jinv.linear.random_obstacles(shape, key=keys[0])
    fluid = jinv.linear.pressure_poisson(cells, open_sides=[(0, 1)], dtype=dtype)
    # Powers of one coefficient are the others: ratios between 1 and 1000.
    power = jax.random.uniform(keys[1])
    make = lambda smooth: jinv.linear.random_coefficient(
        shape, key=keys[2], length=0.15, smooth=smooth, dtype=dtype
    )
    jumps, smooth = make(False) ** power, make(True) ** power
    rough = jinv.linear.heterogeneous_diffusion(jnp.where(kind == 1, jumps, smooth))
    operator = jax.tree.map(lambda a, b: jnp.where(kind == 0, a, b), fluid, rough)
    return operator, jinv.linear.random_source(operator, key=keys[3])


def make_batches(shape, batch_size):
    def batches(key, step):
        kinds = jnp.arange(batch_size) % 3
        return jax.vmap(lambda k, kind: system(shape, k, kind))(
            jax.random.split(key, batch_size), kinds
        )

    return batches


def loss(weights, batch, key):
    one = lambda operator, vector: jinv.linear.convergence_loss(
        multigrid(weights), operator, vector, steps=5
    )
    return jnp.mean(jax.vmap(one)(*batch))


def multigrid(weights):
    """The V cycle: no visit of a grid makes up for another there. Trained in it, the weights gain
    the same in the F cycle, and more than those trained in that."""
    return jinv.linear.Multigrid(weights, cycle="V")


def iterations(weights, shape, count=5):
    """The mean steps to 1e-6 of the F cycle on held-out systems of each kind, with the fraction
    of the last one that it takes: whole steps would hide what is gained."""
    preconditioner = jinv.linear.Multigrid(weights, cycle="F")
    solver = jinv.linear.PCG(1e-6, 0.0, preconditioner, max_steps=200, history=True)

    @jax.jit
    def solve(key, kind):
        stats = lx.linear_solve(*system(shape, key, kind), solver, throw=False).stats
        return stats["num_steps"], stats["residuals"]

    def fractional(key, kind):
        steps, residuals = solve(key, kind)
        before, after = np.log(residuals[steps - 1 : steps + 1])
        return steps - 1 + (np.log(1e-6) - before) / (after - before)

    keys = [jax.random.key(1000 + i) for i in range(count)]
    return [float(np.mean([fractional(key, kind) for key in keys])) for kind in range(3)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ndim", type=int, choices=(2, 3), required=True)
    parser.add_argument("--size", type=int, help="cells along each axis (2-D: 128, 3-D: 32)")
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument(
        "--depth", type=int, help="levels with numbers of their own (2-D: 5, 3-D: 3)"
    )
    parser.add_argument("--rate", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # Gradients of the weights' quotients need the range of double precision.
    jax.config.update("jax_enable_x64", True)
    size = args.size or {2: 128, 3: 32}[args.ndim]
    depth = args.depth or {2: 5, 3: 3}[args.ndim]
    shape = (size,) * args.ndim
    name = f"multigrid_{args.ndim}d"
    weights = jinv.linear.MultigridWeights(depth, trainable=True)
    schedule = optax.cosine_decay_schedule(args.rate, args.steps)
    fitted = jinv.train.fit(
        loss,
        weights,
        make_batches(shape, args.batch_size),
        optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99)),
        num_steps=args.steps,
        key=jax.random.key(args.seed),
        checkpoint=f"results/train_{name}",
        save_every=100,
        log_every=25,
        max_skipped=20,
    )
    accuracy = {}
    for n in {2: (128, 256, 512), 3: (32, 64)}[args.ndim]:
        counts = [iterations(w, (n,) * args.ndim) for w in (None, fitted.model)]
        for kind, pair in zip(
            ("obstacles", "jumps", "smooth"), zip(*counts, strict=True), strict=True
        ):
            accuracy[f"steps to 1e-6, {kind}, {n}: untrained, trained"] = [
                round(x, 2) for x in pair
            ]
    for line in accuracy.items():
        print(*line)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    record = {
        "script": f"scripts/train_multigrid.py --ndim {args.ndim}",
        "seed": args.seed,
        "steps": args.steps,
        "depth": depth,
        "commit": commit.stdout.strip(),
        "accuracy": accuracy,
        "loss": [fitted.history[0]["loss"], fitted.history[-1]["loss"]],
    }
    pathlib.Path("jinv/pretrained/weights").mkdir(exist_ok=True)
    jinv.pretrained.save(f"jinv/pretrained/weights/{name}", fitted.model, record)


if __name__ == "__main__":
    main()
