"""`turnout quantize`: makes a smaller variant of a version, and says how near it comes."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from turnout.commands.telling import Told, say, table

if TYPE_CHECKING:
    from turnout.config import Config
    from turnout.core.variants import VariantReport
    from turnout.variants.quantizing import Order, Outcome
    from turnout.variants.recipes import Recipe

# Of the server's settings, those that decide what is read and where it runs.
SETTINGS = frozenset({"model_repository", "provider", "intra_op_threads", "inter_op_threads", "allow_hard_links"})
_METHODS = ("int8", "int8-dynamic", "int8-weights", "int4-weights", "fp16", "bf16")
_NEEDS = ("onnxruntime", "onnx", "onnx_ir", "sympy")
_KINDS = ("scores", "values")


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's own flags; the settings are added by the caller."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "quantize",
        allow_abbrev=False,
        help="make an int8, int4, fp16 or bf16 variant of a version, with a report of how near it comes",
        description="Exit status: 0 written; 1 not written: over its budget, or it cannot be made; 2 wrong usage.",
    )
    parser.add_argument("version", metavar="MODEL/VERSION", help="what to make it from, such as digits/2")
    parser.add_argument("--method", choices=_METHODS, default="int8", help="default: int8")
    parser.add_argument("--variant", dest="variant_name", metavar="NAME", help="default: named after the method")
    parser.add_argument("--samples", type=Path, metavar="NPZ", help="rows to be judged by: arrays input.NAME")
    parser.add_argument("--calibration", type=Path, metavar="NPZ", help="rows that int8 finds its ranges on")
    parser.add_argument("--calibration-rows", type=int, default=512, metavar="N", help="of those, at most (512)")
    parser.add_argument("--calibrate", choices=("minmax", "entropy", "percentile"), default="minmax")
    parser.add_argument(
        "--percentile", type=float, default=99.99, metavar="P", help="of --calibrate percentile (99.99)"
    )
    parser.add_argument("--per-tensor", action="store_true", help="one scale per weight, not one per channel")
    parser.add_argument(
        "--reduce-range", choices=("auto", "on", "off"), default="auto", help="weights of 7 bits; auto: without VNNI"
    )
    parser.add_argument("--block-size", type=int, default=32, metavar="N", help="of weight-only methods (32)")
    parser.add_argument("--exclude-node", action="append", default=[], metavar="NAME", help="leave it; may be repeated")
    parser.add_argument("--exclude-op", action="append", default=[], metavar="OP", help="leave such nodes")
    parser.add_argument(
        "--keep-fp32-max", type=int, default=0, metavar="N", help="when over the budget, look for up to N nodes to keep"
    )
    parser.add_argument("--agreement-min", type=float, metavar="SHARE", help="of classes and labels (0.99)")
    parser.add_argument("--error-max", type=float, metavar="SHARE", help="of values, over the largest element")
    parser.add_argument(
        "--output-kind", action="append", default=[], metavar="NAME=KIND", help="values for rows that are no scores"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a variant of that name")
    parser.add_argument("--force", action="store_true", help="write it over its budget; it serves only when forced too")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the nodes and what would be quantized; run nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the report (or the nodes) as JSON")
    return parser


def run(options: argparse.Namespace, config: Config) -> int:
    """The exit status."""
    for name in _NEEDS:
        if find_spec(name) is None:
            print(f"turnout: {_what_to_install(name)}", file=sys.stderr)
            return 1
    from turnout.app import quantizing
    from turnout.variants.recipes import QuantizeError

    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        order = _order(options)
        if options.dry_run:
            return _show_plan(options, quantizing.plan(config, options.version, order.recipe))
        with Told.on(sys.stderr) as told:
            outcome, folder = quantizing.quantize(config, options.version, order, told)
    except QuantizeError as error:
        print(f"turnout: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("turnout: interrupted, no variant was written", file=sys.stderr)
        return 128 + int(error.args[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _show(options, outcome, folder)


def _stop(number: int, _: object) -> NoReturn:
    """As Ctrl-C ends a program: by what lets temporary files be removed. A second one does not disturb that."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def _order(options: argparse.Namespace) -> Order:
    from turnout.app.quantizing import samples
    from turnout.core.parity import Kind
    from turnout.core.variants import Budget, is_variant
    from turnout.variants.quantizing import Order
    from turnout.variants.recipes import ERROR_MAX, QuantizeError

    recipe = _recipe(options)
    name = recipe.method.value if options.variant_name is None else options.variant_name
    if not is_variant(name):
        raise QuantizeError(f"--variant '{name}': a name has 1 to 32 lower-case letters, digits and hyphens")
    for flag, value, least in (
        ("calibration-rows", options.calibration_rows, 1),
        ("keep-fp32-max", options.keep_fp32_max, 0),
    ):
        if value < least:
            raise QuantizeError(f"--{flag} is {value}, it must be at least {least}")
    kinds = {}
    for each in options.output_kind:
        output, equals, kind = each.rpartition("=")
        if not equals or kind not in _KINDS:
            raise QuantizeError(f"--output-kind '{each}': write NAME=KIND, the kinds are {' and '.join(_KINDS)}")
        kinds[output] = Kind(kind)
    try:
        budget = Budget(error_max=ERROR_MAX[recipe.method])
        if options.agreement_min is not None:
            budget = replace(budget, agreement_min=options.agreement_min)
        if options.error_max is not None:
            budget = replace(budget, error_max=options.error_max)
    except ValueError as error:
        raise QuantizeError(f"--{str(error).replace('_', '-')}") from None
    return Order(
        variant=name,
        recipe=recipe,
        budget=budget,
        kinds=kinds,
        calibration=samples(options.calibration),
        samples=samples(options.samples),
        calibration_rows_max=options.calibration_rows,
        kept_max=options.keep_fp32_max,
        force=options.force,
        overwrite=options.overwrite,
    )


def _recipe(options: argparse.Namespace) -> Recipe:
    from turnout.variants import machine
    from turnout.variants.recipes import Calibration, Method, Recipe

    reduce = options.reduce_range == "on" or (options.reduce_range == "auto" and machine.reduces_range(machine.read()))
    return Recipe(
        Method(options.method),
        per_channel=not options.per_tensor,
        reduce_range=reduce,
        calibration=Calibration(options.calibrate),
        percentile=options.percentile,
        block_size=options.block_size,
        exclude_nodes=tuple(options.exclude_node),
        exclude_ops=tuple(options.exclude_op),
    )


def _show(options: argparse.Namespace, outcome: Outcome, folder: Path) -> int:
    report = outcome.report
    title = f"{report.model}/{report.version}@{report.variant}"
    if options.json:
        say(json.dumps(report.to_json(), indent=2))
    else:
        say(*_lines(outcome, title))
    if outcome.failures:
        there = "written as --force asks; it serves only when that is forced too" if outcome.written else "not written"
        print(f"turnout: {title} is over its budget, {there}:", file=sys.stderr)
        for line in (*outcome.failures, f"try {_advice(options, report)}"):
            print(f"turnout:   {line}", file=sys.stderr)
        return 1
    if not options.json:
        stem = outcome.written.removesuffix(".onnx")
        say(
            f"written    {folder / outcome.written}, {stem}.json",
            f"load it    turnoutctl load {report.model} green {title}",
        )
    return 0


def _lines(outcome: Outcome, title: str) -> list[str]:
    report = outcome.report
    mib = 2**20
    told = [f"{name} {value}" for name, value in report.recipe.items() if name != "method" and value not in ([], None)]
    rows: list[tuple[str, ...]] = [
        ("output", "kind", "top-1", "top-k", "agree", "error max", "relative", "error p99", "not finite")
    ]
    for each in report.outputs:
        numbers = (each.top1_agreement, each.topk_agreement, each.agreement, each.error_max, each.error_relative_max)
        shown = ["" if number is None else f"{number:.4g}" for number in (*numbers, each.error_p99)]
        rows.append((each.name, each.kind.value, *shown, str(each.nonfinite)))
    right = report.accuracy
    return [
        f"{title}  {report.recipe['method']}",
        *(f"           {line}" for line in told),
        f"size       {report.source_bytes / mib:.3g} MiB, now {report.result_bytes / mib:.3g} MiB: "
        f"{report.source_bytes / max(report.result_bytes, 1):.2f} times smaller",
        f"compared   on {report.samples.rows} rows of {report.samples.source}, on {report.machine['provider']}",
        *table(rows),
        *(
            [f"right      {right.variant:.4g} of {right.rows} labels, the version {right.reference:.4g}"]
            if right
            else []
        ),
    ]


def _advice(options: argparse.Namespace, report: VariantReport) -> str:
    ways = []
    if any(output.kind.value == "scores" for output in report.outputs):
        ways.append("--output-kind NAME=values where rows are no scores, but an embedding")
    kept = 2 * options.keep_fp32_max or 4
    ways.append(f"--keep-fp32-max {kept}, which looks for nodes to keep in fp32")
    if options.method == "int8":
        ways.append("--calibrate percentile or more --calibration rows")
        ways.append("for a transformer --method int8-dynamic, or --exclude-op Add (masks widen its range)")
    if options.method == "int4-weights":
        ways.append("--method int8-weights")
    if options.method not in ("fp16", "bf16"):
        ways.append("--method fp16")
    else:
        ways.append("--exclude-op for what needs the range of fp32")
    return "; ".join(ways)


def _show_plan(options: argparse.Namespace, nodes: list[Any]) -> int:
    if options.json:
        plain = [{"name": n.name, "op": n.op, "weight_bytes": n.weight_bytes, "quantized": n.quantized} for n in nodes]
        say(json.dumps(plain, indent=2))
        return 0
    rows = [("node", "operator", "weights", f"in {options.method}")]
    rows += [(n.name, n.op, str(n.weight_bytes), "yes" if n.quantized else "no") for n in nodes]
    say(*table(rows))
    return 0


def _what_to_install(name: str) -> str:
    return (
        f"quantizing needs packages that are not installed (no module '{name}'): "
        'pip install "turnout[server,quantize]", with server-gpu in its place for NVIDIA GPUs'
    )
