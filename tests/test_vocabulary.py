"""Which keypoint becomes which when an image is flipped."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.vocabulary import mirror_of

STYLES = {
    "coco": ("left_{}", "right_{}"),
    "title": ("Left {}", "Right {}"),
    "upper": ("LEFT-{}", "RIGHT-{}"),
    "after": ("{}_left", "{}_right"),
    "glued": ("left{}", "right{}"),
    "camel": ("{}Left", "{}Right"),
    "letter": ("l_{}", "r_{}"),
    "letter with a dot": ("L. {}", "R. {}"),
    "letter after": ("{}_l", "{}_r"),
    "letter after a hyphen": ("{}-L", "{}-R"),
    "hump": ("{}L", "{}R"),
    "mpii": ("l{}", "r{}"),
    "mixed": ("Left-{}", "right {}"),
}
PARTS = ("eye", "Shoulder", "hip", "ankle", "wrist 2")


@pytest.mark.parametrize("style", STYLES)
def test_every_way_to_write_a_side(style: str) -> None:
    left, right = STYLES[style]
    names = [
        "nose",
        *(left.format(part) for part in PARTS),
        *(right.format(part) for part in PARTS),
        "upright",
    ]
    count = len(PARTS)
    assert mirror_of(names) == (
        0,
        *range(1 + count, 1 + 2 * count),
        *range(1, 1 + count),
        1 + 2 * count,
    )


@pytest.mark.parametrize(
    ("names", "mirror"),
    [
        (["left_eye", "nose"], (0, 1)),  # the partner is missing
        (["left_eye", "left eye", "right_eye"], (0, 1, 2)),  # two could be the partner
        (
            [
                "left_eye_left_corner",
                "right_eye_right_corner",
                "left_eye_right_corner",
                "right_eye_left_corner",
            ],
            (1, 0, 3, 2),
        ),
        (["fl", "fr", "bl", "br"], (1, 0, 3, 2)),
        (["upright_left", "upright_right"], (1, 0)),
        (["L_F_Paw", "R_F_Paw", "L_B_Paw", "R_B_Paw"], (1, 0, 3, 2)),
        (["top", "rear", "tail"], (0, 1, 2)),
        (["", "", "left"], (0, 1, 2)),
        ([], ()),
    ],
)
def test_what_pairs_and_what_stays(names: list[str], mirror: tuple[int, ...]) -> None:
    assert mirror_of(names) == mirror


NAMES = st.lists(
    st.one_of(
        st.text(alphabet="lLrR_ aE1.", max_size=5),
        st.lists(
            st.sampled_from(["left", "Right", "l", "R", "eye", "Eye", "_", " ", "2"]), max_size=5
        ).map("".join),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(names=NAMES)
def test_mirroring_twice_is_no_mirroring(names: list[str]) -> None:
    mirror = mirror_of(names)
    assert [mirror[other] for other in mirror] == list(range(len(names)))
