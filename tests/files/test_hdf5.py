"""Our reader of HDF5 sees what h5py wrote, in every version of the format that h5py writes."""

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evsnn.errors import WeightsError
from evsnn.files import gate
from evsnn.files.hdf5 import messages, source

BOUNDS = [
    b
    for b in ("earliest", "v108", "v110", "v112", "v114", "v200", "latest")
    if b in h5py._hl.files.libver_dict
]
TYPES = [
    "<f2",
    "<f4",
    "<f8",
    ">f2",
    ">f4",
    ">f8",
    *(o + k + s for o in "<>" for k in "iu" for s in "1248"),
    "S1",
    "S7",
]


def read(path):
    with gate.open_file(path) as file:
        return plain(file.tree())


def plain(node):
    """A tree as nested dictionaries: attributes under their names, members behind a slash."""
    if isinstance(node, gate.Dataset):
        return {"": node.read(), **node.attributes}
    return {**node.attributes, **{"/" + name: plain(member) for name, member in node.members.items()}}


def same(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        little = np.asarray(b).astype(np.asarray(b).dtype.newbyteorder("<"))
        return a.dtype == little.dtype and a.shape == little.shape and a.tobytes() == little.tobytes()
    return a == b


@pytest.mark.parametrize("libver", BOUNDS)
@pytest.mark.parametrize("n", [0, 1, 8, 9, 60, 300, 1500])
def test_groups_of_any_size(tmp_path, libver, n):
    """Compact links, symbol tables, and B-trees over a heap, up to two levels of nodes."""
    path = tmp_path / "f.h5"
    names = [f"{i:04d}_{'x' * (i % 40)}" for i in range(n)]
    with h5py.File(path, "w", libver=libver) as f:
        for i, name in enumerate(names):
            f.create_group(name).attrs["i"] = np.int64(i)
    assert read(path) == {f"/{name}": {"i": i} for i, name in enumerate(names)}


@pytest.mark.parametrize("libver", BOUNDS)
@pytest.mark.parametrize("n", [8, 9, 100, 500])
@pytest.mark.parametrize("order", [False, True])
def test_attributes_of_any_number(tmp_path, libver, n, order):
    path = tmp_path / "f.h5"
    values = {f"a{i}{'y' * (i % 30)}": [i, i / 7, "text" * (i % 5) + "."][i % 3] for i in range(n)}
    with h5py.File(path, "w", libver=libver, track_order=order) as f:
        for name, value in values.items():
            f.attrs[name] = np.bytes_(value) if isinstance(value, str) else value
        f.create_group("g", track_order=order).attrs["last"] = np.array([1, 2, 3], ">i2")
    assert read(path) == {**values, "/g": {"last": (1, 2, 3)}}


@pytest.mark.parametrize("libver", BOUNDS)
@pytest.mark.parametrize("dtype", TYPES)
def test_types(tmp_path, libver, dtype):
    path = tmp_path / "f.h5"
    values = np.frombuffer(np.random.default_rng(0).integers(1, 120, 840, dtype=np.uint8).tobytes(), dtype)[
        :24
    ].reshape(2, 3, 4)
    with h5py.File(path, "w", libver=libver) as f:
        f["a"] = values
        f.create_dataset("scalar", data=values[0, 0, 0], dtype=dtype)
        f["a"].attrs.create("list", values[0, 0], dtype=dtype)
    tree = read(path)
    assert same(tree["/a"][""], values)
    assert same(tree["/scalar"][""], values[0, 0, 0])
    assert tree["/a"]["list"] == tuple(
        v.decode() if isinstance(v, bytes) else v for v in values[0, 0].tolist()
    )


@pytest.mark.parametrize("libver", BOUNDS)
@pytest.mark.parametrize(
    "chunks, options",
    [
        ((4, 5), {}),
        ((3, 2), {}),
        ((1, 1), {}),
        ((4, 5), {"compression": "gzip"}),
        ((3, 2), {"compression": "gzip", "shuffle": True}),
        ((3, 2), {"compression": "gzip", "shuffle": True, "fletcher32": True}),
        ((2, 5), {"shuffle": True}),
        ((2, 3), {"fletcher32": True}),
        ((4, 5), {"compression": "gzip", "compression_opts": 0}),
    ],
)
def test_chunks_and_filters(tmp_path, libver, chunks, options):
    path = tmp_path / "f.h5"
    values = np.random.default_rng(0).normal(size=(4, 5)).astype("<f4")
    with h5py.File(path, "w", libver=libver) as f:
        f.create_dataset("a", data=values, chunks=chunks, **options)
    assert same(read(path)["/a"][""], values)


@pytest.mark.parametrize("libver", BOUNDS)
@pytest.mark.parametrize("n", [1024, 1025, 3000])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
def test_many_chunks(tmp_path, libver, n, options):
    """Fixed arrays with and without pages; B-trees of two levels."""
    path = tmp_path / "f.h5"
    values = np.arange(2 * n, dtype="<i2").reshape(n, 2)
    with h5py.File(path, "w", libver=libver) as f:
        f.create_dataset("a", data=values, chunks=(1, 2), **options)
    assert same(read(path)["/a"][""], values)


def test_compact_storage(tmp_path):
    path = tmp_path / "f.h5"
    values = np.arange(6, dtype="<i4").reshape(2, 3)
    with h5py.File(path, "w") as f:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(f.id, b"a", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((2, 3)), properties).write(
            h5py.h5s.ALL, h5py.h5s.ALL, values
        )
    assert same(read(path)["/a"][""], values)


def test_deleted_and_renamed_objects_leave_no_trace(tmp_path):
    path = tmp_path / "f.h5"
    for libver in BOUNDS:
        with h5py.File(path, "w", libver=libver) as f:
            for i in range(40):
                f[f"d{i}"] = np.full(3, i, "<i8")
                f.attrs[f"a{i}"] = i
            for i in range(0, 40, 3):
                del f[f"d{i}"], f.attrs[f"a{i}"]
            f.move("d1", "moved")
        kept = [i for i in range(40) if i % 3]
        expected = {
            **{f"a{i}": i for i in kept},
            **{f"/d{i}" if i > 1 else "/moved": {"": np.full(3, i, "<i8")} for i in kept},
        }
        assert same(expected, read(path))


def test_one_member_is_read_beside_what_is_refused(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as f:
        f.attrs["note"] = "of variable length"
        f["images"] = np.zeros((2, 3), "<f4")
        f["images"].attrs["unit"] = "of variable length"
        f["other"] = ["a", "b"]
    with pytest.raises(WeightsError, match="variable-length"):
        read(path)
    with gate.open_file(path) as file:
        tree = file.tree(only=("images", "labels"))
        assert list(tree.members) == ["images"] and same(
            tree.members["images"].read(), np.zeros((2, 3), "<f4")
        )


values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5).map(tuple),
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=5).map(tuple),
)
names = st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True)
attributes = st.dictionaries(names, values, max_size=12)
datasets = st.tuples(
    hnp.arrays(
        st.sampled_from(["<f4", ">f8", "|i1", "<u2", "<i8"]),
        hnp.array_shapes(min_dims=0, max_dims=4, max_side=5),
    ),
    attributes,
    st.sampled_from(
        [{}, {"chunks": True}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}]
    ),
)
trees = st.recursive(
    st.tuples(attributes, st.dictionaries(names, datasets, max_size=12)),
    lambda inner: st.tuples(attributes, st.dictionaries(names, st.one_of(datasets, inner), max_size=12)),
    max_leaves=4,
)


def write(group, tree):
    for name, value in tree[0].items():
        group.attrs[name] = np.bytes_(value.encode() or b"\0") if isinstance(value, str) else np.array(value)
    expected = dict(tree[0])
    for name, member in tree[1].items():
        if len(member) == 2:
            expected[f"/{name}"] = write(group.create_group(name), member)
        else:
            array, notes, options = member
            dataset = group.create_dataset(name, data=array, **(options if array.ndim else {}))
            for key, value in notes.items():
                dataset.attrs[key] = (
                    np.bytes_(value.encode() or b"\0") if isinstance(value, str) else np.array(value)
                )
            expected[f"/{name}"] = {"": array.astype(array.dtype.newbyteorder("<")), **notes}
    return expected


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=trees, libver=st.sampled_from(BOUNDS))
def test_any_tree(tmp_path_factory, tree, libver):
    path = tmp_path_factory.mktemp("tree") / "f.h5"
    with h5py.File(path, "w", libver=libver) as f:
        expected = write(f, tree)
    assert same(expected, read(path))


def test_checksum():
    """The values that the author of lookup3 gives in its driver5()."""
    assert source.checksum(b"") == 0xDEADBEEF
    assert source.checksum(b"Four score and seven years ago") == 0x17770551


@pytest.mark.parametrize(
    "layout",
    [bytes([3, 2, 0]) + bytes(8), bytes([4, 2, 0, 0, 4, 3, 0]) + bytes(8)],
    ids=["version 3", "version 4"],
)
def test_chunks_without_a_shape(layout):
    with pytest.raises(source.FormatError, match="chunks have no shape"):
        messages.layout(source.Cursor(layout))
