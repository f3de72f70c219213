"""Files of operator learning: layouts of the public data sets, indices, pairs, and bad files."""

import contextlib
import gzip
import io
import math
import os
import re
import struct
import sys
import tomllib
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from jinv import data


# Writers


def write_mat5(path, compress=False, **arrays):
    scipy.io.savemat(path, arrays, do_compression=compress)
    return path


def write_v73(path, **arrays):
    """A v7.3 file as MATLAB lays it out: text block, reversed axes, class attributes, chunks."""
    names = {"float64": "double", "float32": "single", "bool": "logical"}
    names |= {"complex128": "double", "complex64": "single"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            stored = array.T
            if array.dtype.kind == "c":
                stored = np.empty(array.T.shape, [(part, array.real.dtype) for part in PARTS])
                stored["real"], stored["imag"] = array.T.real, array.T.imag
            elif array.dtype == bool:
                stored = stored.astype(np.uint8)
            elif array.size == 0:
                stored = np.array(array.shape, np.uint64)
            dataset = file.create_dataset(name, data=stored, compression="gzip", chunks=True)
            dataset.attrs["MATLAB_class"] = np.bytes_(names.get(array.dtype.name, array.dtype.name))
            if array.size == 0:
                dataset.attrs["MATLAB_empty"] = np.uint8(1)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, made for a test".ljust(124) + b"\x00\x02IM")
    return path


PARTS = ("real", "imag")


def write_hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def write_npy(path, **arrays):
    np.save(path, *arrays.values())
    return path


def write_npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


WRITERS = {
    "mat5": (write_mat5, ".mat"),
    "v73": (write_v73, ".mat"),
    "hdf5": (write_hdf5, ".h5"),
    "npy": (write_npy, ".npy"),
    "npz": (write_npz, ".npz"),
}


def write(folder, kind, **arrays):
    writer, suffix = WRITERS[kind]
    return writer(folder / f"{next(iter(arrays))}{suffix}", **arrays)


def numbers(*shape, dtype="float64"):
    return np.random.default_rng(math.prod(shape)).standard_normal(shape).astype(dtype)


# The public files, with fewer samples and grid points: name of the file, format, and per array the
# shape that its users work with and its dtype.
LAYOUTS = {
    "piececonst_r421_N1024_smooth1.mat": (
        "mat5",
        {name: (6, 21, 21) for name in ("coeff", "sol", "Kcoeff", "Kcoeff_x", "Kcoeff_y")},
    ),
    "darcy_alpha2_tau5_512_train.mat": ("mat5", {"coeff": (6, 16, 16), "sol": (6, 16, 16)}),
    "mul_tri_train.mat": ("mat5", {"coeff": (4, 31, 31), "sol": (4, 31, 31)}),
    "burgers_data_R10.mat": ("mat5", {"a": (7, 64), "u": (7, 64)}),
    "NavierStokes_V1e-5_N1200_T20.mat": (
        "mat5",
        {"a": (5, 8, 8), "u": (5, 8, 8, 20), "t": (1, 20)},
    ),
    "ns_V1e-3_N5000_T50.mat": ("v73", {"a": (9, 8, 8), "u": (9, 8, 8, 10), "t": (1, 10)}),
    "smh_train.mat": (
        "v73",
        {"coeff": (5, 29, 29), "sol": (5, 29, 29), "X": (29, 29), "Y": (29, 29)},
    ),
    "pwc_train.mat": (
        "v73",
        {"coe": (29, 29, 6), "u": (29, 29, 6), "X": (29, 29), "Y": (29, 29)},
    ),
    "viscid_train.mat": (
        "v73",
        {"u0": (6, 32), "u_sol": (6, 11, 32), "x_mesh": (1, 32), "t_mesh": (1, 11)},
    ),
    "pwc_inverse_coe.mat": ("hdf5", {"a": (81, 1), "u": (81, 1), "x": (81, 2), "index": (10,)}),
    "Helmholtz_inputs.npy": ("npy", {"Helmholtz_inputs": (11, 11, 8)}),
    "Pipe_Q.npy": ("npy", {"Pipe_Q": (4, 3, 13, 13)}),
    "2D_DarcyFlow_beta1.0_Train.hdf5": (
        "hdf5",
        {"nu": (5, 16, 16), "tensor": (5, 1, 16, 16), "x-coordinate": (16,)},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layouts_of_the_public_files(tmp_path, name, dtype):
    kind, shapes = LAYOUTS[name]
    arrays = {key: numbers(*shape, dtype=dtype) for key, shape in shapes.items()}
    path = WRITERS[kind][0](tmp_path / name, **arrays)
    with data.fields(path) as file:
        assert {key: array.shape for key, array in file.items()} == shapes
        for key, array in arrays.items():
            field = file[key]
            assert (field.name, field.dtype, field.ndim) == (key, array.dtype, array.ndim)
            assert (field.size, field.nbytes, len(field)) == (array.size, array.nbytes, len(array))
            for read in (field[...], np.asarray(field)):
                assert read.dtype == array.dtype and read.flags.c_contiguous
                assert read.flags.writeable and np.array_equal(read, array)
        assert repr(file) == "\n".join(
            [f"Fields({str(path)!r})"] + [f"  {key}  {file[key].shape}  {dtype}" for key in file]
        )


ARRAYS = {
    "float64": numbers(2, 3, 4),
    "float32": numbers(2, 3, dtype="float32"),
    "complex128": np.array([[1 + 2j, 3j], [0, -1.5], [1, 2]]),
    "complex64": np.array([[1 + 2j, 3j]], np.complex64),
    "uint8": np.arange(6, dtype=np.uint8).reshape(3, 2),
    "int64": np.array([[-(2**40), 7]]),
    "bool": np.array([[True, False, True]]),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_both_versions_of_matlab_give_the_same(tmp_path, name):
    array = ARRAYS[name]
    paths = [
        write_mat5(tmp_path / "plain.mat", A=array),
        write_mat5(tmp_path / "packed.mat", compress=True, A=array),
        write_v73(tmp_path / "v73.mat", A=array),
    ]
    for path in paths:
        with data.fields(path) as file:
            assert file["A"].shape == array.shape and file["A"].dtype == array.dtype
            assert file["A"][...].dtype == array.dtype
            assert np.array_equal(file["A"][...], array)


def test_big_endian_and_doubles_stored_as_bytes(tmp_path):
    """MATLAB stores doubles without a fraction as small integers; old workstations did so in MI."""
    flags = struct.pack(">IIII", 6, 8, 6, 0)
    lengths = struct.pack(">IIii", 5, 8, 2, 3)
    name = struct.pack(">II", 1, 5) + b"coeff\0\0\0"
    values = struct.pack(">II", 2, 6) + bytes([1, 4, 2, 5, 3, 6]) + b"\0\0"
    body = flags + lengths + name + values
    path = tmp_path / "old.mat"
    path.write_bytes(
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body
    )
    assert scipy.io.whosmat(path) == [("coeff", (2, 3), "double")]
    with data.fields(path) as file:
        assert file["coeff"].shape == (2, 3) and file["coeff"].dtype == np.float64
        assert np.array_equal(file["coeff"][...], [[1, 2, 3], [4, 5, 6]])
        assert file["coeff"][...].dtype == np.float64


@pytest.mark.parametrize("kind", ["npy", "npz", "hdf5"])
def test_byte_order_and_fortran_order(tmp_path, kind):
    array = np.asfortranarray(numbers(5, 3).astype(">f8"))
    with data.fields(write(tmp_path, kind, A=array)) as file:
        assert file["A"].dtype == np.dtype("=f8")
        assert np.array_equal(file["A"][1:4], array[1:4]) and file["A"][0].dtype.isnative


def test_names_in_groups(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", **{"0001/data": np.ones((4, 3)), "0000/data": np.zeros(2)})
    with data.fields(path) as file:
        assert list(file) == ["0000/data", "0001/data"] and file["0001/data"].shape == (4, 3)


# Indices

KEYS = [
    3,
    -1,
    np.int64(2),
    ...,
    slice(2, 5),
    slice(None, None, -2),
    slice(-3, None),
    slice(5, 2),
    slice(0, 100, 4),
    (slice(1, 3), ..., 0),
    (..., slice(None, None, 2)),
    (2, 1, 3),
    (slice(None), slice(4, 0, -2), -2),
    [6, 1, 4],
    [0, 0, -1, 3],
    np.array([5], np.uint8),
    [],
    list(range(6, -1, -1)),
    np.arange(7) % 3 == 0,
    ([5, 0], slice(None, None, 2)),
    ([5, 0, 5], 1, slice(1, None)),
    (slice(1, 6), slice(None), [3, 0]),
    (..., [1, 2, 2]),
    (0, slice(None), [3, 1]),
]


@pytest.fixture(scope="module", params=WRITERS)
def opened(request, tmp_path_factory):
    array = numbers(7, 5, 4)
    path = write(tmp_path_factory.mktemp("keys"), request.param, A=array)
    with data.fields(path) as file:
        yield file["A"], array


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indices_mean_what_they_mean_in_numpy(opened, key):
    field, array = opened
    read = field[key]
    assert isinstance(read, np.ndarray)
    assert read.shape == array[key].shape and np.array_equal(read, array[key])
    assert read.size == 0 or not np.shares_memory(read, field[key])


BAD_KEYS = {
    "index 7 is out of range for an axis of length 7": 7,
    "index -8 is out of range": [0, -8],
    "expected at most 3 indices": (0, 0, 0, 0),
    "and one `...`": (..., ...),
    "expected integers, slices, .* got None": None,
    "expected integers, slices, .* got True": True,
    "expected integers, slices, .* got 1.5": 1.5,
    "expected integers, slices, .* got 'sol'": "sol",
    "mask of length 7, got float64": [0.0, 1.0],
    "mask of length 7, got bool with shape": [True, False],
    r"got int64 with shape \(1, 2\)": [[0, 1]],
    "along one axis, got several": ([0, 1], [0, 1]),
}


@pytest.mark.parametrize("message", BAD_KEYS)
def test_bad_indices(opened, message):
    with pytest.raises(IndexError, match=message):
        opened[0][BAD_KEYS[message]]


def test_numbers_have_no_length(tmp_path):
    with data.fields(write_hdf5(tmp_path / "a.h5", nu=np.float64(0.1))) as file:
        assert file["nu"][()] == 0.1 and file["nu"].shape == ()
        with pytest.raises(TypeError, match="'nu' is a number and has no length"):
            len(file["nu"])


@pytest.mark.parametrize("kind", WRITERS)
def test_shuffled_batches_from_threads(tmp_path, kind):
    array = numbers(60, 4, 3)
    order = np.random.default_rng(0).permutation(60)
    with data.fields(write(tmp_path, kind, A=array)) as file, ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda batch: file["A"][batch], order.reshape(12, 5)))
    assert np.array_equal(np.concatenate(batches), array[order])


# What is read, and when


def test_npy_files_are_mapped(tmp_path):
    """A quarter of a terabyte, of which the disk holds the first block."""
    path, rows = tmp_path / "a.npy", 2**34
    with open(path, "wb") as stream:
        header = {"descr": "<f8", "fortran_order": False, "shape": (rows, 2)}
        np.lib.format.write_array_header_1_0(stream, header)
        start = stream.tell()
        stream.write(np.arange(6.0).tobytes())
        stream.truncate(start + 16 * rows)
    with data.fields(path) as file:
        assert file["a"].nbytes == 2**38
        assert np.array_equal(file["a"][[2, 0]], [[4, 5], [0, 1]])
        assert not file["a"][rows - 1].any()


def spoil(path, position):
    with open(path, "r+b") as stream:
        stream.seek(position)
        stream.write(b"\xff" * 40)


def test_hdf5_files_are_read_in_part(tmp_path):
    """Rows 10 to 19 are spoiled: who reads them notices."""
    array = numbers(40, 64)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("A", data=array, chunks=(10, 64), compression="gzip")
        second = dataset.id.get_chunk_info(1).byte_offset
    spoil(path, second)
    with data.fields(path) as file:
        for key in (slice(None, 10), slice(20, None, 3), [9, 2], [39, 0], 25):
            assert np.array_equal(file["A"][key], array[key])
        for key in (10, slice(0, 11), [19, 30]):
            with pytest.raises(ValueError, match=r"a\.h5: the data of 'A' are damaged"):
                file["A"][key]


@pytest.mark.parametrize("kind", ["mat5", "npz"])
def test_whole_arrays_are_read_once(tmp_path, monkeypatch, kind):
    arrays = {"A": numbers(50, 64), "B": numbers(50, 64)}
    path = write(tmp_path, kind, **arrays)
    loaded = []
    load, read = scipy.io.loadmat, np.lib.format.read_array
    monkeypatch.setattr(scipy.io, "loadmat", lambda *a, **k: loaded.append(1) or load(*a, **k))
    monkeypatch.setattr(
        np.lib.format, "read_array", lambda *a, **k: loaded.append(1) or read(*a, **k)
    )
    with data.fields(path) as file:
        assert not loaded
        for start in range(5):
            file["A"][start:][0] = 0.0
        assert len(loaded) == 1 and np.array_equal(file["A"][...], arrays["A"])


@pytest.mark.parametrize("kind", ["mat5", "npz"])
def test_damage_in_one_array_leaves_the_others(tmp_path, kind):
    arrays = {"A": numbers(50, 64), "B": numbers(50, 64)}
    if kind == "mat5":
        path = write_mat5(tmp_path / "A.mat", compress=True, **arrays)
    else:
        path = write(tmp_path, kind, **arrays)
    spoil(path, int(path.stat().st_size * 0.8))
    with data.fields(path) as file:
        assert np.array_equal(file["A"][...], arrays["A"])
        with pytest.raises(ValueError, match=rf"{path.name}: the data of 'B' are damaged"):
            file["B"][0]


@pytest.mark.parametrize("kind", WRITERS)
def test_closing(tmp_path, kind):
    array = numbers(5, 4)
    path = write(tmp_path, kind, A=array)
    with data.fields(path) as file:
        field, before = file["A"], file["A"][1:3]
    assert np.array_equal(before, array[1:3])
    with pytest.raises(ValueError, match=rf"{path.name}: closed; read 'A' before"):
        field[0]
    file.close()
    if kind in ("v73", "hdf5"):
        h5py.File(path, "r+").close()  # refused while the file is open elsewhere


def test_an_exception_closes_too(tmp_path):
    path = write(tmp_path, "hdf5", A=np.ones(3))
    with contextlib.suppress(ZeroDivisionError), data.fields(path) as file:
        _ = 1 / (len(file) - 1)
    h5py.File(path, "r+").close()


# Names


@pytest.mark.parametrize("kind", WRITERS)
def test_missing_names_list_what_there_is(tmp_path, kind):
    arrays = {"coeff": np.ones((2, 3)), "sol": np.zeros((2, 3))}
    path = write(tmp_path, kind, **arrays)
    holds = "'coeff'" if kind == "npy" else "'coeff', 'sol'"
    with data.fields(path) as file:
        for error in (ValueError, KeyError):
            with pytest.raises(error) as caught:
                file["a"]
            message = f"{path}: there is no array 'a'; the file holds {holds}."
            assert str(caught.value) == message
        assert "coeff" in file and "a" not in file and file.get("a") is None
        with pytest.raises(TypeError):
            file["a"] = np.ones(2)  # pyright: ignore[reportIndexIssue]


def test_files_without_arrays(tmp_path):
    paths = [
        write_mat5(tmp_path / "a.mat"),
        write_hdf5(tmp_path / "a.h5"),
        write_npz(tmp_path / "a.npz"),
    ]
    for path in paths:
        with data.fields(path) as file:
            assert len(file) == 0
            with pytest.raises(ValueError, match=f"{path.name}: .* the file holds none"):
                file["A"]


def test_what_is_not_an_array_of_numbers(tmp_path):
    others = {
        "char": "text",
        "struct": {"field": 1.0},
        "cell": np.array([1, "a"], dtype=object),
        "sparse": scipy.sparse.eye_array(3, format="csc"),
    }
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"A": np.ones(2)} | {f"a_{kind}": x for kind, x in others.items()})
    with data.fields(path) as file:
        assert list(file) == ["A"]
        for kind in others:
            with pytest.raises(ValueError, match=f"a.mat: expected 'a_{kind}' .* a MATLAB {kind}"):
                file[f"a_{kind}"]
    write_v73(path, text=np.array([[116, 101]], np.uint16), **{"s/field": np.ones((2, 1))})
    with h5py.File(path, "r+") as file:
        file["text"].attrs["MATLAB_class"] = np.bytes_("char")
        file["s"].attrs["MATLAB_class"] = np.bytes_("struct")
        file["#refs#/a"] = np.ones(2)
    with data.fields(path) as file:
        assert {name: array.shape for name, array in file.items()} == {"s/field": (2, 1)}
        with pytest.raises(ValueError, match="expected 'text' .* a MATLAB char"):
            file["text"]
        with pytest.raises(ValueError, match="expected 's' .* a MATLAB struct"):
            file["s"]


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_text_and_records_are_not_listed(tmp_path, kind):
    record = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    path = write(tmp_path, kind, A=np.ones(2), record=record, text=np.array([b"text"]))
    with data.fields(path) as file:
        assert list(file) == ["A"]
        for name in ("record", "text"):
            with pytest.raises(ValueError, match=f"expected '{name}' .* an array of dtype"):
                file[name]


# Pickles


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_pickles_are_never_loaded(tmp_path):
    array = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", A=array, B=np.ones(2))
    with pytest.raises(ValueError, match=r"a\.npy: .* Python objects .* never unpickled"):
        data.fields(tmp_path / "a.npy")
    with data.fields(tmp_path / "a.npz") as file:
        assert list(file) == ["B"]
        with pytest.raises(ValueError, match=r"expected 'A' .* Python objects .* never unpickled"):
            file["A"]
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl"])
def test_pytorch_files_say_how_to_convert_them(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"darcy_train_64{suffix}"
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ValueError, match="is a Python pickle, .* never loaded") as caught:
        data.fields(path)
    arrays = {"x": numbers(3, 4), "y": numbers(3, 4, 4)}
    tensors = {name: types.SimpleNamespace(numpy=lambda x=x: x) for name, x in arrays.items()}

    def load(name, weights_only):
        assert name == path.name and weights_only
        return tensors

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    monkeypatch.chdir(tmp_path)
    command = re.findall("`(.*)`", str(caught.value))[0]
    exec(command, {})
    with data.fields(tmp_path / "darcy_train_64.npz") as file:
        assert all(np.array_equal(file[name][...], array) for name, array in arrays.items())


# Bad files

SUFFIXES = [".mat", ".h5", ".hdf5", ".npy", ".npz"]


def npz_bytes():
    stream = io.BytesIO()
    np.savez(stream, A=np.ones(3))
    return stream.getvalue()


def zip_bytes(name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"\x80\x02.")
    return stream.getvalue()


def npy_bytes():
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    return stream.getvalue()


CONTENTS = {
    "the file is empty": b"",
    "a web page": b"\n <!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>",
    r"a web page \(HTML": b"<html><body>404 Not Found</body></html>",
    "or XML": b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
    "none of the known formats": b"These are words, and no array. " * 90,
    "a gzip archive to unpack first": gzip.compress(b"words"),
    "a Python pickle": b"\x80\x04\x95.",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("message", CONTENTS)
def test_something_else_under_this_name(tmp_path, suffix, message):
    path = tmp_path / f"sol{suffix}"
    path.write_bytes(CONTENTS[message])
    with pytest.raises(ValueError, match=rf"sol\{suffix}: expected .*{message}"):
        data.fields(path)


FORMATS = {"mat5": "MATLAB file of version 5", "v73": "HDF5", "hdf5": "HDF5"}
FORMATS |= {"npy": r"NumPy \.npy", "npz": r"zip archive \(NumPy's \.npz"}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", FORMATS)
def test_wrong_suffixes(tmp_path, kind, suffix):
    right = {".mat": ("mat5", "v73", "hdf5"), ".npy": ("npy",), ".npz": ("npz",)}
    (tmp_path / "made").mkdir()
    path = write(tmp_path / "made", kind, A=numbers(4, 3)).rename(tmp_path / f"A{suffix}")
    if kind in right.get(suffix, ("v73", "hdf5")):
        with data.fields(path) as file:
            assert np.array_equal(file["A"][...], numbers(4, 3))
    else:
        with pytest.raises(ValueError, match=rf"A\{suffix}: .* content is an? {FORMATS[kind]}"):
            data.fields(path)


def test_no_file_a_directory_and_unknown_suffixes(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.mat: there is no such file"):
        data.fields(tmp_path / "gone.mat")
    (tmp_path / "a.mat").mkdir()
    with pytest.raises(ValueError, match=r"a\.mat: expected a file; got a directory"):
        data.fields(tmp_path / "a.mat")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"a\.csv: expected one of the suffixes \.mat, \.h5"):
        data.fields(tmp_path / "a.csv")


@pytest.mark.parametrize("kind", [*WRITERS, "packed"])
@pytest.mark.parametrize("share", [0.004, 0.02, 0.3, 0.6, 0.97, 0.9999])
def test_files_cut_short(tmp_path, kind, share):
    arrays = {"A": numbers(40, 60), "B": numbers(3, 60)}
    if kind == "packed":
        path = write_mat5(tmp_path / "A.mat", compress=True, **arrays)
    else:
        path = write(tmp_path, kind, **arrays)
    content = path.read_bytes()
    data.fields(path).close()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf"{path.name}: .*cut short"):
        data.fields(path)


def test_damaged_headers(tmp_path):
    path = write_mat5(tmp_path / "a.mat", A=numbers(4, 3), B=numbers(4, 3))
    content = path.read_bytes()
    path.write_bytes(content[:128] + b"\x07" + content[129:])
    with pytest.raises(ValueError, match=r"a\.mat: damaged, there is no array at byte 128"):
        data.fields(path)
    path.write_bytes(content[:125] + b"\x05" + content[126:])
    with pytest.raises(ValueError, match=r"a\.mat: expected MATLAB version 5 or 7.3; .* says 5"):
        data.fields(path)
    path = write_mat5(tmp_path / "a.mat", compress=True, A=numbers(4, 3))
    spoil(path, 136)
    with pytest.raises(ValueError, match=r"a\.mat: damaged, the header of an array"):
        data.fields(path)
    path = write_npz(tmp_path / "a.npz", A=numbers(40, 3))
    spoil(path, 30 + len("A.npy") + 20)
    with pytest.raises(ValueError, match=r"a\.npz: A\.npy is damaged"):
        data.fields(path)
    path = write_npy(tmp_path / "a.npy", A=numbers(4, 3))
    spoil(path, 20)
    with pytest.raises(ValueError, match=r"a\.npy: damaged or cut short in a \.npy header"):
        data.fields(path)


def test_zip_archives_without_arrays(tmp_path):
    path = tmp_path / "a.npz"
    for name in ("archive/data.pkl", "Darcy_421/piececonst.mat"):
        path.write_bytes(zip_bytes(name))
        with pytest.raises(ValueError, match=rf"a\.npz: .* the zip archive holds '{name}'"):
            data.fields(path)


def test_h5py_is_needed_for_hdf5_alone(tmp_path, monkeypatch):
    paths = {kind: write(tmp_path, kind, **{kind: np.ones(2)}) for kind in WRITERS}
    monkeypatch.setitem(sys.modules, "h5py", None)
    for kind in ("v73", "hdf5"):
        with pytest.raises(ImportError, match=rf'{kind}\..* needs h5py.*pip install "jinv\[files'):
            data.fields(paths[kind])
    for kind in ("mat5", "npy", "npz"):
        with data.fields(paths[kind]) as file:
            assert file[kind][...].sum() == 2
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert "h5py" in extras["files"][0] and "jinv[files]" in extras["images"]


# Pairs

DARCY = {"coeff": numbers(6, 21, 21), "sol": numbers(6, 21, 21) + 1}


@pytest.mark.parametrize("kind", ["mat5", "v73", "hdf5", "npz"])
def test_pairs_of_a_file(tmp_path, kind):
    path = write(tmp_path, kind, **DARCY)
    x, y = data.pairs(path, "coeff", "sol", num=3, first=2, stride=5)
    for read, array in ((x, DARCY["coeff"]), (y, DARCY["sol"])):
        assert read.shape == (3, 5, 5) and read.dtype == np.float32 and read.flags.c_contiguous
        assert np.array_equal(read, array[2:5, ::5, ::5].astype(np.float32))
    with data.fields(path) as file:
        everything = data.pairs(file, "sol", "coeff", stride=(1, 4), dtype=np.float64)
        assert np.array_equal(everything[0], DARCY["sol"][:, :, ::4])
        assert np.array_equal(everything[1], DARCY["coeff"][:, :, ::4])
        assert everything[0].dtype == np.float64
        assert file["sol"][0, 0, 0] == DARCY["sol"][0, 0, 0]  # left open


def test_pairs_with_time_frames(tmp_path):
    arrays = {"a": numbers(5, 8, 8), "u": numbers(5, 8, 8, 10)}
    x, y = data.pairs(write_v73(tmp_path / "ns.mat", **arrays), "a", "u", num=4, stride=2)
    assert np.array_equal(x, arrays["a"][:4, ::2, ::2].astype("f"))
    assert np.array_equal(y, arrays["u"][:4, ::2, ::2, :].astype("f"))


@pytest.mark.parametrize("kind", ["v73", "npz"])
def test_pairs_with_the_samples_last(tmp_path, kind):
    arrays = {"coe": numbers(9, 7, 6), "u": numbers(9, 7, 6) + 1}
    x, y = data.pairs(write(tmp_path, kind, **arrays), "coe", "u", num=5, stride=(4, 3), axis=-1)
    for read, array in ((x, arrays["coe"]), (y, arrays["u"])):
        assert read.shape == (5, 3, 3) and read.flags.c_contiguous
        for number in range(5):
            assert np.array_equal(read[number], array[::4, ::3, number].astype("f"))


def test_pairs_from_two_files(tmp_path):
    x_array, q_array = numbers(4, 13, 13), numbers(4, 3, 13, 13)
    with (
        data.fields(write_npy(tmp_path / "Pipe_X.npy", X=x_array)) as x_file,
        data.fields(write_npy(tmp_path / "Pipe_Q.npy", Q=q_array)) as q_file,
    ):
        source = {"x": x_file["Pipe_X"], "q": q_file["Pipe_Q"][:, 0]}
        x, q = data.pairs(source, "x", "q", stride=3)
    assert np.array_equal(x, x_array[:, ::3, ::3].astype("f"))
    assert np.array_equal(q, q_array[:, 0, ::3, ::3].astype("f"))


def test_pairs_of_functions_on_different_grids():
    arrays = {"a": np.ones((5, 256), int), "uvp": numbers(5, 170, 3), "nu": np.ones(5, bool)}
    x, y = data.pairs(arrays, "a", "uvp")
    assert x.shape == (5, 256) and y.shape == (5, 170, 3) and x.dtype == y.dtype == np.float32
    assert data.pairs(arrays, "nu", "a")[0].shape == (5,)


def test_what_pairs_refuses(tmp_path):
    path = write(tmp_path, "v73", **DARCY)
    with pytest.raises(ValueError, match=r"coeff\.mat: there is no array 'a'; .* 'coeff', 'sol'"):
        data.pairs(path, "a", "sol")
    h5py.File(path, "r+").close()
    bad = np.full((6, 21, 21), 1e39)
    arrays = DARCY | {"short": numbers(5, 21, 21), "line": numbers(6, 20), "c": np.ones(6) * 1j}
    arrays |= {"far": bad, "nan": np.where(np.arange(6)[:, None] % 4 == 3, np.nan, 0.0)}
    refusals = [
        (dict(inputs="a"), r"`inputs` must be one of 'c', 'coeff', .*; got 'a'"),
        (dict(outputs="a"), r"`outputs` must be one of 'c', 'coeff', .*; got 'a'"),
        (dict(inputs="c"), r"`inputs` must be real; 'c' is complex128"),
        (dict(inputs="short"), r"same number of samples along `axis` 0; got shapes \(5, 21, 21\)"),
        (dict(num=7), r"`first` \+ `num` must be at most 6, .* got 0 \+ 7"),
        (dict(num=3, first=4), r"must be at most 6, .* got 4 \+ 3"),
        (dict(num=0), r"`num` must be an integer of at least 1, got 0"),
        (dict(first=-1), r"`first` must be an integer of at least 0, got -1"),
        (dict(first=6), r"`num` must be an integer of at least 1, got 0"),
        (dict(stride=0), r"`stride` must be an integer of at least 1, got 0"),
        (dict(stride=(2, 2, 2)), r"`stride` must have at most 2 entries; got \[2, 2, 2\]"),
        (dict(inputs="line", stride=2), r"equal length .* got \[2\] for samples of \[20\]"),
        (dict(axis=3), r"`axis` must be one of \(6, 21, 21\) and \(6, 21, 21\); got 3"),
        (dict(dtype=np.int32), r"`dtype` must be a real floating-point type"),
        (dict(outputs="far"), r"`outputs` must be finite in float32; 6 samples are not, .* 0"),
        (dict(inputs="nan", first=1), r"`inputs` .* 1 samples are not, .* is number 3"),
    ]
    for options, message in refusals:
        options = dict(inputs="coeff", outputs="sol") | options
        with pytest.raises(ValueError, match=message):
            data.pairs(arrays, **options)
    assert data.pairs(arrays, "coeff", "far", dtype=np.float64)[1].max() == 1e39
