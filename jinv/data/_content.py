"""What a data file really is, by its first bytes, and a refusal if its name says otherwise."""

from pathlib import Path


# The formats that a suffix may stand for.
_FORMATS = {
    ".mat": ("mat5", "hdf5"),
    ".h5": ("hdf5",),
    ".hdf5": ("hdf5",),
    ".npy": ("npy",),
    ".npz": ("zip",),
}
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_NAMES = {
    "mat5": "a MATLAB file of version 5",
    "hdf5": "an HDF5 file (MATLAB 7.3 is one)",
    "npy": "a NumPy .npy file",
    "zip": "a zip archive (NumPy's .npz, PyTorch's .pt or a download to unpack)",
    "gzip": "a gzip archive to unpack first",
    "pickle": "a Python pickle, which could run code and is never loaded",
}
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# A text of the writer may stand before the HDF5 part; MATLAB's has 512 bytes.
_HDF5_OFFSETS = (0, 512, 1024, 2048)
_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml")


def data_format(path: Path) -> str:
    """`"npy"`, `"zip"`, `"mat5"` or `"hdf5"`: the format of a file that its suffix allows."""
    if path.is_dir():
        raise ValueError(f"{path}: expected a file; got a directory.")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise ValueError(f"{path}: {_conversion(path)}")
    if suffix not in _FORMATS:
        raise ValueError(
            f"{path}: expected one of the suffixes {', '.join(_FORMATS)}; got {path.suffix!r}."
        )
    with open(path, "rb") as stream:
        head = stream.read(_HDF5_OFFSETS[-1] + len(_HDF5_SIGNATURE))
    if not head:
        raise ValueError(f"{path}: expected {suffix} data; the file is empty (0 bytes).")
    found = _recognise(path, head)
    if found not in _FORMATS[suffix]:
        raise ValueError(
            f"{path}: expected {suffix} data; the content is {_NAMES[found]}. "
            "Correct the suffix, or the file."
        )
    return found


def _conversion(path: Path) -> str:
    return (
        f"a {path.suffix} file is a Python pickle, which could run code and is never loaded. "
        "Convert it once where you trust it, for a dictionary of tensors with "
        f"`import numpy, torch; data = torch.load({path.name!r}, weights_only=True); "
        f"numpy.savez({path.with_suffix('.npz').name!r}, "
        "**{name: value.numpy() for name, value in data.items()})`."
    )


def _recognise(path: Path, head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path}: expected data; got a Git LFS pointer. Run `git lfs pull` in its repository."
        )
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:9].lower().startswith(_MARKUP):
        raise ValueError(
            f"{path}: expected data; got a web page (HTML or XML), such as an error message or "
            "a page that asks for a click. Download the file itself."
        )
    if any(head[at : at + 8] == _HDF5_SIGNATURE for at in _HDF5_OFFSETS):
        return "hdf5"
    if head[126:128] in (b"IM", b"MI"):
        return _matlab(path, head)
    for start, kind in [
        (b"\x93NUMPY", "npy"),
        (b"PK\x03\x04", "zip"),
        (b"PK\x05\x06", "zip"),
        (b"\x1f\x8b", "gzip"),
        (b"\x80", "pickle"),
    ]:
        if head.startswith(start):
            return kind
    if head.startswith((b"MATLAB", _HDF5_SIGNATURE[:4])):
        raise ValueError(f"{path}: cut short, within the header of its first {len(head)} bytes.")
    raise ValueError(
        f"{path}: expected {path.suffix} data; got none of the known formats, the file begins "
        f"with {head[:16]!r}."
    )


def _matlab(path: Path, head: bytes) -> str:
    little = head[126:128] == b"IM"
    major = head[125] if little else head[124]
    if major == 1:
        return "mat5"
    if major == 2:
        raise ValueError(f"{path}: cut short: of a MATLAB 7.3 file only the header is there.")
    raise ValueError(f"{path}: expected MATLAB version 5 or 7.3; the header says {major}.")
