"""Writing a figure to a file."""

import os
from pathlib import Path
from typing import Any


def save(figure: Any, path: str | os.PathLike[str], *, dpi: float | int = 200.0) -> Path:
    """Writes a figure to a file whose suffix says the format, and returns its path.

    Missing folders are made. Nothing that changes from run to run is stored (no date), so a
    figure made again from the same data gives the same bytes, and a repository of plots stays
    quiet.

    **Arguments:**

    - `figure`: a matplotlib figure, from this package or not.
    - `path`: ending in `.png`, `.pdf` or `.svg`.
    - `dpi`: pixels per inch of a `.png`.

    **Returns:** the path.

    **Raises:** `ValueError` for another suffix.

    !!! example
        ```python
        >>> import os, tempfile
        >>> import jinv.plot
        >>> figure = jinv.plot.convergence({"gradient": [1.0, 0.5, 0.25]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     jinv.plot.save(figure, os.path.join(folder, "run.png")).name
        'run.png'

        ```
    """
    path = Path(path)
    dates = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    metadata = dates.get(path.suffix.lower())
    if metadata is None:
        raise ValueError(f"`path` must end in .png, .pdf or .svg; got {str(path)!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    import matplotlib

    # The identifiers in an .svg are random unless they are salted.
    with matplotlib.rc_context({"svg.hashsalt": "jinv"}):
        figure.savefig(path, dpi=dpi, metadata=metadata)
    return path
