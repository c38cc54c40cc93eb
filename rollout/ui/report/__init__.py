"""The release report: one self-contained HTML file that opens anywhere."""

from rollout.ui.report.report import Section, render_report

__all__ = ["Section", "render_report"]
