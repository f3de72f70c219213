"""Trains the learned priors whose answers are known, and digits; prints their ablations.

    python scripts/train_lpn_priors.py laplacian   # one number, R = |x|
    python scripts/train_lpn_priors.py l1_16       # sixteen numbers, R = the l1 norm
    python scripts/train_lpn_priors.py digits      # 8 x 8 handwritten digits
    python scripts/train_lpn_priors.py losses      # tables: the losses and what they estimate,
    python scripts/train_lpn_priors.py gamma       # the width of proximal matching,
    python scripts/train_lpn_priors.py alpha       # strong convexity,
    python scripts/train_lpn_priors.py rules       # weight rules and initial weights

One to three minutes each of one core. Stops and goes on where it stopped
(`results/train_lpn/NAME`). The first three write weights and record there, or to `--save`.
"""

import argparse
import subprocess
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.ndimage
import scipy.special

import jinv
from jinv import nn, train


class Laplace(eqx.Module):
    """Independent numbers of the Laplace distribution, nothing but samples."""

    batch_size: int = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __call__(self, key, step):
        return jax.random.laplace(key, (self.batch_size, self.size))


class Stratified(eqx.Module):
    """One of each of `batch_size` equal parts of sorted samples, in random order: what a batch
    says of the distribution is then as exact as the whole, but for the width of the parts."""

    ordered: jax.Array
    batch_size: int = eqx.field(static=True)

    def __call__(self, key, step):
        of_place, of_order = jax.random.split(key)
        part = len(self.ordered) // self.batch_size
        place = jax.random.randint(of_place, (self.batch_size,), 0, part)
        chosen = self.ordered[part * jnp.arange(self.batch_size) + place]
        return jax.random.permutation(of_order, chosen)[:, None]


def fitted(model, loss, batches, args, name, *, ema_decay=0.999, validate=None):
    """Adam with a cosine; an epsilon for losses of the order of the squared noise."""
    optimiser = optax.chain(
        optax.adam(optax.cosine_decay_schedule(args.rate, args.steps, 0.005), eps=1e-12),
        nn.keep_nonnegative(),
    )
    return train.fit(
        loss,
        model,
        batches,
        optimiser=optimiser,
        num_steps=args.steps,
        key=jax.random.key(args.seed + 1),
        ema_decay=ema_decay,
        validate=validate,
        checkpoint=f"results/train_lpn/{args.name}/{name}",
        save_every=500,
        log_every=500,
        max_skipped=20,
    )


def double(model):
    cast = lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf
    return jax.tree.map(cast, model)


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


# One number: Laplace distribution and noise of variance 1; the prox is the soft threshold at 1.

GRID = np.linspace(-4, 4, 1001)
ONE = {"shape": [1], "widths": [50] * 5, "beta": 10.0}


def one_number(args, pretrain="l1", alpha=0.0, least=None, rule="clip", published=False):
    """The network and the distributions of the paper; the samples of a batch are pooled, and
    drawn from 17 million (the paper draws 88 million). Of `steps` one in nine is pre-training,
    the last quarter has the last width."""
    key = jax.random.key(args.seed)
    ordered = jnp.sort(jax.random.laplace(jax.random.key(args.seed + 100), (2**24,)))
    model = nn.dense_icnn(1, ONE["widths"], beta=10.0, strong_convexity=alpha, rule=rule, key=key)
    if published:
        model = published_start(model, rule, key)
    samples, gamma = Stratified(ordered, args.batch_size), None
    if least is not None:
        before, stages = args.steps // 9, 50
        width = max((args.steps - before - args.steps // 4) // stages, 1)
        factor = (1 / least) ** (1 / (stages - 1))
        gamma = train.GammaSchedule(1, before, width, stages, least, factor)
    batches = train.NoisyBatches(samples, 1.0, gamma, num_noisy=args.num_noisy)
    name = f"{pretrain}_{alpha}_{least}_{rule}_{published}_{args.seed}"
    return fitted(model, train.ProximalMatching(pretrain, noise=1.0), batches, args, name)


def published_start(model, rule, key):
    """The initial weights of the published network for images, exp(N(-10, 0.1))."""
    is_node = lambda node: isinstance(node, nn.NonNegative)
    nodes, structure = jax.tree.flatten(model, is_leaf=is_node)
    keys = jax.random.split(key, len(nodes))

    def fresh(node, key):
        if not is_node(node):
            return node
        return nn.NonNegative(jnp.exp(-10 + 0.1 * jax.random.normal(key, node.stored.shape)), rule)

    return jax.tree.unflatten(structure, [fresh(*pair) for pair in zip(nodes, keys, strict=True)])


def on_grid(model):
    """f on the grid, and R there, at an exact inverse by bisection, in double precision."""
    with jax.enable_x64(True):
        model, x = double(model), jnp.asarray(GRID)
        f = eqx.filter_jit(lambda y: jax.vmap(model.gradient)(y[:, None])[:, 0])
        low, high = jnp.full(x.shape, -60.0), jnp.full(x.shape, 60.0)
        for _ in range(70):
            middle = (low + high) / 2
            below = f(middle) < x
            low, high = jnp.where(below, middle, low), jnp.where(below, high, middle)
        y = (low + high) / 2
        value = x * y - x * x / 2 - jax.vmap(model)(y[:, None])
        return tuple(np.asarray(a) for a in (f(x), value, jnp.max(jnp.abs(f(y) - x))))


def laplacian_accuracy(model):
    f, prior, residual = on_grid(model)
    prox_error = f - np.sign(GRID) * np.maximum(np.abs(GRID) - 1, 0)
    prior_error = prior - prior.min() - np.abs(GRID)
    return {
        "prox_rmse": rms(prox_error),
        "prox_sup": float(np.max(np.abs(prox_error))),
        "prior_rmse": rms(prior_error),
        "prior_sup": float(np.max(np.abs(prior_error))),
        "residual": float(residual),
    }


def laplacian(args):
    model = one_number(args, least=args.least).model
    return model, {**ONE, "strong_convexity": 0.0}, 1.0, laplacian_accuracy(model)


def posterior():
    """Mean, median and mode of x given y on the grid, by quadrature."""
    x = np.linspace(-14, 14, 28001)
    found = []
    for y in GRID:
        density = np.exp(-np.abs(x) - (x - y) ** 2 / 2)
        total = np.cumsum(density)
        middle = np.interp(0.5 * total[-1], total - 0.5 * density, x)
        found.append((np.sum(x * density) / total[-1], middle, x[np.argmax(density)]))
    return dict(zip(("mean", "median", "mode"), np.array(found).T, strict=True))


def losses(args):
    exact = posterior()
    cases = {"mean": ("l2", None), "median": ("l1", None), "mode": ("l1", args.least)}
    for name, (pretrain, least) in cases.items():
        f = on_grid(one_number(args, pretrain, least=least).model)[0]
        row = {other: rms(f - exact[other]) / rms(exact[other]) for other in exact}
        yield {"loss": pretrain if least is None else f"matching {least}", "target": name, **row}


def gamma(args):
    for least in (0.5, 0.3, 0.2, 0.1, 0.07):
        yield {"gamma": least, **laplacian_accuracy(one_number(args, least=least).model)}


def alpha(args):
    for value in (0.0, 1e-3, 1e-2):
        model = one_number(args, alpha=value, least=args.least).model
        yield {"alpha": value, **laplacian_accuracy(model)}


def rules(args):
    for rule in ("clip", "softplus", "square"):
        for published in (False, True):
            model = one_number(args, least=args.least, rule=rule, published=published).model
            start = "published" if published else "uniform"
            yield {"rule": rule, "initial": start, **laplacian_accuracy(model)}


# Sixteen numbers, from samples.


class Turned(nn.AbstractConvexPotential):
    """The potential of Q y for a rotation Q that is trained: the basis of a network's frame. It
    is the cosine transform at first, as of signals, and has to find the basis of this prior."""

    potential: nn.ICNN
    angles: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True)
    strong_convexity: float = eqx.field(static=True)

    @property
    def rotation(self):
        skew, one = self.angles - self.angles.T, jnp.eye(len(self.angles))
        return jnp.linalg.solve(one + skew, one - skew)

    def turned(self, y):
        return (self.rotation @ y.reshape(-1)).reshape(y.shape)

    def __call__(self, y):
        return self.potential(self.turned(y))

    def recession(self, direction):
        return self.potential.recession(self.turned(direction))

    @classmethod
    def of(cls, potential):
        size = potential.layers[0].lift.shape[0]
        angles = jnp.zeros((size, size))
        return cls(potential, angles, potential.shape, potential.strong_convexity)

    def folded(self):
        """The same as a network without a rotation."""
        lifts = lambda potential: [layer.lift for layer in potential.layers]
        turned = [self.rotation.T @ lift for lift in lifts(self.potential)]
        return eqx.tree_at(lifts, self.potential, turned)


class LessNoise(eqx.Module):
    """Noise that falls to that of the prior within half of the steps: with much of it the
    directions are found sooner."""

    samples: Laplace
    noise: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __call__(self, key, step):
        share = jnp.clip(step / (0.5 * self.steps), 0, 1)
        level = 0.7 * (self.noise / 0.7) ** share
        return train.NoisyBatches(self.samples, level, antithetic=True)(key, step)


def l1_accuracy(potential, noise, num=500):
    """Errors of R / noise^2 relative to the root mean square of the l1 norm, at fresh samples and
    at what the network makes of noisy ones. R is up to a constant: from its value at (1, ..., 1),
    by the mean, or from its value at 0, which is the minimum of the l1 norm."""
    clean = np.random.default_rng(1).laplace(size=(num, 16))
    noisy = clean + noise * np.random.default_rng(2).normal(size=clean.shape)
    with jax.enable_x64(True):
        prior = jinv.prox.LearnedProximalNetwork(double(potential))
        pushed = np.asarray(jax.jit(jax.vmap(prior.potential.gradient))(jnp.asarray(noisy)))
        points = np.concatenate([np.ones((1, 16)), np.zeros((1, 16)), clean, pushed])
        values, result = jax.jit(jax.vmap(prior.prior))(jnp.asarray(points))
        converged = float(jnp.mean(result == jinv.RESULTS.successful))
    norms = np.abs(points).sum(1)
    error = np.asarray(values) / noise**2 - norms
    rows: dict[str, float] = {"converged": converged}
    for name, start in (("samples", 2), ("pushed", 2 + num)):
        some, size = error[start : start + num], rms(norms[start : start + num])
        rows[f"{name}_from_ones"] = rms(some - error[0]) / size
        rows[f"{name}_by_mean"] = rms(some - some.mean()) / size
        rows[f"{name}_from_zero"] = rms(some - error[1]) / size
    return rows


def l1_16(args):
    options = {"beta": 1.2 / args.noise, "quadratic": True, "activation": "squareplus"}
    options["strong_convexity"] = 0.1
    network = {"shape": [16], "widths": [32], **options}
    model = Turned.of(nn.dense_icnn(16, [32], **options, key=jax.random.key(args.seed)))
    batches = LessNoise(Laplace(args.batch_size, 16), args.noise, args.steps)
    run = fitted(model, train.ProximalMatching("l2"), batches, args, "squared", ema_decay=0.998)
    potential = run.model.folded()
    return potential, network, args.noise, l1_accuracy(potential, args.noise)


# Digits: 1400 to train, 100 by which the settings are chosen, the others for the record.

LEVELS = {
    "noise": (0.0, 0.05, 0.1, 0.2, 0.3),
    "blur": (0.0, 1.0, 2.0),
    # So little that a digit with broad strokes is as likely after it.
    "slight_blur": (0.0, 0.5),
}


def blurred(images, width):
    return scipy.ndimage.gaussian_filter(images, (0, width, width), mode="constant")


def share_that_rises(values):
    return float(np.mean(np.all(np.diff(values, axis=0) > 0, 0)))


def density_rises(train, images, width=0.2):
    """On how many of them minus the logarithm of a kernel density does so with slight blur."""
    values = []
    for level in LEVELS["slight_blur"]:
        worse = blurred(np.asarray(images, np.float64), level)
        gaps = worse.reshape(len(worse), 1, -1) - np.reshape(train, (1, len(train), -1))
        values.append(-scipy.special.logsumexp(-np.sum(gaps**2, -1) / (2 * width**2), axis=1))
    return share_that_rises(values)


def digits_accuracy(potential, images, noise):
    """PSNR of denoising, and on how many digits R rises with more noise and with more blur."""
    images = np.asarray(images, np.float64)
    white = np.random.default_rng(1).normal(size=images.shape)
    worse = {"noise": lambda x, s: x + s * white, "blur": blurred, "slight_blur": blurred}
    with jax.enable_x64(True):
        prior = jinv.prox.LearnedProximalNetwork(double(potential))
        evaluate = jax.jit(jax.vmap(prior.prior))
        restored = jax.vmap(prior.potential.gradient)(jnp.asarray(images + noise * white))
        found = {"psnr": float(jnp.mean(jax.vmap(jinv.metrics.psnr)(restored, images)))}
        outside, failed, total = 0, 0, 0
        for kind, levels in LEVELS.items():
            values = []
            for level in levels:
                value, result = evaluate(jnp.asarray(worse[kind](images, level)))
                out = np.asarray(result == jinv.RESULTS.out_of_range)
                good = np.asarray(result == jinv.RESULTS.successful)
                outside, failed = outside + out.sum(), failed + (~good & ~out).sum()
                total += len(out)
                values.append(np.asarray(value))
            found[f"rises_with_{kind}"] = share_that_rises(values)
    return {**found, "out_of_range": float(outside / total), "failed": float(failed / total)}


def digits(args):
    images, _ = jinv.data.digits()
    options = {"beta": 50.0, "quadratic": True, "activation": "squareplus"}
    options["strong_convexity"] = 0.01
    network = {"shape": [8, 8], "widths": args.widths, **options}
    model = Turned.of(nn.dense_icnn((8, 8), args.widths, **options, key=jax.random.key(args.seed)))
    gamma = train.GammaSchedule(64, args.steps // 2, args.steps // 8, least=args.least)
    samples = train.Minibatches(images[:1400], args.batch_size)
    batches = train.NoisyBatches(samples, args.noise, gamma)
    run = fitted(model, train.ProximalMatching("l2"), batches, args, "matching")
    potential = run.model.folded()
    validation = rounded(digits_accuracy(potential, images[1400:1500], args.noise))
    print("validation", validation, flush=True)
    accuracy = digits_accuracy(potential, images[1500:], args.noise)
    accuracy["density_rises_with_slight_blur"] = density_rises(images[:1400], images[1500:])
    return potential, network, args.noise, accuracy


POOLED = {"rate": 3e-3, "batch_size": 4000, "num_noisy": 256, "least": 0.05, "noise": 1.0}
PRIORS = {
    "laplacian": (laplacian, {"steps": 8800, **POOLED}),
    "l1_16": (l1_16, {"steps": 16000, "rate": 1e-2, "batch_size": 512, "noise": 0.07}),
    "digits": (
        digits,
        {
            "steps": 9000,
            "rate": 3e-3,
            "batch_size": 128,
            "noise": 0.04,
            "least": 0.3,
            "widths": [160, 64],
        },
    ),
}
TABLES = {
    "losses": (losses, {"steps": 3000, **POOLED}),
    "gamma": (gamma, {"steps": 3000, **POOLED}),
    "alpha": (alpha, {"steps": 3000, **POOLED}),
    "rules": (rules, {"steps": 2000, **POOLED}),
}
KINDS = PRIORS | TABLES


def rounded(row):
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--batch-size", type=int, help="clean samples of a step")
    parser.add_argument("--num-noisy", type=int, help="noisy samples of a step")
    parser.add_argument("--noise", type=float, help="of l1_16 and digits")
    parser.add_argument("--least", type=float, help="the last width, over the root of the size")
    parser.add_argument("--widths", type=int, nargs="+", help="of digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the folder; by default the kind")
    parser.add_argument("--save", help="where the weights go, without suffix")
    make, defaults = KINDS[parser.parse_args().kind]
    parser.set_defaults(**defaults)
    args = parser.parse_args()
    args.name = args.name or args.kind
    start = time.process_time()
    if args.kind in TABLES:
        for row in make(args):
            print(rounded(row), flush=True)
        return
    model, network, noise, accuracy = make(args)
    accuracy = rounded(accuracy)
    print({"seed": args.seed, "seconds": round(time.process_time() - start), **accuracy})
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    record = {
        "script": f"scripts/train_lpn_priors.py {args.kind}",
        "settings": {k: v for k, v in vars(args).items() if k not in ("kind", "name", "save")},
        "network": network,
        "noise": noise,
        "seed": args.seed,
        "steps": args.steps,
        "commit": commit.stdout.strip(),
        "accuracy": accuracy,
    }
    path = args.save or f"results/train_lpn/{args.name}/weights"
    print(jinv.pretrained.save(path, model, record))


if __name__ == "__main__":
    main()
