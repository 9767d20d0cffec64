"""Summaries as tables of any width, as lines, and what a client remembers of them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from support.fake_shadows import comparison, summary
from turnout_client.ctl.agreement import rate, summary_table
from turnout_client.ctl.agreement_lines import comparison_line, summary_line
from turnout_client.ctl.windows import WINDOWS_KEPT, Windows, scale, sparkline
from turnout_wire.gen import slots_pb2 as pb


def shown(
    told: pb.ShadowSummary,
    width: int = 80,
    windows: Windows | None = None,
    classes_max: int | None = None,
    worst_max: int | None = None,
    markup: bool = False,
) -> str:
    out = io.StringIO()
    table = summary_table(told, width, windows, classes_max, worst_max)
    Console(file=out, width=width, markup=markup, emoji=False, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def after(count: int, bad: int = 2) -> Windows:
    windows = Windows()
    for number in range(1, count + 1):
        windows.add(summary(number, bad=bad))
    return windows


def test_all_of_a_summary_on_a_usual_terminal() -> None:
    assert shown(summary(14, labels=True), windows=after(14)) == (
        "digits green  digits/2@int8 against digits/1 in blue  INCONCLUSIVE\n"
        "        pairs    agree  at least  at most         noise\n"
        "window    100  98.00 %         -        -             -\n"
        "total   1,400  98.00 %   95.00 %  99.50 %  5.00 % of 20\n"
        "  ▇▇▇▇▇▇▇▇▇▇▇▇▇▇  last windows, 90 % to 100 %\n"
        "  latency against the live one: p50 1.25x, p99 2.50x\n"
        "  not compared: queue_full 1,200, deadline 3\n"
        "  labels: both right 80, only live 1, only shadow 15, both wrong 4\n"
        "  its disagreement is mostly improvement (evidence 10^2.8)\n"
        "\n"
        "probabilities  rows     agree      from 90 %  taken for\n"
        "4               700   96.00 %  ▅▅▅▅▅▅▅▅▅▅▅▅▅  9 (28)\n"
        "10              700  100.00 %  █████████████\n"
        "\n"
        "worst pairs  output         distance  live → shadow\n"
        "req-17       probabilities     0.875  4 → 9"
    )


def test_repeated_inputs_are_said_where_there_are_any() -> None:
    told = summary(14)
    for distinct, said in ((0, False), (1400, False), (1399, True)):
        told.total.distinct_count = distinct
        assert ("inputs are repeated: bounds and verdict are of 1,399 different ones" in shown(told)) == said


def test_a_narrow_one_has_measures_below_each_other_and_no_sparklines_of_classes() -> None:
    said = shown(summary(14), 40, after(14))
    assert "           window         total\npairs         100         1,400\nagree     98.00 %       98.00 %\n" in said
    assert "probabilities  rows     agree  taken for\n4               700   96.00 %  9 (28)\n" in said
    assert "worst pairs  distance  live → shadow\nreq-17          0.875  4 → 9" in said


@pytest.mark.parametrize("width", [32, 40, 59, 60, 72, 80, 200])
def test_nothing_is_cut_off_at_any_width(width: int) -> None:
    told = summary(14, labels=True)
    told.worst_pairs[0].inference_id = "an-id-that-is-long-" * 5
    lines = shown(told, width, after(14)).splitlines()
    assert max(map(len, lines)) <= width and "…" not in "".join(lines)
    squeezed = "".join("".join(lines).split())
    for part in ("digits/2@int8against", "INCONCLUSIVE", "1,400", "onlyshadow", "queue_full", "99.50%", "100.00%"):
        assert part in squeezed


def test_what_is_not_known_is_a_dash_or_left_out() -> None:
    told = pb.ShadowSummary(model="m", shadow_slot="green", total=pb.Agreement(high=1.0))
    said = shown(told)
    assert "window      0      -         -        -      -" in said
    for word in ("latency", "labels", "not compared", "worst", "rows"):
        assert word not in said


def test_of_many_classes_those_that_disagree_most_are_shown_by_number() -> None:
    told = summary(1)
    del told.classes[:]
    for number in range(100):
        told.classes.add(output="y", live_class=str(number), row_count=100, agreeing_count=100 - number % 50)
    told.classes.add(output="y", live_class="_OTHER", row_count=10, agreeing_count=10)
    lines = shown(told, classes_max=4).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("y "))
    assert [line.split()[0] for line in lines[start + 1 : start + 5]] == ["48", "49", "98", "99"]
    assert lines[start + 5] == "  97 classes more, which disagree less"
    everything = shown(told)
    assert "classes more" not in everything and "others" in everything
    assert everything.index("\n9 ") < everything.index("\n10 ") < everything.index("\nothers ")


def test_outputs_that_agree_alike_are_one_table() -> None:
    told = summary(2)
    for each in list(told.classes):
        told.classes.add(
            output="label",
            live_class=each.live_class,
            row_count=each.row_count,
            agreeing_count=each.agreeing_count + each.near_tie_count,
        )
    lines = shown(told).splitlines()
    start = lines.index("probabilities, label  rows     agree  taken for")
    assert lines[start + 1].split() == ["4", "100", "96.00", "%", "9", "(4)"]
    told.classes[-1].agreeing_count -= 1
    apart = shown(told)
    assert "\nprobabilities  rows" in apart and "\nlabel  rows" in apart and "95.00 %" in apart


def test_names_of_a_model_neither_act_on_the_terminal_nor_are_they_markup() -> None:
    told = summary(1)
    told.classes[1].live_class = told.confusions[0].live_class = told.worst_pairs[0].live_class = "[red]\x1b[2J"
    told.worst_pairs[0].inference_id = told.worst_pairs[0].output = "[b]\x07"
    said = shown(told, markup=True)
    assert said.count("[red]\\x1b[2J") == 2 and said.count("[b]\\x07") == 2 and "\x1b" not in said


def test_as_many_worst_pairs_as_there_is_room_for() -> None:
    told = summary(1)
    for number in range(9):
        told.worst_pairs.add(inference_id=f"w{number}", output="y", distance=0.5)
    assert "w8" in shown(told) and "w0" in shown(told, worst_max=2) and "w1" not in shown(told, worst_max=2)
    assert shown(told).splitlines()[-1].split() == ["w8", "y", "0.5", "-"]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0.00 %"), (1.0, "100.00 %"), (0.99999, "99.99 %"), (0.000001, "0.01 %"), (0.981, "98.10 %")],
)
def test_only_all_is_100_and_only_none_is_0(value: float, said: str) -> None:
    assert rate(value) == said


@pytest.mark.parametrize(
    ("live", "shadow", "evidence", "said"),
    [
        (3, 40, 2.0, "its disagreement is mostly improvement (evidence 10^2.0)"),
        (3, 9, 1.9, "too few labels to call its disagreement improvement (evidence 10^1.9)"),
        (0, 0, 0.0, "too few labels to call its disagreement improvement (evidence 10^0.0)"),
        (9, 3, -1.2, "so far its disagreement is mostly loss (evidence 10^-1.2)"),
    ],
)
def test_labels_say_whether_disagreement_is_improvement(live: int, shadow: int, evidence: float, said: str) -> None:
    told = summary(1)
    told.reference.CopyFrom(pb.ReferenceScore(only_live_right=live, only_shadow_right=shadow, log10_evidence=evidence))
    assert f"only live {live}, only shadow {shadow}, both wrong 0\n  {said}\n" in shown(told)


def test_a_window_of_a_class_is_the_difference_of_two_summaries() -> None:
    windows = Windows()
    windows.add(summary(1, bad=2))
    windows.add(summary(2, bad=11))  # 22 of 100 rows so far
    assert list(windows.by_class("probabilities", "4")) == [48 / 50, 30 / 50]
    assert list(windows.by_class("probabilities", "10")) == [1.0, 1.0] and windows.by_class("y", "4") == ()
    windows.add(summary(2, bad=11))  # as a stream begins that was taken up again
    assert list(windows.rates) == [0.98, 0.89]
    windows.add(summary(4, bad=11))
    assert list(windows.by_class("probabilities", "4"))[2:] == [78 / 100]
    quiet = summary(5, bad=11)
    del quiet.classes[:]
    quiet.classes.extend(summary(4, bad=11).classes)
    quiet.window.pair_count = 0
    windows.add(quiet)
    assert list(windows.by_class("probabilities", "4"))[3:] == [None] and windows.rates[-1] is None


def test_a_watch_that_begins_late_does_not_take_all_that_was_for_a_window() -> None:
    windows = Windows()
    windows.add(summary(7))
    assert list(windows.rates) == [0.98] and windows.by_class("probabilities", "4") == ()
    windows.add(summary(8))
    assert list(windows.by_class("probabilities", "4")) == [48 / 50]


def test_counts_that_begin_anew_forget_and_windows_are_bounded() -> None:
    windows = after(WINDOWS_KEPT + 5)
    assert len(windows.rates) == len(windows.by_class("probabilities", "4")) == WINDOWS_KEPT
    anew = summary(1, bad=5)
    anew.start_time.FromSeconds(anew.start_time.seconds + 3600)
    windows.add(anew)
    assert list(windows.rates) == [0.95] and list(windows.by_class("probabilities", "4")) == [45 / 50]
    assert windows.last == anew


def test_sparklines_have_one_scale_from_the_lowest_tenth_to_1() -> None:
    assert scale([[0.98, None], [0.73]]) == 0.7 and scale([[1.0]]) == scale([]) == 0.9
    assert scale([[0.0]]) == 0.0
    assert sparkline([0.5, None, 0.75, 1.0, 0.2], 0.5, 10) == "▁·▅█▁"
    assert sparkline([0.5, 1.0, 1.0], 0.5, 2) == "██"


def test_lines() -> None:
    assert summary_line(summary(3, labels=True)).partition("  ")[2] == (
        "digits green  digits/2@int8 against digits/1  window 100 pairs 98.00 %  "
        "total 300 pairs 98.00 % (95.00 % to 99.50 %)  noise 5.00 %  INCONCLUSIVE  p50 1.25x, p99 2.50x  "
        "not compared: queue_full 1,200, deadline 3  labels: only shadow 15, only live 1 right, evidence 10^2.8"
    )
    assert summary_line(pb.ShadowSummary(model="m", shadow_slot="g", verdict=pb.VERDICT_PENDING)).endswith(
        "window no pairs  total no pairs  PENDING"
    )
    assert comparison_line(comparison()).partition("  ")[2] == (
        "digits green  mismatch  req-17  probabilities: argmax, class 4 → 9, 1 of 8"
    )
    other = comparison()
    other.method, other.distance, other.shadow_argmax = pb.COMPARISON_METHOD_JS, 0.123456, 4
    assert comparison_line(other).endswith("probabilities: js, distance 0.1235, class 4, 1 of 8")
    failed = pb.Comparison(
        model="m", shadow_slot="g", kind=pb.COMPARISON_KIND_NOISE, result=pb.COMPARISON_RESULT_SHADOW_ERROR,
        inference_id="\x1b[2J", error_type="execution_failed",
    )  # fmt: skip
    assert comparison_line(failed).partition("  ")[2] == "m g  noise shadow_error  \\x1b[2J  execution_failed"
