"""The page in a real browser: a person gives it a picture and sees what was found."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pulse_counting.configs import ConvBackbone, CountHead
from pulse_counting.signal import SignalCanvas, SignalInput

from mtl_ray.config.extend import extended
from mtl_ray.experiment import ModelConfig, build_model
from mtl_ray.export.bundle import write_bundle
from mtl_ray.export.config import ExportConfig
from mtl_ray.export.verify import CheckSamples, generate_samples
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.torch_predictor import TorchPredictor
from mtl_ray.samples import Vocabulary
from mtl_ray.serving.app import App
from mtl_ray.serving.config import ServeConfig
from mtl_ray.serving.service import Service
from tests.serving.masked import MaskedPredictor
from tests.serving.server import running

CHROMIUM, DRIVER = (
    shutil.which("chromium") or shutil.which("chromium-browser"),
    shutil.which("chromedriver"),
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs Chromium and its driver: on Debian, apt-get install chromium chromium-driver",
    ),
]
KEY = "secret"


@pytest.fixture(scope="module")
def url(bundle: Callable[..., str]) -> Iterator[str]:
    config = ServeConfig(max_body_bytes=100_000)
    names = {
        "all": ("boxes", "semantic", "labels"),
        "boxes": ("boxes",),
        "map": ("semantic",),
        "labels": ("labels",),
    }
    app = App(
        Service(
            {name: BundlePredictor(bundle(*heads), threads=1) for name, heads in names.items()},
            config,
        ),
        config,
        parallel=1,
    )
    with running(app) as port:
        yield f"http://127.0.0.1:{port}/"
    app.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, url: str) -> Any:
    browser.get(url)
    wait(
        browser,
        lambda: (
            browser.execute_script("return document.querySelectorAll('#model option').length") == 4
        ),
    )
    return browser


def wait(browser: Any, condition: Callable[[], bool]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda _: condition())


def state(page: Any) -> str:
    return str(page.execute_script("return document.body.dataset.state"))


def choose(page: Any, file: Path) -> None:
    page.find_element("id", "file").send_keys(str(file))


def drop(page: Any, file: Path) -> None:
    """Drops a file as a person does: the event carries what is chosen in a passing input."""
    script = """
        const input = document.createElement('input');
        input.type = 'file';
        input.id = 'carried';
        input.onchange = () => {
          const carried = new DataTransfer();
          carried.items.add(input.files[0]);
          document.getElementById('drop').dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: carried }));
          input.remove();
        };
        document.body.append(input);"""  # noqa: E501
    page.execute_script(script)
    page.find_element("id", "carried").send_keys(str(file))


def colour(page: Any, x: float, y: float) -> list[int]:
    """The pixel of the canvas at a share of its width and height."""
    script = """
        const canvas = document.getElementById('canvas');
        return [...canvas.getContext('2d').getImageData(canvas.width * arguments[0], canvas.height * arguments[1], 1, 1).data];"""  # noqa: E501
    return [int(value) for value in page.execute_script(script, x, y)]


def text(page: Any, name: str) -> str:
    return str(page.find_element("id", name).text)


def select(page: Any, model: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(page.find_element("id", "model")).select_by_value(model)


def test_a_chosen_picture_shows_boxes_map_and_labels(page: Any, picture_file: Path) -> None:
    choose(page, picture_file)
    wait(page, lambda: state(page) == "done")
    assert page.execute_script("return document.body.dataset.boxes") == "1"
    found = text(page, "results")
    for part in ("dog", "0.90", "red", "50.0 %", "reddish"):
        assert part in found
    assert "cat" not in found
    assert "128 x 64" in text(page, "about")
    on_the_left, on_the_right = colour(page, 0.05, 0.9), colour(page, 0.95, 0.9)
    assert on_the_left != [250, 20, 20, 255], "the map lies over the picture"
    assert on_the_left[0] > on_the_left[2]
    assert on_the_right[2] > on_the_right[0]


def test_the_box_is_drawn_where_it_is(page: Any, picture_file: Path) -> None:
    select(page, "boxes")
    choose(page, picture_file)
    wait(page, lambda: state(page) == "done")
    assert colour(page, 0.25, 0.4) == [250, 20, 20, 255], "inside the box the picture is as it was"
    assert colour(page, 16 / 128, 0.5) != [250, 20, 20, 255], "its left edge"
    assert colour(page, 48 / 128, 0.5) != [250, 20, 20, 255], "its right edge"


def test_masks_are_drawn_where_they_are(
    browser: Any, bundle: Callable[..., str], picture_file: Path
) -> None:
    """Rings: tinted between the box and the hole, as it was in the hole and outside."""
    config = ServeConfig()
    app = App(Service({"masks": MaskedPredictor(bundle("boxes"))}, config), config, parallel=1)
    with running(app) as port:
        browser.get_log("browser")
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, lambda: len(browser.find_elements("css selector", "#model option")) == 1)
        choose(browser, picture_file)
        wait(browser, lambda: state(browser) == "done")
        assert browser.execute_script("return document.body.dataset.masks") == "1"
        red = [250, 20, 20, 255]
        assert colour(browser, 32 / 128, 24 / 64) == red, "the hole"
        assert colour(browser, 20 / 128, 12 / 64) == red, "in the box, but not in the ring"
        assert colour(browser, 10 / 128, 50 / 64) == red, "outside"
        ring = colour(browser, 42 / 128, 24 / 64)
        assert ring != red
        assert ring[0] > 60, "the picture shines through"
        hide = "document.querySelector('#results button').click()"
        browser.execute_script(hide)
        assert colour(browser, 42 / 128, 24 / 64) == red
        assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []
    app.close()


def test_a_dropped_picture_and_the_threshold(page: Any, picture_file: Path) -> None:
    drop(page, picture_file)
    wait(page, lambda: state(page) == "done")
    for threshold, boxes in (("0.1", "2"), ("0.95", "0"), ("0.5", "1")):
        move = (
            "const it = document.getElementById('threshold'); it.value = arguments[0]; "
            "it.dispatchEvent(new Event('input'));"
        )
        page.execute_script(move, threshold)
        assert page.execute_script("return document.body.dataset.boxes") == boxes
    assert "1 predicted" in text(page, "results")


@pytest.mark.parametrize(
    ("model", "part"), [("boxes", "dog"), ("map", "share of the image"), ("labels", "reddish")]
)
def test_each_task_by_itself(page: Any, picture_file: Path, model: str, part: str) -> None:
    choose(page, picture_file)
    wait(page, lambda: state(page) == "done")
    select(page, model)
    wait(
        page,
        lambda: (
            state(page) == "done"
            and text(page, "results").startswith({"map": "semantic"}.get(model, model))
        ),
    )
    assert part in text(page, "results")


def test_mistakes_are_told_in_words(page: Any, tmp_path: Path, picture_file: Path) -> None:
    no_picture = tmp_path / "notes.png"
    no_picture.write_text("hello")
    choose(page, no_picture)
    wait(page, lambda: "not an image" in text(page, "message"))
    large = tmp_path / "large.png"
    large.write_bytes(picture_file.read_bytes() + bytes(100_001))
    choose(page, large)
    wait(page, lambda: "larger than" in text(page, "message"))
    choose(page, picture_file)
    wait(
        page,
        lambda: state(page) == "done" and not page.find_element("id", "message").is_displayed(),
    )


def test_a_key_is_asked_for(browser: Any, bundle: Callable[..., str], picture_file: Path) -> None:
    config = ServeConfig()
    app = App(
        Service({"boxes": BundlePredictor(bundle("boxes"), threads=1)}, config),
        config,
        parallel=1,
        api_key=KEY,
    )
    with running(app) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, lambda: browser.find_element("id", "key").is_displayed())
        browser.find_element("id", "key").send_keys(KEY + "\n")
        choose(browser, picture_file)
        wait(browser, lambda: state(browser) == "done")
    app.close()


def test_nothing_comes_from_elsewhere_and_the_console_is_silent(
    browser: Any, url: str, picture_file: Path
) -> None:
    browser.get_log("browser")
    browser.get_log("performance")
    for path in ("", "docs"):
        browser.get(url + path)
        if not path:
            choose(browser, picture_file)
            wait(browser, lambda: state(browser) == "done")
        else:
            wait(
                browser,
                lambda: "/predictions/{model}" in browser.find_element("id", "operations").text,
            )
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert url + "docs" in asked
    assert [other for other in asked if not other.startswith((url, "data:", "blob:"))] == []
    assert browser.get_log("browser") == []


def test_it_fits_a_narrow_screen(page: Any, picture_file: Path) -> None:
    page.set_window_size(500, 900)
    choose(page, picture_file)
    wait(page, lambda: state(page) == "done")
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    page.set_window_size(1280, 900)


def test_a_file_that_is_no_image_is_shown_by_name_and_its_answer_as_json(
    browser: Any, tmp_path: Path, bundle: Callable[..., str]
) -> None:
    signals, name = SignalInput(), "pulse_counting"
    canvas, heads, vocabulary = (
        SignalCanvas(length=64),
        {"pulses": CountHead()},
        Vocabulary(classes={"pulses": ()}),
    )
    model = build_model(
        extended(ModelConfig, (name,))(backbone=ConvBackbone(), heads=heads), vocabulary
    )
    predictor = TorchPredictor(model, heads, vocabulary, canvas, plugins=(name,))
    samples = CheckSamples(samples=generate_samples(signals, 2))
    write_bundle(predictor, samples, str(tmp_path / "signals"), ExportConfig())
    file = tmp_path / "pulses.f32"
    file.write_bytes(signals.encode_file(generate_samples(signals, 1)[0][1][:30]))
    served = {
        "signals": BundlePredictor(str(tmp_path / "signals")),
        "boxes": BundlePredictor(bundle("boxes")),
    }
    app = App(Service(served, ServeConfig()), ServeConfig(), parallel=1)
    with running(app) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, lambda: "a file (signal)" in text(browser, "invite"))
        choose(browser, file)
        wait(browser, lambda: state(browser) == "done")
        assert text(browser, "show-file").split("\n") == ["pulses.f32", "120 bytes"]
        assert '{\n  "count": ' in text(browser, "results")
        assert text(browser, "about").startswith("pulses.f32, 120 bytes, answered in")
        assert not browser.find_element("id", "canvas").is_displayed()
        browser.find_element("css selector", "#model option[value=boxes]").click()
        wait(browser, lambda: state(browser) == "failed")
        assert "no readable image" in text(browser, "message")
    app.close()
