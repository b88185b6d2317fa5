"""Writing HDF5: a file is built in memory; the same content gives the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5g, h5p, h5s, h5t

from .objects import MAX_ATTRIBUTES

__all__ = ["Writer"]

_CHUNK_BYTES = 1 << 20
_MOST_CHUNK_BYTES = 64 << 20  # what the gate lets pass


class Writer:
    """An HDF5 file in memory. Objects are written in the order of the calls.

    Metadata is in the format of HDF5 1.10, which every later version reads: it carries checksums, so
    that no bit of it can flip unnoticed. Nothing in the file depends on the time, the place or the machine.
    HDF5 writes into memory so that nothing can fail, and Ctrl-C find it, while it holds half a file.
    """

    def __init__(self):
        self._stream = io.BytesIO()
        access, creation = h5p.create(h5p.FILE_ACCESS), self._properties(h5p.FILE_CREATE)
        access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        access.set_fileobj_driver(h5fd.fileobj_driver, self._stream)
        self._file = h5f.create(b"weights", h5f.ACC_TRUNC, creation, access)
        self.root = h5g.open(self._file, b"/")

    @staticmethod
    def _properties(kind):
        properties = h5p.create(kind)
        properties.set_obj_track_times(False)
        properties.set_attr_phase_change(MAX_ATTRIBUTES, 0)  # in the object's header, under its checksum
        return properties

    def group(self, parent: h5g.GroupID, name: str) -> h5g.GroupID:
        """A new group."""
        return h5g.create(parent, name.encode(), None, self._properties(h5p.GROUP_CREATE))

    def attributes(self, owner, values: Mapping[str, object]) -> None:
        """Write attributes: str as UTF-8 of fixed length, int as int64, float as float64, or lists of one."""
        for name, value in sorted(values.items()):
            listed = isinstance(value, (tuple, list))
            items = list(value) if isinstance(value, (tuple, list)) else [value]
            if isinstance(items[0], str):
                array = np.array([str(item).encode() for item in items])
                kind = _text_type(array)
            else:
                array = np.array(
                    items, dtype="<i8" if all(isinstance(item, int) for item in items) else "<f8"
                )
                kind = h5t.py_create(array.dtype)
            space = h5s.create_simple(array.shape) if listed else h5s.create(h5s.SCALAR)
            h5a.create(owner, name.encode(), kind, space).write(array if listed else array.reshape(()), kind)

    def dataset(
        self,
        parent: h5g.GroupID,
        name: str,
        array: np.ndarray,
        attributes: Mapping[str, object],
        *,
        compress: bool = False,
    ) -> None:
        """An array, in one piece, or in chunks of about 1 MiB with shuffle and gzip."""
        kind = _text_type(array) if array.dtype.kind == "S" else h5t.py_create(array.dtype)
        properties = self._properties(h5p.DATASET_CREATE)
        properties.set_fill_time(h5d.FILL_TIME_NEVER)
        row_bytes = math.prod(array.shape[1:]) * array.itemsize
        if compress and array.ndim and row_bytes <= _MOST_CHUNK_BYTES:
            properties.set_chunk((min(array.shape[0], max(1, _CHUNK_BYTES // row_bytes)), *array.shape[1:]))
            if array.itemsize > 1:
                properties.set_shuffle()
            properties.set_deflate(4)
        space = h5s.create_simple(array.shape) if array.ndim else h5s.create(h5s.SCALAR)
        dataset = h5d.create(parent, name.encode(), kind, space, properties)
        dataset.write(h5s.ALL, h5s.ALL, array, kind)
        self.attributes(dataset, attributes)

    def close(self) -> io.BytesIO:
        """The file, complete."""
        self._file.close()
        return self._stream


def _text_type(array: np.ndarray) -> h5t.TypeStringID:
    kind = h5t.C_S1.copy()
    kind.set_size(array.itemsize)
    kind.set_strpad(h5t.STR_NULLPAD)
    kind.set_cset(h5t.CSET_UTF8)
    return kind
