"""What files hold once nothing is compressed: a secret in Parquet is not found among its bytes."""

from __future__ import annotations

import gzip
import io
import zipfile

import pyarrow.parquet as pq
import zstandard


def plain(data: bytes) -> bytes:
    """The bytes, and what they hold where they are Parquet (values, names, metadata), gzip, zstd or a zip."""
    if data[:4] == b"PAR1" == data[-4:]:
        table = pq.read_table(io.BytesIO(data))
        return data + repr((table.schema, table.schema.metadata, table.to_pydict())).encode()
    if data[:2] == b"\x1f\x8b":
        return data + gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return data + zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return data + b"".join(archive.read(name) for name in archive.namelist())
    return data
