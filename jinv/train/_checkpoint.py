"""The checkpoints of one training run, in a folder."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from .._leaves import difference, layout, named_arrays, replace_arrays
from ._step import TrainState


class Checkpoints:
    """Saves states by orbax, each together with what the loop has to remember.

    A checkpoint appears under its name only when it is complete, and the last two are kept:
    whenever a run is killed, there is one to go on from.
    """

    def __init__(self, folder: str | os.PathLike[str], key: PRNGKeyArray):
        self.folder = Path(folder).absolute()
        self.last: int | None = None
        self._key = np.asarray(jax.random.key_data(key)).tolist()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"`checkpoint` must be a folder, {self.folder} is a file")

    def save(
        self, step: int, state: TrainState, record: dict[str, Any], best: PyTree | None
    ) -> None:
        import orbax.checkpoint as ocp

        arrays = {name: np.asarray(leaf) for name, leaf in named_arrays(state).items()}
        record = {**record, "key": self._key, "layout": layout(arrays), "best": best is not None}
        items: dict[str, Any] = {"state": ocp.args.StandardSave(_kept(arrays))}
        if best is not None:
            items["best"] = ocp.args.StandardSave(_kept(named_arrays(best)))
        items["record"] = ocp.args.JsonSave(record)
        try:
            with self._manager() as manager:
                # An interruption may come between the end of a save and the note of it below.
                if manager.latest_step() != step:
                    manager.save(step, args=ocp.args.Composite(**items))
        except Exception as error:  # orbax, tensorstore and the file system have many
            raise OSError(
                f"the checkpoint of step {step} could not be written ({error}); {self.stands}"
            ) from error
        self.last = step

    @property
    def stands(self) -> str:
        """What there is to go on from, for the message of an error."""
        if self.last is None:
            return f"there is no checkpoint in {self.folder} yet"
        return f"the checkpoint of step {self.last} in {self.folder} stands"

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any], PyTree | None] | None:
        """The last checkpoint, if there is one, in the structure of `like`: the state, the
        record, and the best model if it was kept."""
        if not self.folder.exists():
            return None
        import orbax.checkpoint as ocp

        with self._manager() as manager:
            step = manager.latest_step()
            if step is None:
                return None
            try:
                args = ocp.args.Composite(record=ocp.args.JsonRestore())
                record = manager.restore(step, args=args)["record"]
                self._check(step, record, like)
                names = ["state", "best"] if record.get("best") else ["state"]
                args = {name: ocp.args.StandardRestore() for name in names}
                arrays = manager.restore(step, args=ocp.args.Composite(**args))
            except _Mismatch:
                raise
            except Exception as error:  # orbax, tensorstore and the file system have many
                raise ValueError(
                    f"the checkpoint {self.folder / str(step)} cannot be read; without this "
                    f"folder, `fit` goes on from the one before, if there is one"
                ) from error
        self.last = step
        best = _filled(like.model, arrays["best"]) if "best" in names else None
        return _filled(like, arrays["state"]), record, best

    def _manager(self):
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=True, enable_async_checkpointing=False
        )
        return ocp.CheckpointManager(self.folder, options=options)

    def _check(self, step: int, record: dict[str, Any], like: TrainState) -> None:
        where = f"`checkpoint` {self.folder / str(step)}"
        wrong = difference(layout(named_arrays(like)), record["layout"], widen=False)
        if wrong:
            raise _Mismatch(
                f"{where} is of another model, optimiser, `trainable` or `ema_decay`: {wrong}"
            )
        if record["key"] != self._key:
            raise _Mismatch(f"{where} is of a run with another `key`")


def _kept(arrays):
    """orbax refuses empty arrays; there is nothing in them to keep."""
    return {name: np.asarray(array) for name, array in arrays.items() if array.size}


def _filled(like, arrays):
    empty = {name: leaf for name, leaf in named_arrays(like).items() if not leaf.size}
    return replace_arrays(like, {**arrays, **empty})


class _Mismatch(ValueError):
    """A sound checkpoint, of something else."""
