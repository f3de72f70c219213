"""Trains the learned prior of photographs, and the denoisers to compare it with.

    python scripts/train_lpn.py photographs     # the learned proximal network
    python scripts/train_lpn.py convolutional   # a denoiser without constraints, by squared error
    python scripts/train_lpn.py lipschitz       # one with Lipschitz constant 1, by squared error

Minutes to half an hour each on two cores; `--batch-size`, `--steps`, `--widths` and `--chunk 0`
scale it up on a GPU. Stops and goes on where it stopped (`results/train_lpn/NAME`). Writes the
weights with their record and a plot of the losses there, or the weights to `--save`.

The prior is trained by the squared error of denoising, which is what proximal matching is for
errors well below its published width, and then at the fixed points of proximal gradient descent:
blurred, masked and noisy photographs, restored by `--fewest` to `--most` steps. With `--bounded`
(the default) no weights can make a fixed point run away.
"""

import argparse
import subprocess

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jinv


NOISE = 0.05
CONTRAST = (1.0, 3.5)  # of the photographs against this noise: levels from 0.05 to 0.014
STEP = 0.98


def photographs(names, factors=(1, 2)):
    """Whole and at half size: more scales, less noise of the camera."""
    for name in names:
        height, width = jinv.data.photograph(name).shape
        for factor in factors:
            yield jinv.data.photograph(name, shape=(height // factor, width // factor))


def crops(pictures, size, num, key):
    pictures = list(pictures)
    keys = jax.random.split(key, len(pictures))
    pairs = zip(pictures, keys, strict=True)
    return jnp.concatenate([jinv.data.patches(p, size, key=k, num=num) for p, k in pairs])


class Augmented(eqx.Module):
    """Crops, mirrored, transposed, and with more or less contrast against the noise."""

    crops: jax.Array
    batch_size: int = eqx.field(static=True)

    def __call__(self, key, step):
        keys = jax.random.split(key, 4)
        chosen = jax.random.randint(keys[0], (self.batch_size,), 0, len(self.crops))
        x, coin = self.crops[chosen], (self.batch_size, 1, 1)
        x = jnp.where(jax.random.bernoulli(keys[1], shape=coin), x[:, ::-1], x)
        x = jnp.where(jax.random.bernoulli(keys[2], shape=coin), jnp.swapaxes(x, 1, 2), x)
        low, high = np.log(CONTRAST)
        return x * jnp.exp(jax.random.uniform(keys[3], coin, minval=low, maxval=high))


RADIUS = 3


def blur_matrix(width, size):
    """Full convolution with a Gaussian along one axis: `(size + 2 RADIUS, size)`."""
    taps = jnp.exp(-0.5 * (jnp.arange(-RADIUS, RADIUS + 1) / width) ** 2)
    offset = jnp.arange(size + 2 * RADIUS)[:, None] - jnp.arange(size)
    inside = (offset >= 0) & (offset <= 2 * RADIUS)
    return jnp.where(inside, (taps / taps.sum())[jnp.clip(offset, 0, 2 * RADIUS)], 0)


class Reconstructions(eqx.Module):
    """Problems: half of them blurred, three of ten with pixels missing, two of ten noisy only. A
    quarter starts with a random field on top, which the prior has to remove where data do not."""

    samples: Augmented
    least: int = eqx.field(static=True)
    most: int = eqx.field(static=True)

    def __call__(self, key, step):
        of_samples, of_problems, of_steps = jax.random.split(key, 3)
        clean = self.samples(of_samples, step)
        keys = jax.random.split(of_problems, len(clean))
        start, problems = jax.vmap(self.problem)(keys, clean)
        return clean, start, problems, jax.random.randint(of_steps, (), self.least, self.most)

    def problem(self, key, clean):
        of_kind, of_width, of_share, of_mask, of_noise, of_field = jax.random.split(key, 6)
        size, kind = len(clean), jax.random.uniform(of_kind)
        width = jnp.exp(jax.random.uniform(of_width, minval=np.log(0.6), maxval=np.log(2.0)))
        none = jnp.pad(jnp.eye(size), ((RADIUS, RADIUS), (0, 0)))
        matrix = jnp.where(kind < 0.5, blur_matrix(width, size), none)
        share = jax.random.uniform(of_share, minval=0.35, maxval=0.75)
        kept = jax.random.bernoulli(of_mask, share, (len(matrix), len(matrix)))
        mask = jnp.where((kind >= 0.5) & (kind < 0.8), kept.astype(clean.dtype), 1)
        noise = NOISE * jax.random.normal(of_noise, mask.shape)
        data = mask * (matrix @ clean @ matrix.T + noise)
        mean = jnp.sum(data) / jnp.sum(mask)
        start = matrix.T @ (data + (1 - mask) * mean) @ matrix
        return start + field(of_field, size), (matrix, mask, data)


def field(key, size):
    """In one of four cases a Gaussian field of any smoothness and of any size up to 0.2."""
    of_power, of_values, of_coin, of_size = jax.random.split(key, 4)
    frequency = jnp.hypot(*jnp.meshgrid(*(jnp.fft.fftfreq(size),) * 2))
    gain = (frequency + 1 / size) ** -jax.random.uniform(of_power, minval=-1.0)
    white = jnp.fft.fft2(jax.random.normal(of_values, (size, size)))
    values = jnp.fft.ifft2(white * gain / jnp.sqrt(jnp.mean(gain**2))).real
    amplitude = jnp.exp(jax.random.uniform(of_size, minval=np.log(0.02), maxval=np.log(0.2)))
    return jnp.where(jax.random.bernoulli(of_coin, 0.25), amplitude * values, 0)


def descend(model, x, problem):
    """A step of proximal gradient descent; the network is the prox."""
    matrix, mask, data = problem
    residual = mask * (matrix @ x @ matrix.T) - data
    return model.gradient(x - STEP * matrix.T @ residual @ matrix)


def restore(model, y):
    return model.gradient(y)


def denoise(model, y):
    return model(y)


def validation(apply, names):
    """Mean PSNR on held-out crops: denoised at two noise levels, by rescaling, and deblurred."""
    clean = crops(photographs(names, (1,)), 64, 20, jax.random.key(2))
    noise = jax.random.normal(jax.random.key(9), clean.shape)
    matrix = blur_matrix(1.0, 64)
    wide = jax.random.normal(jax.random.key(8), (len(clean), *(len(matrix),) * 2))
    score = lambda found, clean: jnp.mean(jax.vmap(jinv.metrics.psnr)(found, clean))

    @eqx.filter_jit
    def denoised(model, level):
        scale = NOISE / level
        found = jax.lax.map(lambda y: apply(model, scale * y) / scale, clean + level * noise)
        return score(found, clean)

    @eqx.filter_jit
    def deblurred(model):
        few, scale = clean[::8], NOISE / 0.02

        def one(problem):
            data = scale * (matrix @ problem[0] @ matrix.T + 0.02 * problem[1])
            step = lambda x: apply(
                model, x - STEP * matrix.T @ (matrix @ x @ matrix.T - data) @ matrix
            )
            x = matrix.T @ data @ matrix
            move = lambda _, c: (step(c[0]) + 0.8 * (step(c[0]) - c[1]), step(c[0]))
            return jax.lax.fori_loop(0, 60, move, (x, x))[1] / scale

        return score(jax.lax.map(one, (few, wide[::8])), few)

    def judge(model):
        found = {f"psnr_{level}": float(denoised(model, level)) for level in (0.02, 0.05)}
        return {**found, "deblurring_0.02": float(deblurred(model))}

    return judge


def make(args):
    """The model, and what the record needs to make it again."""
    key, shape = jax.random.key(args.seed), (args.patch, args.patch)
    if args.kind == "convolutional":
        network = {"channels": args.widths[0], "depth": len(args.widths)}
        return jinv.nn.ConvDenoiser(**network, key=key), network
    network = {"shape": shape, "widths": args.widths}
    if args.kind == "lipschitz":
        model = jinv.nn.LipschitzDenoiser(shape, tuple(args.widths), stride=1, key=key)
        return model, {**network, "stride": 1}
    options = {"beta": 100.0, "quadratic": True, "mean": False, "activation": "squareplus"}
    options["strong_convexity"], options["bounded"] = args.strong_convexity, args.bounded
    keys = jax.random.split(key, args.levels)
    levels = [jinv.nn.dense_icnn(**network, **options, key=k) for k in keys]
    stored = {**network, **options, "levels": args.levels, "stride": args.stride}
    return jinv.nn.Pyramid(levels, args.stride), stored


DEFAULTS = {
    "photographs": {
        "widths": [64, 32],
        "steps": 100,
        "rate": 4e-3,
        "least": 0.0,
        "steps_fixed_point": 1500,
    },
    "convolutional": {"widths": [40, 40, 40], "steps": 2000, "chunk": 0},
    "lipschitz": {"widths": [64, 64], "steps": 1500},
}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=DEFAULTS)
    parser.add_argument("--widths", type=int, nargs="+")
    parser.add_argument("--patch", type=int, default=6)
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--strong-convexity", type=float, default=0.01)
    parser.add_argument("--bounded", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--crop", type=int, default=48)
    parser.add_argument("--steps", type=int, help="of denoising")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--least", type=float, default=1.0, help="least noise, as a share")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--steps-fixed-point", type=int, default=0)
    parser.add_argument("--batch-size-fixed-point", type=int, default=8)
    parser.add_argument("--rate-fixed-point", type=float, default=2.5e-3)
    parser.add_argument("--fewest", type=int, default=12, help="steps to a fixed point")
    parser.add_argument("--most", type=int, default=45)
    parser.add_argument("--chunk", type=int, default=1, help="samples at a time, 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the folder; by default the kind")
    parser.add_argument("--save", help="where the weights go, without suffix")
    parser.set_defaults(**DEFAULTS[parser.parse_args().kind])
    args = parser.parse_args()
    folder = f"results/train_lpn/{args.name or args.kind}"
    train, test = jinv.data.train_test_photographs()
    # Printed text is no photograph: two of fourteen would be a seventh of the weight.
    train = [name for name in train if name not in ("page", "text")]
    bank = crops(photographs(train), args.crop, 1200, jax.random.key(1))
    apply = restore if args.kind == "photographs" else denoise
    chunk = args.chunk or None
    stages = [
        (
            jinv.train.ProximalMatching("l2", apply, chunk=chunk),
            jinv.train.NoisyBatches(Augmented(bank, args.batch_size), (args.least * NOISE, NOISE)),
            (args.steps, args.rate, "denoising"),
        )
    ]
    if args.steps_fixed_point:
        samples = Augmented(bank, args.batch_size_fixed_point)
        stages.append(
            (
                jinv.train.FixedPointMatching(descend, floor=0.01 * NOISE**2, chunk=chunk),
                Reconstructions(samples, args.fewest, args.most),
                (args.steps_fixed_point, args.rate_fixed_point, "fixed_point"),
            )
        )
    (model, network), curves, judge = make(args), {}, validation(apply, test)
    for loss, batches, (steps, rate, stage) in stages:
        schedule = optax.cosine_decay_schedule(rate, steps, 0.02)
        optimiser = optax.chain(
            optax.clip_by_global_norm(1.0), optax.adam(schedule), jinv.nn.keep_nonnegative()
        )
        fitted = jinv.train.fit(
            loss,
            model,
            batches,
            optimiser=optimiser,
            num_steps=steps,
            key=jax.random.key(args.seed + 1),
            ema_decay=0.995,
            validate=judge,
            checkpoint=f"{folder}/{stage}",
            save_every=100,
            log_every=max(steps // 15, 1),
            max_skipped=20,
        )
        model, curves[stage] = fitted.model, [entry["loss"] for entry in fitted.history]
        for record in fitted.history:
            print({name: round(value, 5) for name, value in record.items()}, flush=True)
        if int(fitted.state.step) < steps:
            return  # interrupted; the same command goes on
    last = fitted.history[-1]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    record = {
        "script": f"scripts/train_lpn.py {args.kind}",
        "settings": {k: v for k, v in vars(args).items() if k not in ("kind", "name", "save")},
        "network": network,
        "noise": NOISE,
        "seed": args.seed,
        "steps": args.steps + args.steps_fixed_point,
        "commit": commit.stdout.strip(),
        "accuracy": {k.removeprefix("validation_"): v for k, v in last.items() if "valid" in k},
    }
    jinv.pretrained.save(args.save or f"{folder}/weights", model, record)
    figure = jinv.plot.convergence(curves, xlabel="record", ylabel="loss", logy=False)
    print(jinv.plot.save(figure, f"{folder}/loss.png"))


if __name__ == "__main__":
    main()
