"""Says why a model does not learn, or a fusion loses: findings with evidence and cure."""

from kfusion.doctor.before_training import DoctorWarning
from kfusion.doctor.examination import examine
from kfusion.doctor.findings import Diagnosis, Finding, Undecided

__all__ = ["Diagnosis", "DoctorWarning", "Finding", "Undecided", "examine"]
