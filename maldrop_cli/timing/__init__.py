"""What a training step costs."""

from maldrop_cli.timing.cases import Setting, name_of, subjects
from maldrop_cli.timing.clock import Measured, Subject, measure
from maldrop_cli.timing.memory import peak_mib

__all__ = ["Measured", "Setting", "Subject", "measure", "name_of", "peak_mib", "subjects"]
