"""YAML text to values and back, and the traps of YAML 1.1."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.config.document import dump, parse, parse_bytes, scalar
from mtl_ray.config.tree import plain

WORDS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\x85\u2028\u2029\ufeff"),
    max_size=12,
)
TRICKY = st.sampled_from(
    [
        "1e-4",
        "on",
        "no",
        "12:30",
        "012",
        "0o14",
        "0x1F",
        "null",
        "~",
        "",
        "true",
        ".5",
        "-",
        "2026-11-20",
        "1_000",
        "=",
        "<<",
        "a: b",
        "#x",
        " x ",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | TRICKY
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | TRICKY, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_what_is_dumped_is_read_again(values):
    assert plain(parse(dump(values), "x")) == values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("3e5", 3e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-0", 0),
        ("0", 0),
        ("0.5", 0.5),
        ("0e3", 0.0),
        ("0o14", 12),
        ("0x1F", 31),
        ("12:30", "12:30"),
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("1_000", "1_000"),
        ("2026-11-20", "2026-11-20"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("'012'", "012"),
        ('"1e-4"', "1e-4"),
        ("-.inf", -math.inf),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = plain(parse(f"key: {text}", "x"))["key"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number():
    assert math.isnan(plain(parse("key: .nan", "x"))["key"])


@pytest.mark.parametrize("text", ["012", "-07", "00", "007.5", "01e3"])
def test_leading_zeros_are_refused(text):
    with pytest.raises(ValueError, match="leading zeros"):
        scalar(text)
    with pytest.raises(ValueError, match=r"conf\.yaml:2: .*leading zeros"):
        parse(f"a: 1\nkey: {text}", "conf.yaml")


def test_a_key_twice_is_refused_with_both_lines():
    with pytest.raises(ValueError, match=r"conf\.yaml:3: the key lr .*first in line 1"):
        parse("lr: 1\nb: 2\nlr: 3\n", "conf.yaml")
    with pytest.raises(ValueError, match=r"conf\.yaml:1: the key x "):
        parse("{a: {x: 1, x: 2}}", "conf.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2\nb: 3\n", r"conf\.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", r"conf\.yaml:2: not valid YAML"),
        ("a: &x [1]\nb: *x\n", r"conf\.yaml:2: aliases"),
        ("a: &x\n  b: *x\n", r"conf\.yaml:2: aliases"),
        ("a: !!python/object:os.system 1\n", r"conf\.yaml:1: tags"),
        ("? [a, b]\n: 1\n", r"conf\.yaml:1: a key must be a word"),
        ("a: \x01\n", r"conf\.yaml: not valid YAML"),
        ("a:\n  " + "[" * 100 + "]" * 100, r"conf\.yaml:2: nested too deeply"),
        ("a: " + "{b: " * 1000 + "}" * 1000, r"conf\.yaml: nested too deeply"),
    ],
)
def test_what_cannot_be_read_names_its_line(text, words):
    with pytest.raises(ValueError, match=words):
        parse(text, "conf.yaml")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfea\0", r"conf\.yaml: a config is UTF-8 text"),
        (b"[1]", r"conf\.yaml:1: a config is a mapping of sections"),
        (b"null", r"conf\.yaml:1: a config is a mapping of sections"),
    ],
)
def test_a_file_that_is_no_config(data, words):
    with pytest.raises(ValueError, match=words):
        parse_bytes(data, "conf.yaml")


def test_every_value_knows_its_line():
    tree = parse("a:\n  b: 1\n  c:\n    - 2\n    - {d: 3}\n", "conf.yaml")
    a = tree.value["a"]
    assert (str(a.origin), str(a.value["b"].origin)) == ("conf.yaml:1", "conf.yaml:2")
    assert [item.origin.line for item in a.value["c"].value] == [4, 5]


def test_an_empty_file_is_an_empty_mapping():
    assert plain(parse("# nothing\n", "x")) == {}
