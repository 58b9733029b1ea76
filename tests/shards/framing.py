"""A TFRecord's frame by a second hand."""

import struct

import google_crc32c


def framed(payload: bytes) -> bytes:
    """A record, as the description of the format says."""

    def mask(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack(
            "<I", (((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) & 0xFFFFFFFF
        )

    length = struct.pack("<Q", len(payload))
    return length + mask(length) + payload + mask(payload)
