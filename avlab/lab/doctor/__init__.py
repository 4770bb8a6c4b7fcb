"""What this machine can do, and how to mend what it cannot."""

from avlab.lab.doctor.machine import Finding, as_json, as_text, doctor, works

__all__ = ["Finding", "as_json", "as_text", "doctor", "works"]
