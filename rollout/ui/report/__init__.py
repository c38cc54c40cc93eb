"""The release report: one self-contained HTML file that opens anywhere."""

from rollout.ui.report.report import Section, of_ledger, render_report

__all__ = ["Section", "of_ledger", "render_report"]
