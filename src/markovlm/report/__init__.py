"""From any pile of runs to a report one can act on: read, diagnose, draw, write."""

from markovlm.health.diagnose import Diagnosis, diagnose_paths
from markovlm.report.build import ReportResult, write_report

__all__ = ["Diagnosis", "ReportResult", "diagnose_paths", "write_report"]
