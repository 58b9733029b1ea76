"""The files in the body of a request, such as images: the file itself, a form
(multipart/form-data), or JSON with base64.

A body is untrusted: all sizes are bounded, and every error is one sentence. Limits count the bytes
of the files, not of their base64.
"""

import base64
import binascii
import codecs
import json
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from mtl_ray.inputs.input import Input
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.reply import RequestError

BodyShape = Literal["one", "list", "predictions"]
AnyInput = Input[Any, Any, Any, Any]
OVERHEAD_BYTES = 65_536
"""Most bytes of a body that are neither file nor base64: headers of a form, other JSON."""
_FORM, _JSON = "multipart/form-data", re.compile(r"application/(?:[\w.-]+\+)?json")
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)
_FIELD = re.compile(
    r';\s*(name|filename\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";]*))', re.IGNORECASE
)
_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.IGNORECASE)
_BASE64 = str.maketrans("-_", "+/", " \t\r\n")
"""Maps the URL-safe alphabet of base64 (RFC 4648) to the standard one; removes line ends."""
_MAX_HEADERS_BYTES = 8192
_QUERY = ("score_thr", "head")
_MAX_NAME = 255
"""Most characters of the name of a file."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """The files of a request, and the shape of the answer.

    Attributes:
        files: at least one.
        shape: ``one`` answer; a ``list`` of answers; or that list under ``predictions``, as
            TensorFlow Serving answers.
        names: of each file in a form; empty without one.
    """

    files: tuple[bytes, ...]
    shape: BodyShape
    names: tuple[str, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Of each file its name in a form, else its place in the body, from 0."""
        names = self.names or ("",) * len(self.files)
        return [name or str(place) for place, name in enumerate(names)]


def body_limit(content_type: str, config: ServeConfig) -> int:
    """Most bytes of a body whose decoded files have at most ``max_body_bytes``."""
    if _is_json(content_type):
        # base64 has 4/3 of the bytes, and line ends
        return config.max_body_bytes * 11 // 8 + OVERHEAD_BYTES
    return config.max_body_bytes + (OVERHEAD_BYTES if _is_multipart(content_type) else 0)


def is_plain(data: bytes, content_type: str, kind: AnyInput) -> bool:
    """True if the body is a file of the input itself, neither a form nor JSON."""
    mark = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    first = data[mark : mark + 1]
    starts_json = first.isspace() or first == b"{"
    declared = _is_json(content_type) and (starts_json or first in (b"[", b'"'))
    return not (
        _is_multipart(content_type) or declared or (starts_json and not kind.may_begin(first))
    )


def read_body(data: bytes, content_type: str, config: ServeConfig, kind: AnyInput) -> Body:
    """The files of a body.

    Args:
        data: the whole body.
        content_type: of the header. JSON is recognised without it if no file of the input can
            start like JSON.
        config: limits.
        kind: the input of the model.

    Raises:
        RequestError: 400 if it is malformed or has no file, 413 if it is too large, 415 for another
            kind of form.
    """
    if is_plain(data, content_type, kind):
        body = Body(files=(data,), shape="one")
    elif _is_multipart(content_type):
        if not content_type.lower().startswith(_FORM):
            raise RequestError(
                415,
                f"of multipart bodies only {_FORM} is allowed, as sent by curl -F "
                f"{kind.name}=@FILE",
            )
        names, files = zip(*_form_files(data, content_type, config.max_images, kind), strict=True)
        body = Body(files=files, shape="one" if len(files) == 1 else "list", names=names)
    else:
        body = _json_files(data, config.max_images, kind)
    if len(body.files) > config.max_images:
        raise RequestError(
            413,
            f"the body has {len(body.files)} {kind.noun}s, at most {config.max_images} are allowed",
        )
    if sum(map(len, body.files)) > config.max_body_bytes:
        raise RequestError(
            413,
            f"the {kind.noun}s are larger than the {config.max_body_bytes:,} bytes that "
            "are allowed",
        )
    if not all(body.files) and not kind.empty_files:
        raise RequestError(400, f"a file ({kind.noun}) in the body is empty")
    return body


def _is_multipart(content_type: str) -> bool:
    return content_type.lower().startswith("multipart/")


def _is_json(content_type: str) -> bool:
    return _JSON.match(content_type.strip().lower()) is not None


def _form_files(
    data: bytes, content_type: str, max_images: int, kind: AnyInput
) -> list[tuple[str, bytes]]:
    """The names and files of a form in their order (RFC 7578, RFC 2046 section 5.1.1); text
    fields are ignored.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise RequestError(
            400, "the form's Content-Type has no boundary; let the client library set that header"
        )
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1")
    parts = (b"\r\n" + data).split(delimiter, 4 * max_images + 16)
    if len(parts) > 4 * max_images + 15:
        raise RequestError(
            413, f"the form has too many fields; at most {max_images} {kind.noun}s are allowed"
        )
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise RequestError(400, "the form is incomplete: its last boundary is missing")
    files = [file for part in parts[1:-1] if (file := _file_of(part, kind)) is not None]
    if not files:
        raise RequestError(
            400, f"the form has no file; send one, as curl -F {kind.name}=@FILE does"
        )
    return files


def _file_of(part: bytes, kind: AnyInput) -> tuple[str, bytes] | None:
    """The name and content of a part of a form if it is a file, else None."""
    head, blank, content = part.partition(b"\r\n\r\n")
    if not blank or len(head) > _MAX_HEADERS_BYTES:
        raise RequestError(400, "a field of the form has no end to its headers")
    lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")]
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    stated = {
        name.lower(): quoted or plain
        for name, quoted, plain in _FIELD.findall(headers.get("content-disposition", ""))
    }
    if "content-disposition" not in headers:
        raise RequestError(400, "a field of the form has no Content-Disposition")
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise RequestError(400, "a file of the form is in a transfer encoding; send it as it is")
    if (
        "filename" not in stated
        and "filename*" not in stated
        and not headers.get("content-type", "").startswith("image/")
    ):
        _refuse_query(stated.get("name", ""), kind)
        return None
    if not content and not (stated.get("filename") or stated.get("filename*")):
        return None  # a file input of a browser without a chosen file
    return _file_name(stated), content


def _file_name(stated: dict[str, str]) -> str:
    """The name of a file without its folder; the extended form (RFC 5987) if there is one."""
    charset, quote, encoded = stated.get("filename*", "").partition("'")
    if quote:
        latin = charset.lower() == "iso-8859-1"
        name = unquote(encoded.partition("'")[2], "latin-1" if latin else "utf-8", "replace")
    else:
        plain = re.sub(r"\\(.)", r"\1", stated.get("filename", ""))
        name = plain.encode("latin-1", "replace").decode("utf-8", "replace")
    return name.replace("\\", "/").rpartition("/")[2][:_MAX_NAME]


def _json_files(data: bytes, max_images: int, kind: AnyInput) -> Body:
    forms = f'{{"{kind.name}": "BASE64"}} or {{"instances": [{{"b64": "BASE64"}}]}}'
    if sum(map(data.count, (b"{", b"[", b","))) > 8 * max_images + 64:
        raise RequestError(
            413, f"the JSON has too many values; at most {max_images} {kind.noun}s are allowed"
        )
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise RequestError(400, f"the body is no JSON; send {forms}") from None
    if isinstance(content, dict):
        for name in content:
            _refuse_query(name, kind)
        if kind.name in content:
            return Body(files=(_file(content[kind.name], kind.name, kind),), shape="one")
        instances = content.get("instances")
        if isinstance(instances, list) and instances:
            files = tuple(
                _file(_of_instance(each), f"instances[{i}]", kind)
                for i, each in enumerate(instances)
            )
            return Body(files=files, shape="predictions")
    raise RequestError(400, f"the JSON has no {kind.noun}: send {forms}")


def _of_instance(instance: Any) -> Any:
    """The value of an instance with one named input, else the instance."""
    if isinstance(instance, dict) and len(instance) == 1 and "b64" not in instance:
        return next(iter(instance.values()))
    return instance


def _file(value: Any, where: str, kind: AnyInput) -> bytes:
    """A file in base64: a string, a data URI, or either under ``b64``."""
    if isinstance(value, dict) and set(value) == {"b64"}:
        value = value["b64"]
    if not isinstance(value, str):
        article = "an" if kind.noun[0] in "aeiou" else "a"
        raise RequestError(
            400,
            f'{where} must be {article} {kind.noun} in base64, as a string or as {{"b64": "BASE64"}}',  # noqa: E501
        )
    if value[:5].lower() == "data:":
        found = _DATA_URI.match(value, 0, 500)
        if found is None:
            raise RequestError(400, f"{where} is a data URI without ;base64,")
        value = value[found.end() :]
    plain = value.translate(_BASE64)
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(400, f"{where} is not base64") from None


def _refuse_query(name: str, kind: AnyInput) -> None:
    if name in (*_QUERY, *kind.file_options):
        raise RequestError(400, f"{name} belongs in the query: /predictions/MODEL?{name}=...")
