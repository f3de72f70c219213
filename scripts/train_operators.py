"""Trains neural operators on two-phase Darcy flow at 64 x 64: 1000 samples, 100 kept back.

    python scripts/train_operators.py mgno          # the corrected one
    python scripts/train_operators.py published     # as the authors' code behaves
    python scripts/train_operators.py fno
    python scripts/train_operators.py multionet

By default ten epochs, as in the authors' recipe (batches of 8, one cycle of the learning rate,
their H1 norm), some minutes on one core; `--epochs`, `--channels`, `--devices` scale it up on GPUs.
Stops and goes on where it stopped (`results/train_operators/NAME`); the data are made once. Writes
the weights with their record and a plot there, or the weights to `--save`.
"""

import argparse
import subprocess

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import jinv


SIZE, TRAIN, TEST = 64, 1000, 100
FOLDER = "results/train_operators"


def darcy():
    """Coefficients and solutions on every second of 127 x 127 nodes."""
    made = jinv.pde.cached(
        f"{FOLDER}/data",
        jinv.pde.darcy_two_phase,
        TRAIN + TEST,
        2 * SIZE - 1,
        key=jax.random.key(0),
        stride=2,
    )
    pairs = jnp.asarray(made.inputs, jnp.float32), jnp.asarray(made.outputs, jnp.float32)
    return tuple(x[:TRAIN] for x in pairs), tuple(x[TRAIN:] for x in pairs), made.coordinates


class AtPoints(eqx.Module):
    """An operator of sensors and points, on the points of the grid."""

    operator: jinv.nn.MultiONet
    shape: tuple[int, int] = eqx.field(static=True)

    def __call__(self, u):
        axes = [jnp.linspace(0, 1, n, dtype=u.dtype) for n in self.shape]
        points = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)
        # Every fourth point is a sensor.
        return self.operator(u[::4, ::4], points)


def network(args, key):
    if args.kind == "mgno":
        return jinv.nn.mgno(channels=args.channels, residual=False, key=key)
    if args.kind == "published":
        return jinv.nn.published_mgno("darcy", channels=args.channels, key=key)
    if args.kind == "fno":
        return jinv.nn.FNO(1, 1, args.modes, args.channels, key=key)
    sensors = (SIZE // 4) ** 2
    widths = [args.channels] * 5
    options = {"trunk_activation": "silu_sin", "branch_activation": "silu_id"}
    model = jinv.nn.MultiONet([sensors, *widths], [2, *widths], initial=0.1, **options, key=key)
    return AtPoints(model, (SIZE, SIZE))


DEFAULTS = {
    "mgno": {"channels": 24, "rate": 5e-4},
    "published": {"channels": 24, "rate": 5e-4},
    "fno": {"channels": 24, "rate": 1e-3},
    "multionet": {"channels": 128, "rate": 1e-3},
}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=DEFAULTS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--channels", type=int)
    parser.add_argument("--modes", type=int, default=12, help="of fno")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--devices", type=int, help="split batches over so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the folder; by default the kind and the seed")
    parser.add_argument("--save", help="where the weights go, without suffix")
    parser.set_defaults(**DEFAULTS[parser.parse_args().kind])
    args = parser.parse_args()
    folder = f"{FOLDER}/{args.name or f'{args.kind}_{args.seed}'}"
    train, test, _ = darcy()
    of_model, of_order, of_run = jax.random.split(jax.random.key(args.seed), 3)
    model = jinv.train.Normalised(network(args, of_model), *train)
    batches = jinv.train.Epochs(train, args.batch_size, of_order)
    steps = args.epochs * batches.steps
    norms = {"l2": jinv.train.relative_l2, "h1": jinv.train.spectral_h1}

    @eqx.filter_jit
    def errors(model):
        one = lambda pair: {name: norm(model(pair[0]), pair[1]) for name, norm in norms.items()}
        found = jax.lax.map(one, test, batch_size=10)
        return {name: jnp.mean(values) for name, values in found.items()}

    schedule = optax.cosine_onecycle_schedule(steps, args.rate, 0.2, 2, 100)
    # Decay as a part of the gradient, as in the authors' code; the scales of the data have none.
    trained = jax.tree.map(eqx.is_inexact_array, model)
    scales = lambda m: (m.mean_in, m.deviation_in, m.mean_out, m.deviation_out)
    trained = eqx.tree_at(scales, trained, (False,) * 4)
    fitted = jinv.train.fit(
        jinv.train.OperatorMatching(norms["h1"], {"l2": norms["l2"]}),
        model,
        batches,
        optimiser=optax.chain(optax.add_decayed_weights(args.weight_decay), optax.adam(schedule)),
        num_steps=steps,
        key=of_run,
        trainable=trained,
        validate=lambda model: {name: float(value) for name, value in errors(model).items()},
        devices=jax.devices()[: args.devices] if args.devices else None,
        checkpoint=f"{folder}/checkpoints",
        save_every=250,
        log_every=max(steps // 10, 1),
    )
    for record in fitted.history:
        print({name: round(value, 5) for name, value in record.items()}, flush=True)
    if int(fitted.state.step) < steps:
        return  # interrupted; the same command goes on
    last = fitted.history[-1]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    weights = sum(x.size for x in jax.tree.leaves(fitted.model.model) if eqx.is_inexact_array(x))
    record = {
        "script": f"scripts/train_operators.py {args.kind}",
        "settings": {k: v for k, v in vars(args).items() if k not in ("kind", "name", "save")},
        "num_weights": weights,
        "seed": args.seed,
        "steps": steps,
        "commit": commit.stdout.strip(),
        "accuracy": {name: round(last[f"validation_{name}"], 5) for name in norms},
    }
    print(record)
    jinv.pretrained.save(args.save or f"{folder}/weights", fitted.model, record)
    curves = {"training": [r["loss"] for r in fitted.history]}
    curves["kept back"] = [r["validation_h1"] for r in fitted.history]
    figure = jinv.plot.convergence(curves, xlabel="record", ylabel="relative H1 error")
    print(jinv.plot.save(figure, f"{folder}/loss.png"))


if __name__ == "__main__":
    main()
