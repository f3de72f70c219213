"""Trains neural operators: two-phase Darcy flow at 64 x 64, and Burgers' equation at 128 points.

    python scripts/train_operators.py mgno          # the corrected one
    python scripts/train_operators.py published     # as the authors' code behaves
    python scripts/train_operators.py fno
    python scripts/train_operators.py multionet
    python scripts/train_operators.py deeponet
    python scripts/train_operators.py multionet --problem burgers
    python scripts/train_operators.py deeponet --problem burgers --activation tanh_sin

1000 samples, and 100 that are kept back. By default ten epochs for grids, as in the authors'
recipe (batches of 8, one cycle of the learning rate, their H1 norm), some minutes on one core;
`--epochs`, `--channels`, `--devices` scale it up on GPUs. For Burgers' equation the activations are
the published ones unless others are given. Stops and goes on where it stopped
(`results/train_operators/NAME`); the data are made once. Writes the weights with their record and
a plot there, or the weights to `--save`.
"""

import argparse
import math
import subprocess
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import jinv
from jinv.pretrained._operators import darcy_network


TRAIN, TEST = 1000, 100
FOLDER = "results/train_operators"


def darcy():
    """Coefficients and solutions on every second of 127 x 127 nodes."""
    make, options = jinv.pde.darcy_two_phase, {"key": jax.random.key(0), "stride": 2}
    return jinv.pde.cached(f"{FOLDER}/data", make, TRAIN + TEST, 127, **options)


def burgers():
    """Initial and final values at 128 points between ends where they are zero. The published data
    are the same with twice the points: odd functions between -1 and 1."""
    field = jinv.pde.GaussianField(2, 3, 6, "dirichlet")
    options = {"key": jax.random.key(0), "stride": 2, "viscosity": 0.1 / math.pi, "field": field}
    return jinv.pde.cached(f"{FOLDER}/data", jinv.pde.burgers, TRAIN + TEST, 255, **options)


def split(made):
    pairs = jnp.asarray(made.inputs, jnp.float32), jnp.asarray(made.outputs, jnp.float32)
    return tuple(x[:TRAIN] for x in pairs), tuple(x[TRAIN:] for x in pairs)


class AtPoints(eqx.Module):
    """An operator of sensors and points, at the sensors."""

    operator: jinv.nn.MultiONet

    def __call__(self, u):
        return self.operator(u, jnp.linspace(-1, 1, len(u), dtype=u.dtype)[:, None])


def on_interval(kind, widths, activation, weighting, key):
    networks = [128, *widths], [1, *widths]
    options = {"branch_activation": activation, "trunk_activation": activation, "key": key}
    if kind == "deeponet":
        return AtPoints(jinv.nn.deeponet(*networks, **options))
    return AtPoints(jinv.nn.MultiONet(*networks, weighting=weighting, **options))


def settings(args):
    """What the record says of the network."""
    if args.problem == "burgers":
        chosen = {"activation": args.activation}
        chosen |= {"weighting": args.weighting} if args.kind == "multionet" else {}
        return {"widths": [args.channels] * args.layers, **chosen}
    if args.kind in ("multionet", "deeponet"):
        return {"widths": [args.channels] * args.layers}
    modes = {"modes": args.modes} if args.kind == "fno" else {}
    return {"channels": args.channels, **modes}


def network(args, key):
    if args.problem == "burgers":
        widths = [args.channels] * args.layers
        return on_interval(args.kind, widths, args.activation, args.weighting, key)
    if args.kind == "published":
        return jinv.nn.published_mgno("darcy", channels=args.channels, key=key)
    return darcy_network(args.kind, **settings(args), key=key)


# As published for Burgers' equation; of the weightings the later one.
BURGERS = {"epochs": 500, "batch_size": 50, "layers": 4, "weight_decay": 0.0}
ACTIVATIONS = {"multionet": "tanh_sin", "deeponet": "tanh"}
DEFAULTS = {
    "mgno": {"channels": 24, "rate": 1e-3, "epochs": 10, "batch_size": 8},
    "published": {"channels": 24, "rate": 5e-4, "epochs": 10, "batch_size": 8},
    "fno": {"channels": 32, "rate": 1e-3, "epochs": 10, "batch_size": 8},
    "multionet": {"channels": 128, "rate": 1e-3, "epochs": 200, "batch_size": 20},
    "deeponet": {"channels": 128, "rate": 1e-3, "epochs": 200, "batch_size": 20},
}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=DEFAULTS)
    parser.add_argument("--problem", choices=("darcy", "burgers"), default="darcy")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--channels", type=int, help="or the width of the layers")
    parser.add_argument("--layers", type=int, default=5, help="of multionet and deeponet")
    parser.add_argument("--activation", help="of both networks, for Burgers' equation")
    parser.add_argument("--weighting", default="global", help="of multionet there")
    parser.add_argument(
        "--normalised", action="store_true", help="values there too, unlike the published ones"
    )
    parser.add_argument("--modes", type=int, default=12, help="of fno")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument(
        "--free", action="store_true", help="without the boundary values built in (as published)"
    )
    parser.add_argument("--devices", type=int, help="split batches over so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the folder")
    parser.add_argument("--save", help="where the weights go, without suffix")
    given = parser.parse_args()
    at_points = given.kind in ("multionet", "deeponet")
    parser.set_defaults(**DEFAULTS[given.kind])
    if at_points and given.problem == "burgers":
        parser.set_defaults(activation=ACTIVATIONS[given.kind], **BURGERS)
    args = parser.parse_args()
    if args.problem == "burgers" and not at_points:
        parser.error("`--problem burgers` is for multionet and deeponet")
    free = args.free or args.kind == "published" or args.problem == "burgers"
    args.name = args.name or "_".join(
        (args.problem, args.kind, *["free"] * free, str(args.epochs), str(args.seed))
        if args.problem == "darcy"
        else (
            args.problem,
            args.kind,
            args.activation,
            *["normalised"] * args.normalised,
            str(args.epochs),
            str(args.seed),
        )
    )
    folder = f"{FOLDER}/{args.name}"
    train, test = split(burgers() if args.problem == "burgers" else darcy())
    of_model, of_order, of_run = jax.random.split(jax.random.key(args.seed), 3)
    model = network(args, of_model)
    if args.problem == "darcy" or args.normalised:
        model = jinv.train.Normalised(model, *train)
    model = model if free else jinv.nn.Dirichlet(model)
    batches = jinv.train.Epochs(train, args.batch_size, of_order)
    steps = args.epochs * batches.steps
    norms = {"l2": jinv.train.relative_l2, "h1": jinv.train.spectral_h1}

    @eqx.filter_jit
    def errors(model):
        one = lambda pair: {name: norm(model(pair[0]), pair[1]) for name, norm in norms.items()}
        found = jax.lax.map(one, test, batch_size=10)
        return {name: jnp.mean(values) for name, values in found.items()}

    begin = time.process_time()

    def validate(model):
        found = {name: float(value) for name, value in errors(model).items()}
        return {**found, "cpu_seconds": time.process_time() - begin}

    print(settings(args))
    schedule = optax.cosine_onecycle_schedule(steps, args.rate, 0.2, 2, 100)
    # Decay as a part of the gradient, as in the authors' code; the scales of the data have none.
    trained = jax.tree.map(eqx.is_inexact_array, model)
    inner = lambda m: m if free else m.network
    names = [f"{what}_{of}" for what in ("mean", "deviation") for of in ("in", "out")]
    if isinstance(inner(model), jinv.train.Normalised):
        scales = lambda m: [getattr(inner(m), name) for name in names]
        trained = eqx.tree_at(scales, trained, (False,) * 4)
    loss, other = ("l2", "h1") if at_points else ("h1", "l2")
    fitted = jinv.train.fit(
        jinv.train.OperatorMatching(norms[loss], {other: norms[other]}),
        model,
        batches,
        optimiser=optax.chain(optax.add_decayed_weights(args.weight_decay), optax.adam(schedule)),
        num_steps=steps,
        key=of_run,
        trainable=trained,
        validate=validate,
        devices=jax.devices()[: args.devices] if args.devices else None,
        checkpoint=f"{folder}/checkpoints",
        save_every=max(steps // 5, 1),
        log_every=max(steps // 10, 1),
    )
    for record in fitted.history:
        print({name: round(value, 5) for name, value in record.items()}, flush=True)
    if not fitted.complete:
        return  # interrupted; the same command goes on
    history = continued(fitted.history)
    last = history[-1]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    weights = inner(fitted.model)
    weights = weights.model if isinstance(weights, jinv.train.Normalised) else weights
    count = sum(x.size for x in jax.tree.leaves(weights) if eqx.is_inexact_array(x))
    record = {
        "script": f"scripts/train_operators.py {args.kind}",
        "settings": {k: v for k, v in vars(args).items() if k not in ("kind", "name", "save")},
        "network": settings(args),
        "num_weights": count,
        "seed": args.seed,
        "steps": steps,
        "commit": commit.stdout.strip(),
        "accuracy": {name: round(last[f"validation_{name}"], 5) for name in norms},
        "history": [{k: float(f"{v:.5g}") for k, v in row.items()} for row in history],
    }
    print(record["accuracy"])
    # Weights of more than 5 MB are stored with half of the digits, errors of which are far smaller.
    kept = fitted.model if count < 1_200_000 else jax.tree.map(halved, fitted.model)
    jinv.pretrained.save(args.save or f"{folder}/weights", kept, record)
    curves = {"training": [r["loss"] for r in fitted.history]}
    curves["kept back"] = [r[f"validation_{loss}"] for r in fitted.history]
    figure = jinv.plot.convergence(curves, xlabel="record", ylabel=f"relative {loss} error")
    print(jinv.plot.save(figure, f"{folder}/loss.png"))


def continued(history):
    """The CPU seconds of a run that was resumed begin anew; here they go on."""
    found, before, last = [], 0.0, 0.0
    for row in history:
        seconds = row["validation_cpu_seconds"]
        before, last = before + last * (seconds < last), seconds
        found.append({**row, "validation_cpu_seconds": before + seconds})
    return found


def halved(leaf):
    return leaf.astype(jnp.float16) if eqx.is_array(leaf) and leaf.ndim else leaf


if __name__ == "__main__":
    main()
