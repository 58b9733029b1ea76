"""Inheritance, merging and overrides."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.config.load import load_tree, override_tree
from mtl_ray.config.tree import Node, Origin, find, merge, plain

KEYS = st.sampled_from(["a", "b", "c", "d"])
SCALARS = (
    st.integers()
    | st.booleans()
    | st.text("xyz", min_size=1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
LISTS = st.lists(SCALARS, max_size=3)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS | LISTS, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
    ),
    max_size=4,
)
MAPPINGS_ONLY = st.recursive(
    st.just({}), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


def node(values, source="x"):
    origin = Origin(source, 1)
    if isinstance(values, dict):
        return Node({key: node(child, source) for key, child in values.items()}, origin)
    if isinstance(values, list):
        return Node([node(child, source) for child in values], origin)
    return Node(values, origin)


def merged(*layers):
    tree = node({})
    for layer in layers:
        tree = merge(tree, node(layer))
    return plain(tree)


@given(TREES)
def test_nothing_and_the_same_change_nothing(values):
    assert merged(values, {}) == merged({}, values) == merged(values, values) == values


@given(MAPPINGS_ONLY, MAPPINGS_ONLY, MAPPINGS_ONLY)
def test_merging_mappings_is_associative(a, b, c):
    left = plain(merge(merge(node(a), node(b)), node(c)))
    right = plain(merge(node(a), merge(node(b), node(c))))
    assert left == right


@given(TREES, TREES)
def test_the_upper_one_wins_and_nothing_else_changes(below, above):
    both = merged(below, above)
    assert both.keys() == below.keys() | above.keys()
    for key in both:
        if key not in above:
            assert both[key] == below[key]
        elif not (isinstance(above[key], dict) and isinstance(below.get(key), dict)):
            assert both[key] == above[key]


def test_lists_replace():
    assert merged({"a": [1, 2, 3]}, {"a": [4]}) == {"a": [4]}


def test_a_mapping_of_another_type_replaces_whole():
    below = {"neck": {"type": "fpn", "channels": 64}}
    assert merged(below, {"neck": {"type": "pafpn"}}) == {"neck": {"type": "pafpn"}}
    assert merged(below, {"neck": {"type": "fpn", "extra": 1}}) == {
        "neck": {"type": "fpn", "channels": 64, "extra": 1}
    }
    assert merged(below, {"neck": {"extra": 1}}) == {
        "neck": {"type": "fpn", "channels": 64, "extra": 1}
    }


def test_whole_numbers_laid_on_a_list_change_its_items():
    assert merged({"a": [{"x": 1}, {"x": 2}]}, {"a": {"1": {"y": 3}}}) == {
        "a": [{"x": 1}, {"x": 2, "y": 3}]
    }
    with pytest.raises(ValueError, match="item 2 is changed, but the list has 2"):
        merged({"a": [1, 2]}, {"a": {"2": 3}})


PATHS = st.lists(KEYS, min_size=1, max_size=4)


@given(TREES, PATHS, SCALARS | st.none() | LISTS)
def test_an_override_is_found_where_it_was_put(values, path, value):
    tree = merge(node(values), override_tree([f"{'.'.join(path)}={json.dumps(value)}"]))
    found, whole = find(tree, path)
    assert whole
    assert plain(found) == value
    assert str(found.origin) == "command line"


@given(st.permutations(["neck.type=pafpn", "neck.channels=8", "lr=1", "blocks.0=5", "blocks.1=6"]))
def test_the_order_of_different_overrides_does_not_matter(overrides):
    below = node({"neck": {"type": "fpn", "extra": 2}, "blocks": [1, 2, 3]})
    expected = {"neck": {"type": "pafpn", "channels": 8}, "lr": 1, "blocks": [5, 6, 3]}
    assert plain(merge(below, override_tree(overrides))) == expected


@pytest.mark.parametrize("text", ["lr", "lr=", "=3", "a..b=1", ".a=1", "lr= "])
def test_a_malformed_override_is_shown(text):
    with pytest.raises(ValueError, match=r"not of the form section\.key=value"):
        override_tree([text])


def test_overrides_follow_the_same_scalars():
    assert plain(override_tree(["a=1e-4", "b=on", "c=[1, x]", "d={e: 2}", "f='012'", "g=a=b"])) == {
        "a": 1e-4,
        "b": "on",
        "c": [1, "x"],
        "d": {"e": 2},
        "f": "012",
        "g": "a=b",
    }
    with pytest.raises(ValueError, match=r"command line, a\.b.*leading zeros"):
        override_tree(["a.b=012"])


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{name}.yaml"


def test_bases_are_merged_left_to_right_then_the_file(tmp_path):
    path = write(
        tmp_path,
        grandparent="a: 1\nb: 1\nc: 1\nd: 1\n",
        left="_base_: grandparent.yaml\nb: 2\nc: 2\nd: 2\n",
        right="c: 3\nd: 3\n",
        child="_base_: [left.yaml, right.yaml]\nd: 4\n",
    )
    tree = load_tree(path, ["e=5"])
    assert plain(tree) == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    origins = [Path(str(tree.value[key].origin)).name for key in "abcde"]
    assert origins == [
        "grandparent.yaml:1",
        "left.yaml:2",
        "right.yaml:1",
        "child.yaml:2",
        "command line",
    ]


def test_a_section_may_have_a_base_of_its_own(tmp_path):
    path = write(
        tmp_path,
        base="a: 1\nb: {c: 2, d: 3}\n",
        child="part:\n  _base_: base.yaml\n  b: {c: 4}\nother: [{_base_: base.yaml, a: 5}]\n",
    )
    assert plain(load_tree(path, ["part.a=6"])) == {
        "part": {"a": 6, "b": {"c": 4, "d": 3}},
        "other": [{"a": 5, "b": {"c": 2, "d": 3}}],
    }


def test_a_base_that_is_not_there_names_who_wants_it(tmp_path):
    path = write(tmp_path, child="a: 1\n_base_: missing.yaml\n")
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml.*child\.yaml:2"):
        load_tree(path)


def test_a_circle_is_refused(tmp_path):
    path = write(tmp_path, b="_base_: a.yaml\n", a="_base_: b.yaml\n")
    with pytest.raises(ValueError, match="circle"):
        load_tree(path)


def test_two_ways_to_the_same_base_are_no_circle(tmp_path):
    path = write(
        tmp_path,
        base="x: 1\n",
        a="_base_: base.yaml\n",
        b="_base_: base.yaml\n",
        c="_base_: [a.yaml, b.yaml]\n",
    )
    assert plain(load_tree(path)) == {"x": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1\n", "mapping of sections"),
        ("_base_: 3\n", "_base_ names a file"),
        ("_base_: [[x]]\n", "_base_ names a file"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        load_tree(write(tmp_path, conf=text))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "conf.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        load_tree(tmp_path / "conf.yaml")
