"""Reader of W&B's ``.wandb`` files, written against the format: W&B ships none in Python.

The file is a LevelDB log after a header of seven bytes: blocks of 32 KiB, in which every chunk has a checksum
(4 bytes), a length (2 bytes) and a type (1 whole, 2 first, 3 middle, 4 last), and the chunks make up protobuf records.
"""

import json
import struct
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024


def read_records(path: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    records, parts, at = [], b"", 7
    while at + 7 <= len(data):
        room = BLOCK - at % BLOCK
        if room < 7:  # the rest of a block that has no room for a chunk's header
            at += room
            continue
        length, kind = struct.unpack_from("<4xHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records


def items(entries: Any) -> dict[str, Any]:
    """Name → value of config, history or summary items, whose names come as ``key`` or as ``nested_key`` parts."""
    return {entry.key or ".".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


def of_kind(records: list[Any], kind: str) -> list[Any]:
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]
