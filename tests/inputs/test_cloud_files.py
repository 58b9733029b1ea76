"""Files of point clouds: read as they were written, or refused in one sentence."""

import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl_ray.inputs.cloud_columns import better_count
from mtl_ray.inputs.cloud_files import check_suffix, read_cloud_file, write_npy
from mtl_ray.inputs.cloud_options import file_features, read_with_features
from mtl_ray.inputs.cloud_pcd import decompress_lzf
from mtl_ray.inputs.input import TooLargeError
from mtl_ray.inputs.point_cloud import PointCloud
from tests.inputs.cloud_bytes import npy, pack_lzf, pcd, ply

LIMIT = 10_000
RNG = np.random.default_rng(5)
POINTS = RNG.normal(0, 20, (40, 4)).astype(np.float32)
COLUMNS = dict(zip(("x", "y", "z", "intensity"), POINTS.T, strict=True))
FILES: dict[str, bytes] = {
    "raw": POINTS.tobytes(),
    "npy": npy(POINTS),
    "npy fortran": npy(np.asfortranarray(POINTS)),
    "npy big endian": npy(POINTS.astype(">f4")),
    "npy doubles": npy(POINTS.astype(np.float64)),
    "npy version 2": npy(POINTS, (2, 0)),
    "npy version 3": npy(POINTS, (3, 0)),
    "npy named": npy(np.rec.fromarrays(list(POINTS.T), names="x,y,z,intensity")),
    "pcd ascii": pcd(COLUMNS, "ascii"),
    "pcd binary": pcd(COLUMNS, "binary"),
    "pcd compressed": pcd(COLUMNS, "binary_compressed"),
    "ply ascii": ply(COLUMNS, "ascii"),
    "ply little": ply(COLUMNS, "binary_little_endian"),
    "ply big": ply(COLUMNS, "binary_big_endian"),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_same_cloud(kind: str) -> None:
    cloud = read_cloud_file(FILES[kind], LIMIT)
    assert cloud.features == ("x", "y", "z", "intensity")
    assert cloud.points.dtype == np.float32
    assert np.array_equal(cloud.points, POINTS)


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
def test_damaged_files_are_clouds_or_value_errors(kind: str, data: st.DataObject) -> None:
    file = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        # Mostly in the header, where a byte matters.
        end = data.draw(st.sampled_from([min(300, len(file)), len(file)]))
        place = data.draw(st.integers(0, max(end - 1, 0)))
        change = data.draw(st.sampled_from(["cut", "set", "insert", "drop"]))
        if change == "cut":
            del file[place:]
        elif change == "set" and file:
            file[place] = data.draw(st.integers(0, 255))
        elif change == "insert":
            file[place:place] = data.draw(st.binary(max_size=8))
        else:
            del file[place : place + data.draw(st.integers(1, 8))]
    check_refusal(bytes(file))


starts = st.sampled_from([
    b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"# .PCD v0.7\n", b"ply\n", b"ply\r\n",
    b"VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 2\nHEIGHT 1\nDATA ascii\n",
    b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n",
])  # fmt: skip


@given(start=starts, rest=st.binary(max_size=400), features=st.integers(-1, 40))
@example(start=b"\x93NUMPY\x01\x00", rest=b"\x06\x00{'a':1", features=4)
@example(start=b"\x93NUMPY\x01\x00", rest=b"\x40\x1f" + b"(" * 8000, features=4)
def test_any_bytes_are_a_cloud_or_a_value_error(start: bytes, rest: bytes, features: int) -> None:
    check_refusal(start + rest, features)


def check_refusal(file: bytes, features: int = 4) -> None:
    try:
        cloud = read_cloud_file(file, LIMIT, features)
    except ValueError as error:
        sentence = str(error)
    else:
        assert cloud.points.shape == (len(cloud.points), len(cloud.features))
        assert cloud.points.size <= LIMIT
        assert cloud.features[:3] == ("x", "y", "z")
        assert np.isfinite(cloud.points).all()
        return
    assert "\n" not in sentence
    assert 0 < len(sentence) < 400


@given(plain=st.one_of(st.binary(max_size=600), st.text("ab", max_size=600).map(str.encode)))
@example(plain=bytes(5000))
def test_lzf_gives_what_was_packed(plain: bytes) -> None:
    packed = pack_lzf(plain)
    assert decompress_lzf(packed, len(plain)) == plain
    for wrong in (len(plain) + 1, max(len(plain) - 1, -1)):
        if wrong >= 0 and wrong != len(plain):
            with pytest.raises(ValueError, match="damaged"):
                decompress_lzf(packed, wrong)


def test_lzf_reads_the_bytes_of_its_format() -> None:
    """By hand: three bytes as they are, nine from three back, 300 long runs of one byte."""
    assert decompress_lzf(b"\x02abc" + b"\xe0\x00\x02", 12) == b"abcabcabcabc"
    assert decompress_lzf(b"\x00z" + b"\xe0\xff\x00", 265) == b"z" * 265
    for damaged in (b"\x05ab", b"\x20\x00", b"\x00a\x20", b"\x00a\xe0\x01", b"\x00a\x20\x01"):
        with pytest.raises(ValueError, match="damaged"):
            decompress_lzf(damaged, 3)


@given(
    points=hnp.arrays(
        np.float32, st.tuples(st.integers(0, 9), st.integers(3, 32)),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)  # fmt: skip
def test_a_written_cloud_comes_back(points: np.ndarray) -> None:
    names = ("x", "y", "z", *(f"f{place}" for place in range(3, points.shape[1])))
    file = write_npy(PointCloud(points=points, features=names))
    assert np.array_equal(read_cloud_file(file, LIMIT).points, points)
    raw = read_cloud_file(points.tobytes(), LIMIT, points.shape[1])
    assert np.array_equal(raw.points, points)


CODINGS = {
    **{f"pcd {name}": (pcd, name) for name in ("ascii", "binary", "binary_compressed")},
    **{f"ply {name}": (ply, name) for name in ("ascii", "binary_big_endian")},
}


@pytest.mark.parametrize("coding", CODINGS)
def test_fields_are_found_by_name_in_any_order_and_type(coding: str) -> None:
    write, name = CODINGS[coding]
    columns = {
        "t": RNG.uniform(0, 0.1, 9),
        "Reflectivity": RNG.integers(0, 255, 9).astype(np.uint8),
        "z": POINTS[:9, 2].astype(np.float64),
        "ring": RNG.integers(0, 64, 9).astype(np.uint16),
        "y": POINTS[:9, 1],
        "quality": POINTS[:9, 3],
        "X": POINTS[:9, 0],
        "rgb": np.full(9, np.nan, np.float32),  # bits of a colour that are no number
    }
    cloud = read_cloud_file(write(columns, name), LIMIT)
    assert cloud.features == ("x", "y", "z", "intensity", "ring", "time", "quality")
    expected = [columns[key] for key in ("X", "y", "z", "Reflectivity", "ring", "t", "quality")]
    assert np.array_equal(cloud.points, np.stack(expected, axis=1).astype(np.float32))


@pytest.mark.parametrize("coding", ["ascii", "binary", "binary_compressed"])
def test_fields_with_several_numbers_are_passed_over(coding: str) -> None:
    columns = {"x": POINTS[:, 0], "histogram": np.tile(POINTS, 2), "y": POINTS[:, 1]}
    cloud = read_cloud_file(pcd({**columns, "z": POINTS[:, 2]}, coding), LIMIT)
    assert cloud.features == ("x", "y", "z")
    assert np.array_equal(cloud.points, POINTS[:, :3])


@pytest.mark.parametrize("coding", ["ascii", "binary_little_endian"])
def test_an_element_before_the_vertices_is_passed_over(coding: str) -> None:
    before = ("element camera 2", "property float focal")
    prefix = b"1.5\n2.5\n" if coding == "ascii" else np.float32([1.5, 2.5]).tobytes()
    assert np.array_equal(
        read_cloud_file(ply(COLUMNS, coding, before, prefix), LIMIT).points, POINTS
    )


@pytest.mark.parametrize(
    ("coding", "faces"),
    [
        ("ascii", b"3 0 1 2 0.5\n2 7 8 0.5\n"),
        ("binary_little_endian", struct.pack("<HiiifHiif", 3, 0, 1, 2, 0.5, 2, 7, 8, 0.5)),
        ("binary_big_endian", struct.pack(">HiiifHiif", 3, 0, 1, 2, 0.5, 2, 7, 8, 0.5)),
    ],
)
def test_faces_before_the_vertices_are_passed_over(coding: str, faces: bytes) -> None:
    before = ["element face 2", "property list ushort int n", "property float quality"]
    cloud = read_cloud_file(ply(COLUMNS, coding, before, faces), LIMIT)
    assert np.array_equal(cloud.points, POINTS)


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_fields_of_any_letters_and_of_several_numbers_in_a_npy_file() -> None:
    named = np.zeros(
        40, [("z", "<f8"), ("x", "f4"), ("y", ">f4"), ("rgb", "u1", (3,)), ("強度", "f2")]
    )
    named["x"], named["y"], named["z"] = POINTS[:, 0], POINTS[:, 1], POINTS[:, 2]
    file = npy(named)  # numpy writes version 3
    assert file[6] == 3
    cloud = read_cloud_file(file, LIMIT)
    assert cloud.features == ("x", "y", "z", "f__")
    assert np.array_equal(cloud.points[:, :3], POINTS[:, :3])
    assert file_features(",".join(cloud.features), ()).names == cloud.features


def test_clocks_are_no_lag() -> None:
    columns = {**COLUMNS, "timestamp": np.full(40, 1.7e9)}
    assert read_cloud_file(pcd(columns), LIMIT).features[-1] == "timestamp"
    columns["timestamp"] = np.linspace(0, 0.5, 40)
    assert read_cloud_file(pcd(columns), LIMIT).features[-1] == "time"


EMPTY = {
    "raw": b"",
    "npy": npy(np.zeros((0, 4), np.float32)),
    **{f"pcd {c}": pcd({n: v[:0] for n, v in COLUMNS.items()}, c) for c in ("ascii", "binary")},
    "pcd compressed": pcd({n: v[:0] for n, v in COLUMNS.items()}, "binary_compressed"),
    **{
        f"ply {c}": ply({n: v[:0] for n, v in COLUMNS.items()}, c)
        for c in ("ascii", "binary_little_endian")
    },
}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_cloud_may_have_no_points(kind: str) -> None:
    assert read_cloud_file(EMPTY[kind], LIMIT).points.shape == (0, 4)


MANY = 50_000_000
LARGE: dict[str, Callable[[], bytes]] = {
    "npy": lambda: FILES["npy"].replace(b"(40, 4), }" + b" " * 6, b"(50000000, 4), }"),
    "pcd ascii": lambda: pcd(COLUMNS, "ascii", points=str(MANY)),
    "pcd binary": lambda: pcd(COLUMNS, "binary", points=str(MANY)),
    "pcd compressed": lambda: pcd(COLUMNS, "binary_compressed", points=str(MANY)),
    "ply ascii": lambda: ply(COLUMNS, "ascii", count=str(MANY)),
    "ply binary": lambda: ply(COLUMNS, count=str(MANY)),
}


@pytest.mark.parametrize("kind", LARGE)
def test_fifty_million_points_are_refused_before_memory_is_taken(kind: str) -> None:
    file = LARGE[kind]()
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="50,000,000 points"):
            read_cloud_file(file, 4_000_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_limit_counts_numbers() -> None:
    for kind in FILES:
        assert len(read_cloud_file(FILES[kind], 160).points) == 40
        with pytest.raises(TooLargeError):
            read_cloud_file(FILES[kind], 159)


def with_number(value: float) -> np.ndarray:
    points = POINTS.copy()
    points[7, 1] = value
    return points


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_points_that_are_no_place_are_refused_and_counted(value: float) -> None:
    points = with_number(value)
    columns = dict(zip(COLUMNS, points.T, strict=True))
    doubles = points.astype(np.float64)
    doubles[7, 1] = 1e300  # infinite as float32
    files = [points.tobytes(), npy(points), npy(doubles), pcd(columns), ply(columns)]
    files += [pcd(columns, "ascii"), pcd(columns, "binary_compressed"), ply(columns, "ascii")]
    for file in files:
        with pytest.raises(ValueError, match="1 of 40 points have a NaN or infinite number"):
            read_cloud_file(file, LIMIT)


def test_coordinates_beyond_any_lidar_are_refused_and_counted() -> None:
    points = with_number(-1.5e6)
    columns = dict(zip(COLUMNS, points.T, strict=True))
    for file in (points.tobytes(), npy(points), pcd(columns), ply(columns, "ascii")):
        with pytest.raises(ValueError, match="1 of 40 points are more than 1,000,000 m away"):
            read_cloud_file(file, LIMIT)
    points = POINTS.copy()
    points[:, 3] = 1e9  # no coordinate
    assert np.array_equal(read_cloud_file(points.tobytes(), LIMIT).points, points)


@pytest.mark.parametrize(
    "start",
    [
        b"# written by hand\n# .PCD v0.7\n",
        b"#\n\n  \n",
        b"# a comment\r\n",
        b"",
    ],
)
@pytest.mark.parametrize("coding", ["ascii", "binary", "binary_compressed"])
def test_any_comment_may_begin_a_pcd_file(start: bytes, coding: str) -> None:
    _, _, rest = pcd(COLUMNS, coding).partition(b"\n")
    _, _, without_version = rest.partition(b"\n")
    for file in (start + rest, start + without_version):
        cloud = read_cloud_file(file, LIMIT)
        assert cloud.features == ("x", "y", "z", "intensity")
        assert np.array_equal(cloud.points, POINTS)


def test_a_name_must_not_promise_what_the_file_is_not() -> None:
    for kind, file in FILES.items():
        suffix = "bin" if kind == "raw" else kind[:3]
        check_suffix(file, f"a.{suffix}")
        check_suffix(file, "a.pcd.bin")
    for name in ("a.npy", "b/a.PCD", "a.ply"):
        for file in (FILES["raw"], b"\x93NUMPI" + FILES["npy"][6:], b""):
            with pytest.raises(ValueError, match="does not begin as such a file"):
                check_suffix(file, name)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG image"),
        (b"\x1f\x8b\x08\x00", "a .gz file"),
        (b"PK\x03\x04", "a zip or .npz file"),
        (b"LASF", "a .las file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"#ROSBAG V2.0\n", "a ROS bag"),
    ],
)
def test_files_of_other_programs_are_no_points(start: bytes, what: str) -> None:
    for size in (1600, 1601):
        file = start + bytes(size - len(start))
        with pytest.raises(ValueError, match=f"^this is {what}; write the points as"):
            read_with_features(file, LIMIT, features=file_features("", ("x", "y", "z", "i")))
        check_suffix(file, "a.pcd")  # the reader says what it is


def test_the_option_is_named_only_where_it_can_help() -> None:
    cloud = np.random.default_rng(1).uniform(0, 9, (99, 5)).astype("<f4").tobytes()
    four = file_features("", ("x", "y", "z", "intensity"))
    with pytest.raises(ValueError, match=r"the option features says how many a point has$"):
        read_with_features(cloud, LIMIT, features=four)
    with pytest.raises(ValueError, match=r"^1977 bytes are no multiple .* of a point$"):
        read_with_features(cloud[:-3], LIMIT, features=four)


def test_text_is_no_points() -> None:
    for text in (b"1.00 2.00 -1.70 0.50\n" * 80, b'{"points": [[1, 2, 3, 0]]}      '):
        with pytest.raises(ValueError, match=r"^this is text"):
            read_cloud_file(text, LIMIT)
    one = np.array([[12.5, -3.25, 1.75, 0.5]], "<f4")
    assert np.array_equal(read_cloud_file(one.tobytes(), LIMIT).points, one)


def scene(features: int, seed: int = 0, *, order: bool = True) -> np.ndarray:
    """Points all around on a street, with intensity 0 to 255, ring and time lag."""
    rng = np.random.default_rng(seed)
    angle, metres = rng.uniform(0, 6.28, 3000), rng.exponential(12, 3000) + 2
    z = rng.normal(-1.7, 0.1, 3000) + rng.exponential(0.4, 3000)
    columns = [metres * np.cos(angle), metres * np.sin(angle), z, rng.integers(0, 256, 3000)]
    columns += [rng.integers(0, 32, 3000), rng.uniform(0, 0.5, 3000)]
    found = np.stack(columns, axis=1)[:, :features].astype("<f4")
    return found[np.argsort(angle)] if order else found


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("features", [3, 4, 5, 6])
def test_a_wrong_count_is_refused_and_the_right_one_never(features: int, order: bool) -> None:
    points = scene(features, order=order)
    assert np.array_equal(
        read_cloud_file(points.tobytes(), 10**6, features, guessed=True).points, points
    )
    front = points[points[:, 0] > 0][:600]
    read_cloud_file(front.tobytes(), 10**6, features, guessed=True)
    for wrong in {3, 4, 5, 6} - {features}:
        assert len(read_cloud_file(points.tobytes(), 10**6, wrong).points)  # as it is stated
        if (features, wrong) != (6, 3) and features != 3:
            with pytest.raises(ValueError, match=f"with {wrong} .* but with {features} it is"):
                read_cloud_file(points.tobytes(), 10**6, wrong, guessed=True)


def test_real_clouds_tell_their_count(shared_data: Path) -> None:
    kitti = sorted(shared_data.glob("lidar_kitti_*/training/velodyne_reduced/*.bin"))
    nuscenes = sorted(shared_data.glob("lidar_nuscenes_key/samples/LIDAR_TOP/*.bin"))
    assert len(kitti) > 30
    assert nuscenes
    for files, features in ((kitti, 4), (nuscenes, 5)):
        for file in files:
            numbers = np.fromfile(file, "<f4")
            assert better_count(numbers, features) is None
            for wrong in {3, 4, 5, 6} - {features}:
                whole = numbers[: len(numbers) // (12 * 5) * 60]
                assert better_count(whole, wrong) == features


@given(
    points=hnp.arrays(np.float32, (200, 5), elements=st.floats(-50, 50, width=32)),
    count=st.sampled_from([4, 5]),
)
def test_noise_tells_nothing(points: np.ndarray, count: int) -> None:
    noise = np.random.default_rng(0).normal(0, 5, points.shape).astype(np.float32)
    assert better_count((points + noise).ravel(), count) is None


class Trap:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("code in a file was executed",)


REFUSED = {
    "objects": (npy(np.array([[Trap()] * 4], object)), "Python objects"),
    "a pickle": (pickle.dumps(Trap()) + b"x" * 3, "no multiple of 4"),
    "an .npz": (b"PK\x03\x04" + bytes(12), "zip or .npz"),
    "flat": (npy(np.zeros(12, np.float32)), "shape"),
    "two numbers": (npy(np.zeros((5, 2), np.float32)), "shape"),
    "33 numbers": (npy(np.zeros((5, 33), np.float32)), "shape"),
    "complex": (npy(np.zeros((5, 4), np.complex64)), "real numbers"),
    "short npy": (FILES["npy"][:-4], "its header says"),
    "long npy": (FILES["npy"] + bytes(4), "its header says"),
    "cut raw": (FILES["raw"][:-3], "no multiple of 4"),
    "short pcd": (FILES["pcd binary"][:-4], "its header says"),
    "short ply": (FILES["ply big"][:-4], "its header says"),
    "lines": (b"\n".join(FILES["pcd ascii"].split(b"\n")[:-3]), "39 lines|38 lines"),
    "a word": (FILES["ply ascii"][:-5] + b"abc\n", "not a number"),
    "a short line": (FILES["pcd ascii"][:-5].rpartition(b" ")[0] + b"\n", "not 4 numbers"),
    "no z": (pcd({"x": POINTS[:, 0], "y": POINTS[:, 1], "w": POINTS[:, 2]}), "no field z"),
    "twice": (pcd({**COLUMNS, "i": POINTS[:, 3]}), "more than one field intensity"),
    "no vertex": (b"ply\nformat ascii 1.0\nend_header\n", "no element vertex"),
    "no header": (b"# .PCD v0.7\nFIELDS x", "no line DATA"),
    "more lines": (pcd(COLUMNS, "ascii", "39"), "40 lines of points, its header says 39"),
    "more records": (pcd(COLUMNS, "binary", "39"), "640 bytes of points, its header says 624"),
    "points where none are stated": (pcd(COLUMNS, "ascii", "0"), "40 lines of points"),
    "a list in a vertex": (
        ply(COLUMNS, before=["element vertex 2", "property list uchar int n"]),
        "lists in its vertices",
    ),
    "lists without end": (
        ply(COLUMNS, before=["element face 9", "property list uint int n"], prefix=b"\xff" * 36),
        "ends before its vertices",
    ),
    "too many lists": (
        ply(COLUMNS, before=["element face 1000001", "property list uchar int n"]),
        "more than 1,000,000 lists",
    ),
    "a named field of words": (
        npy(np.zeros(3, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("name", "S4")])),
        "real numbers",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_each_defect_has_its_sentence(what: str) -> None:
    file, sentence = REFUSED[what]
    with pytest.raises(ValueError, match=sentence):
        read_cloud_file(file, LIMIT)


@pytest.mark.parametrize("features", [-1, 0, 2, 33])
def test_a_raw_point_has_3_to_32_numbers(features: int) -> None:
    with pytest.raises(ValueError, match="3 to 32"):
        read_cloud_file(bytes(96), LIMIT, features)
