"""The parity check as a table for a terminal."""

from mtl_ray.export.parity import Parity


def parity_table(parity: Parity) -> str:
    """One line for each head, canvas and batch, then one for each metric."""
    rows: list[tuple[str, ...]] = [("head", "canvas", "batch", "compared", "agree", "max abs", "max rel", "max score")]
    for check in parity.checks:
        figures = (f"{check.max_abs:.1e}", f"{check.max_rel:.1e}", f"{check.max_score:.1e}")
        rows.append((check.head, check.canvas, str(check.batch), str(check.count), f"{check.agree:.3%}", *figures))
    metrics: list[tuple[str, ...]] = [("metric", "torch", "bundle", "difference")]
    for pair in parity.metrics:
        metrics.append((f"{pair.head}/{pair.metric}", f"{pair.torch:.4f}", f"{pair.bundle:.4f}", f"{pair.difference:.1e}"))
    return "\n".join([*_aligned(rows), *(["", *_aligned(metrics)] if parity.metrics else [])])


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
