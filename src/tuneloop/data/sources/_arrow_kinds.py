"""What Arrow's kinds of columns mean here: how much a column holds, how it is read plainly, and what is not read.

Some kinds let many rows point to one value, so that little in a file can be very much in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def strange(kind: Any) -> bool:
    """Whether no honest data set has such a column, or none that needs it: views, unions, run ends."""
    from pyarrow import types

    if any(is_one(kind) for is_one in (types.is_union, types.is_run_end_encoded, types.is_list_view,
                                       types.is_large_list_view)):
        return True
    if types.is_dictionary(kind):
        return not (types.is_primitive(kind.value_type) or is_text(kind.value_type))
    return any(strange(kind.field(i).type) for i in range(kind.num_fields))


def bytes_of(array: Any) -> int:
    """What the values take once each stands for itself. Not for strange kinds."""
    import pyarrow.compute as pc
    from pyarrow import types

    kind = array.type
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return _viewed(array) + 8 * len(array)
    if is_text(kind):
        return _sum(pc.binary_length(array))
    if types.is_dictionary(kind) and is_text(kind.value_type):
        return _sum(pc.take(pc.binary_length(array.dictionary), array.indices))
    if types.is_map(kind):
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return bytes_of(array.keys[start:end]) + bytes_of(array.items[start:end])
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return bytes_of(array.flatten()) + 8 * len(array)
    if types.is_struct(kind):
        return sum(map(bytes_of, array.flatten())) + 8 * len(array)
    return 8 * len(array)


def _sum(lengths: Any) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(lengths).as_py() or 0) + 8 * len(lengths)


def is_text(kind: Any) -> bool:
    """Texts and bytes of any length, each stored for itself."""
    from pyarrow import types

    return any(is_one(kind) for is_one in (types.is_string, types.is_large_string, types.is_binary,
                                           types.is_large_binary))


def _viewed(array: Any) -> int:
    """A view of a text is 16 bytes, of which the first four are its length; several may be of the same text."""
    if not len(array):
        return 0
    views = np.frombuffer(array.buffers()[1], np.int32, 4 * (array.offset + len(array)))
    return int(views[4 * array.offset::4].clip(min=0).sum(dtype=np.int64))


def dense(kind: Any) -> Any:
    """The same kind with values themselves in place of pointers into a dictionary, and times as fine as Python's."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return kind.value_type
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_map(kind):
        return pa.map_(dense(kind.key_type), dense(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(dense(kind.value_type), kind.list_size)
    if types.is_list(kind):
        return pa.list_(dense(kind.value_type))
    if types.is_large_list(kind):
        return pa.large_list(dense(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, dense(field.type), field.nullable) for field in kind])
    return kind


def is_plain(kind: Any) -> bool:
    """Whether Arrow's own way to Python gives texts, numbers, lists and objects, at whatever depth."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_struct(kind):
        return all(is_plain(kind.field(i).type) for i in range(kind.num_fields))
    return any(is_one(kind) for is_one in (types.is_string, types.is_large_string, types.is_integer, types.is_boolean,
                                           types.is_float32, types.is_float64, types.is_null))
