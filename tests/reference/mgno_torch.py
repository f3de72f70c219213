"""The formulas of the published multigrid neural operators in PyTorch, and numbers from them.

    python tests/reference/mgno_torch.py       # needs PyTorch; writes mgno.npz beside it

Small models of random weights: for each its state dict, an input, the output, and the gradient of
the output's product with fixed numbers, in double precision, stored as single.
"""

# pyright: basic, reportMissingImports=false, reportOptionalMemberAccess=false

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F


def conv(weights, name, x, mode, stride=1, pad=1):
    if mode != "zeros" and pad:
        x, pad = F.pad(x, (1, 1, 1, 1), mode=mode), 0
    bias = weights.get(f"{name}.bias")
    return F.conv2d(x, weights[f"{name}.weight"], bias, stride=stride, padding=pad)


def cycle(weights, name, f, spec):
    """One multigrid cycle on batches `(N, C, H, W)`."""
    mode, down_mode, pad = spec["mode"], spec["down_mode"], spec["pad"]
    u, found = None, []
    for level, (first, _) in enumerate(spec["smoothing"]):
        if level:
            place = f"{name}.layer{level}.0"
            u = conv(weights, f"{place}.Pi", u, down_mode, 2, pad)
            f = conv(weights, f"{place}.R", f, down_mode, 2, pad)
        for i in range(first):
            place = f"{name}.layer{level}.{i + (level > 0)}"
            r = f if u is None else f - conv(weights, f"{place}.A", u, mode)
            step = conv(weights, f"{place}.S", r, mode)
            u = step if u is None else u + step
        found.append((u, f))
    for level in reversed(range(len(found) - 1)):
        finer, f = found[level]
        up = weights[f"{name}.RTlayers.{level}.weight"]
        u = finer + F.conv_transpose2d(u, up, stride=2, padding=pad)
        norm = f"{name}.norm_layer_list.{level}"
        if f"{norm}.weight" in weights:
            u = F.layer_norm(u, u.shape[1:], weights[f"{norm}.weight"], weights[f"{norm}.bias"])
        for i in range(spec["smoothing"][level][1]):
            place = f"{name}.post_smooth_layer{level}.{i}"
            r = f - conv(weights, f"{place}.A", u, mode)
            u = u + conv(weights, f"{place}.S", r, mode)
    return u


def network(weights, u, spec):
    v = u
    for i in range(spec["layers"]):
        w = cycle(weights, f"conv_list.{i}", v, spec)
        if f"linear_list.{i}.weight" in weights:
            w = w + conv(weights, f"linear_list.{i}", v, "zeros", pad=0)
        norm = f"norm_layer_list.{i}"
        if f"{norm}.weight" in weights:
            w = F.layer_norm(w, w.shape[1:], weights[f"{norm}.weight"], weights[f"{norm}.bias"])
        v = F.gelu(w)
    if "linear.weight" in weights:
        return conv(weights, "linear", v, "zeros", pad=0)
    if "last_layer.weight" in weights:
        return u + conv(weights, "last_layer", v, "zeros", pad=0)
    return cycle(weights, "last_layer", v, spec)


def fresh(spec, rng):
    """Random numbers under the names of the authors' modules."""
    shapes = {}

    def cycle_shapes(name, u, f):
        last = len(spec["smoothing"]) - 1
        for level, (first, then) in enumerate(spec["smoothing"]):
            here = level + 1 if spec["grows"] else 1
            below = here + 1 if spec["grows"] else 1

            def pair(place, with_a, here=here):
                kinds = {"S": (u * here, f * here), "A": (f * here, u * here)}
                for kind, sizes in kinds.items():
                    if kind == "S" or with_a:
                        shapes[f"{place}.{kind}.weight"] = (*sizes, 3, 3)
                        if spec["bias"]:
                            shapes[f"{place}.{kind}.bias"] = (sizes[0],)

            for i in range(first):
                with_a = level > 0 or i > 0 or spec["grows"]
                pair(f"{name}.layer{level}.{i + (level > 0)}", with_a)
            for i in range(then):
                pair(f"{name}.post_smooth_layer{level}.{i}", True)
            if level < last:
                place = f"{name}.layer{level + 1}.0"
                shapes[f"{place}.Pi.weight"] = (u * below, u * here, 3, 3)
                shapes[f"{place}.R.weight"] = (f * below, f * here, 3, 3)
                k = spec["up"][level]
                shapes[f"{name}.RTlayers.{level}.weight"] = (u * below, u * here, k, k)
                if spec["norm"]:
                    n = spec["size"] // 2**level
                    for kind in ("weight", "bias"):
                        shapes[f"{name}.norm_layer_list.{level}.{kind}"] = (u, n, n)

    c, widths = spec["channels"], [spec["inputs"]] + [spec["channels"]] * (spec["layers"] - 1)
    for i, f in enumerate(widths):
        cycle_shapes(f"conv_list.{i}", c, f)
        if not spec["bias"]:
            shapes[f"linear_list.{i}.weight"] = (c, f, 1, 1)
            shapes[f"linear_list.{i}.bias"] = (c,)
        if spec["grows"]:
            for kind in ("weight", "bias"):
                shapes[f"norm_layer_list.{i}.{kind}"] = (c, spec["size"], spec["size"])
    if spec["grows"]:
        cycle_shapes("last_layer", 1, c)
    else:
        shapes["last_layer.weight" if spec["norm"] else "linear.weight"] = (1, c, 1, 1)
    scale = lambda shape: 1.5 * max(np.prod(shape[1:]), 1) ** -0.5
    return {k: scale(s) * rng.standard_normal(s) for k, s in shapes.items()}


PLAIN = {
    "mode": "zeros",
    "down_mode": "zeros",
    "pad": 1,
    "smoothing": ((1, 0),) * 5 + ((2, 0),),
    "up": (4,) * 5,
    "channels": 2,
    "inputs": 1,
    "layers": 2,
    "bias": False,
    "norm": False,
    "grows": False,
}
SPECS = {
    "darcy": {**PLAIN, "size": 32},
    "darcy_smooth": {**PLAIN, "size": 99, "up": (3, 4, 3, 3, 3)},
    "pipe": {**PLAIN, "size": 32, "inputs": 2, "smoothing": ((1, 0),) * 4 + ((1, 1), (2, 0))},
    "navier_stokes": {
        **PLAIN,
        "size": 32,
        "mode": "circular",
        "down_mode": "circular",
        "smoothing": ((1, 0),) * 3 + ((2, 0),) * 2,
        "up": (4,) * 4,
        "bias": True,
        "norm": True,
    },
    "helmholtz": {
        **PLAIN,
        "size": 48,
        "mode": "reflect",
        "pad": 0,
        "smoothing": ((1, 0),) * 4 + ((2, 0),),
        "up": (4, 3, 3, 3),
        "channels": 1,
        "bias": True,
        "grows": True,
    },
}


def main():
    stored = {}
    for number, (name, spec) in enumerate(SPECS.items()):
        rng = np.random.default_rng(number)
        single = lambda x: np.asarray(x, np.float32)
        weights = {k: single(v) for k, v in fresh(spec, rng).items()}
        u = single(rng.standard_normal((1, spec["inputs"], spec["size"], spec["size"])))
        cotangent = single(rng.standard_normal((1, 1, spec["size"], spec["size"])))
        leaves = {k: torch.tensor(v, dtype=torch.float64) for k, v in weights.items()}
        for leaf in leaves.values():
            leaf.requires_grad_()
        out = network(leaves, torch.tensor(u, dtype=torch.float64), spec)
        (out * torch.tensor(cotangent)).sum().backward()
        for k, v in weights.items():
            stored[f"{name}/weight/{k}"] = v
            slope = leaves[k].grad
            stored[f"{name}/slope/{k}"] = single(0 * leaves[k].detach() if slope is None else slope)
        stored[f"{name}/input"], stored[f"{name}/cotangent"] = u, cotangent
        stored[f"{name}/output"] = single(out.detach())
    np.savez_compressed(Path(__file__).with_name("mgno.npz"), **stored)


if __name__ == "__main__":
    main()
