"""One HTML page with everything inside it: the figures, and plots of latency, throughput and batch size against load.

The plots are SVG, drawn by matplotlib and written into the page: nothing is fetched when it is opened.
"""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } th, td { text-align: left; padding: .2rem .9rem .2rem 0; vertical-align: top }
th { border-bottom: 1px solid #999 } .number { text-align: right; font-variant-numeric: tabular-nums }
.missed, .doubt { color: #a33 } .plots { display: flex; flex-wrap: wrap; gap: 1rem } .plots svg { max-width: 100% }
details { margin-top: 1rem } pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px }
"""
_SIZE_INCHES = (6.4, 4.2)


def page(document: Mapping[str, Any], sweep: Sequence[Mapping[str, Any]]) -> str:
    """The report of one benchmark.

    Args:
        document: what bench.json holds; `figures` may be missing (a sweep alone).
        sweep: points by ascending load: Point.as_json, with `load` where a share of saturation was meant.
    """
    parts = [f"<h1>Turnout: {html.escape(str(document.get('title', 'figures')))}</h1>", _about(document)]
    if document.get("figures"):
        parts.append(_figures(document["figures"]))
    if sweep:
        parts.append("<h2>Against load</h2>" + _voids(sweep) + f'<div class="plots">{"".join(_plots(sweep))}</div>')
    details = {key: document[key] for key in ("machine", "versions") if key in document}
    parts.append(f"<details><summary>Machine and versions</summary><pre>{_json(details)}</pre></details>")
    parts.append(f"<details><summary>Measured points</summary><pre>{_json(_bare(sweep))}</pre></details>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Turnout: figures</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _about(document: Mapping[str, Any]) -> str:
    machine = document.get("machine", {})
    said = [document.get("at"), machine.get("cpu"), f"{machine['cores']} cores" if "cores" in machine else None]
    if document.get("plan"):
        said.append(f"plan {document['plan']}")
    noisy = document.get("noisy") or []
    warning = f'<p class="doubt">Noisy, others used the machine: {html.escape(", ".join(noisy))}</p>' if noisy else ""
    return f"<p>{html.escape(', '.join(str(each) for each in said if each))}</p>{warning}"


def _figures(figures: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, entry in figures.items():
        sign = "&le;" if entry["better"] == "lower" else "&ge;"
        target = f"{sign} {entry['target']:g}" if entry["target"] is not None else ""
        missed = ' class="missed"' if entry["met"] is False else ""
        doubts = "".join(f'<br><span class="doubt">{html.escape(doubt)}</span>' for doubt in entry["doubts"])
        rows.append(
            f"<tr{missed}><td>{html.escape(name)}</td><td class=number>{entry['value']:.4g}</td>"
            f"<td class=number>{entry['low']:.4g} to {entry['high']:.4g}</td><td>{target}</td>"
            f"<td>{html.escape(entry['what'])}{doubts}<details><summary>absolute</summary>"
            f"<pre>{_json(entry['absolute'])}</pre></details></td></tr>"
        )
    head = "<tr><th>figure</th><th>value</th><th>95 % interval</th><th>target</th><th>what it is</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _plots(sweep: Sequence[Mapping[str, Any]]) -> list[str]:
    points = sorted(sweep, key=lambda point: float(point["rate_intended"]))
    rates = [float(point["rate_intended"]) for point in points]

    def latency(axes: Axes) -> None:
        for name in ("p50", "p90", "p99", "p99.9"):
            axes.plot(rates, [point["latency_ms"].get(name, float("nan")) for point in points], marker="o", label=name)
        axes.set(title="Latency from the intended send time", ylabel="ms", yscale="log")
        axes.legend()

    def throughput(axes: Axes) -> None:
        axes.plot(rates, rates, linestyle=":", color="grey", label="intended")
        axes.plot(rates, [point["per_second"] for point in points], marker="o", label="right answers")
        axes.set(title="Throughput", ylabel="per second")
        axes.legend()

    def batches(axes: Axes) -> None:
        axes.plot(rates, [point.get("batch_rows_mean") or float("nan") for point in points], marker="o")
        axes.set(title="Rows of a batch, mean", ylabel="rows", ylim=(0, None))

    return [_svg(draw) for draw in (latency, throughput, batches)]


def _svg(draw: Callable[[Axes], None]) -> str:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set_xlabel("intended requests per second")
    axes.grid(alpha=0.3)
    written = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(written, metadata={"Date": None})
    text = written.getvalue()
    # Only the drawing: the prolog, the document type and the metadata name addresses that nobody needs.
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _voids(sweep: Sequence[Mapping[str, Any]]) -> str:
    said = [f"{point['rate_intended']:.1f}/s: {point['void']}" for point in sweep if point.get("void")]
    return "".join(f'<p class="doubt">{html.escape(each)}</p>' for each in said)


def _bare(sweep: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in point.items() if not key.endswith("_hdr_us")} for point in sweep]


def _json(value: Any) -> str:
    return html.escape(json.dumps(value, indent=1, default=str))
