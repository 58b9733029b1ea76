"""The engines of a bundle side by side: ``engines.json``, and ``engines.html`` for people."""

import base64
import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtl_ray.backends.onnx_int8 import cpu_flags
from mtl_ray.evaluation.report import without_nan
from mtl_ray.export.engines import BuiltEngine, Latency
from mtl_ray.export.parity import Parity
from mtl_ray.geometry.figures import png

JSON_FILE, HTML_FILE = "engines.json", "engines.html"
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8")
"""The flags of a processor that decide how fast an engine is."""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, td.why { text-align: left }
td.why { color: #a33 }
img { max-width: 100%; margin-top: 1.5rem }
"""


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """One engine in the report; None is not known."""

    name: str
    num_bytes: int | None
    build_s: float | None
    latency: Latency | None
    parity: Parity | None
    about: str
    failure: str | None

    @property
    def agreement(self) -> float | None:
        """The least share of agreeing objects, pixels or labels."""
        checks = self.parity.checks if self.parity else []
        return min((check.agree for check in checks), default=None)

    @property
    def metrics(self) -> str:
        """The largest change of a metric."""
        pairs = self.parity.metrics if self.parity else []
        worst = max(pairs, key=lambda pair: pair.difference, default=None)
        return (
            ""
            if worst is None
            else f"{worst.head}/{worst.metric} {worst.torch:.4f} → {worst.bundle:.4f}"
        )


def rows_of(first: EngineRow, engines: Sequence[BuiltEngine]) -> list[EngineRow]:
    """The first engine and the further ones."""
    return [
        first,
        *(
            EngineRow(
                name=each.name,
                num_bytes=each.num_bytes or None,
                build_s=each.build_s or None,
                latency=each.latency,
                parity=each.parity,
                about=", ".join(each.about.values()),
                failure=each.failure,
            )
            for each in engines
        ),
    ]


def notes_of(rows: Sequence[EngineRow]) -> list[str]:
    """What was not compared, of each engine that is in the bundle."""
    return [
        f"{row.name}: {note}"
        for row in rows
        if row.failure is None and row.parity is not None
        for note in row.parity.notes
    ]


def engines_report(rows: Sequence[EngineRow], samples: str) -> dict[str, bytes]:
    """The files of the report.

    Args:
        rows: of each engine, the first of the bundle first.
        samples: what they were checked on, in words.
    """
    flags = [flag for flag in _FLAGS if flag in cpu_flags()]
    content = {
        "version": 1,
        "samples": samples,
        "cpu_flags": flags,
        "engines": [_entry(row) for row in rows],
    }
    figure = base64.b64encode(_figure(rows)).decode()
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Engines</title>"
        f"<style>{_STYLE}</style><h1>Engines of this bundle</h1>"
        f"<p>Checked on {html.escape(samples)}. Latency: single samples on one thread, without "
        f"pre- and post-processing; processor flags: {', '.join(flags) or 'unknown'}.</p>"
        f"<table><tr><th>engine<th>MB<th>agreement<th>metric, torch → engine<th>p50 ms"
        f"<th>p99 ms<th>samples/s<th>build s<th>runs as</tr>{''.join(map(_html_row, rows))}</table>"
        f"{''.join(f'<p>{html.escape(note)}.</p>' for note in notes_of(rows))}"
        f'<img alt="latency and size of each engine" src="data:image/png;base64,{figure}">'
    )
    report = json.dumps(without_nan(content), indent=1, allow_nan=False)
    return {JSON_FILE: report.encode(), HTML_FILE: page.encode()}


def _entry(row: EngineRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "failure": row.failure,
        "bytes": row.num_bytes,
        "build_s": row.build_s,
        "about": row.about,
        "latency": None if row.latency is None else asdict(row.latency),
        "parity": None if row.parity is None else row.parity.to_json(),
    }


def table_cells(row: EngineRow) -> list[str]:
    """The cells of a row of the table, without its name; empty where nothing is known."""
    latency = row.latency
    return [
        _number(row.num_bytes and row.num_bytes / 1e6, "{:.1f}"),
        _number(row.agreement, "{:.3%}"),
        row.metrics,
        *(
            ("", "", "")
            if latency is None
            else (
                f"{latency.p50_ms:.2f}",
                f"{latency.p99_ms:.2f}",
                f"{latency.per_second:.0f}",
            )
        ),
        _number(row.build_s, "{:.1f}"),
        row.about,
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _html_row(row: EngineRow) -> str:
    name = html.escape(row.name)
    if row.failure is not None:
        return f"<tr><td>{name}<td class=why colspan=8>{html.escape(row.failure)}</tr>"
    return f"<tr><td>{name}<td>{'<td>'.join(html.escape(cell) for cell in table_cells(row))}</tr>"


def engines_table(rows: Sequence[EngineRow]) -> str:
    """A table for a terminal, then a line for each engine that failed."""
    head = ["engine", "MB", "agree", "metric", "p50 ms", "p99 ms", "per s", "build s", "runs as"]
    lines = [head, *([row.name, *table_cells(row)] for row in rows if row.failure is None)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    table = [
        "  ".join(
            cell.ljust(width) if i in (0, 3, 8) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table[0], "-" * len(table[0]), *table[1:], *_failures(rows)])


def _failures(rows: Sequence[EngineRow]) -> Iterator[str]:
    for row in rows:
        if row.failure is not None:
            yield f"{row.name} is not in the bundle: {row.failure}"


def _figure(rows: Sequence[EngineRow]) -> bytes:
    """Bars of latency and size."""
    import seaborn as sns
    from matplotlib.figure import Figure

    ran = [row for row in rows if row.latency is not None and row.num_bytes is not None]
    figure = Figure(figsize=(9, 1.2 + 0.4 * max(1, len(ran))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [row.name for row in ran]
    times = [row.latency.p50_ms for row in ran if row.latency is not None]
    sizes = [row.num_bytes / 1e6 for row in ran if row.num_bytes is not None]
    for axes, values, label in ((left, times, "p50 latency, ms"), (right, sizes, "size, MB")):
        sns.barplot(x=values, y=names, ax=axes, color="#4477aa", orient="h")
        axes.set_xlabel(label)
        axes.set_ylabel("")
        axes.bar_label(axes.containers[0], fmt="%.3g", padding=3)
        axes.margins(x=0.15)
        sns.despine(ax=axes)
    return png(figure)
