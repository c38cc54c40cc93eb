"""A study as one self-contained HTML file."""

import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from rollout.simulate.pictures import pictures
from rollout.simulate.study import Findings
from rollout.simulate.words import assumptions, stories
from rollout.ui.html import templates


def render_page(findings: Findings, command: str) -> str:
    """The page. It never needs a network.

    Args:
        command: the command line, so that the reader can repeat it.
    """
    drawn = [
        (
            picture,
            Markup(  # noqa: S704 - Plotly escapes what it embeds
                picture.figure.to_html(
                    full_html=False,
                    include_plotlyjs=False,
                    div_id=f"simulation-{picture.key}",
                    default_height=f"{picture.height}px",
                    config={"displayModeBar": False, "responsive": True},
                )
            ),
        )
        for picture in pictures(findings)
    ]
    spec = yaml.safe_dump(findings.spec.model_dump(mode="json"), sort_keys=False, default_flow_style=None)
    return (
        templates()
        .get_template("simulation.html")
        .render(
            stories=stories(findings),
            assumptions=assumptions(findings),
            pictures=drawn,
            spec=spec,
            command=command,
            plotly=Markup(get_plotlyjs()),  # noqa: S704 - Plotly's own script
        )
    )
