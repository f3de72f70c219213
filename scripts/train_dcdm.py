"""Trains the direction model of deep conjugate directions, and counts steps with it.

    python scripts/train_dcdm.py --shape 64 64 --folder results/train_dcdm_2d --save dcdm_2d

The same call goes on where an interrupted one stopped. The training of the paper (A. Kaneda et
al., A Deep Conjugate Direction Method for Iteratively Solving Linear Systems, 2023) has 10000
Ritz vectors of 64^3 or 128^3 cells, batches of 10 and Adam with a step size of 1e-4; here the
step size falls along a cosine, which short trainings need. With `--network unet` there are
random obstacles, and the geometry is an input.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax

import jinv
from jinv import linear


class Boxes(eqx.Module):
    """Batches of right-hand sides of the empty box."""

    samples: linear.RitzSamples
    box: linear.Diffusion

    def __call__(self, key, step):
        return self.box, self.samples(key, step)


class Obstacles(eqx.Module):
    """Batches of right-hand sides of the empty box, each with obstacles of its own."""

    samples: linear.RitzSamples

    def __call__(self, key, step):
        key, other = jax.random.split(key)
        batch = self.samples(key, step)
        operators = jax.vmap(self.geometry)(jax.random.split(other, batch.shape[0]))
        batch = jax.vmap(lambda A, b: jnp.where(A.active(), b, 0)[None])(operators, batch)
        return operators, batch

    def geometry(self, key):
        cells = linear.random_obstacles(self.samples.vectors.shape[1:], key=key)
        return linear.pressure_poisson(cells, open_sides=[(0, 1)])


def box_loss(model, batch, key):
    return linear.conjugate_direction_loss(model, *batch)


def obstacle_loss(model, batch, key):
    losses = jax.vmap(linear.conjugate_direction_loss, (None, 0, 0))
    return jnp.mean(losses(model, *batch))


def count(model, operator, rtol: float) -> dict:
    """Steps and seconds of a solve, beside those of conjugate gradients."""
    kernel = linear.null_space(operator)
    # The divergence of a random velocity on the open faces.
    rhs = jnp.zeros(operator.shape)
    for axis, faces in enumerate(operator.faces):
        velocity = faces * jax.random.normal(jax.random.key(axis), faces.shape)
        rhs = rhs + jnp.diff(velocity, axis=axis)
    solvers = {
        "dcdm": linear.DCDM(rtol, 0.0, model, null_space=kernel, max_steps=2000),
        "cg": linear.PCG(rtol, 0.0, null_space=kernel, max_steps=20000),
    }
    solid = 1 - float(jnp.mean(operator.active()))
    row: dict = {"shape": list(operator.shape), "solid": round(solid, 3), "rtol": rtol}
    for name, solver in solvers.items():
        run = eqx.filter_jit(lambda A, b, s: lx.linear_solve(A, b, s, throw=False))
        jax.block_until_ready(run(operator, rhs, solver).value)
        start = time.perf_counter()
        solved = jax.block_until_ready(run(operator, rhs, solver))
        row[f"{name}_seconds"] = round(time.perf_counter() - start, 4)
        row[f"{name}_steps"] = int(solved.stats["num_steps"])
        row[f"{name}_solved"] = bool(solved.result == lx.RESULTS.successful)
    return row


def evaluate(model, args, batches) -> list[dict]:
    if args.network == "unet":
        keys = jax.random.split(jax.random.key(args.seed + 1), 3)
        return [count(model, batches.geometry(key), args.rtol) for key in keys]
    # The box of the training, a larger one, and obstacles in the first, which it never saw.
    double = [2 * n for n in args.shape]
    systems = [linear.poisson(shape, boundary=args.boundary) for shape in (args.shape, double)]
    faces = [(axis, side) for axis in range(len(args.shape)) for side in (0, 1)]
    sides = faces if args.boundary == "dirichlet" else []
    cells = linear.random_obstacles(args.shape, key=jax.random.key(args.seed + 1))
    systems.append(linear.pressure_poisson(cells, open_sides=sides))
    return [count(model, system, args.rtol) for system in systems]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains a direction model.")
    add = parser.add_argument
    add("--shape", type=int, nargs="+", default=[64, 64], help="cells along each axis")
    add("--boundary", choices=["dirichlet", "neumann"], default="dirichlet")
    add("--network", choices=["published", "unet"], default="published")
    add("--pairs", type=int, nargs=3, default=[1, 3, 2], help="of the published network")
    add("--levels", type=int, default=4, help="of the U-Net")
    add("--channels", type=int, default=16)
    add("--ritz", type=int, default=1000, help="the number of Ritz vectors")
    add("--batch", type=int, default=10)
    add("--steps", type=int, default=3000)
    add("--rate", type=float, default=1e-3, help="step size of Adam, falls along a cosine")
    add("--seed", type=int, default=0)
    add("--rtol", type=float, default=1e-4, help="tolerance of the solves that are counted")
    add("--folder", type=Path, help="of the checkpoints; without it there are none")
    add("--save", type=Path, help="where to store the weights")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    model_key, data_key, fit_key = jax.random.split(jax.random.key(args.seed), 3)
    box = linear.poisson(args.shape, boundary=args.boundary)
    start = time.perf_counter()
    values, vectors = linear.ritz_pairs(box, args.ritz, key=data_key)
    jax.block_until_ready(vectors)
    print(f"{args.ritz} Ritz vectors in {time.perf_counter() - start:.1f} s", flush=True)
    samples = linear.RitzSamples(values, vectors, args.batch)
    ndim = len(args.shape)
    if args.network == "unet":
        model = linear.UNetDirection(ndim, args.channels, levels=args.levels, key=model_key)
        loss, batches = obstacle_loss, Obstacles(samples)
    else:
        model = linear.DirectionNet(ndim, args.channels, pairs=args.pairs, key=model_key)
        loss, batches = box_loss, Boxes(samples, box)
    start = time.perf_counter()
    fitted = jinv.train.fit(
        loss,
        model,
        batches,
        optimiser=optax.adam(optax.cosine_decay_schedule(args.rate, args.steps)),
        num_steps=args.steps,
        key=fit_key,
        checkpoint=args.folder,
        save_every=500,
    )
    seconds = time.perf_counter() - start
    accuracy = evaluate(fitted.model, args, batches)
    for row in [*fitted.history, *accuracy]:
        print(json.dumps(row))
    if args.save is not None:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        record = {
            "script": "scripts/train_dcdm.py",
            "seed": args.seed,
            "steps": args.steps,
            "commit": commit(),
            "accuracy": accuracy,
            "settings": settings,
            "loss": fitted.history[-1]["loss"],
            "seconds_of_last_run": round(seconds, 1),
            "device": jax.devices()[0].device_kind,
        }
        print(jinv.pretrained.save(args.save, fitted.model, record))


def commit() -> str:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
