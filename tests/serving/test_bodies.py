"""Forms and JSON beside raw bytes: the same answers, the same limits, and one sentence for what
is malformed.
"""

import asyncio
import base64
import codecs
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.inputs.image import IMAGE
from mtl_ray.serving.app import App
from mtl_ray.serving.bodies import read_body
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.reply import RequestError
from tests.inputs.image_files import damaged, encoded, whole_files
from tests.serving.bundles import two_halves
from tests.serving.server import running
from tests.serving.test_app import call, forged_jpeg, open_app

PICTURE = two_halves()
B64 = base64.b64encode(PICTURE).decode()
SITE = "https://example.org"


@pytest.fixture(scope="module")
def app(bundle: Callable[..., str]) -> Iterator[App]:
    opened = open_app(
        {"boxes": bundle("boxes"), "map": bundle("semantic")},
        max_body_bytes=30_000,
        max_pixels=100_000,
        max_images=3,
        cors_origins=(SITE, "http://localhost:3000"),
    )
    yield opened
    opened.close()


def post(app: App, model: str = "boxes", **options: Any) -> httpx.Response:
    return call(app, "POST", f"/predictions/{model}", **options)


@pytest.fixture(scope="module")
def plain(app: App) -> Any:
    return post(app, content=PICTURE).json()


SAME: dict[str, dict[str, Any]] = {
    "form": {"files": {"image": ("a.png", PICTURE, "image/png")}},
    "form without a type": {"files": {"anything": ("a", PICTURE)}},
    "form with texts": {
        "files": {"image": ("a.png", PICTURE)},
        "data": {"name": "value", "other": "--" * 50},
    },
    "form of a quoted boundary": {
        "content": b'preamble\r\n--a b\r\nContent-Disposition: form-data; name="x"; filename="q\\"\xc3\xa4.png"\r\n\r\n'  # noqa: E501
        + PICTURE
        + b"\r\n--a b--",
        "headers": {"content-type": 'multipart/form-data; charset=utf-8; boundary="a b"'},
    },
    "form with an empty file input": {"files": [("a", ("", b"")), ("b", ("b.png", PICTURE))]},
    "json": {"json": {"image": B64}},
    "json b64": {"json": {"image": {"b64": B64}}},
    "json without its type": {"content": json.dumps({"image": B64}).encode()},
    "json after a byte order mark": {
        "content": codecs.BOM_UTF8 + json.dumps({"image": B64}).encode()
    },
    "json after a blank": {"content": b" \n" + json.dumps({"image": B64}).encode()},
    "data URI": {"json": {"image": "data:image/png;base64," + B64}},
    "data URI with parameters": {"json": {"image": "data:image/png;charset=utf-8;base64," + B64}},
    "data URI without a type": {"json": {"image": "data:;base64," + B64}},
    "lines of base64": {"json": {"image": base64.encodebytes(PICTURE).decode()}},
    "base64 for URLs": {"json": {"image": base64.urlsafe_b64encode(PICTURE).decode().rstrip("=")}},
    "type of JSON on an image": {
        "content": PICTURE,
        "headers": {"content-type": "application/json"},
    },
    "type of curl": {
        "content": PICTURE,
        "headers": {"content-type": "application/x-www-form-urlencoded"},
    },
}


@pytest.mark.parametrize("name", SAME)
def test_however_an_image_is_sent_the_answer_is_the_same(app: App, plain: Any, name: str) -> None:
    answer = post(app, **SAME[name])
    assert answer.status_code == 200, answer.text
    assert answer.json() == plain


def test_several_files_give_a_list_in_their_order(app: App, plain: Any) -> None:
    small = encoded("PNG")
    answer = post(app, files=[("image", ("a.png", PICTURE)), ("image", ("b.png", small))]).json()
    assert answer == [plain, post(app, content=small).json()]
    assert (
        post(app, files=[("x", ("b.png", small)), ("y", ("a.png", PICTURE))]).json() == answer[::-1]
    )


@pytest.mark.parametrize(
    "instance",
    [
        {"b64": B64},
        B64,
        {"image": {"b64": B64}},
        {"image_bytes": {"b64": B64}},
        {"input": B64},
        "data:image/png;base64," + B64,
    ],
)
def test_instances_give_predictions(app: App, plain: Any, instance: Any) -> None:
    assert post(
        app, json={"signature_name": "serving_default", "instances": [instance]}
    ).json() == {"predictions": [plain]}
    assert post(app, json={"instances": [instance, {"b64": B64}]}).json() == {
        "predictions": [plain, plain]
    }


def test_a_class_map_in_a_list_is_json_and_by_itself_a_png(app: App) -> None:
    assert post(app, "map", json={"image": B64}).headers["content-type"] == "image/png"
    answer = post(app, "map", json={"instances": [{"b64": B64}]}).json()
    assert answer["predictions"][0]["width"] == 128


def test_one_bad_image_spoils_only_its_own_entry(app: App, plain: Any) -> None:
    first, second, third = post(
        app, json={"instances": [B64, base64.b64encode(forged_jpeg()).decode(), "AAAA"]}
    ).json()["predictions"]
    assert first == plain
    assert (second["code"], third["code"]) == (422, 400)
    none = post(app, json={"instances": ["AAAA", "AAAA"]})
    assert (none.status_code, none.json()["code"]) == (400, 400)


def form(
    *parts: bytes, end: bytes = b"\r\n--b--\r\n", kind: str = "multipart/form-data; boundary=b"
) -> dict[str, Any]:
    return {
        "content": b"".join(b"\r\n--b\r\n" + part for part in parts)[2:] + end,
        "headers": {"content-type": kind},
    }


FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
TEXT = b'Content-Disposition: form-data; name="score_thr"\r\n\r\n0.5'
REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "form without a boundary": (
        form(FILE + PICTURE, kind="multipart/form-data"),
        400,
        "no boundary",
    ),
    "form with another boundary": (
        form(FILE + PICTURE, kind="multipart/form-data; boundary=c"),
        400,
        "incomplete",
    ),
    "form without its end": (form(FILE + PICTURE, end=b""), 400, "incomplete"),
    "form without a file": ({"files": {"a": (None, "text")}}, 400, "no file"),
    "form of no fields": (form(), 400, "no file"),
    "form of an empty file": (form(FILE), 400, "empty"),
    "form of an option": (form(TEXT, FILE + PICTURE), 400, "query"),
    "form without headers": (form(PICTURE), 400, "headers"),
    "form without a name": (form(b"X: y\r\n\r\n" + PICTURE), 400, "Content-Disposition"),
    "form in base64": (
        form(b"Content-Transfer-Encoding: base64\r\n" + FILE + B64.encode()),
        400,
        "transfer encoding",
    ),
    "form of many fields": (
        form(*[TEXT.replace(b"score_thr", b"x")] * 100, FILE + PICTURE),
        413,
        "too many fields",
    ),
    "form of many files": (form(*[FILE + PICTURE] * 4), 413, "at most 3"),
    "form that is too large": (form(FILE + b"x" * 30_001), 413, "30,000"),
    "form that is far too large": (form(FILE + b"x" * 300_000), 413, "30,000"),
    "form of large files": (form(*[FILE + b"x" * 20_000] * 2), 413, "30,000"),
    "mixed": (form(FILE + PICTURE, kind="multipart/mixed; boundary=b"), 415, "multipart/form-data"),
    "no JSON": ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "no JSON"),
    "JSON in another encoding": ({"content": b'{"image": "\xff\xff"}'}, 400, "no JSON"),
    "a list": ({"json": [B64]}, 400, "no image"),
    "a text": ({"json": B64}, 400, "no image"),
    "nothing in it": ({"json": {}}, 400, "no image"),
    "no instances": ({"json": {"instances": []}}, 400, "no image"),
    "instances that are none": ({"json": {"instances": {"b64": B64}}}, 400, "no image"),
    "an image that is a number": ({"json": {"image": 7}}, 400, "must be an image in base64"),
    "an image that is null": ({"json": {"image": None}}, 400, "must be an image in base64"),
    "an image of numbers": (
        {"json": {"instances": [[1.0, 2.0, 3.0]]}},
        400,
        "instances[0] must be",
    ),
    "an empty image": ({"json": {"image": ""}}, 400, "empty"),
    "no base64": ({"json": {"image": "!!!"}}, 400, "not base64"),
    "one letter of base64": ({"json": {"image": "A"}}, 400, "not base64"),
    "letters beyond ASCII": ({"json": {"image": "\u00e4" * 8}}, 400, "not base64"),
    "half a surrogate": ({"content": b'{"image": "\\ud800"}'}, 400, "not base64"),
    "a data URI of text": ({"json": {"image": "data:image/png,abc"}}, 400, "data URI"),
    "a URL": ({"json": {"image": "http://example.org/a.png"}}, 400, "not base64"),
    "deep JSON": ({"content": b'{"image": ' + b"[" * 80}, 400, "no JSON"),
    "deeper JSON": ({"content": b'{"image": ' + b"[" * 20_000}, 413, "too many values"),
    "many instances": ({"json": {"instances": [B64] * 4}}, 413, "at most 3"),
    "very many instances": ({"json": {"instances": [""] * 3000}}, 413, "at most 3"),
    "JSON that is too large": (
        {"json": {"image": base64.b64encode(b"x" * 30_001).decode()}},
        413,
        "30,000",
    ),
    "JSON that is far too large": ({"json": {"image": "A" * 300_000}}, 413, "30,000"),
    "an option in JSON": ({"json": {"image": B64, "score_thr": 0.5}}, 400, "query"),
    "an image of too many pixels": (
        {"json": {"image": base64.b64encode(forged_jpeg()).decode()}},
        422,
        "100,000 allowed",
    ),
    "huge numbers": ({"content": b'{"image": ' + b"9" * 10_000 + b"}"}, 400, "no JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_bodies_are_one_sentence(app: App, name: str) -> None:
    options, status, part = REFUSED[name]
    answer = post(app, **options)
    assert answer.status_code == status, answer.text
    assert part in answer.json()["message"]
    assert "\n" not in answer.json()["message"]
    assert app.limits.held.count == 0


def test_limits_count_the_image_and_not_its_encoding(app: App) -> None:
    """Twenty-nine kilobytes are allowed, though they are 39 as base64."""
    image = encoded("BMP")
    image += bytes(29_000 - len(image))
    assert post(app, content=image).status_code == 200
    assert post(app, json={"image": base64.b64encode(image).decode()}).status_code == 200
    assert post(app, files={"image": ("a.bmp", image)}).status_code == 200


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([B64, "AAAA", "data:,x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["image", "instances", "b64", "x", "inputs"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
WHOLE = [
    json.dumps({"image": B64}).encode(),
    json.dumps({"instances": [{"b64": B64}]}).encode(),
    form(FILE + PICTURE)["content"],
    PICTURE,
]
TYPES = (
    "",
    "application/json",
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "text/plain",
    "application/problem+json",
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(VALUES, st.sampled_from(TYPES))
def test_any_json_is_read_or_refused(value: Any, kind: str) -> None:
    _read_or_refuse(json.dumps(value).encode(), kind)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(WHOLE) | st.binary(min_size=1, max_size=60),
    st.integers(0, 10**6),
    st.sampled_from(TYPES) | st.text(max_size=30),
)
def test_any_bytes_are_read_or_refused(whole: bytes, seed: int, kind: str) -> None:
    _read_or_refuse(damaged(whole, random.Random(seed)) or b"x", kind)


def _read_or_refuse(body: bytes, kind: str) -> None:
    try:
        found = read_body(body, kind, ServeConfig(max_body_bytes=30_000), IMAGE)
    except RequestError as error:
        status = error.reply.status
        assert 400 <= status < 500
    else:
        assert all(found.files)
        assert sum(map(len, found.files)) <= 30_000


def test_damaged_bodies_and_images_never_fail_inside(app: App) -> None:
    dice = random.Random(5)
    files = [data for data in whole_files().values() if len(data) < 10_000]
    for number in range(200):
        image = damaged(dice.choice(files), dice) or b"x"
        body = dice.choice(
            (
                {"content": image},
                {"json": {"image": base64.b64encode(image).decode()}},
                {"files": [("a", ("a", image)), ("b", ("b", PICTURE))]},
                {
                    "content": damaged(dice.choice(WHOLE), dice) or b"x",
                    "headers": {"content-type": dice.choice(TYPES)},
                },
            )
        )
        answer = post(app, **body)
        assert answer.status_code in (200, 400, 413, 415, 422), (number, answer.text)
        assert answer.status_code == 200 or answer.json()["message"]
    assert app.limits.held.count == 0


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/ping",
        "/models",
        "/predictions/boxes",
        "/predictions/nothing",
    ],
)
def test_options_at_every_address(app: App, path: str) -> None:
    answer = call(app, "OPTIONS", path)
    assert answer.status_code == 200
    assert "OPTIONS" in answer.headers["allow"]
    assert "access-control-allow-origin" not in answer.headers


def test_pages_of_named_sites_may_ask_with_a_key(bundle: Callable[..., str]) -> None:
    app = open_app({"boxes": bundle("boxes")}, key="secret", cors_origins=(SITE,))
    asked = {
        "Origin": SITE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    preflight = call(app, "OPTIONS", "/predictions/boxes", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == SITE
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert preflight.headers["vary"] == "Origin"
    right = {"Origin": SITE, "Authorization": "Bearer secret"}
    for answer, status in (
        (post(app, content=PICTURE, headers=right), 200),
        (post(app, content=PICTURE, headers={"Origin": SITE}), 401),
    ):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == SITE, (
            "a page must be able to read errors too"
        )
    other = call(
        app, "OPTIONS", "/predictions/boxes", headers={**asked, "Origin": "https://evil.example"}
    )
    assert not [name for name in other.headers if name.startswith("access-control")]
    assert other.headers["vary"] == "Origin"
    app.close()


def test_cors_is_off_by_default_and_may_be_open(bundle: Callable[..., str]) -> None:
    closed, opened = (
        open_app({"boxes": bundle("boxes")}),
        open_app({"boxes": bundle("boxes")}, cors_origins=("*",)),
    )
    asked = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    for method, path in (("OPTIONS", "/predictions/boxes"), ("GET", "/models")):
        assert not [
            name
            for name in call(closed, method, path, headers=asked).headers
            if name.startswith(("access-control", "vary"))
        ]
        assert (
            call(opened, method, path, headers=asked).headers["access-control-allow-origin"] == "*"
        )
    closed.close()
    opened.close()


@pytest.mark.parametrize(
    "origin",
    ["example.org", "https://example.org/", "https://example.org/path", "", "null", "https://"],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError, match="no origin"):
        ServeConfig(cors_origins=(origin,))


def test_the_description_says_what_bodies_there_are(app: App) -> None:
    document = call(app, "GET", "/openapi.json").json()
    operation = document["paths"]["/predictions/{model}"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "image/*",
        "multipart/form-data",
        "application/json",
    }
    assert {"400", "413", "415", "422", "503"} <= set(operation["responses"])
    assert {"OneImage", "Instances", "Several", "Predictions"} <= set(
        document["components"]["schemas"]
    )


def test_a_client_library_uploads_to_a_real_server(app: App, plain: Any) -> None:
    with running(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert (
            client.post("/predictions/boxes", files={"image": ("a.png", PICTURE)}).json() == plain
        )
        assert client.post("/predictions/boxes", json={"instances": [{"b64": B64}]}).json() == {
            "predictions": [plain]
        }
        assert client.options("/predictions/boxes").status_code == 200
        assert client.options("/ping").status_code == 200


def test_more_images_than_may_wait_are_sent_away_while_others_wait(
    bundle: Callable[..., str],
) -> None:
    app = open_app({"boxes": bundle("boxes")}, max_queued=1, max_images=8)

    async def crowd() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test"
        ) as client:
            alone = await client.post("/predictions/boxes", json={"instances": [B64] * 8})
            app.limits.held.count += 1  # another request
            beside = await client.post("/predictions/boxes", json={"instances": [B64] * 8})
            return alone, beside

    alone, beside = asyncio.run(crowd())
    assert len(alone.json()["predictions"]) == 8
    assert (beside.status_code, beside.headers["retry-after"]) == (503, "1")
    app.close()
