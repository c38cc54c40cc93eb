"""Weight and traffic over a release as one small picture: lines of an SVG, without a script."""

from dataclasses import dataclass

from rollout.explain.format import clock
from rollout.format import about, weight
from rollout.ui.views import TraceView

WIDTH, HEIGHT = 1000.0, 100.0  # of each of the two pictures, in the SVG's own unit


@dataclass(frozen=True, slots=True)
class Chart:
    """Each line is the `points` of an SVG polyline."""

    weight: str  # the canary's share
    stable: str  # requests a second
    canary: str
    most_per_s: float  # requests a second at the upper edge
    from_s: float
    until_s: float
    says: str  # the same in words, for screen readers


def chart(trace: TraceView) -> Chart:
    """Draw `trace`."""
    lasted_s = trace.until_s - trace.from_s

    def place(at_s: float, share: float) -> str:
        x = min(max((at_s - trace.from_s) / lasted_s, 0.0), 1.0) * WIDTH
        return f"{x:.1f},{HEIGHT * (1 - share):.1f}"

    most = max((rate for _, *rates in trace.traffic for rate in rates), default=0.0) or 1.0
    percents = [(trace.from_s, 0.0), *trace.weights]
    until = [*(at_s for at_s, _ in percents[1:]), trace.until_s]
    spans = zip(percents, until, strict=True)
    steps = [place(at_s, percent / 100) for (begin_s, percent), end_s in spans for at_s in (begin_s, end_s)]
    now = trace.traffic[-1] if trace.traffic else (0.0, 0.0, 0.0)
    return Chart(
        weight=" ".join(steps),
        stable=" ".join(place(at_s, rate / most) for at_s, rate, _ in trace.traffic),
        canary=" ".join(place(at_s, rate / most) for at_s, _, rate in trace.traffic),
        most_per_s=most,
        from_s=trace.from_s,
        until_s=trace.until_s,
        says=f"From {clock(trace.from_s)} to {clock(trace.until_s)} UTC the canary's share went "
        f"{', '.join(weight(percent) for _, percent in percents)}; at last stable had about {about(now[1])} requests "
        f"a second and the canary {about(now[2])}.",
    )
