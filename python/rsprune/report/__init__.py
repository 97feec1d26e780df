"""Views of a finished run: a page about the whole, and explanations of single images."""

from rsprune.report.comparison import write_comparison
from rsprune.report.explain import Explanation, explain
from rsprune.report.page import write_report

__all__ = ["Explanation", "explain", "write_comparison", "write_report"]
