"""Hydra's multirun as this project wants it: members fail alone, leave a record each, and end in a table."""

from sartorius.multirun.member import MembersFailed, in_multirun, run_member
from sartorius.multirun.sweepers import register

__all__ = ["MembersFailed", "in_multirun", "register", "run_member"]
