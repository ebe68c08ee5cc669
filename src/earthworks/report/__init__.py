"""Figures and pages: read run folders, write one HTML file that opens offline."""

from earthworks.report.assembly import write_joint_report as write_joint_report
from earthworks.report.assembly import write_report as write_report
