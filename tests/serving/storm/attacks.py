"""Requests that no server likes, made from a seed: the same seed and number give the same bytes."""

import base64
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

End = Literal["read", "half", "close", "reset"]
"""How a client ends: it reads the answer; it says that it sends no more, and reads; it closes; or
it resets the connection.
"""
MODELS = ("image", "cloud")
MAX_BODY = 1_000_000
"""``serve.max_body_bytes`` of the server."""
MAX_PIXELS = 4_000_000
"""``serve.max_pixels`` of the server."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What one client does.

    Attributes:
        kind: the name of its maker.
        sends: bytes, and seconds to wait between them.
        end: see ``End``.
        may_pass: whether 200 is right too: what is wrong is known by chance only.
        may_be_silent: whether the server may close without an answer.
        no_http: whether HAProxy may refuse it before it is a request, in its own fixed words.
    """

    kind: str
    sends: tuple[bytes | float, ...]
    end: End = "read"
    may_pass: bool = False
    may_be_silent: bool = False
    no_http: bool = False


def attack(seed: int, number: int, picture: bytes) -> Attack:
    """The attack of a number; ``picture`` is a file that the server answers."""
    random = Random(f"{seed}/{number}")
    return random.choices(MAKERS, WEIGHTS)[0](random, picture)


def request(
    body: bytes,
    path: str = "/predictions/image",
    headers: tuple[str, ...] = (),
    method: str = "POST",
    length: int | str | None = None,
) -> bytes:
    """A request; ``length`` is what it claims."""
    stated = len(body) if length is None else length
    lines = [f"{method} {path} HTTP/1.1", "Host: storm", f"Content-Length: {stated}"]
    return "\r\n".join([*lines, *headers, "Connection: close", "", ""]).encode("latin-1") + body


def noise(random: Random, _: bytes) -> Attack:
    """Bytes that are no HTTP."""
    data = random.randbytes(random.randrange(1, 2000))
    return Attack(
        kind="noise", sends=(b"\x00" + data,), end="half", may_be_silent=True, no_http=True
    )


def bad_line(random: Random, picture: bytes) -> Attack:
    """A first line with a fault, or a header that is none."""
    lines = (
        *(b"GET", b"GET /", b"GET / HTTP/x.9", b"GET  HTTP/1.1", b"/predictions/image POST"),
        *(b"POST /predictions/image HTTP/1.1\r\nno colon here", b"GET / HTTP/1.1\r\n: nameless"),
        *(b"GET /\x00 HTTP/1.1\r\nHost: a", b"G\xffT / HTTP/1.1\r\nHost: a"),
        b"POST /predictions/image HTTP/1.1\r\nHost: a\r\nContent-Length : 4",
    )
    data = random.choice(lines) + b"\r\n\r\n"
    return Attack(
        kind="bad_line", sends=(data, picture[:10]), end="half", may_be_silent=True, no_http=True
    )


def bad_length(random: Random, picture: bytes) -> Attack:
    """A Content-Length that is none, or two of them, or one beside chunks."""
    length = random.choice(("-1", "+5", "0x10", "1e3", "", "9" * 40, "5, 6", "five", "1.0"))
    more = random.choice(((), ("Content-Length: 7",), ("Transfer-Encoding: chunked",)))
    sent = request(picture, length=length, headers=more)
    return Attack(kind="bad_length", sends=(sent,), end="half", may_be_silent=True, no_http=True)


def bad_chunks(random: Random, picture: bytes) -> Attack:
    """A chunked body with a fault."""
    head = request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"%x\r\n%s\r\n" % (len(picture), picture)
    body = random.choice(
        (b"zz\r\nab\r\n0\r\n\r\n", b"-5\r\nabcde\r\n", b"5\r\nabc", b"f" * 20 + b"\r\n", chunk[:-9])
    )
    return Attack(
        kind="bad_chunks", sends=(head, body), end="half", may_be_silent=True, no_http=True
    )


def bad_headers(random: Random, picture: bytes) -> Attack:
    """Headers that are too many, too long or of unknown codings."""
    headers = random.choice(
        (
            tuple(f"X-{i}: {i}" for i in range(random.randrange(120, 400))),
            ("X-Long: " + "a" * random.randrange(9_000, 60_000),),
            ("Content-Encoding: " + random.choice(("gzip", "br", "zstd", "x" * 200)),),
            ("Content-Type: multipart/form-data",),
            ("Content-Type: multipart/mixed; boundary=a",),
            ("Content-Type: application/json; charset=\xff",),
            # headers that Ray and HAProxy read themselves
            ("X-Request-Timeout-Seconds: " + random.choice(("0.0001", "-1", "nan", "\xff")),),
            ("X-Request-ID: " + random.choice(("\xff\xfe", "a" * 5000, "")),),
            ("serve_multiplexed_model_id: \xff", "X-Session-ID: \xff", "traceparent: \xff"),
            ("Expect: 200-maybe",),
        )
    )
    return Attack(
        kind="bad_headers",
        sends=(request(picture, headers=headers),),
        may_pass=True,  # headers that nobody reads
        may_be_silent=True,
        no_http=True,
    )


def bad_address(random: Random, picture: bytes) -> Attack:
    """A path, a method or a query that does not exist."""
    path = random.choice(
        (
            *("/nothing", "/predictions", "/predictions/", "/predictions/none", "//", "/.env"),
            *("/predictions/../../etc/passwd", "/predictions/%2e%2e%2fetc", "/predictions/%00"),
            *("/predictions/image/more", "/predictions/" + "a" * random.randrange(100, 12_000)),
            *("/predictions/image?head=none", "/predictions/image?score_thr=high"),
            *("/predictions/image?score_thr=2", "/predictions/image?score_thr=nan"),
            *("/predictions/image?masks=?", "/predictions/image?a=b&a=c", "/models/none"),
            *("/predictions/cloud?features=%FF,%00", "/v2/models/none/infer"),
            "/predictions/image?" + "&".join(f"k{i}=v" for i in range(random.randrange(10, 800))),
        )
    )
    method = random.choice(("POST", "POST", "GET", "DELETE", "PATCH", "TRACE", "BREW", "post"))
    return Attack(
        kind="bad_address",
        sends=(request(picture, path=path, method=method),),
        may_pass=path == "//" and method == "GET",
        may_be_silent=True,
    )


def bad_picture(random: Random, picture: bytes) -> Attack:
    """A file that is no image, or a damaged one, or one that claims to be huge."""
    side = random.choice((20_000, 65_535, 2**31 - 1))
    spoilt = bytearray(picture)
    for _ in range(random.randrange(1, 30)):
        spoilt[random.randrange(8, len(spoilt))] = random.randrange(256)
    body = random.choice(
        (
            *(random.randbytes(random.randrange(1, 5000)), bytes(spoilt), _png(side, side)),
            *(picture[: random.randrange(1, len(picture))], b"GIF89a" + b"\xff" * 40),
            *(b"\xff\xd8\xff" + random.randbytes(300), b"<svg onload=alert(1)>", b"\x80\x04N."),
            *(b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"BM" + b"\xff" * 60, picture[::-1], b""),
        )
    )
    return Attack(kind="bad_picture", sends=(request(body),), may_pass=True)


def _png(width: int, height: int) -> bytes:
    """The start of a PNG of this size, with a few rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bad_cloud(random: Random, _: bytes) -> Attack:
    """A file that is no cloud, one without finite numbers, or one that claims to be huge."""
    count = random.randrange(1, 300)
    numbers = [random.choice((float("nan"), float("inf"), -1e38, 1e38, 0.0)) for _ in range(count)]
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    shape = random.choice(("(1000000000000, 4)", "(-1, 4)", "(2,)", "(5, 4)", "()"))
    kind = random.choice(("<f4", "|O", "<f8", "<U1000000"))
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    body = random.choice(
        (
            *(random.randbytes(random.randrange(1, 5000)), struct.pack(f"<{count}f", *numbers)),
            *(npy + head.ljust(118)[:118].encode() + bytes(80), npy, b"\x93NUMPY\xff\xff"),
            b"# .PCD v0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 999999999999\n"
            b"HEIGHT 1\nPOINTS 999999999999\nDATA " + random.choice((b"ascii", b"binary")) + b"\n1",
            b"ply\nformat ascii 1.0\nelement vertex -4\nproperty float x\nend_header\n",
            b"ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\n"
            b"property float x\nproperty float y\nproperty float z\nend_header\n" + bytes(40),
        )
    )
    path = "/predictions/cloud" + random.choice(("", "?features=x,y", "?features=x,y,z,x", "?f=1"))
    return Attack(kind="bad_cloud", sends=(request(body, path=path),), may_pass=True)


def bad_json(random: Random, picture: bytes) -> Attack:
    """JSON with a fault, or of another form."""
    model = random.choice(MODELS)
    good = base64.b64encode(picture).decode()
    text = random.choice(
        (
            *("{", "[]", "null", '{"image": 5}', '{"image": null}', '{"image": ""}', "[" * 100_000),
            *('{"image": "***"}', '{"instances": 7}', '{"instances": []}', '{"b64": NaN}'),
            *('{"a":' * 50_000, '{"image": {"b64": [1]}}', '{"points": "AAAA", "points": 3}'),
            *('{"image": "data:;base64,AAAA"}', '{"image": "\\ud800"}', '{"head": "none"}'),
            *(json.dumps({"image": good[:-7]}), json.dumps({"instances": [{"b64": good}, {}]})),
            *(json.dumps({"instances": [{"b64": "AAAA"}] * 40}), "1" * 10_000, '"\\'),
        )
    )
    body = text.encode() + random.choice((b"", b"\xff\xfe", b"\x00"))
    kind = random.choice(("application/json", "application/vnd.api+json", "text/plain"))
    sent = request(body, path=f"/predictions/{model}", headers=(f"Content-Type: {kind}",))
    return Attack(kind="bad_json", sends=(sent,), may_pass=True)


def bad_form(random: Random, picture: bytes) -> Attack:
    """A form with a fault."""
    part = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        + picture
        + b"\r\n"
    )
    body = random.choice(
        (
            *(part, part[:40] + b"--b--", b"--b--\r\n", b"--c\r\n\r\n--c--", part * 60 + b"--b--"),
            *(b"--b\r\n\r\nno name\r\n--b--\r\n", b"--b\r\n" + b"x" * 20_000 + b"\r\n--b--\r\n"),
            b'--b\r\nContent-Disposition: form-data; name="score_thr"\r\n\r\n1\r\n--b--\r\n',
            part.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + b"--b--",
            part.replace(b"a.png", b"\x00\xff../../etc") + b"--b--\r\n",
        )
    )
    kind = random.choice(("multipart/form-data; boundary=b", "multipart/form-data; boundary="))
    sent = request(body, headers=(f"Content-Type: {kind}",))
    return Attack(kind="bad_form", sends=(sent,), may_pass=True)


def bad_tensors(random: Random, _: bytes) -> Attack:
    """A request of the Open Inference Protocol with wrong names, shapes, types or sizes."""
    tensor = {
        "name": random.choice(("image", "none", "", 5)),
        "shape": random.choice(([1, 3, 64, 64], [1], [-1, 3], [2**40, 3], "x", [1, 3, 0, 0])),
        "datatype": random.choice(("UINT8", "FP32", "BYTES", "INT4", None)),
        "data": random.choice(([1, 2, 3], [[1], [2, 3]], "text", [None], [1e400], [])),
        "parameters": {"binary_data_size": random.choice((-1, 5, 10**15, "x"))},
    }
    for name in random.sample(sorted(tensor), random.randrange(0, 3)):
        del tensor[name]
    content = random.choice(({"inputs": [tensor] * random.randrange(1, 20)}, {"inputs": 3}, {}, []))
    body = json.dumps(content).encode() + random.randbytes(random.randrange(0, 40))
    more = random.choice(("0", "-1", str(len(body)), str(10**12), "ten"))
    path = f"/v2/models/{random.choice(MODELS)}/infer"
    sent = request(body, path=path, headers=(f"Inference-Header-Content-Length: {more}",))
    return Attack(kind="bad_tensors", sends=(sent,))


def oversized(random: Random, _: bytes) -> Attack:
    """A body above the limit, sent whole; or one that is only claimed."""
    size = random.randrange(MAX_BODY + 1, 2 * MAX_BODY)
    claim = random.choice((size, size, 10**12))
    path = f"/predictions/{random.choice(MODELS)}"
    body = bytes(size if claim == size else 1000)
    sent = request(body, path=path, length=claim)
    return Attack(kind="oversized", sends=(sent,), may_be_silent=claim != size)


def interrupted(random: Random, picture: bytes) -> Attack:
    """A client that goes away: before, within or after its body."""
    whole = request(picture)
    cut = random.choice((0, 5, 60, len(whole) - 20, len(whole)))
    pause = random.choice((0.0, 0.0, 0.02, 0.2))
    end: End = random.choice(("close", "reset", "half"))
    return Attack(
        kind="interrupted",
        sends=(whole[:cut], pause),
        end=end,
        may_pass=cut == len(whole),
        may_be_silent=True,
        no_http=cut <= 60,
    )


def slow(random: Random, picture: bytes) -> Attack:
    """A client that sends a few bytes at a time, and gives up or comes to an end."""
    whole = request(picture)
    start = random.choice((10, whole.index(b"\r\n\r\n") + 4, len(whole) - 40))
    drips = [whole[at : at + 8] for at in range(start, min(start + 40, len(whole)), 8)]
    parts: list[bytes | float] = [whole[:start]]
    for drip in drips:
        parts += [random.uniform(0.05, 0.3), drip]
    complete = start + 40 >= len(whole)
    return Attack(
        kind="slow",
        sends=tuple(parts),
        end="read" if complete else "close",
        may_pass=complete,
        may_be_silent=not complete,
    )


def never_reads(random: Random, picture: bytes) -> Attack:
    """Several requests one behind the other, whose answers nobody reads."""
    kept = request(picture).replace(b"Connection: close\r\n", b"")
    count = random.randrange(2, 6)
    return Attack(kind="never_reads", sends=(kept * count, 0.05), end="reset", may_be_silent=True)


MAKERS: tuple[Callable[[Random, bytes], Attack], ...] = (
    *(noise, bad_line, bad_length, bad_chunks, bad_headers, bad_address, bad_picture, bad_cloud),
    *(bad_json, bad_form, bad_tensors, oversized, interrupted, slow, never_reads),
)
WEIGHTS = (4, 4, 4, 4, 6, 10, 14, 12, 12, 10, 8, 2, 10, 4, 2)
