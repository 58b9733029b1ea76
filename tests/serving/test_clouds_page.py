"""The page in a real browser with a point cloud: drawn from above with its boxes, moved by mouse
and keys.
"""

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_ray.inputs.cloud_files import write_npy
from mtl_ray.inputs.point_cloud import PointCloud
from mtl_ray.serving.app import App
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service
from tests.serving.clouds import MiddlePredictor, cloud_canvas
from tests.serving.server import running
from tests.serving.test_page import browser, choose, pytestmark, select, state, text, wait

__all__ = ["browser", "pytestmark"]

POINTS = np.array([(30, 8, z, 0.5) for z in np.linspace(-2, 0, 300)], np.float32)
"""A pole in front, on the left; the car stands on it."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = ServeConfig()
    models = {
        "clouds": MiddlePredictor(),
        "timed": MiddlePredictor(cloud_canvas("x", "y", "z", "intensity", "time"), velocity=True),
    }
    app = App(Service(models, config), config, parallel=1)
    with running(app) as port:
        yield f"http://127.0.0.1:{port}/"
    app.close()


@pytest.fixture
def page(browser: Any, url: str) -> Any:
    browser.get_log("browser")
    browser.get(url)
    wait(browser, lambda: len(browser.find_elements("css selector", "#model option")) == 2)
    return browser


@pytest.fixture
def cloud_file(tmp_path: Path) -> Path:
    path = tmp_path / "pole.bin"
    path.write_bytes(POINTS.tobytes())
    return path


def show(page: Any, file: Path) -> None:
    choose(page, file)
    wait(page, lambda: state(page) == "done")
    frames(page)


def frames(page: Any) -> None:
    """Waits until what was asked for is drawn."""
    page.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));"
    )


def eye(page: Any) -> dict[str, float]:
    return dict(json.loads(page.execute_script("return document.body.dataset.view")))


def on_screen(page: Any, x: float, y: float) -> tuple[float, float]:
    """Pixels of the canvas from its middle, of metres."""
    u, v = page.execute_script("return toScreen(arguments[0], arguments[1])", x, y)
    across, down = page.execute_script("return room()")
    return u - across / 2, v - down / 2


def mouse(page: Any) -> Any:
    from selenium.webdriver import ActionChains

    return ActionChains(page, duration=20)


def canvas(page: Any) -> Any:
    return page.find_element("id", "canvas")


def pixel(page: Any, x: float, y: float) -> list[int]:
    """The colour where metres are drawn."""
    script = """
        const canvas = document.getElementById('canvas'), unit = window.devicePixelRatio || 1;
        const [u, v] = toScreen(arguments[0], arguments[1]);
        return [...canvas.getContext('2d').getImageData(u * unit, v * unit, 1, 1).data];"""
    return [int(value) for value in page.execute_script(script, x, y)]


def hide(page: Any) -> None:
    """The boxes."""
    page.find_element("css selector", "#results button").click()
    frames(page)


def test_points_and_boxes_are_drawn_where_they_are(page: Any, cloud_file: Path) -> None:
    assert "a file (point cloud)" in text(page, "invite")
    show(page, cloud_file)
    assert page.execute_script("return document.body.dataset.boxes") == "1"
    assert page.execute_script("return document.body.dataset.visible") == "300"
    assert "300 points" in text(page, "about")
    for part in ("objects", "1 predicted", "Car", "0.90, 31 m"):
        assert part in text(page, "results")
    u, v = on_screen(page, 30, 8)
    middle = on_screen(page, 40, 0)
    assert abs(middle[0]) < 1
    assert abs(middle[1]) < 1, "the middle of the network's grid"
    assert u < 0 < v, "left is left, and the front is up"
    yaw = len(POINTS) % 7 - 3
    side = (30 - np.sin(yaw), 8 + np.cos(yaw))
    assert pixel(page, *side) == [40, 255, 40, 255], "a long side of the car, in its colour"
    hide(page)
    assert pixel(page, *side) == [15, 18, 24, 255], "nothing"
    assert min(pixel(page, 30, 8)[:3]) > 90, "the pole"
    assert [each for each in page.get_log("browser") if each["level"] == "SEVERE"] == []


def test_the_wheel_zooms_at_the_cursor(page: Any, cloud_file: Path) -> None:
    show(page, cloud_file)
    before, (u, v) = eye(page), on_screen(page, 30, 8)
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    origin = ScrollOrigin.from_element(canvas(page), round(u), round(v))
    mouse(page).scroll_from_origin(origin, 0, -200).perform()
    frames(page)
    assert eye(page)["scale"] > 1.3 * before["scale"]
    assert on_screen(page, 30, 8) == pytest.approx((u, v), abs=3), "what is under the cursor stays"
    page.find_element("css selector", "#tools [data-do=whole]").click()
    frames(page)
    assert eye(page) == before


def test_dragging_moves_and_with_shift_turns(page: Any, cloud_file: Path) -> None:
    show(page, cloud_file)
    before, (u, v) = eye(page), on_screen(page, 30, 8)
    mouse(page).drag_and_drop_by_offset(canvas(page), 60, -40).perform()
    frames(page)
    assert on_screen(page, 30, 8) == pytest.approx((u + 60, v - 40), abs=2)
    assert eye(page)["angle"] == before["angle"]
    from selenium.webdriver.common.keys import Keys

    chain = mouse(page).move_to_element_with_offset(canvas(page), 0, -120)
    chain.key_down(Keys.SHIFT).click_and_hold().move_by_offset(120, 120).release()
    chain.key_up(Keys.SHIFT).perform()
    frames(page)
    after = eye(page)
    assert after["angle"] == pytest.approx(before["angle"] - np.pi / 2, abs=0.05), "a quarter turn"
    assert after["scale"] == before["scale"]


def test_the_box_under_the_cursor_is_told(page: Any, cloud_file: Path) -> None:
    select(page, "timed")
    path = cloud_file.parent / "timed.npy"
    rows = np.column_stack([POINTS, np.zeros(300, np.float32)])
    path.write_bytes(write_npy(PointCloud(points=rows)))
    show(page, path)
    u, v = on_screen(page, 30, 8)
    mouse(page).move_to_element_with_offset(canvas(page), round(u), round(v)).perform()
    frames(page)
    told = text(page, "tip")
    for part in ("Car 0.90", "4.00 x 2.00 x 1.50 m", "at 30.0, 8.0, -1.0 m", "1.4 m/s"):
        assert part in told
    mouse(page).move_to_element_with_offset(canvas(page), round(u) + 150, round(v)).perform()
    frames(page)
    assert not page.find_element("id", "tip").is_displayed()


def test_all_of_it_by_keys(page: Any, cloud_file: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(page, cloud_file)
    before = eye(page)
    page.execute_script("document.getElementById('canvas').focus()")
    for keys, name in (("+", "scale"), (Keys.ARROW_LEFT, "y"), (Keys.ARROW_UP, "x")):
        mouse(page).send_keys(keys).perform()
        frames(page)
        assert eye(page)[name] > before[name]
    mouse(page).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    frames(page)
    assert eye(page)["angle"] > before["angle"]
    mouse(page).send_keys("0").perform()
    frames(page)
    assert eye(page) == before
    mouse(page).send_keys("n").perform()
    frames(page)
    assert "Car 0.90" in text(page, "tip")
    assert canvas(page).get_attribute("aria-label")
    page.execute_script(
        "const it = document.getElementById('threshold'); it.value = 0.1; "
        "it.dispatchEvent(new Event('input'));"
    )
    mouse(page).send_keys("n").perform()
    frames(page)
    assert "Pedestrian 0.20" in text(page, "tip")


PCD = (
    "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
)
PLY = "ply\nformat {} 1.0\nelement vertex 300\n" + "".join(
    f"property float {name}\n" for name in ("x", "y", "z", "intensity")
)
ODD_PCD = (
    "VERSION 0.7\nFIELDS intensity Y rgb X Z\nSIZE 4 8 4 4 2\nTYPE F F U F I\nCOUNT 1 1 1 1 1\n"
    "WIDTH 300\nHEIGHT 1\nPOINTS 300\nDATA "
)
ODD = np.zeros(300, [("i", "<f4"), ("y", "<f8"), ("rgb", "<u4"), ("x", "<f4"), ("z", "<i2")])
ODD["x"], ODD["y"], ODD["z"] = POINTS[:, :3].T
CAMERA = "element camera 2\nproperty uchar a\nproperty double b\n"


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def compressed(array: np.ndarray) -> bytes:
    """The columns as LibLZF packs them: each run of equal rows reaches back into itself."""
    plain = b"".join(array[name].tobytes() for name in array.dtype.names or ())
    packed, place = bytearray(), 0
    while place < len(plain):
        same = 0
        while (
            same < 264
            and place >= 4
            and plain[place + same : place + same + 1] == plain[place + same - 4 : place + same - 3]
        ):
            same += 1
        if same >= 3:
            packed += bytes([(min(same - 2, 7) << 5)])
            packed += bytes([same - 9]) if same >= 9 else b""
            packed += bytes([3])
            place += same
        else:
            packed += bytes([0, plain[place]])
            place += 1
    return struct.pack("<II", len(packed), len(plain)) + packed


ROWS = "".join(" ".join(map(str, row)) + "\n" for row in POINTS.tolist()).encode()
FILES = {
    "a.npy": write_npy(PointCloud(points=POINTS)),
    "a.pcd": f"{PCD}WIDTH 300\nHEIGHT 1\nPOINTS 300\nDATA ascii\n".encode() + ROWS,
    "b.pcd": f"{PCD}WIDTH 300\nHEIGHT 1\nPOINTS 300\nDATA binary\n".encode() + POINTS.tobytes(),
    "a.ply": f"{PLY.format('ascii')}end_header\n".encode() + ROWS,
    "b.ply": f"{PLY.format('binary_little_endian')}end_header\n".encode() + POINTS.tobytes(),
    "c.ply": f"{PLY.format('binary_big_endian')}element face 1\nproperty list uchar int v\n"
    "end_header\n".encode()
    + POINTS.astype(">f4").tobytes()
    + bytes(13),
    "d.ply": PLY.format("binary_little_endian").replace("element", CAMERA + "element", 1).encode()
    + b"end_header\n"
    + bytes(18)
    + POINTS.tobytes(),
    "c.pcd": f"{ODD_PCD}binary\n".encode() + ODD.tobytes(),
    "d.pcd": f"# written by hand\n{ODD_PCD}binary_compressed\n".encode() + compressed(ODD),
    "b.npy": npy(POINTS.astype(">f8")),
    "c.npy": npy(np.asfortranarray(POINTS)),
    "d.npy": npy(ODD),
    "e.npy": npy(POINTS.astype("<i4")),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_formats(page: Any, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    show(page, path)
    assert page.execute_script("return document.body.dataset.visible") == "300"
    hide(page)
    assert min(pixel(page, 30, 8)[:3]) > 90
    assert "0.90, 31 m" in text(page, "results")


def test_numbers_of_a_point_and_mistakes(page: Any, cloud_file: Path) -> None:
    """A file of five numbers is read rightly as soon as that is said."""
    five = cloud_file.parent / "five.bin"
    five.write_bytes(np.column_stack([POINTS[:299], np.zeros(299, np.float32)]).tobytes())
    choose(page, five)
    wait(page, lambda: state(page) == "failed")
    assert "option features" in text(page, "message")
    field = page.find_element("id", "features")
    field.send_keys("5\n")
    wait(page, lambda: state(page) == "done")
    assert not page.find_element("id", "message").is_displayed()
    assert page.execute_script("return document.body.dataset.visible") == "299"


def test_a_real_frame(page: Any, shared_data: Path) -> None:
    folder = shared_data / "lidar_kitti_samples" / "training" / "velodyne_reduced"
    show(page, folder / "000008.bin")
    assert "17,238 points" in text(page, "about")
    assert int(page.execute_script("return document.body.dataset.visible")) > 16_000
    page.set_window_size(500, 900)
    frames(page)
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    page.set_window_size(1280, 900)
