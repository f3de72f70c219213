"""Trains learned proximal networks, and the denoisers to compare them with.

    python scripts/train_lpn.py digits        # 8 x 8 handwritten digits
    python scripts/train_lpn.py patches       # photographs in grey
    python scripts/train_lpn.py denoiser      # the same without constraints, by squared error
    python scripts/train_lpn.py lipschitz     # the same with Lipschitz constant 1

Minutes to half an hour each on two cores; `--batch-size`, `--steps` and `--widths` scale it up
on a GPU. Stops and goes on where it stopped (`results/train_lpn/NAME`). Writes the
weights with their record and a plot of the losses there.
"""

import argparse
import subprocess

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jinv


def photographs(names, least=1):
    """Whole and at half size: more scales, less noise of the camera."""
    for name in names:
        full = jinv.data.photograph(name)
        for factor in (1, 2):
            if factor >= least:
                yield jinv.data.photograph(name, shape=tuple(n // factor for n in full.shape))


def crops(pictures, size, num, key):
    keys = jax.random.split(key, len(pictures))
    pairs = zip(pictures, keys, strict=True)
    return jnp.concatenate([jinv.data.patches(p, size, key=k, num=num) for p, k in pairs])


class Augmented(eqx.Module):
    """Crops, mirrored, transposed, and with more or less contrast against the noise; some with
    random fields in their place: what is far from photographs is to be left alone, or iterated
    denoising would amplify it."""

    crops: jax.Array
    batch_size: int = eqx.field(static=True)
    contrast: tuple[float, float] = eqx.field(static=True)
    fields: float = eqx.field(static=True)

    def random(self, key):
        """Gaussian fields of all smoothnesses, around mid-grey."""
        shape = (self.batch_size, *self.crops.shape[1:])
        white, power, size = jax.random.split(key, 3)
        frequency = jnp.hypot(*jnp.meshgrid(*(jnp.fft.fftfreq(n) for n in shape[1:])))
        power = jax.random.uniform(power, (shape[0], 1, 1), maxval=2.0)
        gain = (frequency + 1 / shape[1]) ** -power
        gain = gain / jnp.sqrt(jnp.mean(gain**2, (1, 2), keepdims=True))
        field = jnp.fft.ifft2(jnp.fft.fft2(jax.random.normal(white, shape)) * gain).real
        return 0.5 + 0.3 * field * jax.random.uniform(size, (shape[0], 1, 1))

    def __call__(self, key, step):
        keys = jax.random.split(key, 6)
        chosen = jax.random.randint(keys[0], (self.batch_size,), 0, len(self.crops))
        x, coin = self.crops[chosen], (self.batch_size, 1, 1)
        x = jnp.where(jax.random.bernoulli(keys[1], shape=coin), x[:, ::-1], x)
        x = jnp.where(jax.random.bernoulli(keys[2], shape=coin), jnp.swapaxes(x, 1, 2), x)
        x = jnp.where(jax.random.bernoulli(keys[4], self.fields, coin), self.random(keys[5]), x)
        low, high = np.log(self.contrast)
        return x * jnp.exp(jax.random.uniform(keys[3], coin, minval=low, maxval=high))


def decibels(apply, model, clean, noise, sigma, levels):
    """Mean PSNR of denoising at several noise levels, by rescaling to the one of the training."""

    @eqx.filter_jit
    def at(model, scale):
        found = jax.vmap(lambda y: apply(model, y))(scale * clean + sigma * noise) / scale
        return jnp.mean(jax.vmap(jinv.metrics.psnr)(found, clean))

    return {f"{level:g}": float(at(model, jnp.float32(sigma / level))) for level in levels}


def of_photographs(args, model, apply):
    """What trains and judges a denoiser of photographs."""
    train, test = jinv.data.train_test_photographs()
    # Printed text is no photograph: two of fourteen would be a seventh of the weight.
    train = [name for name in train if name not in ("page", "text")]
    bank = crops(list(photographs(train)), args.crop, 1500, jax.random.key(1))
    held_out = crops(list(photographs(test, least=2)), 64, 20, jax.random.key(2))
    noise = jax.random.normal(jax.random.key(9), held_out.shape)
    samples = Augmented(bank, args.batch_size, (0.7, 4.0), args.fields)
    gamma = None
    if args.matching:
        stage = args.steps // 8
        gamma = jinv.train.GammaSchedule(args.crop**2, pretrain=args.steps // 2, stage_steps=stage)
    batches = jinv.train.NoisyBatches(samples, (args.least * args.noise, args.noise), gamma)
    loss = jinv.train.ProximalMatching("l2", apply)

    def judge(model):
        levels = (0.0125, 0.02, 0.05)
        found = decibels(apply, model, held_out, noise, args.noise, levels)
        return {f"psnr_{level}": value for level, value in found.items()}

    return loss, batches, judge


def gradient(model, y):
    return model.gradient(y)


def apply_denoiser(model, y):
    return model(y)


def patches(args, key):
    shape = (args.patch, args.patch)
    potential = jinv.nn.dense_icnn(
        shape, args.widths, beta=100.0, quadratic=True, activation="squareplus", key=key
    )
    model = jinv.nn.Tiled(potential, 1)
    return model, *of_photographs(args, model, gradient)


def denoiser(args, key):
    model = jinv.nn.ConvDenoiser(args.widths[0], len(args.widths), key=key)
    return model, *of_photographs(args, model, apply_denoiser)


def lipschitz(args, key):
    shape = (args.patch, args.patch)
    model = jinv.nn.LipschitzDenoiser(shape, tuple(args.widths), stride=1, key=key)
    return model, *of_photographs(args, model, apply_denoiser)


def digits(args, key):
    images, _ = jinv.data.digits()
    train, test = images[:1400], images[1400:]
    model = jinv.nn.dense_icnn(
        (8, 8),
        args.widths,
        beta=50.0,
        strong_convexity=0.01,
        quadratic=True,
        activation="squareplus",
        key=key,
    )
    stage = args.steps // 8
    gamma = jinv.train.GammaSchedule(64, pretrain=args.steps // 2, stage_steps=stage)
    samples = jinv.train.Minibatches(train, args.batch_size)
    batches = jinv.train.NoisyBatches(samples, args.noise, gamma)
    noise = jax.random.normal(jax.random.key(9), test.shape)

    def judge(model):
        found = decibels(gradient, model, test, noise, args.noise, (args.noise,))
        return {f"psnr_{level}": value for level, value in found.items()}

    return model, jinv.train.ProximalMatching("l1"), batches, judge


KINDS = {
    "patches": (patches, {"widths": [64, 32], "steps": 2500, "noise": 0.05}),
    "denoiser": (denoiser, {"widths": [24, 24, 24], "steps": 8000, "noise": 0.05, "rate": 2e-3}),
    "lipschitz": (lipschitz, {"widths": [64, 64], "steps": 3000, "noise": 0.05}),
    "digits": (digits, {"widths": [160, 64], "steps": 12000, "noise": 0.1, "batch_size": 200}),
}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--widths", type=int, nargs="+")
    parser.add_argument("--patch", type=int, default=7)
    parser.add_argument("--fields", type=float, default=0.2, help="share of random fields")
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--noise", type=float)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--least", type=float, default=0.0, help="least noise, as a share")
    parser.add_argument("--clip", type=float, default=2e-3)
    parser.add_argument("--matching", action="store_true", help="proximal matching at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the files; by default the kind")
    make, defaults = KINDS[parser.parse_args().kind]
    parser.set_defaults(**{"batch_size": 32, "rate": 1e-3, **defaults})
    args = parser.parse_args()
    folder = f"results/train_lpn/{args.name or args.kind}"
    model, loss, batches, judge = make(args, jax.random.key(args.seed))
    schedule = optax.cosine_decay_schedule(args.rate, args.steps, 0.01)
    optimiser = optax.chain(
        optax.clip_by_global_norm(args.clip), optax.adam(schedule), jinv.nn.keep_nonnegative()
    )
    fitted = jinv.train.fit(
        loss,
        model,
        batches,
        optimiser=optimiser,
        num_steps=args.steps,
        key=jax.random.key(args.seed + 1),
        ema_decay=0.999,
        validate=judge,
        checkpoint=f"{folder}/checkpoints",
        save_every=500,
        log_every=250,
        max_skipped=20,
    )
    for record in fitted.history:
        print({k: round(v, 5) for k, v in record.items()})
    last = fitted.history[-1]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    record = {
        "script": f"scripts/train_lpn.py {args.kind}",
        "settings": {k: v for k, v in vars(args).items() if k not in ("kind", "name")},
        "seed": args.seed,
        "steps": args.steps,
        "commit": commit.stdout.strip(),
        "accuracy": {k.removeprefix("validation_"): v for k, v in last.items() if "valid" in k},
        "loss": [fitted.history[0]["loss"], last["loss"]],
    }
    jinv.pretrained.save(f"{folder}/weights", fitted.model, record)
    curves = {"training": [entry["loss"] for entry in fitted.history]}
    figure = jinv.plot.convergence(curves, xlabel="250 steps", ylabel="loss")
    print(jinv.plot.save(figure, f"{folder}/loss.png"))


if __name__ == "__main__":
    main()
