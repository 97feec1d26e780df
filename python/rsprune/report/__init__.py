"""What a finished run shows of itself: a page for all of it, and the reasons for single images."""

from rsprune.report.explain import Explanation, explain
from rsprune.report.page import write_report

__all__ = ["Explanation", "explain", "write_report"]
